"""Orders about users over HTTP: who may give them, what they answer, and the account of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import quote

import httpx
import pytest
from structlog.testing import capture_logs

from notifier.adapters.memory.broker import MemoryBroker
from notifier.adapters.memory.control import MemoryControl
from notifier.api.app import create_app
from notifier.api.keys import ApiKeys, NewKey, new_key
from notifier.core.control import Act, Order
from notifier.core.errors import Unavailable
from notifier.core.ports import Control
from notifier.telemetry.metrics import Metrics
from tests.support.brokers import shared_ports_of
from tests.support.queues import RecordingQueue

SUPPORT = new_key("support", ["control"])
POSTS = new_key("shop")
READS = new_key("dashboard", ["read"])
BOUND = new_key("acme", ["control"], ["user:acme-*"])
ODD = ["A-z.0_9~:@/+=|$!&", "a/b", "42/disconnect", "user:42", "a//b", "/"]


class Away:
    """Control without its backend."""

    async def give(self, act: Act, user: str) -> Order:
        raise Unavailable("redis", f"no answer to {act} {user}")

    async def orders(self) -> list[Order]:
        return []


class Caller:
    def __init__(self, control: Control, metrics: Metrics, http: httpx.AsyncClient) -> None:
        self._control = control
        self._metrics = metrics
        self._http = http

    async def order(self, act: str, user: str, key: NewKey | None = SUPPORT) -> httpx.Response:
        headers = {"authorization": f"Bearer {key.secret}"} if key else {}
        return await self._http.post(f"/v1/users/{quote(user, safe='')}/{act}", headers=headers)

    async def given(self) -> list[tuple[Act, str]]:
        return [(order.act, order.user) for order in await self._control.orders()]

    def count(self, act: str) -> float:
        found = self._metrics.registry.get_sample_value("notifier_orders_total", {"act": act})
        return found or 0


@asynccontextmanager
async def caller(control: Control | None = None, *, without: bool = False) -> AsyncIterator[Caller]:
    control = control or MemoryControl(MemoryBroker(deduplication_seconds=1, history_size=1))
    shared = replace(shared_ports_of(MemoryBroker()), control=control)
    keys, metrics = ApiKeys([each.entry for each in (SUPPORT, POSTS, READS, BOUND)]), Metrics()
    app = create_app(RecordingQueue(), metrics, keys, shared=None if without else shared)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
        yield Caller(control, metrics, http)


@pytest.mark.parametrize("act", Act)
async def test_an_order_is_taken_and_told_with_its_moment(act: Act) -> None:
    async with caller() as support:
        answer = await support.order(act, "42")

        told = answer.json()
        assert (answer.status_code, told["user"], told["act"]) == (202, "42", act)
        assert told["time"].endswith("Z")
        assert await support.given() == [(act, "42")]
        assert support.count(act) == 1


@pytest.mark.parametrize("user", ODD)
@pytest.mark.parametrize("act", Act)
async def test_an_order_is_about_the_user_of_the_path_with_any_characters(
    act: Act, user: str
) -> None:
    async with caller() as support:
        answer = await support.order(act, user)

        assert (answer.status_code, answer.json()["user"]) == (202, user)
        assert await support.given() == [(act, user)]


@pytest.mark.parametrize("user", ["", "%", "a b", "a,b", "{a}", "*", "é", "u" * 129, "\x00"])
async def test_a_text_that_is_no_users_id_is_refused(user: str) -> None:
    async with caller() as support:
        answer = await support.order("revoke", user)

        assert (answer.status_code, answer.json()["field"]) == (422, "user")
        assert "1 to 128 of the characters" in answer.json()["detail"]
        assert await support.given() == []


async def test_a_slash_that_is_not_encoded_makes_no_other_users_order() -> None:
    async with caller() as support:
        headers = {"authorization": f"Bearer {SUPPORT.secret}"}
        answer = await support._http.post("/v1/users/a/b/revoke", headers=headers)  # noqa: SLF001 - a path that `order` encodes

        assert answer.status_code == 404
        assert await support.given() == []


async def test_an_order_with_a_parameter_is_refused_by_its_name() -> None:
    async with caller() as support:
        headers = {"authorization": f"Bearer {SUPPORT.secret}"}
        answer = await support._http.post("/v1/users/42/revoke?before=1", headers=headers)  # noqa: SLF001 - as above

        assert (answer.status_code, answer.json()["field"]) == (422, "before")
        assert answer.json()["detail"] == "before: is no parameter here; there are none"
        assert await support.given() == []


@pytest.mark.parametrize("key", [POSTS, READS], ids=["post", "read"])
@pytest.mark.parametrize("act", Act)
async def test_a_key_without_the_scope_orders_nothing(act: Act, key: NewKey) -> None:
    async with caller() as other:
        answer = await other.order(act, "42", key)

        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert "not control; add control in NOTIFIER_API_KEYS" in answer.json()["detail"]
        assert await other.given() == []


async def test_a_bound_key_orders_about_its_own_users_alone() -> None:
    async with caller() as acme:
        assert (await acme.order("revoke", "acme-1", BOUND)).status_code == 202
        assert (await acme.order("revoke", "42", BOUND)).status_code == 403

        assert await acme.given() == [(Act.REVOKE, "acme-1")]


@pytest.mark.parametrize("key", [None, NewKey("nk_wrong", "")], ids=["none", "unknown"])
async def test_without_a_known_key_nothing_is_ordered(key: NewKey | None) -> None:
    async with caller() as stranger:
        answer = await stranger.order("disconnect", "42", key)

        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert await stranger.given() == []


@pytest.mark.parametrize("without", [False, True], ids=["away", "not set"])
async def test_without_redis_no_order_is_taken_and_events_are(*, without: bool) -> None:
    async with caller(Away(), without=without) as support:
        answer = await support.order("revoke", "42")

        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["retry-after"]
        assert support.count("revoke") == 0
        headers = {"authorization": f"Bearer {POSTS.secret}"}
        posted = await support._http.post(  # noqa: SLF001 - another route of the same port
            "/v1/events", headers=headers, json={"type": "t", "users": ["42"]}
        )
        assert posted.status_code == 202


async def test_each_order_and_each_refusal_is_a_line_with_the_keys_name_and_never_the_key() -> None:
    async with caller() as support:
        with capture_logs() as lines:
            await support.order("revoke", "42")
            await support.order("revoke", "42", POSTS)
            await support.order("revoke", "42", NewKey("nk_wrong", ""))

    told = [(line["event"], line["key"]) for line in lines]
    assert told == [("ordered", "support"), ("refused", "shop"), ("refused", "")]
    assert (lines[0]["act"], lines[0]["user"], lines[0]["client"]) == ("revoke", "42", "127.0.0.1")
    for key in (SUPPORT, POSTS):
        assert key.secret not in str(lines)
    assert "nk_wrong" not in str(lines)


@pytest.mark.parametrize("path", ["/v1/users/42/delete", "/v1/users"])
async def test_another_path_is_told_the_paths_there_are(path: str) -> None:
    async with caller() as support:
        answer = await support._http.post(path)  # noqa: SLF001 - as above

        assert answer.status_code in (404, 405)
        assert "POST /v1/users/{id}/disconnect" in answer.json()["detail"]
