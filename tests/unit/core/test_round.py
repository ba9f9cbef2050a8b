from typing import TYPE_CHECKING

import pytest

from notifier.core.feed import Feed
from notifier.core.ports import Broker, History, Since
from notifier.core.round import Answered, Current, Entered, Subscribed, Welcomed


@pytest.mark.parametrize(
    ("step", "goes_on_by"),
    [
        (Entered, "subscribe"),
        (Subscribed, "ask"),
        (Answered, "settle"),
        (Current, "answer"),
        (Welcomed, "admit"),
    ],
)
def test_each_step_of_a_round_goes_on_in_one_way(step: type[object], goes_on_by: str) -> None:
    ways = [name for name, each in vars(step).items() if callable(each) and name[0] != "_"]

    assert ways == [goes_on_by]


if TYPE_CHECKING:  # mypy refuses a round in the wrong order: an ignore that is not needed fails

    def unsubscribed(entered: Entered, broker: Broker) -> None:
        entered.ask(broker)  # type: ignore[attr-defined]

    def admitted_before_the_answer(current: Current) -> None:
        current.admit()  # type: ignore[attr-defined]

    def not_asked(feed: Feed, question: Since, history: History) -> None:
        feed.settle(question, history)  # type: ignore[arg-type]

    def not_settled(feed: Feed, history: History) -> None:
        feed.admit(history)  # type: ignore[arg-type]
