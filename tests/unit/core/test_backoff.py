from notifier.core.backoff import Backoff


def test_the_ceiling_doubles_up_to_the_longest_pause() -> None:
    tried = [_pauses(Backoff(1.0, 8.0)) for _ in range(200)]

    for drawn, ceiling in zip(zip(*tried, strict=True), (1, 2, 4, 8, 8, 8), strict=True):
        assert 0.5 <= min(drawn) < 0.5 + ceiling / 4
        assert ceiling * 3 / 4 < max(drawn) <= ceiling


def test_pauses_differ_between_those_that_failed_together() -> None:
    assert len({Backoff(1.0, 5.0).next() for _ in range(20)}) > 1


def test_after_a_success_the_pauses_begin_again() -> None:
    backoff = Backoff(1.0, 5.0)
    _pauses(backoff)

    backoff.reset()

    assert backoff.next() <= 1.0


def _pauses(backoff: Backoff) -> list[float]:
    return [backoff.next() for _ in range(6)]
