from collections.abc import Sequence
from typing import TYPE_CHECKING

from notifier.core.feed import Feed
from notifier.core.frames import Start
from notifier.core.history import History, Question, Since
from notifier.core.positions import Position
from notifier.core.round import Arrival, Entered
from tests.support.brokers import SteeredBroker
from tests.support.connections import RecordingConnection
from tests.support.observers import RecordingObserver


async def test_an_arrival_is_answered_before_its_client_gets_the_events_it_missed() -> None:
    broker, connection = SteeredBroker(), RecordingConnection()
    feed = Feed("news", RecordingObserver())
    since = Position.parse(broker.post("news"))
    sent_before_the_answer: list[int] = []

    def answer(starts: dict[str, Start] | None) -> None:
        assert starts is not None
        assert starts["news"].resumed
        sent_before_the_answer.append(len(connection.sent))

    arrival = Arrival(connection, {"news": since}, answer, 0.0)
    feed.join(arrival.joins[0])
    missed = broker.post("news")

    (await Entered([arrival], [feed]).ask(broker)).serve()

    assert sent_before_the_answer == [0]
    assert connection.positions("news") == [missed]


async def test_a_round_subscribes_to_a_topic_once_and_before_it_asks_history() -> None:
    class Subscribing(SteeredBroker):
        async def read(self, questions: Sequence[Question]) -> list[History]:
            subscribed.append(set(self.followed))
            self.followed.clear()
            return await super().read(questions)

    feed, broker = Feed("news", RecordingObserver()), Subscribing()
    subscribed: list[set[str]] = []

    await Entered([], [feed]).ask(broker)
    await Entered([], [feed]).ask(broker)

    assert subscribed == [{"news"}, set()]


if TYPE_CHECKING:  # mypy refuses a round in the wrong order: an ignore that is not needed fails

    def not_asked(entered: Entered) -> None:
        entered.serve()  # type: ignore[attr-defined]

    def no_question_of_this_feed(feed: Feed, question: Since, history: History) -> None:
        feed.settle(question, history)  # type: ignore[arg-type]

    def not_settled(feed: Feed, history: History) -> None:
        feed.admit(history)  # type: ignore[arg-type]
