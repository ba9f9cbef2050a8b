"""`notifier letters` on a real RabbitMQ: looked at, put back, and killed in between."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from redis import Redis

from notifier.adapters.rabbitmq.declaring import declare
from tests.support.commands import notifier, run
from tests.support.process import Process, wait_until
from tests.support.producers import amqp_producer
from tests.support.roles import Role, running

HEADERS = {
    "notifier-reason": "refused",
    "notifier-error": "type: is missing",
    "notifier-routing-key": "user.42",
    "notifier-queue": "notifier.events.0",
}


@pytest.fixture
async def channel(amqp_url: str) -> AsyncIterator[AbstractChannel]:
    """A channel to a RabbitMQ with the topology and no roles."""
    async with await aio_pika.connect(amqp_url) as connection:
        await declare(connection, 1)
        yield await connection.channel()


async def keep(channel: AbstractChannel, name: str, more: Mapping[str, Any] | None = None) -> None:
    """Put a letter into the queue as a router does, of an event that is good by now."""
    body = json.dumps({"type": "t", "source": "s", "id": name}).encode()
    headers = {**HEADERS, **(more or {})}
    exchange = await channel.get_exchange("notifier.dead", ensure=False)
    message = aio_pika.Message(body, headers=headers, app_id="shop", delivery_mode=2)
    await exchange.publish(message, "notifier.judged")


async def contents(channel: AbstractChannel, name: str, count: int) -> list[str]:
    """The ids of all `count` messages in a queue, taken away."""
    await channel.set_qos(prefetch_count=max(count, 1))
    found: list[AbstractIncomingMessage] = []
    queue = await channel.get_queue(name)
    if count:
        async with queue.iterator(timeout=20) as messages:
            found = [await anext(messages) for _ in range(count)]
            for message in found[:-1]:
                await message.ack()
            queue = await channel.get_queue(name)
            await found[-1].ack()
    assert queue.declaration_result.message_count == 0
    return [json.loads(message.body)["id"] for message in found]


def letters(url: str, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run `notifier letters`; its exit code, its lines, and what it complained of."""
    done = run("letters", *arguments, NOTIFIER_AMQP_URL=url)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


async def test_letters_are_listed_and_stay_in_their_order(
    amqp_url: str, channel: AbstractChannel
) -> None:
    for name in "abc":
        await keep(channel, name, {"notifier-time": f"2026-01-01T00:00:0{ord(name) - 97}Z"})

    code, lines, _ = letters(amqp_url, "list", "--limit", "2")

    assert code == 0
    assert [line["time"] for line in lines] == ["2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"]
    assert lines[0]["error"] == "type: is missing"
    assert await contents(channel, "notifier.dead", 3) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("arguments", "put", "left"),
    [
        (["--all"], "abcd", ""),
        (["--all", "--limit", "2"], "ab", "cd"),
        (["--reason", "invalid"], "bd", "ac"),
        (["--error", "is missing", "--limit", "3"], "abc", "d"),
        (["--routing-key", "user.43"], "", "abcd"),
        (["--all", "--dry-run"], "", "abcd"),
    ],
    ids=["all", "limit", "reason", "error", "routing key", "dry run"],
)
async def test_letters_that_fit_are_put_back_in_their_order_and_the_others_stay_in_theirs(
    amqp_url: str, channel: AbstractChannel, arguments: Sequence[str], put: str, left: str
) -> None:
    for name in "abcd":
        await keep(channel, name, {"notifier-reason": "invalid" if name in "bd" else "refused"})

    code, lines, _ = letters(amqp_url, "put-back", *arguments)

    assert code == 0
    assert len(lines) == (4 if "--dry-run" in arguments else len(put))
    assert await contents(channel, "notifier.events.0", len(put)) == list(put)
    assert await contents(channel, "notifier.dead", len(left)) == list(left)


async def test_an_entry_that_is_put_back_is_as_its_producer_sent_it(
    amqp_url: str, channel: AbstractChannel
) -> None:
    await keep(channel, "a", {"trace": "abc", "notifier-accepted": 1_767_225_600_000})

    letters(amqp_url, "put-back", "--all")

    queue = await channel.get_queue("notifier.events.0")
    async with queue.iterator(no_ack=True, timeout=20) as messages:
        message = await anext(messages)
    own = {name: value for name, value in message.headers.items() if not name.startswith("x-")}
    assert own == {"trace": "abc", "notifier-accepted": 1_767_225_600_000}
    assert (message.routing_key, message.app_id) == ("user.42", "shop")
    assert message.message_id


async def test_a_letter_with_the_beginning_of_a_body_stays(
    amqp_url: str, channel: AbstractChannel
) -> None:
    await keep(channel, "a", {"notifier-truncated": True, "notifier-size": 3_000_000})
    await keep(channel, "b")

    _, lines, _ = letters(amqp_url, "put-back", "--all")

    assert lines[0]["why_not"] == "only the beginning of its body was kept"
    assert await contents(channel, "notifier.events.0", 1) == ["b"]
    assert await contents(channel, "notifier.dead", 1) == ["a"]


async def test_without_a_filter_it_asks_for_one(amqp_url: str) -> None:
    code, lines, complaint = letters(amqp_url, "put-back")

    assert (code, lines) == (2, [])
    assert "--all" in complaint


def test_a_rabbitmq_that_is_away_is_told() -> None:
    code, _, complaint = letters("amqp://127.0.0.1:1/", "list")

    assert code == 1
    assert complaint.startswith("RabbitMQ: ")


async def test_a_letter_that_is_bad_still_comes_back_once_and_the_command_ends(
    tmp_path: Path, amqp_url: str, redis_url: str, channel: AbstractChannel
) -> None:
    backends = {"NOTIFIER_AMQP_URL": amqp_url, "NOTIFIER_REDIS_URL": redis_url}
    router = Role("router", tmp_path / "router.log", **backends)
    with running(router):
        async with amqp_producer(amqp_url) as producer:
            await producer.send(b'{"id":"bad"}', "nowhere")
        kept = {"reason": "invalid"}
        wait_until(
            lambda: router.metric("notifier_dead_letters_total", **kept) == 1,
            seconds=30,
            otherwise=router.log_tail,
        )

        code, lines, _ = letters(amqp_url, "put-back", "--reason", "invalid")

        wait_until(
            lambda: router.metric("notifier_dead_letters_total", **kept) == 2,
            seconds=30,
            otherwise=router.log_tail,
        )
    assert (code, len(lines)) == (0, 1)
    assert lines[0]["routing_key"] == "nowhere"
    assert await contents(channel, "notifier.dead", 1) == ["bad"]


async def test_killed_in_between_nothing_is_lost_and_each_event_delivered_once(
    tmp_path: Path, amqp_url: str, redis_url: str, channel: AbstractChannel
) -> None:
    names = [str(number) for number in range(60)]
    for name in names:
        await keep(channel, name)
    log = tmp_path / "letters.log"
    command = notifier("letters", "put-back", "--all")
    process = Process(command, log=log, environment={"NOTIFIER_AMQP_URL": amqp_url})
    process.start()
    wait_until(lambda: log.read_bytes().count(b"\n") > 5, seconds=30, otherwise=process.log_tail)
    process.kill()

    lines: list[dict[str, Any]] = []
    backends = {"NOTIFIER_AMQP_URL": amqp_url, "NOTIFIER_REDIS_URL": redis_url}
    backends["NOTIFIER_HISTORY_SIZE"] = str(len(names))
    router = Role("router", tmp_path / "router.log", **backends)
    with running(router), Redis.from_url(redis_url) as redis:

        def all_are_there() -> bool:
            # RabbitMQ may notice the kill, and have its letter again, only after the next command.
            code, more, _ = letters(amqp_url, "put-back", "--all")
            assert code == 0
            lines.extend(more)
            return bool(redis.xlen("notifier:{user:42}:log") >= len(names))

        wait_until(all_are_there, seconds=60, otherwise=router.log_tail)
        entries: Any = redis.xrange("notifier:{user:42}:log")
    assert 0 < len(lines) < len(names)
    found = [json.loads(fields[b"r"].partition(b"\n")[2])["id"] for _, fields in entries]
    assert found == names
