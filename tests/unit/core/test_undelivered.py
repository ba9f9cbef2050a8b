import json

import pytest

from notifier.core import events
from notifier.core.entries import Entry
from notifier.core.errors import Invalid
from notifier.core.events import Event
from notifier.core.undelivered import DELAYS, WAITED, Reason, Waiting, handed_back, waiting_in

NOW = 1_769_851_800.0


def waiting(seconds: float, *users: str) -> Waiting:
    event = Event(type="t", users=list(users or ("42",)), id="e", undelivered_after=seconds)
    return Waiting(events.completed(event, source="shop", now=NOW), NOW)


@pytest.mark.parametrize(
    ("seconds", "passed", "delay"),
    [
        (60, 0.02, 60),  # an event is some milliseconds old when it begins to wait
        (59, 0, 10),
        (600, 0, 600),
        (86_400, 0, 600),
        (1, 0, 1),
        (60, 59, 1),
        (60, 59.6, 0),
        (60, 70, 0),
    ],
)
def test_an_event_waits_for_the_longest_delay_that_ends_in_time(
    seconds: float, passed: float, delay: int
) -> None:
    assert waiting(seconds).delay(NOW + passed) == delay


@pytest.mark.parametrize("seconds", [1, 1.5, 7, 61, 599, 3_600, 86_399])
def test_its_delays_end_when_its_time_is_over_give_or_take_half_a_second(seconds: float) -> None:
    now, event = NOW, waiting(seconds)
    while delay := event.delay(now):
        now += delay

    assert abs(now - NOW - seconds) <= 0.5


def test_an_entry_of_unknown_age_waits_no_longer() -> None:
    assert waiting(60)._replace(accepted=0.0).delay(NOW) == 0


def test_an_event_comes_out_as_it_waited_for_the_users_who_are_left() -> None:
    before = waiting(60, "1", "2", "3").of(["3"])
    entry = before.entry()

    assert waiting_in(entry) == before
    assert (entry.routing_key, entry.accepted) == ("user.3", NOW)
    assert waiting_in(Entry(entry.body)).accepted == 0.0


@pytest.mark.parametrize(
    ("missing", "given"),
    [("undelivered_after", b'"users":["42"]'), ("users", b'"undelivered_after":60')],
)
def test_an_entry_that_no_router_wrote_is_refused(missing: str, given: bytes) -> None:
    forged = b'{"type":"t","id":"e","source":"s",' + given + b"}"

    with pytest.raises(Invalid, match=f"^{missing}: is missing"):
        waiting_in(Entry(forged, content_type=WAITED))


def test_an_event_goes_back_as_a_cloudevent_with_a_stable_id_for_each_user() -> None:
    event = waiting(60, "1", "2").event

    back = handed_back(event, "1", Reason.OFFLINE)

    told = json.loads(back.event)
    assert (told["specversion"], told["id"], told["source"]) == ("1.0", "e", "shop")
    assert "undelivered_after" not in told
    assert handed_back(event, "1", Reason.EXPIRED).id == back.id
    assert handed_back(event, "2", Reason.OFFLINE).id != back.id
    assert len(back.id) == 32


def test_delays_are_tried_the_longest_first() -> None:
    assert list(DELAYS) == sorted(DELAYS, reverse=True)
