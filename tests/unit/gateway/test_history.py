import time

import httpx
import pytest

from notifier.core.access import Identity
from notifier.core.history import Since
from tests.support.gateways import served
from tests.support.streams import Frame, ids


async def read(http: httpx.AsyncClient, **query: str) -> Frame:
    answer = await http.get("/v1/history", params=query)
    assert answer.status_code == 200, answer.text
    body: Frame = answer.json()
    return body


async def test_history_is_the_events_that_topics_still_hold() -> None:
    async with served(history_size=3) as it, it.http() as http:
        for number in range(5):
            it.broker.post("user:42", str(number))

        body = await read(http)

        own, everyone = it.broker.head("user:42"), it.broker.head("everyone")
    assert ids(body["frames"]) == ["2", "3", "4"]
    assert body["cursor"] == f"user:42@{own},everyone@{everyone}"
    assert body["more"] is False


async def test_history_is_read_on_from_its_cursor() -> None:
    async with served() as it, it.http() as http:
        for number in range(5):
            it.broker.post("news", str(number))

        first = await read(http, topics="news", limit="2")
        second = await read(http, topics="news", limit="2", since=first["cursor"])
        third = await read(http, topics="news", limit="2", since=second["cursor"])

    assert [ids(body["frames"]) for body in (first, second, third)] == [
        ["0", "1"],
        ["2", "3"],
        ["4"],
    ]
    assert [body["more"] for body in (first, second, third)] == [True, True, False]


async def test_expired_and_superseded_events_are_left_out_of_history() -> None:
    async with served() as it, it.http() as http:
        it.broker.post("news", "expired", expires=1)
        it.broker.post("news", "superseded", collapse_key="a")
        it.broker.post("news", "newest", collapse_key="a")

        body = await read(http, topics="news")

    assert ids(body["frames"]) == ["newest"]


async def test_history_from_its_start_is_all_that_it_holds() -> None:
    async with served(history_size=2) as it, it.http() as http:
        posted = it.broker.post_many("news", 5)

        body = await read(http, since="news@start")

    assert [frame["position"] for frame in body["frames"]] == posted[-2:]


async def test_history_that_cannot_go_on_says_so() -> None:
    async with served(history_size=2) as it, it.http() as http:
        first, *_ = it.broker.post_many("news", 5)

        body = await read(http, topics="news", since=f"news@{first}")

        head = it.broker.head("news")
    assert body["frames"] == [
        {"type": "gap", "topic": "news", "position": head, "reason": "expired"}
    ]
    assert (body["cursor"], body["more"]) == (f"news@{head}", False)


async def test_an_answer_is_bounded_in_bytes() -> None:
    async with served() as it, it.http() as http:
        for number in range(60):
            it.broker.post("news", f"{number}-" + "x" * 50_000)

        body = await read(http, topics="news,everyone", limit="256")
        rest = await read(http, topics="news,everyone", limit="256", since=body["cursor"])

    assert len(body["frames"]) + len(rest["frames"]) > 40
    assert 20 <= len(body["frames"]) <= 22
    assert body["more"] is True
    assert "everyone@" not in body["cursor"]


async def test_reading_begins_no_streams_but_those_of_every_session() -> None:
    async with served() as it, it.http() as http:
        it.tokens.table["ann"] = Identity("42", time.time() + 3600, ("*",))

        topics = ",".join(f"never:{n}" for n in range(98))
        body = await read(http, topics=topics)
        again = await read(http, since=body["cursor"])
        await read(http)

        begun = {q.topic for q in it.broker.questions if isinstance(q, Since) and q.begins}
    assert (body["frames"], body["more"]) == (again["frames"], again["more"]) == ([], False)
    assert begun == {"user:42", "everyone"}


async def test_reading_follows_nothing() -> None:
    async with served() as it, it.http() as http:
        await read(http)

        assert it.broker.follows == []


async def test_a_topic_of_the_cursor_is_read_beside_those_that_are_named() -> None:
    async with served() as it, it.http() as http:
        posted = it.broker.post_many("news", 2)
        it.broker.post("user:42")

        body = await read(http, since=f"news@{posted[0]}")

    assert [frame["topic"] for frame in body["frames"]] == ["user:42", "news"]
    assert f"news@{posted[1]}" in body["cursor"]


async def test_a_topic_of_the_cursor_that_is_not_allowed_is_told() -> None:
    async with served() as it, it.http() as http:
        answer = await http.get("/v1/history", params={"since": "user:43@a.1"})

    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_a_topic_that_is_not_allowed_cannot_be_read() -> None:
    async with served() as it, it.http() as http:
        answer = await http.get("/v1/history", params={"topics": "staff"})

    assert answer.status_code == 403
    assert "staff" in answer.json()["detail"]


@pytest.mark.parametrize("limit", ["0", "257", "x"])
async def test_a_limit_that_is_none_is_refused_by_name(limit: str) -> None:
    async with served() as it, it.http() as http:
        answer = await http.get("/v1/history", params={"limit": limit})

    assert (answer.status_code, answer.json()["field"]) == (400, "limit")


async def test_an_unavailable_broker_is_told() -> None:
    async with served() as it, it.http() as http:
        it.broker.away = True
        answer = await http.get("/v1/history")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
