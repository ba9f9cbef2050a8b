"""The client: it posts events from backends, and follows a user's stream.

    async with Producer("http://notifier-api:8001", key) as producer:
        await producer.post("order.paid", users=["42"], id="order-7-paid", data={"order": 7})

    async with Follower("wss://push.example", get_token) as events:
        async for event in events:
            print(event.type, event.data)

Importing it loads neither the server's framework nor Redis' or RabbitMQ's client.
"""

from notifier.client.errors import ClientError, Closed, NoAnswer, Refused
from notifier.client.events import Event, Gap, Members
from notifier.client.follower import Follower, GetToken
from notifier.client.orders import fate, fetch_token, order, post, presence
from notifier.client.producer import Producer, SyncProducer

__all__ = [
    "ClientError",
    "Closed",
    "Event",
    "Follower",
    "Gap",
    "GetToken",
    "Members",
    "NoAnswer",
    "Producer",
    "Refused",
    "SyncProducer",
    "fate",
    "fetch_token",
    "order",
    "post",
    "presence",
]
