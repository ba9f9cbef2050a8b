from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from notifier.core.rate_limit import RateLimit, RateLimits

PACE = RateLimit(rate=4, burst=2)


def taken(pace: RateLimit, moments: list[float]) -> list[float]:
    """The moments, in their order, at which one more was not too much."""
    until, those = 0.0, []
    for now in moments:
        if (after := pace.paid(until, now)) is not None:
            until = after
            those.append(now)
    return those


def test_a_burst_is_taken_at_once_and_no_more() -> None:
    assert len(taken(PACE, [10.0] * 20)) == 8


def test_after_a_burst_the_rate_limit_holds() -> None:
    assert taken(PACE, [10.0] * 8 + [10.25, 10.25, 10.5]) == [10.0] * 8 + [10.25, 10.5]


def test_after_a_rest_there_is_a_whole_burst_again_and_never_more() -> None:
    assert len(taken(PACE, [10.0] * 8 + [1000.0] * 20)) == 16


def test_a_refusal_by_the_rate_limit_costs_nothing() -> None:
    refused = [10.0 + n / 1000 for n in range(200)]

    assert taken(PACE, [10.0] * 8 + refused + [10.25])[-1] == 10.25


def test_something_large_counts_as_much_as_it_is() -> None:
    until = PACE.paid(0.0, 10.0, 7)

    assert until is not None
    assert PACE.paid(until, 10.0, 2) is None
    assert PACE.paid(until, 10.0, 1) is not None


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=100))
def test_in_no_time_is_more_taken_than_burst_and_rate_allow(pauses: list[float]) -> None:
    moments = [1.0]
    for pause in pauses:
        moments.append(moments[-1] + pause)

    those = taken(PACE, moments)

    assert all(one <= other for one, other in pairwise(those))
    for first in range(len(those)):
        for last in range(first, len(those)):
            most = PACE.rate * (PACE.burst + those[last] - those[first])
            assert last - first + 1 <= most + 1e-6


def test_each_name_has_a_pace_of_its_own() -> None:
    paces = RateLimits(PACE)

    assert [paces.allow("ann", 10.0) for _ in range(10)] == [True] * 8 + [False] * 2
    assert paces.allow("bob", 10.0)
    assert [paces.allow("ann", 10.25) for _ in range(2)] == [True, False]
    assert not paces.allow("cat", 10.0, 9)


def test_names_at_rest_are_forgotten() -> None:
    paces = RateLimits(PACE)
    for number in range(1_000):
        paces.allow(f"user{number}", 10.0)
    for moment in (12.0, 14.0):
        paces.allow("ann", moment)

    assert list(paces._paid) == ["ann"]  # noqa: SLF001  # leaks cannot be seen otherwise
