"""The pytest plugin: the example of docs/python.md is run by pytest as a team would run it."""

import asyncio
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from notifier.client import Event, SyncProducer
from notifier.gateway.outgoing import Outgoing
from notifier.gateway.websocket import WebSocketConnection
from notifier.testing import running

# Of a developer whose own notifier is set up: none of it may reach a test.
ELSEWHERE = {"NOTIFIER_AMQP_URL": "amqp://nowhere", "NOTIFIER_API_PORT": "1", "NOTIFIER_TYPO": "1"}
# Other plugins take seconds to import.
_WITHOUT = [
    f"-pno:{name}" for name in ("cacheprovider", "schemathesis", "hypothesispytest", "xdist")
]


def blocks(document: Path) -> dict[str, str]:
    """The files of a document: blocks of Python that a line `NAME.py`: stands before."""
    found = re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", document.read_text(), re.DOTALL)
    return dict(found)


def test_the_events_of_a_service_are_tested_as_the_documents_say(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    files = blocks(pytestconfig.rootpath / "docs/python.md")
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *_WITHOUT, "test_shop.py"],
        cwd=tmp_path,
        env={**os.environ, **ELSEWHERE, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert set(files) == {"shop.py", "test_shop.py"}
    assert len(files["test_shop.py"].splitlines()) <= 10
    assert "1 passed" in ended.stdout, ended.stdout + ended.stderr


def test_the_plugin_costs_a_run_of_pytest_nothing_until_it_is_asked_for() -> None:
    script = "import sys, notifier.pytest_plugin; print(*sys.modules)"

    loaded = subprocess.check_output([sys.executable, "-c", script], text=True).split()

    assert [name for name in loaded if name.startswith("notifier.")] == ["notifier.pytest_plugin"]


def test_each_has_a_notifier_of_its_own_that_knows_all_a_user_was_sent() -> None:
    with running() as one, running() as other:
        with SyncProducer(one.api_url, one.api_key) as producer:
            for audience in ({"users": ["42"]}, {"everyone": True}, {"topic": "news"}):
                producer.post("step", data=sorted(audience), **audience)
        seen = [
            [event.data[0] for event in it.events_of(*who)]
            for it, who in [
                (one, ("42",)),
                (one, ("42", "news")),
                (one, ("43",)),
                (other, ("42", "news")),
            ]
        ]

    assert seen == [["users", "everyone"], ["users", "everyone", "topic"], ["everyone"], []]


def test_it_leaves_nothing_behind_in_the_process_of_the_test() -> None:
    def bounds() -> tuple[object, ...]:
        paces = WebSocketConnection.frame_limit, WebSocketConnection.byte_limit
        return (*map(id, paces), Outgoing.send_buffer)

    before, threads = bounds(), set(threading.enumerate())
    with running():
        within = bounds()

    assert within != before
    assert bounds() == before
    assert not set(threading.enumerate()) - threads  # one of an earlier test may end meanwhile


def test_events_that_do_not_come_are_told_with_those_that_did() -> None:
    with running() as it, SyncProducer(it.api_url, it.api_key) as producer:
        producer.post("step", users=["42"])
        with pytest.raises(AssertionError, match=r"user 42 got 1 of 2 events .*\['step'\]"):
            it.events_of("42", count=2, seconds=0.1)


async def test_a_test_that_is_a_coroutine_follows() -> None:
    async def first(events: object) -> Event:
        async for event in events:  # type: ignore[attr-defined] # a follower
            return event  # type: ignore[no-any-return]
        raise AssertionError

    with running() as it:
        with SyncProducer(it.api_url, it.api_key) as producer:
            await asyncio.to_thread(producer.post, "step", users=["42"], id="s-1")
        async with asyncio.timeout(30), it.follower("42", "news") as events:
            event = await first(events)

    assert event.id == "s-1"
