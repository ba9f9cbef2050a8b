"""The server of the FastAPI tutorial: a manager that knows the sockets, here fed by Redis."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from redis.asyncio import Redis

EVERYONE = "everyone"


class ConnectionManager:
    """The open sockets, by user."""

    def __init__(self) -> None:
        self.active: dict[WebSocket, str] = {}
        self.of_user: dict[str, list[WebSocket]] = {}

    async def connect(self, socket: WebSocket, user: str) -> None:
        """Accept a socket and remember it."""
        await socket.accept()
        self.active[socket] = user
        self.of_user.setdefault(user, []).append(socket)

    def disconnect(self, socket: WebSocket) -> None:
        """Forget a socket."""
        self.of_user[self.active.pop(socket)].remove(socket)

    async def send_to(self, user: str, text: str) -> None:
        """Send to the sockets of one user."""
        for socket in self.of_user.get(user, ()):
            await socket.send_text(text)

    async def broadcast(self, text: str) -> None:
        """Send to all, one after another."""
        for socket in list(self.active):
            await socket.send_text(text)


manager = ConnectionManager()


async def pass_on(redis: Redis) -> None:
    """Hand what Redis publishes to the sockets that it is for."""
    async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.psubscribe(EVERYONE, "user:*")
        async for message in pubsub.listen():
            channel, text = message["channel"].decode(), message["data"].decode()
            if channel == EVERYONE:
                await manager.broadcast(text)
            else:
                await manager.send_to(channel, text)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Listen to Redis while the application runs."""
    async with Redis.from_url(os.environ["REDIS_URL"]) as redis, asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(pass_on(redis))
        yield
        listening.cancel()


app = FastAPI(lifespan=lifespan)


@app.websocket("/ws/{user}")
async def follow(socket: WebSocket, user: str) -> None:
    """Keep a socket until its client goes away."""
    await manager.connect(socket, f"user:{user}")
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        manager.disconnect(socket)
