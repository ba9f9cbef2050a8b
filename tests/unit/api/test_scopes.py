"""The scopes of API keys and the topics that they are bound to, for every form of body."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from notifier.api.keys import new_key
from tests.unit.api.test_app import ATTRIBUTES, BATCHED, CLOUDEVENT, JSON, STRUCTURED, producer

BOUND = new_key("billing", patterns=["billing.*", "user:acme-*"])
ALLOWED: dict[str, Any] = {"type": "t", "topic": "billing.paid"}
FOREIGN: list[dict[str, Any]] = [
    {"type": "t", "topic": "shop.paid"},
    {"type": "t", "topic": "user:42"},
    {"type": "t", "topic": "everyone"},
    {"type": "t", "users": ["42"]},
    {"type": "t", "users": ["acme-1", "42", "acme-2"]},
    {"type": "t", "everyone": True},
]
BINARY = {name.replace("-", "_"): value for name, value in ATTRIBUTES.items() if name != "ce-user"}


@pytest.mark.parametrize("scopes", [["read"], ["control"], ["read", "control"]], ids="+".join)
@pytest.mark.parametrize("body", [ALLOWED, [ALLOWED], "no event"], ids=["one", "batch", "none"])
async def test_a_key_without_the_scope_posts_nothing(scopes: list[str], body: object) -> None:
    key = new_key("support", scopes)
    async with producer(key.entry) as support:
        answer = await support.post(body, key=key.secret)

        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert f"has the scope {' and '.join(scopes)}, not post" in answer.json()["detail"]
        assert support.put == []
        assert support.count("rejections_total", reason="forbidden") == 1


@pytest.mark.parametrize("event", [ALLOWED, {"type": "t", "users": ["acme-1", "acme-2"]}])
async def test_a_bound_key_posts_to_its_own_audience(event: dict[str, Any]) -> None:
    async with producer(BOUND.entry) as billing:
        answer = await billing.post(event, key=BOUND.secret)

        assert answer.status_code == 202
        assert [each.source for each in billing.put] == ["billing"]


@pytest.mark.parametrize("event", FOREIGN)
async def test_a_bound_key_posts_to_no_other_audience(event: dict[str, Any]) -> None:
    async with producer(BOUND.entry) as billing:
        answer = await billing.post(event, key=BOUND.secret)

        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert "is bound to billing.*, user:acme-*, not to" in answer.json()["detail"]
        assert billing.put == []


@pytest.mark.parametrize(
    "attributes",
    [{"topic": "shop.paid"}, {"user": "42"}, {"users": "acme-1,42"}, {"everyone": True}],
    ids=str,
)
async def test_a_bound_key_posts_no_cloudevent_to_another_audience(
    attributes: dict[str, str | bool],
) -> None:
    event = CLOUDEVENT | attributes
    headers = BINARY | {f"ce_{name}": str(value).lower() for name, value in attributes.items()}
    async with producer(BOUND.entry) as billing:
        answers = [
            await billing.post(event, STRUCTURED, key=BOUND.secret),
            await billing.post(event, JSON, key=BOUND.secret),
            await billing.post(b"{}", JSON, key=BOUND.secret, **headers),
        ]
        batch = await billing.post([event], BATCHED, key=BOUND.secret)

        assert [answer.status_code for answer in (*answers, batch)] == [403] * 4
        assert billing.put == []


@pytest.mark.parametrize("query", ["topic=shop.paid", "users=acme-1,42", "everyone=true"])
async def test_a_bound_key_posts_no_web_hook_to_another_audience(query: str) -> None:
    async with producer(BOUND.entry) as billing:
        answer = await billing.post({"topic": "billing.paid"}, key=BOUND.secret, query=query)

        assert answer.status_code == 403
        assert billing.put == []


async def test_in_a_batch_only_the_events_for_the_keys_audience_are_accepted() -> None:
    async with producer(BOUND.entry) as billing:
        answer = await billing.post([ALLOWED, *FOREIGN, ALLOWED], key=BOUND.secret)

        statuses = [result["status"] for result in answer.json()["results"]]
        assert (answer.status_code, statuses) == (207, [202, *[403] * len(FOREIGN), 202])
        assert [event.topic for event in billing.put] == ["billing.paid", "billing.paid"]


async def test_a_refused_key_is_named_in_the_log_and_never_shown() -> None:
    async with producer(BOUND.entry) as billing:
        with capture_logs() as lines:
            answer = await billing.post(FOREIGN[0], key=BOUND.secret)

    assert [line["producer"] for line in lines] == ["billing"]
    assert BOUND.secret not in str(lines) + answer.text
