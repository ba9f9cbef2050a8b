import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from notifier.core.errors import Invalid, TooLarge
from notifier.core.frames import (
    LARGEST_FRAME,
    Authenticate,
    Ping,
    Subscribe,
    Unsubscribe,
    decode,
    event_frame,
    listed_frame,
    request_id_in,
)
from notifier.core.publications import Publication
from tests.support.brokers import record
from tests.support.events import TOPICS


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        (b'{"type":"subscribe","topic":"n","id":7,"since":"k.1"}', Subscribe("n", 7, "k.1")),
        (b'{"type":"subscribe","topic":"n"}', Subscribe("n")),
        (b'{"type":"unsubscribe","topic":"n","id":"a"}', Unsubscribe("n", "a")),
        (b'{"type":"auth","token":"t"}', Authenticate("t")),
        (b'{"type":"ping","unknown":[1]}', Ping()),
    ],
)
def test_a_clients_frame_is_read(text: bytes, frame: object) -> None:
    assert decode(text) == frame


@given(st.binary(max_size=100) | st.text(max_size=100).map(str.encode))
def test_any_text_of_a_client_is_a_frame_or_invalid(text: bytes) -> None:
    with pytest.raises(Invalid):
        decode(text)


def test_a_frame_is_bounded() -> None:
    with pytest.raises(TooLarge):
        decode(b" " * (LARGEST_FRAME + 1))


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(Authenticate("secret"))


@pytest.mark.parametrize(
    ("text", "id_"),
    [
        (b'{"id":7}', 7),
        (b'{"id":"a"}', "a"),
        (b'{"id":null}', UNSET),
        (b'{"id":-1}', UNSET),
        (b'{"id":1.5}', UNSET),
        (b"{", UNSET),
        (b"\xff", UNSET),
        (b"[" * 20_000, UNSET),
        (b'{"id":7,"more":' + b"[" * 2_900 + b"]" * 2_900 + b"}", UNSET),
    ],
)
def test_the_id_of_a_bad_frame_is_found_where_there_is_one(text: bytes, id_: object) -> None:
    assert request_id_in(text) == id_


@given(TOPICS)
def test_an_event_frame_is_json_for_every_topic(topic: str) -> None:
    publication = Publication(topic, "k3x9q2", 18, record("e1"))

    assert json.loads(event_frame(publication)) == {
        "type": "event",
        "topic": topic,
        "position": "k3x9q2.18",
        "event": {"id": "e1"},
    }


def test_the_frame_of_an_event_says_that_its_producer_waits_for_a_mark() -> None:
    publication = Publication("user:42", "k3x9q2", 18, b"+" + record("e1"))

    assert json.loads(event_frame(publication))["ack"] is True
    assert json.loads(listed_frame(publication, read=False))["ack"] is True


@pytest.mark.parametrize("depth", [256, 2_900])
def test_a_frame_nested_too_deeply_is_refused(depth: int) -> None:
    with pytest.raises(Invalid, match="nested too deeply"):
        decode(b'{"type":"ping","more":' + b"[" * depth + b"]" * depth + b"}")
