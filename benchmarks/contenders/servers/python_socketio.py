"""python-socketio with its Redis manager, served by uvicorn, as its documentation shows."""

import os
from typing import Any

import socketio

server = socketio.AsyncServer(
    async_mode="asgi", client_manager=socketio.AsyncRedisManager(os.environ["REDIS_URL"])
)
app = socketio.ASGIApp(server)


@server.event  # type: ignore[untyped-decorator]
async def connect(sid: str, _environ: dict[str, Any], auth: dict[str, str]) -> None:
    """Put a connection into its user's room."""
    await server.enter_room(sid, f"user:{auth['user']}")
