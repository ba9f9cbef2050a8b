"""Posts an event and waits for it as a client would get it; `helm test` runs this."""

import asyncio
import os
import sys
import uuid
from contextlib import aclosing
from pathlib import Path

from notifier import client
from notifier.credentials import minted
from notifier.settings import Settings

PATIENCE = 60
SECRETS = Path("/run/secrets/notifier")


async def deliver(api_url: str, gateway_url: str, key: str, token: str) -> str:
    """Post an event to the user of `token`, and return its id once it has arrived."""
    event_id = f"helm-test-{uuid.uuid4()}"
    follower = client.Follower(gateway_url, lambda: token, note=print)
    async with (
        asyncio.timeout(PATIENCE),
        client.Producer(api_url, key) as producer,
        aclosing(follower.frames()) as frames,
    ):
        async for frame in frames:
            if frame["type"] == "hello":
                await producer.post("notifier.helm-test", users=[frame["user"]], id=event_id)
            if frame["type"] == "event" and frame["event"]["id"] == event_id:
                break
    return event_id


def _token() -> str:
    if (file := SECRETS / "NOTIFIER_TOKEN").exists():
        return file.read_text().strip()
    settings = Settings.load()
    return minted(settings, "helm-test", (), 2 * PATIENCE)


if __name__ == "__main__":
    urls = os.environ["API_URL"], os.environ["GATEWAY_URL"]
    api_key = (SECRETS / "NOTIFIER_API_KEY").read_text().strip()
    try:
        print(asyncio.run(deliver(*urls, api_key, _token())), "arrived")
    except (TimeoutError, client.ClientError) as error:
        sys.exit(
            f"no event arrived within {PATIENCE} s: {str(error) or 'what was tried stands above'}"
        )
