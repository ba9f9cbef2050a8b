"""The SDK of CloudEvents for Python, as a producer and as a reader of events that clients get."""

from datetime import UTC, datetime

import httpx
import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings import amqp, rabbitmq
from cloudevents.core.bindings.http import HTTPMessage, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from notifier.api.app import create_app
from notifier.api.keys import ApiKeys, new_key
from notifier.core import events
from notifier.core.entries import Entry, events_of
from notifier.core.events import Event
from notifier.telemetry.metrics import Metrics
from tests.support.queues import RecordingQueue

ATTRIBUTES = {
    "id": "é 7",
    "source": "/orders",
    "type": "order.paid",
    "user": "42",
    "shop": "north",
    "subject": "orders/7",
    "time": datetime(2026, 1, 31, 9, 30, tzinfo=UTC),
    "datacontenttype": "application/json",
}
DATA = {"order": 7}


def in_structured_mode(event: BaseCloudEvent) -> HTTPMessage:
    return to_structured(event, JSONFormat())


def in_binary_mode(event: BaseCloudEvent) -> HTTPMessage:
    return to_binary(event, JSONFormat())


@pytest.mark.parametrize("write", [in_structured_mode, in_binary_mode])
async def test_an_event_of_the_sdk_is_accepted_and_read_again_as_it_was(write: object) -> None:
    queue, key = RecordingQueue(), new_key("shop")
    app = create_app(queue, Metrics(), ApiKeys([key.entry]))
    assert callable(write)
    message = write(CloudEvent(ATTRIBUTES, DATA))
    transport = httpx.ASGITransport(app)

    async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
        headers = {**message.headers, "authorization": f"Bearer {key.secret}"}
        answer = await http.post("/v1/events", content=message.body, headers=headers)

    assert answer.status_code == 202, answer.text
    [event] = events_of(queue.entries[0], 0.0)
    is_as_it_was(event)


def by_the_amqp_binding(event: BaseCloudEvent) -> Entry:
    message = amqp.to_binary(event, JSONFormat())
    content_type = str(message.properties["content-type"])
    return Entry(message.application_data, "user.42", content_type, message.application_properties)


def by_the_rabbitmq_binding(event: BaseCloudEvent) -> Entry:
    message = rabbitmq.to_binary(event, JSONFormat())
    return Entry(message.body, "user.42", message.content_type or "", message.headers)


@pytest.mark.parametrize("write", [by_the_amqp_binding, by_the_rabbitmq_binding])
def test_an_event_of_the_sdk_over_amqp_is_read_as_it_was(write: object) -> None:
    assert callable(write)

    [event] = events_of(write(CloudEvent(ATTRIBUTES, DATA)), 0.0)

    is_as_it_was(event)


def is_as_it_was(event: Event) -> None:
    read = JSONFormat().read(None, events.delivered(event))
    told = {name: read.get_attributes()[name] for name in ATTRIBUTES if name != "user"}
    assert told == {name: value for name, value in ATTRIBUTES.items() if name != "user"}
    assert (event.users, read.get_data()) == (["42"], DATA)
