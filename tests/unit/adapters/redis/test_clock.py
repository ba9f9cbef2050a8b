from time import monotonic, time

import pytest
from structlog.testing import capture_logs

from notifier.adapters.redis import clock as redis_clock
from notifier.adapters.redis.clock import RedisClock
from notifier.telemetry.metrics import Metrics

HOUR = 3600.0


def deviation(metrics: Metrics) -> float:
    value = metrics.registry.get_sample_value("notifier_clock_deviation_seconds")
    assert value is not None
    return value


def test_before_redis_has_answered_it_is_this_machines_clock() -> None:
    assert RedisClock(Metrics()).now() == pytest.approx(time(), abs=1)


def test_it_is_redis_clock_not_this_machines() -> None:
    metrics = Metrics()
    clock = RedisClock(metrics)

    clock.learn(time() - HOUR, monotonic())

    assert clock.now() == pytest.approx(time() - HOUR, abs=1)
    assert deviation(metrics) == pytest.approx(HOUR, abs=1)


def test_it_does_not_jump_with_this_machines_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = RedisClock(Metrics()), time()
    clock.learn(told, monotonic())

    monkeypatch.setattr(redis_clock, "time", lambda: told + HOUR)

    assert clock.now() == pytest.approx(told, abs=1)


def test_it_follows_redis_clock_when_that_is_set() -> None:
    clock = RedisClock(Metrics())
    clock.learn(time(), monotonic())

    clock.learn(time() + HOUR, monotonic())

    assert clock.now() == pytest.approx(time() + HOUR, abs=1)


def test_an_answer_that_took_long_is_of_its_middle() -> None:
    clock = RedisClock(Metrics())

    clock.learn(1000.0, monotonic() - 2)

    assert clock.now() == pytest.approx(1001, abs=0.5)


def test_clocks_that_come_apart_or_agree_again_are_logged_once() -> None:
    clock = RedisClock(Metrics())
    with capture_logs() as logs:
        for ahead in (0, 60, 61, 60, 0, 0):
            clock.learn(time() + ahead, monotonic())

    told = [(line["log_level"], line["event"]) for line in logs]
    assert told == [("warning", "clock_deviates"), ("info", "clock_agrees")]
    assert logs[0]["seconds_ahead_of_redis"] == pytest.approx(-60, abs=1)
