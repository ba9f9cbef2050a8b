from dataclasses import replace

import pytest
from msgspec import structs

from notifier.core.access import Identity
from notifier.core.errors import (
    CloseCode,
    Unauthorized,
)
from notifier.core.positions import Position
from notifier.core.session import Session
from tests.support.clock import in_virtual_time, pass_time, quiet
from tests.support.sessions import ANN, START, Client, connected, house, welcomed

# Hello.


@in_virtual_time
async def test_hello_tells_the_user_the_time_and_the_gateway() -> None:
    async with house() as it:
        client = await connected(it)

        assert client.sent == [
            {
                "type": "hello",
                "session": client.session.id,
                "user": "42",
                "heartbeat": 20.0,
                "time": "2026-01-01T00:00:00.000Z",
                "topics": {
                    "user:42": {"position": it.broker.head("user:42")},
                    "everyone": {"position": it.broker.head("everyone")},
                },
            }
        ]


@in_virtual_time
async def test_sessions_have_ids_of_their_own() -> None:
    async with house() as it:
        first, second = await connected(it), await connected(it)

        assert first.session.id != second.session.id


@in_virtual_time
async def test_hello_names_resumed_topics_and_their_missed_events_follow() -> None:
    async with house() as it:
        posted = it.broker.post_many("user:42", 3)
        cursor = {"user:42": Position.parse(posted[0]), "news": Position("gone", 7)}

        client = await connected(it, topics=("news",), cursor=cursor)

        topics = client.sent[0]["topics"]
        assert topics["user:42"] == {"position": posted[0], "resumed": True}
        assert topics["news"] == {"position": "gone.7", "resumed": False}  # only the gap moves it
        assert sorted(client.types[1:]) == ["event", "event", "gap"]
        assert client.positions("user:42") == posted[1:]


@in_virtual_time
async def test_a_topic_that_the_token_does_not_allow_is_refused_and_the_others_are_followed() -> (
    None
):
    async with house() as it:
        client = await connected(it, topics=("secret", "news"))

        assert client.only("error")["code"] == "forbidden"
        assert list(client.only("hello")["topics"]) == ["user:42", "everyone", "news"]


@in_virtual_time
async def test_events_follow_hello() -> None:
    async with house() as it:
        client = await welcomed(it)

        position = it.broker.post("user:42", "e1")

        assert client.sent == [
            {"type": "event", "topic": "user:42", "position": position, "event": {"id": "e1"}}
        ]


# Subscribing.


@in_virtual_time
async def test_a_topic_can_be_followed() -> None:
    async with house() as it:
        client = await welcomed(it)

        await client.say(type="subscribe", id=7, topic="news")
        position = it.broker.post("news")

        assert client.sent[0] == {
            "type": "subscribed",
            "id": 7,
            "topic": "news",
            "position": f"{position.partition('.')[0]}.0",
        }
        assert client.positions("news") == [position]


@in_virtual_time
async def test_a_topic_can_be_followed_from_a_position_on() -> None:
    async with house() as it:
        posted = it.broker.post_many("news", 3)
        client = await welcomed(it)

        await client.say(type="subscribe", id="a", topic="news", since=posted[0])

        assert client.only("subscribed")["resumed"] is True
        assert client.positions("news") == posted[1:]


@in_virtual_time
async def test_a_frame_without_id_is_answered_without_one() -> None:
    async with house() as it:
        client = await welcomed(it)

        await client.say(type="subscribe", topic="news")

        assert "id" not in client.only("subscribed")


@in_virtual_time
async def test_a_topic_can_be_left() -> None:
    async with house() as it:
        client = await welcomed(it, ANN, "news")

        await client.say(type="unsubscribe", id=8, topic="news")
        it.broker.post("news")

        assert client.sent == [{"type": "unsubscribed", "id": 8, "topic": "news"}]


@in_virtual_time
async def test_a_topic_left_before_the_answer_is_not_answered_as_followed() -> None:
    async with house() as it:
        client = await welcomed(it)
        it.broker.held = True
        await client.say(type="subscribe", id=1, topic="news")
        await client.say(type="unsubscribe", id=2, topic="news")

        it.broker.release()
        await quiet()
        it.broker.post("news")

        assert client.sent == [{"type": "unsubscribed", "id": 2, "topic": "news"}]


@in_virtual_time
async def test_a_topic_left_before_it_was_even_asked_for_is_not_followed() -> None:
    async with house() as it:
        client = await welcomed(it)

        client.session.received(b'{"type":"subscribe","topic":"news"}')
        await client.say(type="unsubscribe", topic="news")
        it.broker.post("news")

        assert client.types == ["unsubscribed"]


@in_virtual_time
async def test_a_topic_left_and_followed_again_before_the_answer_is_answered_once() -> None:
    async with house() as it:
        client = await welcomed(it)
        it.broker.held = True
        await client.say(type="subscribe", id=1, topic="news")
        await client.say(type="unsubscribe", id=2, topic="news")
        await client.say(type="subscribe", id=3, topic="news")

        it.broker.release()
        await quiet()
        position = it.broker.post("news")

        assert [frame["id"] for frame in client.of_type("subscribed")] == [3]
        assert client.positions("news") == [position]


@in_virtual_time
async def test_the_end_of_a_wait_for_a_topic_that_was_left_ends_no_later_wait_for_it() -> None:
    async with house() as it:
        client = await welcomed(it)
        it.broker.away = True
        await client.say(type="subscribe", id=1, topic="news")
        await client.say(type="unsubscribe", id=2, topic="news")
        await pass_time(7)
        await client.say(type="subscribe", id=3, topic="news")
        await pass_time(5)  # the first has waited for more than ten seconds

        it.broker.away = False
        await pass_time(2)
        position = it.broker.post("news")

        assert client.of_type("error") == []
        assert [frame["id"] for frame in client.of_type("subscribed")] == [3]
        assert client.positions("news") == [position]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"topic": "secret"}, "forbidden"),
        ({"topic": "user:43"}, "forbidden"),
        ({"topic": "user:42"}, "invalid"),
        ({"topic": "a b"}, "invalid"),
        ({"topic": ""}, "invalid"),
        ({"topic": 7}, "invalid"),
        ({}, "invalid"),
        ({"topic": "news", "since": "17"}, "invalid"),
        ({"topic": "news", "since": 17}, "invalid"),
    ],
)
def test_a_bad_subscription_is_refused_with_its_id(frame: dict[str, object], code: str) -> None:
    @in_virtual_time
    async def scenario() -> None:
        async with house() as it:
            client = await welcomed(it)

            await client.say(type="subscribe", id=7, **frame)

            assert (client.only("error")["code"], client.only("error")["id"]) == (code, 7)
            assert client.closed_with is None

    scenario()


@in_virtual_time
async def test_a_refused_subscription_leaves_nothing_behind() -> None:
    async with house() as it:
        client = await welcomed(it)
        await client.say(type="subscribe", id=1, topic="news", since="17")

        await client.say(type="subscribe", id=2, topic="news")

        assert client.only("subscribed")["id"] == 2


@in_virtual_time
async def test_topics_are_bounded() -> None:
    async with house() as it:
        client = await welcomed(it, ANN, *(f"team:{n}" for n in range(it.terms.most_topics)))

        await client.say(type="subscribe", id=1, topic="news")
        await client.say(type="unsubscribe", id=2, topic="team:1")
        await client.say(type="subscribe", id=3, topic="news")

        assert client.only("error")["code"] == "too_many"
        assert client.only("subscribed")["id"] == 3
        assert it.refused == ["too_many"]


@in_virtual_time
async def test_to_unsubscribe_from_a_topic_that_is_not_followed_is_an_error() -> None:
    async with house() as it:
        client = await welcomed(it)

        await client.say(type="unsubscribe", id=8, topic="news")

        assert client.only("error")["code"] == "invalid"


# Errors.


@in_virtual_time
async def test_a_ping_is_answered() -> None:
    async with house() as it:
        client = await welcomed(it)

        await client.say(type="ping", extra="ignored")

        assert client.sent == [{"type": "pong"}]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"type":"shout"}',
        b'{"topic":"news"}',
        b'{"type":"subscribe"}',
        b'{"type":"auth"}',
        b'{"type":"ping"} x',
        b"\xff",
        b"[" * 20_000,
    ],
)
def test_a_malformed_frame_gets_an_error_and_the_connection_stays(text: bytes) -> None:
    @in_virtual_time
    async def scenario() -> None:
        async with house() as it:
            client = await welcomed(it)

            await client.say_text(text)

            assert client.types == ["error"]
            assert client.closed_with is None

    scenario()


@in_virtual_time
async def test_an_id_that_cannot_come_back_is_left_out_of_the_error() -> None:
    async with house() as it:
        client = await welcomed(it)

        await client.say(type="shout", id=2**53)
        await client.say(type="shout", id="x" * 65)
        await client.say(type="shout", id=2**53 - 1)

        assert [error.get("id") for error in client.sent] == [None, None, 2**53 - 1]


@in_virtual_time
async def test_five_errors_in_a_row_close_the_connection() -> None:
    async with house() as it:
        client = await welcomed(it)

        for _ in range(4):
            await client.say(type="shout")
        before = client.closed_with
        await client.say(type="shout")

        assert (before, client.closed_with) == (None, CloseCode.PROTOCOL_ERROR)
        assert client.types == ["error"] * 5 + ["bye"]
        assert client.sent[-1] == {"type": "bye", "code": 4502, "reason": "protocol_error"}


@in_virtual_time
async def test_to_subscribe_to_a_topic_of_the_cursor_is_an_error_but_never_closes() -> None:
    async with house() as it:
        cursor = {f"team:{n}": Position("gone", 1) for n in range(4)}
        client = await connected(it, cursor=cursor)
        client.forget()

        for _ in range(2):
            for topic in cursor:
                await client.say(type="subscribe", topic=topic)

        assert [frame["message"] for frame in client.sent] == ["topic: is followed already"] * 8
        assert client.closed_with is None


@in_virtual_time
async def test_a_good_frame_in_between_forgives_errors() -> None:
    async with house() as it:
        client = await welcomed(it)

        for _ in range(4):
            await client.say(type="shout")
        await client.say(type="ping")
        for _ in range(4):
            await client.say(type="shout")

        assert client.closed_with is None


@in_virtual_time
async def test_frames_after_the_end_are_ignored() -> None:
    async with house() as it:
        client = await welcomed(it)
        client.session.end(CloseCode.DRAINING)
        sent = list(client.sent)

        await client.say(type="subscribe", topic="news")
        await client.say(type="auth", token="t")

        assert (client.sent, it.verifying) == (sent, 0)
        assert it.hub.position("news") is None


# Renewing.


@in_virtual_time
async def test_a_new_token_in_place_extends_the_stay() -> None:
    async with house() as it:
        client = await welcomed(it, Identity("42", START + 5))

        await client.say(type="auth", id=9, token="t")
        await it.verify(Identity("42", START + 15))
        await it.pass_time(10)
        before = client.closed_with
        await it.pass_time(5)

        assert client.only("authenticated")["expires"] == "2026-01-01T00:00:15.000Z"
        assert (before, client.closed_with) == (None, CloseCode.TOKEN_EXPIRED)


@in_virtual_time
async def test_a_new_token_of_another_user_closes() -> None:
    async with house() as it:
        client = await welcomed(it)

        await client.say(type="auth", token="t")
        await it.verify(Identity("43", START + 3600))

        assert client.closed_with == CloseCode.FORBIDDEN
        assert client.types == ["bye"]


@in_virtual_time
async def test_a_bad_new_token_leaves_the_old_one_in_force() -> None:
    async with house() as it:
        client = await welcomed(it)

        await client.say(type="auth", id=9, token="t")
        await it.verify(Unauthorized("no"))
        position = it.broker.post("user:42")

        assert client.only("error")["id"] == 9
        assert client.closed_with is None
        assert client.positions("user:42") == [position]


@in_virtual_time
async def test_a_topic_that_the_new_token_does_not_allow_is_left() -> None:
    async with house() as it:
        client = await welcomed(it, ANN, "news", "team:1")

        await client.say(type="auth", token="t")
        await it.verify(Identity("42", START + 3600, ("news",)))
        it.broker.post("team:1")
        position = it.broker.post("news")

        assert client.types == ["authenticated", "unsubscribed", "event"]
        assert client.only("unsubscribed")["topic"] == "team:1"
        assert client.positions("news") == [position]


# Time.


@in_virtual_time
async def test_an_expired_token_closes_the_connection_at_its_moment() -> None:
    async with house() as it:
        client = await welcomed(it, Identity("42", START + 5))

        await it.pass_time(4)
        before = client.closed_with
        await it.pass_time(1)

        assert (before, client.closed_with) == (None, CloseCode.TOKEN_EXPIRED)
        assert client.only("bye")["reason"] == "token_expired"


@in_virtual_time
async def test_a_session_of_the_greatest_age_is_told_to_reconnect() -> None:
    async with house() as it:
        it.terms = replace(it.terms, max_age=100.0)
        clients = [await welcomed(it) for _ in range(20)]
        ended: list[int] = []

        for second in range(1, 102):
            await it.pass_time(1)
            for client in clients:
                client.session.heard()
            ended += [second] * (sum(c.closed_with is not None for c in clients) - len(ended))

        assert {client.closed_with for client in clients} == {CloseCode.MAX_AGE}
        assert all(client.only("bye")["reconnect_after_ms"] > 0 for client in clients)
        assert all(80 <= second <= 101 for second in ended)
        assert len(set(ended)) > 1


@in_virtual_time
async def test_a_token_renewed_in_place_does_not_make_a_connection_younger() -> None:
    async with house() as it:
        it.terms = replace(it.terms, max_age=10.0)
        client = await welcomed(it)

        await it.pass_time(5)
        await client.say(type="auth", token="t")
        await it.verify(structs.replace(ANN, expires=START + 7200))
        await it.pass_time(6)

        assert client.closed_with == CloseCode.MAX_AGE


@in_virtual_time
async def test_the_time_to_the_next_ping_begins_anew_when_a_token_is_renewed() -> None:
    async with house() as it:
        client = await welcomed(it)

        await it.pass_time(5)
        await client.say(type="auth", token="t")
        await it.verify(structs.replace(ANN, expires=START + 7200))
        await it.pass_time(19)
        before = client.pings
        await it.pass_time(1)

        assert (before, client.pings) == (0, 1)


@in_virtual_time
async def test_a_client_that_shows_life_is_pinged_each_heartbeat_and_stays() -> None:
    async with house() as it:
        client = await welcomed(it)

        for _ in range(100):
            await it.pass_time(1)
            client.session.heard()

        assert 4 <= client.pings <= 5
        assert client.closed_with is None


@in_virtual_time
async def test_any_frame_is_a_sign_of_life() -> None:
    async with house() as it:
        client = await welcomed(it)

        for _ in range(100):
            await it.pass_time(1)
            await client.say(type="ping")

        assert client.closed_with is None


@in_virtual_time
async def test_a_client_that_cannot_show_life_is_not_pinged() -> None:
    async with house() as it:
        client = await welcomed(it)
        client.answers_pings = False

        await it.pass_time(100)

        assert client.pings >= 3
        assert client.closed_with is None


@in_virtual_time
async def test_a_replay_goes_on_when_the_connection_has_room_again() -> None:
    async with house() as it:
        posted = it.broker.post_many("user:42", 3)
        client = Client()
        client.has_room = False
        cursor = {"user:42": Position.parse(posted[0])}
        client.hand_over(Session(it, client, ANN, (), cursor))
        await quiet()
        before = client.positions("user:42")

        client.has_room = True
        client.session.ready()
        await quiet()

        assert (before, client.positions("user:42")) == ([], posted[1:])


@in_virtual_time
async def test_a_client_that_shows_no_life_between_two_heartbeats_is_closed() -> None:
    async with house() as it:
        client = await welcomed(it)

        await it.pass_time(20)
        before = client.closed_with
        await it.pass_time(20)

        assert (before, client.pings) == (None, 1)
        assert client.closed_with == CloseCode.HEARTBEAT_TIMEOUT


@in_virtual_time
async def test_a_broker_out_of_reach_for_long_closes_sessions_that_wait_for_it() -> None:
    async with house() as it:
        it.broker.away = True
        client = await connected(it)

        await pass_time(15)

        assert client.closed_with == CloseCode.UNAVAILABLE


@in_virtual_time
async def test_a_subscription_is_refused_at_once_while_the_broker_is_away() -> None:
    async with house() as it:
        client = await welcomed(it)
        it.broker.trouble = "redis at 10.0.0.1 is away"

        await client.say(type="subscribe", id=7, topic="news")

        error = client.only("error")
        assert (error["id"], error["code"]) == (7, "unavailable")
        assert "10.0.0.1" not in error["message"]
        assert client.closed_with is None


@in_virtual_time
async def test_a_subscription_that_the_broker_leaves_unanswered_is_refused_and_the_rest_stays() -> (
    None
):
    async with house() as it:
        client = await welcomed(it)
        it.broker.away = True

        await client.say(type="subscribe", id=7, topic="news")
        await pass_time(15)
        it.broker.away = False
        await client.say(type="subscribe", id=8, topic="news")
        await pass_time(2)
        it.broker.post("user:42")

        error = client.only("error")
        assert (error["id"], error["code"]) == (7, "unavailable")
        assert client.only("subscribed")["id"] == 8
        assert len(client.positions("user:42")) == 1


# The end.


@pytest.mark.parametrize("code", list(CloseCode))
def test_bye_says_when_to_reconnect_if_at_all(code: CloseCode) -> None:
    @in_virtual_time
    async def scenario() -> None:
        async with house() as it:
            client = await welcomed(it)

            client.session.end(code)

            bye = client.only("bye")
            assert (bye["code"], bye["reason"]) == (code, code.reason)
            if code.comes_back:
                assert 500 <= bye["reconnect_after_ms"] <= 5000
            else:
                assert "reconnect_after_ms" not in bye

    scenario()


@in_virtual_time
async def test_a_session_ends_once() -> None:
    async with house() as it:
        client = await welcomed(it)

        client.session.end(CloseCode.DRAINING)
        client.session.end(CloseCode.TOKEN_EXPIRED)
        await client.disconnect(CloseCode.SLOW_CONSUMER)

        assert len(client.of_type("bye")) == 1
        assert client.closed_with == CloseCode.DRAINING
        assert it.over == ["draining"]


@pytest.mark.parametrize(
    ("code", "reason"), [(None, "client"), (CloseCode.SLOW_CONSUMER, "slow_consumer")]
)
def test_the_host_hears_why_a_connection_is_gone(code: CloseCode | None, reason: str) -> None:
    @in_virtual_time
    async def scenario() -> None:
        async with house() as it:
            client = await welcomed(it)

            await client.disconnect(code)

            assert it.over == [reason]

    scenario()


@in_virtual_time
async def test_a_client_that_has_gone_gets_nothing_and_is_not_called() -> None:
    async with house() as it:
        client = await welcomed(it, ANN, "news")

        await client.disconnect()
        it.broker.post("user:42")
        it.broker.post("news")
        await it.pass_time(60)

        assert (client.sent, client.pings, client.closed_with) == ([], 0, None)


@in_virtual_time
async def test_a_client_that_leaves_before_hello_gets_none() -> None:
    async with house() as it:
        it.broker.held = True
        client = await connected(it)

        await client.disconnect()
        it.broker.release()
        await quiet()

        assert client.sent == []


@in_virtual_time
async def test_a_session_that_ends_unsubscribes_from_its_topics() -> None:
    async with house() as it:
        client = await welcomed(it)

        await client.disconnect()
        for _ in range(10):
            it.hub.tick()
        await quiet()

        assert it.broker.followed == set()


@in_virtual_time
async def test_a_forbidden_subscribe_does_not_end_the_session() -> None:
    async with house() as it:
        client = await welcomed(it)

        for _ in range(10):
            await client.say(type="subscribe", topic="secret")

        assert client.types == ["error"] * 10


@in_virtual_time
async def test_subscriptions_that_wait_for_their_answer_are_bounded() -> None:
    async with house() as it:
        client = await welcomed(it)
        it.broker.held = True

        for _ in range(10):
            await client.say(type="subscribe", topic="news")
            await client.say(type="unsubscribe", topic="news")

        assert "too_many" in [frame.get("code") for frame in client.sent]
