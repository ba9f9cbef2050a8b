from notifier.core.backoff import Backoff


def test_each_pause_is_up_to_twice_the_one_before_and_within_the_bound() -> None:
    backoff = Backoff(1.0, 5.0)

    pauses = [backoff.next() for _ in range(5)]

    for pause, most in zip(pauses, (1.0, 2.0, 4.0, 5.0, 5.0), strict=True):
        assert most / 2 <= pause <= most


def test_pauses_differ_between_those_that_failed_together() -> None:
    assert len({Backoff(1.0, 5.0).next() for _ in range(20)}) > 1


def test_after_a_success_the_pauses_begin_again() -> None:
    backoff = Backoff(1.0, 5.0)
    for _ in range(5):
        backoff.next()

    backoff.reset()

    assert backoff.next() <= 1.0
