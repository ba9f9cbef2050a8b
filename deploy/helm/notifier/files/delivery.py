"""Posts an event and waits for it as a client would get it; `helm test` runs this."""

import asyncio
import json
import os
import uuid
from pathlib import Path
from typing import Any

from notifier import client
from notifier.credentials import minted
from notifier.settings import Settings

PATIENCE = 60
SECRETS = Path("/run/secrets/notifier")


async def deliver(api_url: str, gateway_url: str, key: str, token: str) -> str:
    """Post an event to the user of `token`, and return its id once it has arrived."""
    event_id = f"helm-test-{uuid.uuid4()}"
    user: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    arrived = asyncio.Event()

    def on_frame(frame: dict[str, Any]) -> None:
        if frame["type"] == "hello" and not user.done():
            user.set_result(frame["user"])
        if frame["type"] == "event" and frame["event"]["id"] == event_id:
            arrived.set()

    async def token_again() -> str:
        return token

    follower = client.Follower(gateway_url, token_again, frame=on_frame, note=print)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follower.run(), name="follow")
        event = {"users": [await user], "type": "notifier.helm-test", "id": event_id}
        await client.post(api_url, json.dumps(event).encode(), key)
        await arrived.wait()
        following.cancel()
    return event_id


def _token() -> str:
    if (file := SECRETS / "NOTIFIER_TOKEN").exists():
        return file.read_text().strip()
    settings = Settings.load()
    return minted(settings, "helm-test", (), 2 * PATIENCE)


if __name__ == "__main__":
    urls = os.environ["API_URL"], os.environ["GATEWAY_URL"]
    api_key = (SECRETS / "NOTIFIER_API_KEY").read_text().strip()
    print(asyncio.run(deliver(*urls, api_key, _token())), "arrived")
