from weakref import ref

from notifier.core.deadlines import Deadlines, Timed


class Alarm:
    """Remembers when it was called; `again` are the moments that it asks for."""

    def __init__(self, *again: float) -> None:
        self.due: set[Timed] | None = None
        self.called: list[float] = []
        self._again = list(again)

    def on_time(self, now: float) -> float:
        self.called.append(now)
        return self._again.pop(0) if self._again else 0.0


def ticked(deadlines: Deadlines, first: int, last: int) -> None:
    for now in range(first, last + 1):
        deadlines.tick(now)


def test_an_object_that_is_due_is_called_in_that_second() -> None:
    deadlines, alarm = Deadlines(100), Alarm()
    deadlines.set(alarm, 103)

    ticked(deadlines, 101, 110)

    assert alarm.called == [103]


def test_a_moment_within_a_second_is_rounded_up() -> None:
    deadlines, alarm = Deadlines(100.7), Alarm()
    deadlines.set(alarm, 102.1)

    ticked(deadlines, 101, 110)

    assert alarm.called == [103]


def test_a_moment_in_the_past_is_served_with_the_next_tick() -> None:
    deadlines, alarm = Deadlines(100), Alarm()
    deadlines.set(alarm, 3)

    deadlines.tick(101)

    assert alarm.called == [101]


def test_another_moment_replaces_the_first_whether_later_or_sooner() -> None:
    deadlines, later, sooner = Deadlines(100), Alarm(), Alarm()
    deadlines.set(later, 103)
    deadlines.set(later, 106)
    deadlines.set(sooner, 106)
    deadlines.set(sooner, 103)

    ticked(deadlines, 101, 110)

    assert (later.called, sooner.called) == ([106], [103])


def test_the_same_moment_set_twice_is_served_once() -> None:
    deadlines, alarm = Deadlines(100), Alarm(105)
    deadlines.set(alarm, 103)
    deadlines.set(alarm, 103)

    ticked(deadlines, 101, 104)

    assert alarm.called == [103]


def test_an_object_that_asks_for_another_moment_is_called_again() -> None:
    deadlines, alarm = Deadlines(100), Alarm(105, 106)
    deadlines.set(alarm, 102)

    ticked(deadlines, 101, 110)

    assert alarm.called == [102, 105, 106]


def test_an_object_that_asks_for_a_moment_that_has_passed_is_called_with_the_next_tick() -> None:
    deadlines, alarm = Deadlines(100), Alarm(1)
    deadlines.set(alarm, 102)

    ticked(deadlines, 101, 110)

    assert alarm.called == [102, 103]


def test_a_cleared_object_is_not_called() -> None:
    deadlines, alarm = Deadlines(100), Alarm()
    deadlines.set(alarm, 102)
    deadlines.clear(alarm)

    ticked(deadlines, 101, 110)

    assert alarm.called == []


def test_a_cleared_object_is_held_no_longer() -> None:
    deadlines, alarm = Deadlines(100), Alarm()
    deadlines.set(alarm, 103)
    deadlines.set(alarm, 102)
    deadlines.clear(alarm)

    held = ref(alarm)
    del alarm

    assert held() is None


def test_an_object_cleared_when_another_is_served_is_not_called() -> None:
    class Ending(Alarm):
        def on_time(self, now: float) -> float:
            for each in alarms:
                deadlines.clear(each)
            return super().on_time(now)

    deadlines, alarms = Deadlines(100), [Ending(), Ending()]
    for alarm in alarms:
        deadlines.set(alarm, 102)

    ticked(deadlines, 101, 110)

    assert sum(len(alarm.called) for alarm in alarms) == 1


def test_a_late_tick_catches_up() -> None:
    deadlines, first, second = Deadlines(100), Alarm(), Alarm()
    deadlines.set(first, 102)
    deadlines.set(second, 160)

    deadlines.tick(170.5)

    assert (first.called, second.called) == ([170.5], [170.5])
