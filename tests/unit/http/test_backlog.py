from collections.abc import Iterable

import pytest

from notifier.http.backlog import Backlog


class Slow:
    """Fulfils Debtor, and remembers what became of it."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.fate = "open"

    def cut_off(self) -> None:
        self.fate = "cut off"

    def drop(self) -> None:
        self.fate = "dropped"


def fates(debtors: Iterable[Slow]) -> list[str]:
    return [each.fate for each in debtors]


def noted(backlog: Backlog, *sizes: int) -> list[Slow]:
    """Note clients for whom so much waits."""
    debtors = [Slow(size) for size in sizes]
    for each in debtors:
        backlog.note(each)
    return debtors


def test_up_to_the_bound_everyone_stays() -> None:
    backlog = Backlog(800)

    assert fates(noted(backlog, 100, 500, 200)) == ["open", "open", "open"]
    assert backlog.total == 800


def test_past_the_bound_the_largest_are_cut_off_until_there_is_room_again() -> None:
    backlog = Backlog(800)

    assert fates(noted(backlog, 100, 500, 200, 50)) == ["open", "cut off", "open", "open"]


def test_a_client_is_counted_with_the_bytes_that_wait_now() -> None:
    backlog = Backlog(800)
    one, two = noted(backlog, 300, 300)
    one.waiting, two.waiting = 600, 50
    backlog.note(one)

    assert fates([one, two]) == ["open", "open"]


@pytest.mark.parametrize("again", [1, 2])
def test_a_client_that_keeps_up_again_counts_no_more(again: int) -> None:
    backlog = Backlog(800)
    [gone] = noted(backlog, 700)
    for _ in range(again):
        backlog.forget(gone)

    assert fates(noted(backlog, 700)) == ["open"]
    assert backlog.total == 700


def test_clients_that_are_being_closed_are_bounded_too() -> None:
    backlog = Backlog(800)

    first = noted(backlog, 500, 500)
    second = noted(backlog, 500)

    assert sorted(fates([*first, *second])) == ["dropped", "dropped", "open"]
    assert backlog.total == 500


def test_at_no_time_does_more_than_twice_the_bound_wait() -> None:
    backlog = Backlog(800)
    waiting: list[Slow] = []
    for number in range(200):
        waiting += noted(backlog, 40 + number % 90)

        held = sum(each.waiting for each in waiting if each.fate != "dropped")
        assert held == backlog.total <= 1600
