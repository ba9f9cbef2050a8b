import httpx
import pytest

from tests.support.gateways import House, served
from tests.support.streams import Frame, ids


async def listed(http: httpx.AsyncClient, **query: str) -> Frame:
    answer = await http.get("/v1/history", params={"order": "newest", **query})
    assert answer.status_code == 200, answer.text
    body: Frame = answer.json()
    return body


async def pages(http: httpx.AsyncClient, **query: str) -> list[list[str]]:
    """The ids on each page, from the newest on."""
    found: list[list[str]] = []
    before: dict[str, str] = {}
    while True:
        body = await listed(http, **query, **before)
        found.append(ids(body["frames"]))
        if not body["more"]:
            return found
        before = {"before": body["before"]}


def post(it: House, number: int, **of: int | str) -> None:
    for each in range(number):
        it.broker.post("user:42", str(each), **of)  # type: ignore[arg-type]  # as given


async def test_the_newest_come_first_and_a_person_scrolls_back_by_page() -> None:
    async with served() as it, it.http() as http:
        post(it, 5)

        assert await pages(http, limit="2") == [["4", "3"], ["2", "1"], ["0"]]
        assert await pages(http, limit="5") == [["4", "3", "2", "1", "0"]]


async def test_a_page_has_twenty_events_unless_told_otherwise() -> None:
    async with served() as it, it.http() as http:
        post(it, 21)

        body = await listed(http)

    assert (len(body["frames"]), body["more"]) == (20, True)
    assert body["before"] == body["frames"][-1]["position"]


async def test_expired_and_superseded_events_are_left_out_and_promise_no_further_page() -> None:
    async with served(history_size=600) as it, it.http() as http:
        post(it, 1, collapse_key="a")
        post(it, 300, expires=1)
        it.broker.post("user:42", "newest", collapse_key="a")
        it.broker.post("user:42", "last")

        assert await pages(http, limit="2") == [["last", "newest"]]
        assert await pages(http, limit="1") == [["last"], ["newest"]]


async def test_an_event_behind_hundreds_that_have_expired_is_found() -> None:
    async with served(history_size=600) as it, it.http() as http:
        it.broker.post("user:42", "old")
        post(it, 500, expires=1)
        it.broker.post("user:42", "new")

        assert await pages(http, limit="1") == [["new"], ["old"]]


async def test_an_empty_list_is_a_list() -> None:
    async with served() as it, it.http() as http:
        assert await listed(http) == {"frames": [], "before": None, "more": False}


async def test_another_topic_is_listed_if_the_token_allows_it() -> None:
    async with served() as it, it.http() as http:
        it.broker.post("news", "n")

        body = await listed(http, topics="news")
        refused = await http.get("/v1/history", params={"order": "newest", "topics": "user:43"})

    assert ids(body["frames"]) == ["n"]
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


async def test_a_page_is_bounded_in_bytes_and_the_next_one_goes_on() -> None:
    async with served() as it, it.http() as http:
        for number in range(60):
            it.broker.post("user:42", f"{number}-" + "x" * 50_000)

        found = await pages(http, limit="256")

    assert [each.partition("-")[0] for page in found for each in page] == [
        str(number) for number in reversed(range(60))
    ]
    assert [20 <= len(page) <= 22 for page in found] == [True, True, False]


async def test_a_list_goes_on_when_its_epoch_was_continued() -> None:
    async with served() as it, it.http() as http:
        post(it, 4)
        first = await listed(http, limit="2")
        it.broker.stream("user:42").go_on()

        second = await listed(http, limit="2", before=first["before"])

    assert ids(second["frames"]) == ["1", "0"]


async def test_a_list_of_another_stream_is_told_a_gap() -> None:
    async with served() as it, it.http() as http:
        post(it, 4)
        first = await listed(http, limit="2")
        it.broker.stream("user:42").restart()
        it.broker.post("user:42", "other")

        body = await listed(http, before=first["before"])
        beyond = await listed(http, before=it.broker.head("user:42")[:-1] + "9")

    assert [frame["reason"] for frame in body["frames"] + beyond["frames"]] == ["restarted", "lost"]
    assert (body["before"], body["more"]) == (None, False)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"order": "latest"}, "order"),
        ({"order": "newest", "before": "user:42@k.1"}, "before"),
        ({"order": "newest", "since": "user:42@k.1"}, "since"),
        ({"order": "newest", "topics": "news,everyone"}, "topics"),
        ({"order": "newest", "limit": "257"}, "limit"),
        ({"before": "k.1"}, "before"),
    ],
)
async def test_a_parameter_that_does_not_fit_is_refused_by_name(
    query: dict[str, str], field: str
) -> None:
    async with served() as it, it.http() as http:
        answer = await http.get("/v1/history", params=query)

    assert (answer.status_code, answer.json()["field"]) == (400, field)
