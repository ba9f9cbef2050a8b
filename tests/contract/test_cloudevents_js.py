"""The SDK of CloudEvents for JavaScript, as a producer and as a reader of clients' events."""

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from notifier.api.app import create_app
from notifier.api.keys import ApiKeys, new_key
from notifier.core import events
from notifier.core.entries import events_of
from notifier.telemetry.metrics import Metrics
from tests.support.queues import RecordingQueue

# In binary mode the SDK writes attributes as they are, so they are ASCII here: the binding asks for
# percent-encoding.
EVENT = {
    "specversion": "1.0",
    "id": "order 7",
    "source": "/orders",
    "type": "order.paid",
    "time": "2026-01-31T09:30:00.000Z",
    "shop": "north",
    "subject": "orders/7",
    "datacontenttype": "application/json",
    "data": {"order": 7},
}


def sdk(package: Path, way: str, given: object) -> Any:  # noqa: ANN401  # any JSON
    """Let the SDK write a message in a mode, or read an event."""
    done = subprocess.run(
        ["node", "test/cloudevents.mjs", way],
        cwd=package,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_an_event_of_the_javascript_sdk_is_accepted_and_read_again_as_it_was(
    js_client: Path, mode: str
) -> None:
    queue, key = RecordingQueue(), new_key("shop")
    app = create_app(queue, Metrics(), ApiKeys([key.entry]))
    message = sdk(js_client, mode, {**EVENT, "user": "42"})
    transport = httpx.ASGITransport(app)

    async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
        headers = {**message["headers"], "authorization": f"Bearer {key.secret}"}
        answer = await http.post("/v1/events", content=message["body"], headers=headers)

    assert answer.status_code == 202, answer.text
    [event] = events_of(queue.entries[0], 0.0)
    assert event.users == ["42"]
    assert sdk(js_client, "read", json.loads(events.delivered(event))) == EVENT
