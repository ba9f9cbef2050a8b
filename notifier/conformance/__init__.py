"""The promises of the protocol as named cases, tried against a deployment by a client of it."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple
from urllib.parse import quote

import httpx
from websockets.exceptions import WebSocketException

from notifier.conformance.deployment import PATIENCE, Broken, Deployment, Frame, expect

__all__ = ["CASES", "Case", "Deployment", "Outcome", "tried"]

_GONE = "gone.7"  # a position of no stream


async def _greeted(to: Deployment) -> None:
    async with to.client() as client:
        hello = await client.next_of("hello")
    own = f"user:{hello['user']}"
    expect({own, "everyone"} <= hello["topics"].keys(), f"hello has topics {hello['topics']}")


async def _bad_token(to: Deployment) -> None:
    async with to.client(token="x.y.z") as client:  # noqa: S106 - not a good one
        code = await client.closed_with()
    expect(code == 4500, f"it closed with {code}")  # noqa: PLR2004 - of the protocol


async def _token_in_url(to: Deployment) -> None:
    answer = await to.get("/v1/history?token=x")
    expect(answer.status_code == httpx.codes.UNAUTHORIZED, f"it answered {answer.status_code}")


async def _unknown_parameter(to: Deployment) -> None:
    answer = await to.get("/v1/history?sinse=x")
    told = answer.status_code == httpx.codes.BAD_REQUEST and answer.json().get("field")
    expect(told == "sinse", f"it answered {answer.status_code} {answer.text[:200]}")


async def _malformed(to: Deployment) -> None:
    async with to.client() as client:
        await client.say(type="subscribe", topic="a,b", id=7)
        error = await client.next_of("error")
        await client.say(type="ping")
        await client.next_of("pong")
    expect((error["code"], error.get("id")) == ("invalid", 7), f"it sent {error}")


async def _gap(to: Deployment) -> None:
    async with to.client(f"?since=everyone@{_GONE}") as client:
        hello = await client.next_of("hello")
        gap = await client.next_of("gap")
    expect(hello["topics"]["everyone"].get("resumed") is False, f"hello was {hello}")
    expect(gap["topic"] == "everyone", f"it sent {gap}")


async def _polled(to: Deployment) -> None:
    answer = (await to.get("/v1/poll")).json()
    expect("everyone@" in answer.get("cursor", ""), f"it answered {answer}")


async def _once_in_order(to: Deployment) -> None:
    names = _names(3)
    async with to.client() as client:
        user = (await client.next_of("hello"))["user"]
        for name in (*names[:2], names[0], names[1], names[2]):
            await to.post(user, name)
        ids = [each for each in await client.ids(names[-1]) if each in names]
    expect(ids == names, f"{names}, the first two posted again, arrived as {ids}")


async def _resumed(to: Deployment) -> None:
    names = _names(3)
    async with to.client() as client:
        hello = await client.next_of("hello")
    own = f"user:{hello['user']}"
    for name in names:
        await to.post(hello["user"], name)
    since = quote(f"{own}@{hello['topics'][own]['position']}", safe="")
    async with to.client(f"?since={since}") as client:
        ids = [each for each in await client.ids(names[-1]) if each in names]
    expect(ids == names, f"{names} were missed, and {ids} came")


async def _streamed(to: Deployment) -> None:
    names = _names(3)
    async with to.stream() as stream:
        user = (await stream.next_of("hello"))["user"]
        await to.post(user, names[0])
        await stream.ids(names[0])
        last_id = stream.last_id
    for name in names[1:]:
        await to.post(user, name)
    async with to.stream(last_id) as stream:
        ids = [each for each in await stream.ids(names[-1]) if each in names]
    expect(ids == names[1:], f"{names[1:]} were missed, and {ids} came")


async def _marked_everywhere(to: Deployment) -> None:
    [name] = _names(1)
    async with to.client() as one, to.client("?marks=true") as other:
        user = (await one.next_of("hello"))["user"]
        await to.post(user, name)
        while (event := await one.next_of("event"))["event"]["id"] != name:
            pass
        position = event["position"]
        answer = await one.asked(type="mark", read_only=[position], id=1)
        expect(answer["type"] == "marked", f"it answered {answer}")
        while not _is_read(await other.next_of("marks"), position):
            pass
        again = await one.asked(type="mark", read_only=[position], id=2)
    expect(again["type"] == "marked", f"marked again, it answered {again}")


def _is_read(marks: Frame, position: str) -> bool:
    offset = int(position.rpartition(".")[2])
    is_behind = offset <= int(marks.get("read", ".0").rpartition(".")[2])
    return is_behind or position in marks.get("read_only", ())


async def _marked_beyond(to: Deployment) -> None:
    async with to.client() as client:
        answer = await client.asked(type="mark", received=_GONE, id=1)
    expect(answer.get("code") == "invalid", f"it answered {answer}")


async def _published_to_all(to: Deployment) -> None:
    event = {"type": "conformance", "id": "x"}
    async with to.client() as client:
        answer = await client.asked(type="publish", topic="everyone", event=event, id=1)
    expect(answer.get("code") == "forbidden", f"it answered {answer}")


async def _published_once(to: Deployment) -> None:
    names = _names(2)
    async with to.client(f"?topics={quote(str(to.topic), safe='')}") as client:
        user = (await client.next_of("hello"))["user"]
        for number, name in enumerate((names[0], names[0], names[1])):
            event = {"type": "conformance", "id": name, "silent": True, "ttl": 60}
            await client.say(type="publish", topic=to.topic, event=event, id=number)
        events = [await client.next_of("event", "error") for _ in names]
    ids = [each.get("event", each).get("id") for each in events]
    expect(ids == names, f"{names}, the first one published twice, arrived as {ids}")
    sources = {each["event"]["source"] for each in events}
    expect(sources == {f"user:{quote(user, safe='')}"}, f"the sources were {sources}")


async def _present(to: Deployment) -> None:
    async with to.client(f"?presence=true&topics={quote(str(to.topic), safe='')}") as client:
        user = (await client.next_of("hello"))["user"]
        told = await client.next_of("presence", "error")
    expect(user in told.get("members", ()), f"user {user} is there, and it sent {told}")


def _names(number: int) -> list[str]:
    run = secrets.token_hex(8)
    return [f"{run}-{index}" for index in range(number)]


class Case(NamedTuple):
    """A promise, and how it is tried; some need a member of the deployment that may be None."""

    promise: str
    attempt: Callable[[Deployment], Awaitable[None]]
    needs: str = "url"


CASES = (
    Case("a good token is greeted by hello, with the personal topic and everyone", _greeted),
    Case("a bad token is closed with 4500", _bad_token),
    Case("a token in the URL is refused", _token_in_url),
    Case("an unknown parameter is refused by its name", _unknown_parameter),
    Case("a malformed frame is answered by its id, and the connection stays", _malformed),
    Case("a position of a stream that is gone leads to a gap", _gap),
    Case("a first long-poll answers with a cursor", _polled),
    Case("a mark at a position of a stream that is gone is refused", _marked_beyond),
    Case("a client cannot publish to everyone", _published_to_all),
    Case("events arrive once and in the order of their posts", _once_in_order, "api_url"),
    Case("a client that reconnects gets the events it missed", _resumed, "api_url"),
    Case("server-sent events resume behind Last-Event-ID", _streamed, "api_url"),
    Case("a mark is told on the user's other connections", _marked_everywhere, "api_url"),
    Case(
        "an event that a client publishes twice arrives once, with its user",
        _published_once,
        "topic",
    ),
    Case("a member of a topic is told that it is one", _present, "topic"),
)


class Outcome(NamedTuple):
    """The outcome of a case: `result` is `kept`, `broken` or `skipped`."""

    promise: str
    result: str
    reason: str = ""


async def tried(to: Deployment) -> AsyncIterator[Outcome]:
    """Try each promise, and yield its outcome."""
    for promise, attempt, needs in CASES:
        if getattr(to, needs) is None:
            yield Outcome(promise, "skipped", f"it needs --{needs.replace('_', '-')}")
            continue
        try:
            await attempt(to)
        except TimeoutError:
            yield Outcome(promise, "broken", f"nothing came within {PATIENCE:.0f} s")
        except (Broken, OSError, httpx.HTTPError, WebSocketException, ValueError) as error:
            yield Outcome(promise, "broken", str(error) or type(error).__name__)
        else:
            yield Outcome(promise, "kept")
