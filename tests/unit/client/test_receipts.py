import json

import pytest

from notifier.client.receipts import Receipts


def asked(position: str, *, ack: bool = True) -> dict[str, object]:
    frame: dict[str, object] = {"type": "event", "topic": "news", "position": position}
    return {**frame, "ack": True} if ack else frame


async def test_only_events_that_ask_for_it_are_marked_and_once_a_second_the_newest() -> None:
    receipts, sent = Receipts(), list[str]()

    async def send(text: str) -> None:
        sent.append(text)

    receipts.take(asked("e.1", ack=False))
    never = receipts.due
    receipts.take(asked("e.2"))
    await receipts.tell(send, 100.0)
    told = receipts.due
    receipts.take(asked("e.3"))
    receipts.take(asked("e.4"))
    due = receipts.due
    await receipts.tell(send, 101.0)

    assert (never, told, due) == (None, None, 101.0)
    assert [json.loads(text)["received"] for text in sent] == ["e.2", "e.4"]


async def test_a_mark_that_cannot_be_sent_stays_owed() -> None:
    receipts = Receipts()
    receipts.take(asked("e.1"))

    async def fail(text: str) -> None:
        raise OSError(text)

    with pytest.raises(OSError, match=r"e\.1"):
        await receipts.tell(fail, 1.0)

    assert receipts.due == 2.0
