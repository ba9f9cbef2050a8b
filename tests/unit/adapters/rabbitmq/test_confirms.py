"""Confirms, told what RabbitMQ says; a real one tells the same in tests/contract."""

import asyncio
from collections.abc import Mapping

import pamqp.frame
from aiormq import spec
from pamqp.header import ContentHeader

from notifier.adapters.rabbitmq import frames
from notifier.adapters.rabbitmq.confirms import Confirms, Letter
from notifier.adapters.rabbitmq.errors import Lost, Vanished
from notifier.adapters.rabbitmq.properties import LetterProperties, of_entry
from notifier.adapters.rabbitmq.wire import Wire
from notifier.core.entries import Entry

CHANNEL = 7
SECONDS = 30.0


class Listening(Wire):
    """A wire that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    @property
    def headers(self) -> list[ContentHeader]:
        found, data = [], b"".join(self.written)
        while data:
            consumed, _, frame = pamqp.frame.unmarshal(data)
            data = data[consumed:]
            found += [frame] if isinstance(frame, ContentHeader) else []
        return found


class Publishing:
    """Letters on their way."""

    def __init__(self, *numbers: int, is_numbered: bool = True, seconds: float = SECONDS) -> None:
        self.wire = Listening()
        self.confirms = Confirms(self.wire, CHANNEL)
        head = of_entry(Entry(b"")) if is_numbered else LetterProperties(b"\0\0")
        address = frames.address("", "")
        letters = {number: Letter(address, head, b"x", is_numbered) for number in numbers}
        self._task = asyncio.ensure_future(self.confirms.publish(letters, seconds))

    async def begin(self) -> None:
        await asyncio.sleep(0)

    def hear(self, *said: object) -> None:
        for each in said:
            self.wire.data_received(pamqp.frame.marshal(each, CHANNEL))  # type: ignore[arg-type]

    @property
    def is_done(self) -> bool:
        return self._task.done()

    async def failed(self) -> Mapping[int, Lost]:
        return await asyncio.wait_for(self._task, SECONDS)


def returned(header: ContentHeader) -> tuple[object, object]:
    method = spec.Basic.Return(312, "NO_ROUTE", "", "")
    return method, ContentHeader(0, 0, header.properties)


async def test_it_is_done_once_all_are_confirmed_in_any_order() -> None:
    it = Publishing(10, 11, 12)
    await it.begin()

    it.hear(spec.Basic.Ack(3), spec.Basic.Ack(1))
    await it.begin()
    before = it.is_done
    it.hear(spec.Basic.Ack(2))

    assert not before
    assert await it.failed() == {}


async def test_nothing_is_done_at_once() -> None:
    assert await Publishing().failed() == {}


async def test_one_confirm_may_be_for_all_up_to_it() -> None:
    it = Publishing(*range(200))
    await it.begin()

    it.hear(spec.Basic.Ack(150, True), spec.Basic.Ack(200, True))  # noqa: FBT003

    assert await it.failed() == {}


async def test_many_letters_go_out_in_few_writes() -> None:
    it = Publishing(*range(128))
    await it.begin()

    assert len(it.wire.written) == 2
    it.confirms.give_up(Lost("the end"))
    await it.failed()


async def test_a_refused_letter_is_reported_by_its_index() -> None:
    it = Publishing(10, 11)
    await it.begin()

    it.hear(spec.Basic.Nack(2), spec.Basic.Ack(1))

    failed = await it.failed()
    assert list(failed) == [11]
    assert "is the queue full" in str(failed[11])


async def test_a_returned_letter_has_no_queue_though_it_is_confirmed() -> None:
    it = Publishing(10, 11)
    await it.begin()

    it.hear(*returned(it.wire.headers[1]), spec.Basic.Ack(2, True))  # noqa: FBT003

    failed = await it.failed()
    assert {index: type(lost) for index, lost in failed.items()} == {11: Vanished}


async def test_one_that_is_not_numbered_is_recognised_when_it_comes_back() -> None:
    it = Publishing(10, is_numbered=False)
    await it.begin()

    it.hear(*returned(it.wire.headers[0]), spec.Basic.Ack(1))

    assert isinstance((await it.failed())[10], Vanished)


async def test_message_ids_differ_for_ever() -> None:
    first, second = Publishing(1, 2), Publishing(1, 2)
    for each in (first, second):
        await each.begin()
        each.confirms.give_up(Lost("the end"))
        await each.failed()

    ids = {header.properties.message_id for it in (first, second) for header in it.wire.headers}
    assert len(ids) == 4


async def test_a_letter_not_confirmed_in_time_is_lost_and_a_late_confirm_harms_no_other() -> None:
    it = Publishing(10, 11, seconds=0.1)
    await it.begin()
    it.hear(spec.Basic.Ack(1))

    failed = await it.failed()
    it.hear(spec.Basic.Ack(2), spec.Basic.Ack(99))

    assert {index: str(lost) for index, lost in failed.items()} == {
        11: "it does not answer in time"
    }


async def test_without_room_nothing_is_written_until_there_is_some() -> None:
    it = Publishing(10)
    it.wire.pause_writing()
    await it.begin()
    before = list(it.wire.written)

    it.wire.resume_writing()
    await it.begin()
    it.hear(spec.Basic.Ack(1))

    assert before == []
    assert await it.failed() == {}
