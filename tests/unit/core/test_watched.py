from datetime import UTC, datetime

import msgspec
import pytest

from notifier.core import events
from notifier.core.entries import Entry
from notifier.core.errors import Invalid
from notifier.core.events import Event
from notifier.core.fate import Fate
from notifier.core.reports import Report
from notifier.core.watched import SECONDS, WATCHED, Watched, watched_in

NOW = 1_769_851_800.0
UNREACHED = [each for each in Fate if not each.reached]
GONE = (Fate.BEYOND_HISTORY, Fate.NOT_PUBLISHED)


def watched(*users: str, received: tuple[str, ...] = (), ttl: float | None = None) -> Watched:
    event = Event(type="t", users=list(users or ("42",)), id="e", report=True)
    if ttl:
        event = msgspec.structs.replace(event, ttl=ttl)
    return Watched(events.completed(event, source="shop", now=NOW), NOW, frozenset(received))


@pytest.mark.parametrize(
    ("age", "delay"),
    [
        (0, 1),
        (0.2, 1),
        (9.9, 1),
        (10, 10),
        (59, 10),
        (60, 60),
        (599, 60),
        (600, 600),
        (80_000, 600),
    ],
)
def test_an_event_waits_for_at_most_as_long_as_it_is_old(age: float, delay: int) -> None:
    assert watched().delay(NOW + age) == delay


def test_an_event_comes_out_as_it_waited() -> None:
    before = watched("1", "2", received=("2",), ttl=60)
    entry = before.entry()

    assert (entry.content_type, entry.accepted) == (WATCHED, NOW)
    assert watched_in(entry) == before


FORGED = (
    b'{"event":{"type":"t","id":"e","source":"s","users":["42"]},"received":[]}',
    b'{"event":{"type":"t","id":"e","source":"s","report":true},"received":[]}',
)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"event":{},"received":[]}', b'{"event":1}', *FORGED]
)
def test_an_entry_that_no_router_wrote_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid):
        watched_in(Entry(body, content_type=WATCHED))


@pytest.mark.parametrize("ttl", [None, 60, 3 * SECONDS])
def test_an_event_is_watched_for_a_day_or_as_long_as_it_lives(ttl: float | None) -> None:
    end = NOW + max(SECONDS, ttl or 0)

    assert not watched(ttl=ttl).is_over(end - 1)
    assert watched(ttl=ttl).is_over(end)


def test_an_event_is_watched_for_thirty_days_at_most() -> None:
    end_of_time = datetime(9999, 12, 31, tzinfo=UTC)
    event = msgspec.structs.replace(watched().event, expires=end_of_time)
    of = watched()._replace(event=event)

    assert not of.is_over(NOW + 30 * SECONDS - 1)
    assert of.is_over(NOW + 30 * SECONDS)


def test_an_entry_of_unknown_age_is_watched_no_longer() -> None:
    assert watched()._replace(accepted=0.0).is_over(NOW)


@pytest.mark.parametrize("fate", UNREACHED)
def test_an_event_that_no_mark_reached_expires_with_its_time(fate: Fate) -> None:
    of = watched(ttl=60)
    before = {"42": Fate.BEYOND_HISTORY if fate in GONE else fate}

    assert of.judged({"42": fate}, NOW + 59) == before
    assert of.judged({"42": fate}, NOW + 60) == {"42": Fate.EXPIRED}
    assert watched().judged({"42": fate}, NOW + SECONDS) == before


@pytest.mark.parametrize("fate", [Fate.READ, Fate.RECEIVED])
def test_an_event_that_is_received_does_not_expire(fate: Fate) -> None:
    assert watched(ttl=60).judged({"42": fate}, NOW + 60) == {"42": fate}


@pytest.mark.parametrize("fate", UNREACHED)
def test_a_receipt_that_was_reported_stands_though_redis_lost_its_mark(fate: Fate) -> None:
    later = {"42": Fate.BEYOND_HISTORY if fate in GONE else Fate.RECEIVED}

    assert watched(received=("42",), ttl=60).judged({"42": fate}, NOW + 60) == later


@pytest.mark.parametrize(
    ("fate", "reports", "later", "is_left"),
    [
        (Fate.READ, [Report.RECEIVED, Report.READ], [Report.READ], False),
        (Fate.RECEIVED, [Report.RECEIVED], [], True),
        (Fate.EXPIRED, [Report.EXPIRED], [Report.EXPIRED], False),
        (Fate.PUBLISHED, [], [], True),
        (Fate.SUPERSEDED, [Report.SUPERSEDED], [Report.SUPERSEDED], False),
        (Fate.BEYOND_HISTORY, [Report.BEYOND_HISTORY], [Report.BEYOND_HISTORY], False),
    ],
)
def test_each_fate_has_its_reports(
    fate: Fate, reports: list[Report], later: list[Report], *, is_left: bool
) -> None:
    fates = {"42": fate}

    assert watched().due(fates) == [("42", each) for each in reports]
    assert watched(received=("42",)).due(fates) == [("42", each) for each in later]
    assert (watched().after(fates) is not None) is is_left


def test_users_of_whom_all_is_reported_are_dropped() -> None:
    fates = {"1": Fate.READ, "2": Fate.RECEIVED, "3": Fate.PUBLISHED}

    assert watched("1", "2", "3").after(fates) == watched("2", "3", received=("2",))
