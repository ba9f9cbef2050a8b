from notifier.client.backoff import Backoff, seconds_in


def test_the_ceiling_doubles_up_to_the_longest_and_begins_again_after_a_success() -> None:
    backoff = Backoff(1, 8, shortest=0.5)

    tried = [[backoff.next() for _ in range(6)] for _ in range(200) if backoff.reset() is None]  # type: ignore[func-returns-value]

    for drawn, ceiling in zip(zip(*tried, strict=True), (1, 2, 4, 8, 8, 8), strict=True):
        assert 0.5 <= min(drawn) < 0.5 + ceiling / 4  # full jitter: from the shortest on
        assert ceiling * 3 / 4 < max(drawn) <= ceiling


def test_only_seconds_are_read_from_retry_after() -> None:
    read = [seconds_in(each) for each in (None, "", "7", "Wed, 21 Oct 2026 07:28:00 GMT", "-1")]

    assert read == [0, 0, 7, 0, 0]
