import pytest

from notifier.core.access import Identity
from notifier.core.control import Moments, Revocations

HOUR = 3600


def identity(issued: int, user: str = "42") -> Identity:
    return Identity(user, 2e9, (), issued)


@pytest.mark.parametrize(
    ("issued", "refused"),
    [(0, True), (999, True), (1000, True), (1001, False)],
    ids=["without iat", "before", "in the same second", "after"],
)
def test_a_token_issued_until_the_second_of_the_revocation_is_refused(
    issued: int,
    *,
    refused: bool,
) -> None:
    revocations = Revocations(HOUR)
    revocations.take("42", 1000.4)

    assert revocations.refuse(identity(issued)) is refused


def test_a_revocation_is_of_one_user() -> None:
    revocations = Revocations(HOUR)
    revocations.take("42", 1000)

    assert not revocations.refuse(identity(0, "43"))


def test_only_a_newer_moment_counts() -> None:
    moments = Moments(HOUR)

    taken = [moments.take("42", moment) for moment in (1000, 1000, 999, 1001)]

    assert taken == [True, False, False, True]
    assert moments.of("42") == 1001


def test_moments_are_forgotten_after_their_lifetime() -> None:
    moments = Moments(HOUR)
    moments.take("a", 1000)
    moments.take("b", 1001)
    moments.take("a", 1002)

    moments.take("c", 1002 + HOUR)

    assert [moments.of(user) for user in "abc"] == [1002, None, 1002 + HOUR]
