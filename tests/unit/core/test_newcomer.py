import asyncio

from notifier.core.errors import (
    CloseCode,
    TokenExpired,
    TooManyConnections,
    Unauthorized,
    Unavailable,
)
from notifier.core.newcomer import Newcomer
from notifier.core.positions import Position
from tests.support.clock import in_virtual_time, pass_time
from tests.support.sessions import ANN, Client, connected, house


@in_virtual_time
async def test_the_first_frame_may_be_auth() -> None:
    async with house() as it:
        client = await connected(it, None, topics=("news",))

        await client.say(type="auth", id=9, token="t")
        await it.verify(ANN)

        assert client.types == ["authenticated", "hello"]
        assert client.sent[0] == {
            "type": "authenticated",
            "id": 9,
            "expires": "2026-01-01T01:00:00.000Z",
        }
        assert list(client.sent[1]["topics"]) == ["user:42", "everyone", "news"]


@in_virtual_time
async def test_a_cursor_waits_for_the_identity() -> None:
    async with house() as it:
        posted = it.broker.post_many("user:42", 2)
        client = await connected(it, None, cursor={"user:42": Position.parse(posted[0])})

        await client.say(type="auth", token="t")
        await it.verify(ANN)

        assert client.positions("user:42") == posted[1:]


@in_virtual_time
async def test_nothing_can_be_followed_before_auth() -> None:
    async with house() as it:
        client = await connected(it, None)

        await client.say(type="subscribe", id=1, topic="everyone")

        assert client.only("error")["code"] == "unauthorized"
        assert it.hub.position("everyone") is None


@in_virtual_time
async def test_a_newcomer_without_auth_in_time_is_closed() -> None:
    async with house() as it:
        client = await connected(it, None)

        await it.pass_time(9)
        before = client.closed_with
        await it.pass_time(1)

        assert (before, client.closed_with) == (None, CloseCode.AUTH_TIMEOUT)
        assert client.sent == [{"type": "bye", "code": 4503, "reason": "auth_timeout"}]


@in_virtual_time
async def test_a_client_that_authenticated_in_time_stays_beyond_the_deadline() -> None:
    async with house() as it:
        client = await connected(it, None)
        await client.say(type="auth", token="t")
        await it.verify(ANN)

        await it.pass_time(11)

        assert client.closed_with is None


@in_virtual_time
async def test_a_token_verified_too_late_is_too_late() -> None:
    async with house() as it:
        client = await connected(it, None)
        await client.say(type="auth", token="t")
        await it.pass_time(10)

        await it.verify(ANN)

        assert client.closed_with == CloseCode.AUTH_TIMEOUT
        assert client.types == ["bye"]


@in_virtual_time
async def test_an_expired_first_token_closes_with_a_way_back() -> None:
    async with house() as it:
        client = await connected(it, None)

        await client.say(type="auth", id=9, token="t")
        await it.verify(TokenExpired("the token expired"))

        error, bye = client.sent
        assert (error["id"], error["code"]) == (9, "token_expired")
        assert (bye["code"], bye["reason"]) == (4001, "token_expired")
        assert client.closed_with == CloseCode.TOKEN_EXPIRED


@in_virtual_time
async def test_a_bad_first_token_closes() -> None:
    async with house() as it:
        client = await connected(it, None)

        await client.say(type="auth", id=9, token="t")
        await it.verify(Unauthorized("a bad token"))

        assert client.sent == [
            {"type": "error", "id": 9, "code": "unauthorized", "message": "a bad token"},
            {"type": "bye", "code": 4500, "reason": "unauthorized"},
        ]
        assert client.closed_with == CloseCode.UNAUTHORIZED


@in_virtual_time
async def test_an_issuer_out_of_reach_closes_with_a_code_that_allows_to_reconnect() -> None:
    async with house() as it:
        client = await connected(it, None)

        await client.say(type="auth", token="t")
        await it.verify(Unavailable("issuer", "timed out"))

        assert client.closed_with == CloseCode.UNAVAILABLE


@in_virtual_time
async def test_a_user_with_too_many_connections_is_closed_and_must_not_reconnect() -> None:
    async with house() as it:
        client = await connected(it, None)

        await client.say(type="auth", id=9, token="t")
        await it.verify(TooManyConnections("the user has too many connections already"))

        assert client.only("error")["code"] == "too_many_connections"
        assert client.only("bye")["reason"] == "too_many_connections"
        assert client.closed_with == CloseCode.TOO_MANY_CONNECTIONS


@in_virtual_time
async def test_one_token_is_verified_at_a_time() -> None:
    async with house() as it:
        client = await connected(it, None)

        await client.say(type="auth", id=1, token="t")
        await client.say(type="auth", id=2, token="u")

        assert (it.verifying, client.only("error")["id"]) == (1, 2)


@in_virtual_time
async def test_a_token_verified_after_the_client_has_gone_changes_nothing() -> None:
    async with house() as it:
        client = await connected(it, None)
        await client.say(type="auth", token="t")
        await client.disconnect()

        await it.verify(ANN)

        assert client.sent == []
        assert it.hub.position("user:42") is None


@in_virtual_time
async def test_a_first_token_without_id_is_answered_without_one() -> None:
    async with house() as it:
        client = await connected(it, None)

        await client.say(type="auth", token="t")
        await it.verify(Unauthorized("a bad token"))

        assert "id" not in client.only("error")


@in_virtual_time
async def test_the_session_gets_the_marks_that_its_newcomer_asked_for() -> None:
    async with house() as it, asyncio.TaskGroup() as tasks:
        badges = tasks.create_task(it.badges.run(), name="badges")
        client = Client()
        client.hand_over(Newcomer(it, client, (), {}, marks=True))

        await client.say(type="auth", token="t")
        await it.verify(ANN)
        await pass_time(2)
        badges.cancel()

        marked = [frame["topic"] for frame in client.sent if frame["type"] == "marks"]
        assert sorted(marked) == ["everyone", "user:42"]


@in_virtual_time
async def test_the_session_asks_for_the_presence_that_its_newcomer_asked_for() -> None:
    async with house() as it:
        client = Client()
        client.hand_over(Newcomer(it, client, (), {}, presence=True))

        await client.say(type="auth", token="t")
        await it.verify(ANN)

        assert "the token does not allow presence" in client.only("error")["message"]


@in_virtual_time
async def test_a_newcomer_with_more_topics_than_a_session_may_have_is_closed() -> None:
    async with house() as it:
        cursor = {topic: Position("k", 1) for topic in ("d", "e")}
        client = await connected(it, None, ("a", "b", "c"), cursor)

        await client.say(type="auth", id=9, token="t")
        await it.verify(ANN)

        assert (client.only("error")["id"], client.types) == (9, ["error", "bye"])
        assert client.closed_with == CloseCode.PROTOCOL_ERROR


@in_virtual_time
async def test_a_ping_before_auth_is_answered_and_buys_no_time() -> None:
    async with house() as it:
        client = await connected(it, None)

        await it.pass_time(9)
        await client.say(type="ping")
        await it.pass_time(1)

        assert client.types == ["pong", "bye"]
        assert client.closed_with == CloseCode.AUTH_TIMEOUT


@in_virtual_time
async def test_a_token_refused_after_the_client_has_gone_is_answered_by_nothing() -> None:
    async with house() as it:
        client = await connected(it, None)
        await client.say(type="auth", token="t")
        await client.disconnect()

        await it.verify(Unauthorized("a bad token"))

        assert client.sent == []
