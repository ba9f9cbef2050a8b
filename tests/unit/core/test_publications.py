import json

import pytest
from hypothesis import given

from notifier.core.dates import iso
from notifier.core.events import Event, completed, decode
from notifier.core.publications import Publication, key_of, record_of
from tests.support.events import EVENTS


def event(**members: object) -> Event:
    body = json.dumps({"type": "t", "users": ["1"], "id": "1", "source": "a", **members})
    return completed(decode(body.encode()), source="s", now=1000.0)


def published(of: Event) -> Publication:
    return Publication("news", "k", 3, record_of(of, 1000.25))


@given(EVENTS)
def test_a_record_is_read_as_it_was_written(of: Event) -> None:
    complete = completed(of, source="s", now=1000.0)

    publication = published(complete)

    assert publication.accepted == 1_000_250
    assert publication.collapse_key.decode() == (complete.collapse_key or "")
    assert json.loads(publication.event)["id"] == complete.id


@pytest.mark.parametrize(
    ("said", "expires"),
    [
        ("2030-01-01T00:00:00Z", 1_893_456_000_000),
        ("1970-01-01T00:00:00Z", 1),
        ("0001-01-01T00:00:00+23:59", 1),
        ("9999-12-31T23:59:59-12:00", 253_402_300_799_999),
    ],
)
def test_a_moment_that_utc_has_no_date_for_is_the_last_or_first_that_it_has(
    said: str, expires: int
) -> None:
    publication = published(event(expires=said))

    assert publication.expires == expires
    assert iso(publication.expires / 1000)


@given(EVENTS)
def test_an_event_is_silent_as_its_producer_said(of: Event) -> None:
    publication = published(completed(of, source="s", now=1000.0))

    assert publication.silent is (of.silent is True)
    assert json.loads(publication.event).get("silent", False) is publication.silent


@pytest.mark.parametrize(
    ("more", "ack"),
    [
        ({}, False),
        ({"report": False}, False),
        ({"undelivered_after": 60}, True),
        ({"report": True}, True),
    ],
    ids=str,
)
def test_clients_are_to_acknowledge_an_event_that_its_producer_waits_for(
    more: dict[str, object],
    ack: bool,  # noqa: FBT001
) -> None:
    publication = published(event(**more))

    assert (publication.ack, publication.accepted) == (ack, 1_000_250)
    assert not {"undelivered_after", "report"} & json.loads(publication.event).keys()


def test_data_cannot_make_an_event_silent() -> None:
    assert not published(event(data={"silent": True}, type='","silent":true,"')).silent


@given(EVENTS)
def test_an_event_stands_on_one_line(of: Event) -> None:
    publication = published(completed(of, source="s", now=1000.0))

    assert b"\n" not in publication.event
    assert b"\r" not in publication.event


def test_a_collapse_key_cannot_end_the_records_head() -> None:
    publication = published(event(collapse_key="a:b:c"))

    assert publication.collapse_key == b"a:b:c"
    assert publication.event.startswith(b"{")


def test_events_without_expiry_never_expire() -> None:
    assert not published(event()).expired(2**62)


def test_an_event_expires_at_its_moment() -> None:
    publication = published(event(expires="2026-01-01T00:00:00.500Z"))

    assert not publication.expired(1_767_225_600_499)
    assert publication.expired(1_767_225_600_500)


@pytest.mark.parametrize("moment", ["1960-01-01T00:00:00Z", "1970-01-01T00:00:00Z"])
def test_a_moment_long_past_is_expired_too(moment: str) -> None:
    assert published(event(expires=moment)).expired(1)


def test_the_same_source_and_id_have_the_same_key() -> None:
    assert key_of(event(data=1)) == key_of(event(data=2))


@pytest.mark.parametrize(("source", "id_"), [("b", "1"), ("a", "2"), ("a", "a 1")])
def test_another_source_or_id_has_another_key(source: str, id_: str) -> None:
    assert key_of(event(source=source, id=id_)) != key_of(event())


def test_a_key_has_32_hexadecimal_digits() -> None:
    assert len(bytes.fromhex(key_of(event()))) == 16
