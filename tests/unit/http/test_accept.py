import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.http.accept import prefers


@pytest.mark.parametrize(
    "accept",
    [
        "text/event-stream",
        "Text/Event-Stream;q=1",
        "text/event-stream;q=0.001",
        "text/event-stream; Q=.5",
        "text/event-stream;charset=utf-8",
        "text/event-stream, */*",
        "text/event-stream, */*;q=0.1",
        "application/json, text/event-stream",
        "application/problem+json;q=0.5, text/event-stream;q=0.6",
        "text/*",
        "text/*, */*",
        "text/*;q=0, text/event-stream",
        "*/*;q=0, text/event-stream;q=0.5",
        "*/*, application/*;q=0",
        "text/event-stream;q=0, text/event-stream;q=1",
        'application/x;a=",text/event-stream;q=0", text/event-stream',
        ", text/event-stream,",
    ],
)
def test_a_client_prefers_the_media_type_that_weighs_most_or_that_it_names(accept: str) -> None:
    assert prefers([accept], "text/event-stream", "application/problem+json")


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "*/*;q=0.5, application/*",
        "application/json",
        "text/event-stream;q=0",
        "text/event-stream;q=0.000",
        "text/event-stream ; q = 0",
        'text/event-stream;q="0"',
        "text/event-stream;charset=utf-8;q=0",
        "text/event-stream;q=0, */*",
        "text/event-stream;q=0, text/*",
        "text/event-stream;q=high",
        "text/event-stream;q=-1",
        "text/event-stream;q=1e3",
        "text/event-stream;q=",
        "text/event-stream;q=.",
        "text/event-stream;q=0.5, application/problem+json",
        "text/event-stream, application/problem+json",
        "text/event-stream;q=0.5, */*",
        "text/event-streams",
        "x-text/event-stream",
        "text/*;q=0",
        "text/html, text/event-stream-like",
        'application/x;a="text/event-stream"',
        'application/x;a=", text/event-stream, "',
        "application/x;text/event-stream",
    ],
)
def test_a_client_that_does_not_want_a_media_type_does_not_prefer_it(accept: str) -> None:
    assert not prefers([accept], "text/event-stream", "application/problem+json")


def test_the_lines_of_the_header_are_one_list() -> None:
    assert prefers(["text/html", "text/event-stream"], "text/event-stream", "text/plain")
    assert not prefers([], "text/event-stream", "text/html")


@given(st.text(alphabet='*/;=,q01.9 "\\text', max_size=60))
def test_any_text_prefers_at_most_one_of_two(accept: str) -> None:
    assert not (prefers([accept], "text/text", "q/t") and prefers([accept], "q/t", "text/text"))
