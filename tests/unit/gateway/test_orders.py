"""Orders about users: sessions that end, and tokens that are refused, on every transport."""

import asyncio
import time

import pytest

from notifier.core.access import Identity
from notifier.core.control import Act
from notifier.core.errors import CloseCode
from tests.support.eventually import eventually
from tests.support.gateways import House, served
from tests.support.streams import polled

LATER = int(time.time()) + 3600


def let_in(
    house: House, token: str, user: str, *, issued: int, topics: tuple[str, ...] = ()
) -> None:
    house.tokens.table[token] = Identity(user, LATER, topics, issued)


async def test_all_connections_of_a_disconnected_user_are_closed_and_may_come_back() -> None:
    async with (
        served() as it,
        it.welcomed("ann") as one,
        it.welcomed("ann") as other,
        it.welcomed("bob") as bob,
    ):
        await it.control.give(Act.DISCONNECT, "42")

        for client in (one, other):
            bye = await client.next_of("bye")
            assert (bye["code"], bye["reason"]) == (4006, "disconnected")
            assert bye["reconnect_after_ms"] > 0
            assert await client.closed_with() == 4006
        await bob.say(type="ping")
        await bob.next_of("pong")
        async with it.welcomed("ann"):
            pass


async def test_a_disconnect_that_is_read_again_ends_no_client_that_reconnected() -> None:
    async with served() as it:
        async with it.welcomed("ann") as client:
            await it.control.give(Act.DISCONNECT, "42")
            assert await client.closed_with() == 4006
        async with it.welcomed("ann") as client:
            await it.control.give(Act.DISCONNECT, "43")  # so it looks, and finds both
            await client.say(type="ping")
            await client.next_of("pong")


@pytest.mark.parametrize("age", [None, 60, 0], ids=["without iat", "before", "same second"])
async def test_a_revoked_token_ends_its_connections_and_is_refused(age: int | None) -> None:
    async with served() as it:
        let_in(it, "old", "42", issued=0 if age is None else int(time.time()) - age)
        async with it.welcomed("old") as client:
            await it.control.give(Act.REVOKE, "42")

            assert (await client.next_of("error"))["code"] == "token_revoked"
            bye = await client.next_of("bye")
            assert (bye["code"], bye["reason"]) == (4500, "unauthorized")
            assert "reconnect_after_ms" not in bye
            assert await client.closed_with() == 4500
        async with it.client("old") as client:
            assert (await client.next_of("error"))["code"] == "token_revoked"
            assert await client.closed_with() == 4500
        async with it.http("old") as http:
            for path in ("sse", "poll", "history"):
                answer = await http.get(f"/v1/{path}", headers={"accept": "text/event-stream"})
                assert (answer.status_code, answer.json()["code"]) == (401, "token_revoked")


async def test_a_token_issued_after_the_revocation_is_taken_and_its_connection_stays() -> None:
    async with served() as it:
        let_in(it, "new", "42", issued=LATER)
        async with it.welcomed("new") as client:
            await it.control.give(Act.REVOKE, "42")
            await it.control.give(Act.DISCONNECT, "43")

            await client.say(type="ping")
            await client.next_of("pong")
            async with it.welcomed("new"):
                pass


@pytest.mark.parametrize(("act", "code"), [(Act.REVOKE, 4500), (Act.DISCONNECT, 4006)])
async def test_other_followers_of_the_personal_topic_stay(act: Act, code: int) -> None:
    async with served() as it:
        let_in(it, "admin", "7", issued=0, topics=("user:*",))
        async with it.client("admin", query="?topics=user:42") as admin, it.welcomed("ann") as ann:
            await admin.next_of("hello")
            await it.control.give(act, "42")

            assert await ann.closed_with() == code
            await admin.say(type="ping")
            await admin.next_of("pong")


async def test_a_revoked_token_does_not_renew_a_session_nor_open_one_by_a_frame() -> None:
    async with served() as it:
        let_in(it, "new", "42", issued=LATER)
        await it.control.give(Act.REVOKE, "42")
        async with it.welcomed("new") as client:
            await client.say(type="auth", token="ann", id=1)
            assert (await client.next_of("error"))["code"] == "token_revoked"
            await client.say(type="ping")
            await client.next_of("pong")
        async with it.client(None) as newcomer:
            await newcomer.say(type="auth", token="ann")
            assert (await newcomer.next_of("error"))["code"] == "token_revoked"
            assert await newcomer.closed_with() == 4500


async def test_a_stream_and_a_poll_of_a_revoked_token_end_with_a_bye() -> None:
    async with served() as it, it.http("ann") as http:
        start = (await polled(http))["cursor"]
        waiting = asyncio.create_task(http.get("/v1/poll", params={"since": start, "wait": "50"}))
        async with http.stream("GET", "/v1/sse") as stream:
            await eventually(lambda: len(list(it.gateway.hub.followers("user:42"))) == 2)
            await it.control.give(Act.REVOKE, "42")

            text = (await stream.aread()).decode()
        frames = (await waiting).json()["frames"]

    assert '"code":4500' in text
    assert [frame["type"] for frame in frames] == ["error", "bye"]
    assert frames[-1]["code"] == 4500


async def test_a_client_verified_just_before_the_revocation_is_refused() -> None:
    async with served(seats=(seats := SlowSeats())) as it:
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            coming = tasks.create_task(closed(it))
            await seats.asked.wait()
            await it.control.give(Act.REVOKE, "42")
            await refused_at_once(it)
            seats.open.set()

        assert coming.result() == CloseCode.UNAUTHORIZED


async def test_an_order_is_carried_out_within_a_second_or_two_without_the_signal() -> None:
    async with served() as it, it.welcomed("ann") as client:
        it.control.mute = True
        await it.control.give(Act.DISCONNECT, "42")

        assert await client.closed_with() == 4006


async def test_nobody_is_let_in_while_revocations_cannot_be_read() -> None:
    async with served() as it:
        it.control.away = True
        await eventually(lambda: it.gateway.trouble()["control"] is not None)

        assert (await it.refused()).response.status_code == 503

        it.control.away = False
        await eventually(lambda: it.gateway.trouble()["control"] is None)
        async with it.welcomed("ann"):
            pass


async def test_connected_clients_stay_while_revocations_cannot_be_read() -> None:
    async with served() as it, it.welcomed("ann") as client:
        it.control.away = True
        await eventually(lambda: it.gateway.trouble()["control"] is not None)

        await client.say(type="ping")
        await client.next_of("pong")
        it.control.away = False
        await it.control.give(Act.REVOKE, "42")
        assert await client.closed_with() == 4500


async def refused_at_once(house: House) -> None:
    """Return once the gateway knows of the revocation."""
    async with asyncio.timeout(30), house.http("ann") as http:
        while (await http.get("/v1/history")).status_code != 401:
            pass


async def closed(house: House) -> int:
    async with house.client("ann") as client:
        return await client.closed_with()


class SlowSeats:
    """Fulfils Seats: it answers once it is open."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.open = asyncio.Event()

    async def claim(self, user: str) -> bool:
        del user
        self.asked.set()
        await self.open.wait()
        return True

    def release(self, user: str) -> None:
        del user
