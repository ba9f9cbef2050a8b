import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from msgspec import UNSET

from notifier.core.errors import Unavailable
from notifier.core.frames import Start
from notifier.core.history import PAGE, History, Question
from notifier.core.hub import Hub
from notifier.core.positions import Position
from notifier.core.publications import Publication
from notifier.core.round import Arrival
from notifier.core.signals import Kind, Signal
from tests.support.brokers import SteeredBroker
from tests.support.clock import in_virtual_time, pass_time, quiet, take_time
from tests.support.connections import RecordingConnection
from tests.support.observers import RecordingObserver


class Client(RecordingConnection):
    """A connection that follows; where it starts is remembered among what it was sent."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self.refused = False
        self.answers = 0
        self._hub = hub

    def follow(self, *topics: str, **since: str) -> Arrival:
        wanted = dict.fromkeys(topics) | {t: Position.parse(s) for t, s in since.items()}
        return self._hub.subscribe(self, wanted, self._answered)

    def _answered(self, starts: Mapping[str, Start] | None) -> None:
        self.answers += 1
        self.refused = starts is None
        for topic, start in (starts or {}).items():
            answered = "resumed" if start.resumed else "not resumed"
            resumed = "new" if start.resumed is UNSET else answered
            self.sent.append(
                {"type": "start", "topic": topic, "position": start.position, "how": resumed}
            )

    def leave(self, *topics: str) -> None:
        self._hub.unsubscribe(self, topics)

    def story(self, topic: str = "news") -> list[str]:
        """The happenings of this client, in short: `start k.1 new`, `gap k.5 expired`, `k.6`."""
        told = []
        for frame in self.sent:
            if frame["topic"] == topic:
                kind = "" if frame["type"] == "event" else frame["type"]
                why = frame.get("how", frame.get("reason", ""))
                told.append(f"{kind} {frame['position']} {why}".strip())
        return told


class House:
    """A hub at work, its broker, and clients."""

    def __init__(self, **of_broker: int) -> None:
        self.broker = SteeredBroker(**of_broker)
        self.observer = RecordingObserver()
        self.hub = Hub(self.broker, self.observer)

    def client(self) -> Client:
        return Client(self.hub)

    async def follower(self, *topics: str, **since: str) -> Client:
        client = self.client()
        client.follow(*topics, **since)
        await quiet()
        return client

    async def check_all(self) -> None:
        for _ in range(40):
            self.hub.tick()
            await quiet()


@asynccontextmanager
async def house(**of_broker: int) -> AsyncIterator[House]:
    made = House(**of_broker)
    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(made.hub.run(), name="hub")
        yield made
        work.cancel()


# Following from now on.


@in_virtual_time
async def test_a_new_follower_starts_at_the_head() -> None:
    async with house() as it:
        head = it.broker.post_many("news", 3)[-1]

        client = await it.follower("news")

        assert client.story() == [f"start {head} new"]


@in_virtual_time
async def test_a_follower_gets_later_publications_in_order() -> None:
    async with house() as it:
        client = await it.follower("news")

        posted = it.broker.post_many("news", 3)

        assert client.story()[1:] == posted


@in_virtual_time
async def test_a_follower_gets_nothing_of_other_topics() -> None:
    async with house() as it:
        client = await it.follower("news")
        await it.follower("sales")

        it.broker.post("sales")

        assert client.positions("sales") == []


@in_virtual_time
async def test_a_topic_is_followed_from_the_first_follower_until_the_last_one_leaves() -> None:
    async with house() as it:
        first, last = await it.follower("news"), await it.follower("news")

        assert it.hub.is_followed("news")
        assert not it.hub.is_followed("sales")
        first.leave("news")
        assert it.hub.is_followed("news")
        last.leave("news")
        assert not it.hub.is_followed("news")


@in_virtual_time
async def test_topics_asked_for_at_once_are_answered_at_once() -> None:
    async with house() as it:
        client = await it.follower("news", "sales")

        assert client.types == ["start", "start"]
        assert it.broker.follows == [["news", "sales"]]


@in_virtual_time
async def test_history_is_read_only_once_following_is_certain() -> None:
    async with house() as it:
        it.broker.held = True
        it.client().follow("news")
        following = await it.broker.asked()
        await quiet()
        questions_before = list(it.broker.questions)

        following.answer()
        await it.broker.asked()

        assert questions_before == []
        assert len(it.broker.questions) == 1


@in_virtual_time
async def test_an_event_between_question_and_answer_is_delivered_after_the_start() -> None:
    async with house() as it:
        client = it.client()
        it.broker.held = True
        client.follow("news")
        (await it.broker.asked()).answer()
        reading = await it.broker.asked()
        before = it.broker.post("news")
        reading.serve()
        after = it.broker.post("news")

        reading.answer()
        await quiet()

        assert client.story() in ([f"start {before} new", after], [f"start {after} new"])


@in_virtual_time
async def test_hundreds_of_clients_are_answered_in_few_rounds() -> None:
    async with house() as it:
        clients = [it.client() for _ in range(600)]
        for number, client in enumerate(clients):
            client.follow(f"t{number % 300}", "everyone")

        await quiet()

        assert all(client.types == ["start", "start"] for client in clients)
        assert len(it.broker.follows) <= 4


@in_virtual_time
async def test_clients_that_come_one_after_another_share_rounds() -> None:
    async with house() as it:
        clients = [it.client() for _ in range(60)]
        for number, client in enumerate(clients):
            client.follow(f"t{number}")
            await asyncio.sleep(0)

        await quiet()

        assert all(client.types == ["start"] for client in clients)
        assert len(it.broker.follows) <= 3


async def test_nobody_waits_for_a_crowd_to_end() -> None:
    async with house() as it, asyncio.timeout(10):
        crowd = [it.client() for _ in range(3)]
        for client in crowd:  # the last one comes when a round is over, and others gather
            client.follow("news")
            await asyncio.sleep(0)

        while not crowd[-1].answers:
            it.client().follow("news")
            await asyncio.sleep(0)


# Coming back.


@in_virtual_time
async def test_a_client_that_reconnects_gets_missed_events_and_then_live_ones() -> None:
    async with house() as it:
        posted = it.broker.post_many("news", 5)

        client = await it.follower(news=posted[1])
        live = it.broker.post("news")

        assert client.story() == [f"start {posted[1]} resumed", *posted[2:], live]


@in_virtual_time
async def test_a_client_that_missed_nothing_is_resumed_too() -> None:
    async with house() as it:
        [posted] = it.broker.post_many("news", 1)

        client = await it.follower(news=posted)

        assert client.story() == [f"start {posted} resumed"]


@in_virtual_time
async def test_clients_with_different_positions_each_get_their_missed_events() -> None:
    async with house() as it:
        posted = it.broker.post_many("news", 6)
        clients = [it.client() for _ in range(7)]
        for client, since in zip(clients, posted, strict=False):
            client.follow(news=since)
        clients[6].follow("news")

        await quiet()
        live = it.broker.post("news")

        for number, client in enumerate(clients[:6]):
            assert client.story()[1:] == [*posted[number + 1 :], live]
        assert clients[6].story() == [f"start {posted[-1]} new", live]


@in_virtual_time
async def test_a_client_that_joins_late_disturbs_no_other() -> None:
    async with house() as it:
        posted = it.broker.post_many("news", 3)
        early = await it.follower("news")

        late = await it.follower(news=posted[0])
        live = it.broker.post("news")

        assert early.story() == [f"start {posted[-1]} new", live]
        assert late.story()[1:] == [*posted[1:], live]


@in_virtual_time
async def test_live_publications_wait_until_the_missed_ones_are_replayed() -> None:
    async with house() as it:
        posted = it.broker.post_many("news", 3)
        other, client = await it.follower("news"), it.client()
        it.broker.held = True
        client.follow(news=posted[0])
        reading = await it.broker.asked()
        reading.serve()
        live = it.broker.post_many("news", 2)
        seen_by_other = other.story()[1:]

        reading.answer()
        await quiet()

        assert seen_by_other == live
        assert client.story()[1:] == [*posted[1:], *live]


@in_virtual_time
async def test_more_than_a_page_is_replayed_page_by_page() -> None:
    async with house(history_size=1000) as it:
        first, *missed = it.broker.post_many("news", 2 * PAGE + 50)

        client = await it.follower(news=first)
        live = it.broker.post("news")

        assert client.story() == [f"start {first} resumed", *missed, live]


@in_virtual_time
async def test_a_client_without_room_goes_on_once_it_has_some() -> None:
    async with house() as it:
        posted = it.broker.post_many("news", 5)
        client = it.client()
        client.has_room = False
        client.follow(news=posted[0])
        await quiet()
        before, attempts = client.story()[1:], it.broker.attempts
        await it.check_all()
        asked = it.broker.attempts - attempts

        client.has_room = True
        it.hub.resume_replays(client, ["news", "other"])
        await quiet()

        assert before == []
        assert asked <= 40  # the checks, and no busy rounds
        assert client.story()[1:] == posted[1:]


@in_virtual_time
async def test_an_event_between_pages_is_delivered_once() -> None:
    async with house(history_size=1000, page=3) as it:
        first, *missed = it.broker.post_many("news", 8)
        client = it.client()
        it.broker.held = True
        client.follow(news=first)
        (await it.broker.asked()).answer()
        while client.positions("news") != [*missed][: len(missed)]:
            reading = await it.broker.asked()
            if len(missed) < 12:
                missed.append(it.broker.post("news"))
            reading.answer()
            await quiet()

        assert client.story()[1:] == missed


@in_virtual_time
async def test_history_trimmed_between_two_pages_is_a_gap() -> None:
    async with house(history_size=1000, page=3) as it:
        first, *_, last = it.broker.post_many("news", 12)
        client = it.client()
        it.broker.held = True
        client.follow(news=first)
        (await it.broker.asked()).answer()
        (await it.broker.asked()).answer()
        reading = await it.broker.asked()
        it.broker.trim("news", 2)

        reading.answer()
        it.broker.release()
        await quiet()
        live = it.broker.post("news")

        assert client.story()[4:] == [f"gap {last} expired", live]


@in_virtual_time
async def test_a_stream_restarted_between_two_pages_is_a_gap() -> None:
    async with house(history_size=1000, page=3) as it:
        first, *_ = it.broker.post_many("news", 12)
        client = it.client()
        it.broker.held = True
        client.follow(news=first)
        (await it.broker.asked()).answer()
        (await it.broker.asked()).answer()
        reading = await it.broker.asked()
        it.broker.stream("news").restart()

        reading.answer()
        it.broker.release()
        await quiet()
        live = it.broker.post("news")

        assert [each for each in client.story()[4:] if each.endswith("restarted")] != []
        assert client.story()[-1] == live


# Gaps.


@in_virtual_time
async def test_a_client_that_reconnects_after_history_was_trimmed_gets_a_gap() -> None:
    async with house() as it:
        posted = it.broker.post_many("news", 5)
        it.broker.trim("news", 2)

        client = await it.follower(news=posted[1])
        live = it.broker.post("news")

        head = posted[-1]
        assert client.story() == [f"start {posted[1]} not resumed", f"gap {head} expired", live]
        assert ("gap", "expired", 1) in it.observer.told


@in_virtual_time
async def test_a_client_that_reconnects_just_within_history_is_resumed() -> None:
    async with house() as it:
        posted = it.broker.post_many("news", 5)
        it.broker.trim("news", 2)

        client = await it.follower(news=posted[2])

        assert client.story() == [f"start {posted[2]} resumed", *posted[3:]]


@in_virtual_time
async def test_a_client_that_reconnects_to_another_epoch_gets_a_gap() -> None:
    async with house() as it:
        posted = it.broker.post_many("news", 5)
        it.broker.stream("news").restart()

        client = await it.follower(news=posted[1])

        head = it.broker.head("news")
        assert client.story() == [f"start {posted[1]} not resumed", f"gap {head} restarted"]


@in_virtual_time
async def test_a_client_that_has_seen_more_than_history_knows_gets_a_gap() -> None:
    async with house() as it:
        posted = it.broker.post_many("news", 5)
        it.broker.rewind("news", 2)

        client = await it.follower(news=posted[-1])

        head = posted[2]
        assert client.story() == [f"start {posted[-1]} not resumed", f"gap {head} lost"]


@in_virtual_time
async def test_followers_are_told_of_a_gap_when_the_stream_begins_anew() -> None:
    async with house() as it:
        client = await it.follower("news")
        it.broker.stream("news").restart()

        live = it.broker.post("news")
        await quiet()

        assert client.story()[1:] == [f"gap {live} restarted"]


@in_virtual_time
async def test_followers_get_a_gap_when_history_lost_events_they_saw() -> None:
    async with house() as it:
        client = await it.follower("news")
        posted = it.broker.post_many("news", 3)
        it.broker.rewind("news", 2)

        it.broker.interrupt(["news"])
        await quiet()
        live = it.broker.post("news")

        anew = Position.parse(live)._replace(offset=1)
        assert client.story()[1:] == [*posted, f"gap {anew} restarted", live]


@in_virtual_time
async def test_a_client_that_had_not_seen_the_lost_events_gets_a_gap_too() -> None:
    async with house() as it:
        await it.follower("news")
        first, *_ = it.broker.post_many("news", 3)
        it.broker.rewind("news", 2)
        it.broker.interrupt(["news"])
        await quiet()

        late = await it.follower(news=first)

        assert late.story() == [
            f"start {first} not resumed",
            f"gap {it.broker.head('news')} restarted",
        ]


@in_virtual_time
async def test_followers_notice_nothing_when_the_stream_goes_on_under_another_epoch() -> None:
    async with house() as it:
        client = await it.follower("news")
        before = it.broker.post_many("news", 2)

        it.broker.stream("news").go_on()
        after = it.broker.post_many("news", 2)
        await quiet()

        assert client.story()[1:] == [*before, *after]


# Holes.


@in_virtual_time
async def test_a_hole_is_filled_from_history() -> None:
    async with house() as it:
        client = await it.follower("news")
        posted = [it.broker.post("news"), it.broker.post_unheard("news"), it.broker.post("news")]

        await quiet()

        assert client.story()[1:] == posted
        assert it.observer.told.count(("hole",)) == 1


@in_virtual_time
async def test_a_hole_that_history_does_not_hold_is_a_gap() -> None:
    async with house() as it:
        client = await it.follower("news")
        it.broker.post_unheard("news")
        it.broker.trim("news", 0)
        last = it.broker.post("news")

        await quiet()
        live = it.broker.post("news")

        assert client.story()[1:] == [f"gap {last} expired", live]


@in_virtual_time
async def test_an_event_waits_while_a_hole_before_it_is_being_filled() -> None:
    async with house() as it:
        client = await it.follower("news")
        it.broker.held = True
        posted = [it.broker.post_unheard("news"), it.broker.post("news")]
        reading = await it.broker.asked()
        reading.serve()
        posted.append(it.broker.post("news"))

        reading.answer()
        await quiet()

        assert client.story()[1:] == posted


@in_virtual_time
async def test_a_second_hole_while_the_first_is_being_filled_is_filled_too() -> None:
    async with house() as it:
        client = await it.follower("news")
        it.broker.held = True
        posted = [it.broker.post_unheard("news"), it.broker.post("news")]
        reading = await it.broker.asked()
        reading.serve()
        posted += [it.broker.post_unheard("news"), it.broker.post("news")]

        reading.answer()
        await quiet()
        it.broker.release()
        await quiet()

        assert client.story()[1:] == posted


@in_virtual_time
async def test_a_duplicate_is_delivered_once() -> None:
    async with house() as it:
        client = await it.follower("news")
        posted = it.broker.post_many("news", 2)

        for publication in it.broker.stream("news").log:
            it.hub.on_publication(publication)

        assert client.story()[1:] == posted
        assert ("hole",) not in it.observer.told


@in_virtual_time
async def test_a_straggler_of_an_older_epoch_is_dropped() -> None:
    async with house() as it:
        client = await it.follower("news")
        it.broker.post("news")
        [straggler] = it.broker.stream("news").log
        it.broker.stream("news").restart()
        it.broker.interrupt(["news"])
        await quiet()
        told = client.story()

        it.hub.on_publication(straggler)
        await quiet()
        live = it.broker.post("news")

        assert client.story() == [*told, live]


@in_virtual_time
async def test_events_lost_before_an_interruption_are_read_from_history() -> None:
    async with house() as it:
        client = await it.follower("news")
        posted = [it.broker.post_unheard("news") for _ in range(3)]

        it.broker.interrupt(["news"])
        await quiet()

        assert client.story()[1:] == posted


# Following from history's beginning.


@in_virtual_time
async def test_a_client_can_begin_with_the_newest_of_each_collapse_key() -> None:
    async with house(page=2) as it:
        it.broker.post("news", collapse_key="eur")
        usd = it.broker.post("news", collapse_key="usd")
        it.broker.post("news", expires=1)
        eur = it.broker.post("news", collapse_key="eur")
        client = await it.follower(news="start")

        live = it.broker.post("news")

    assert client.story()[1:] == [usd, eur, live]
    assert client.story()[0].endswith(".0 resumed")


@in_virtual_time
async def test_a_beginning_that_history_no_longer_has_is_no_gap() -> None:
    async with house(history_size=2) as it:
        follower = await it.follower("news")
        posted = it.broker.post_many("news", 5)

        client = await it.follower(news="start")

    assert client.story() == [f"start {posted[2]} resumed", *posted[3:]]
    assert follower.story()[1:] == posted


@in_virtual_time
async def test_the_beginning_of_a_topic_that_holds_nothing_is_its_head() -> None:
    async with house() as it:
        it.broker.post_many("news", 2)
        it.broker.trim("news", 0)

        client = await it.follower(news="start")
        live = it.broker.post("news")

    assert client.story() == [f"start {live[:-1]}2 resumed", live]


# Signals.


def typing(topic: str = "news") -> Signal:
    return Signal(topic, Kind.FRAME, "typing", b'{"type":"typing","topic":"%s"}' % topic.encode())


@in_virtual_time
async def test_a_signal_reaches_the_followers_of_its_topic_alone() -> None:
    async with house() as it:
        clients = [await it.follower(topic) for topic in ("news", "news", "sales")]

        await it.broker.signal([typing()])

        assert [len(client.of_type("typing")) for client in clients] == [1, 1, 0]


@in_virtual_time
async def test_a_client_that_does_not_keep_up_misses_a_signal_and_no_event() -> None:
    async with house() as it:
        client = await it.follower("news")
        client.has_room = False

        await it.broker.signal([typing()])
        posted = it.broker.post("news")
        client.has_room = True

        assert client.of_type("typing") == []
        assert client.positions("news") == [posted]


@in_virtual_time
async def test_a_signal_reaches_a_client_whose_replay_goes_on() -> None:
    async with house() as it:
        begin = it.broker.head("news")
        it.broker.post_many("news", 3)
        client = it.client()
        client.has_room = False
        client.follow(news=begin)
        await quiet()
        client.has_room = True

        await it.broker.signal([typing()])

        assert client.types == ["start", "typing"]


@in_virtual_time
async def test_a_signal_before_the_start_of_a_topic_is_not_told() -> None:
    async with house() as it:
        await it.follower("news")
        it.broker.held = True
        client = it.client()
        client.follow("news")
        await quiet()

        it.hub.on_signal(typing())
        it.broker.release()
        await quiet()

        assert client.types == ["start"]


@in_virtual_time
async def test_an_order_reaches_its_handler_and_no_client() -> None:
    async with house() as it:
        client = await it.follower("user:42")
        obeyed: list[Signal] = []
        it.hub.on_order("disconnect", obeyed.append)
        order = Signal("user:42", Kind.ORDER, "disconnect", b"now")

        await it.broker.signal([order, order._replace(name="newer"), order._replace(topic="news")])

        assert obeyed == [order]
        assert client.types == ["start"]


# Interruptions.


@in_virtual_time
async def test_an_interruption_of_topics_that_nobody_follows_asks_nothing() -> None:
    async with house() as it:
        it.hub.on_interruption(["news"])

        await quiet()

        assert it.broker.questions == []


@in_virtual_time
async def test_a_check_finds_publications_lost_without_an_interruption() -> None:
    async with house() as it:
        client = await it.follower("news")
        posted = it.broker.post_unheard("news")

        await it.check_all()

        assert client.story()[1:] == [posted]


@in_virtual_time
async def test_every_feed_has_its_turn_within_forty_ticks() -> None:
    async with house() as it:
        topics = [f"t{number}" for number in range(100)]
        await it.follower(*topics)
        it.broker.questions.clear()

        await it.check_all()

        assert {question.topic for question in it.broker.questions} == set(topics)
        assert len(it.broker.questions) <= 2 * len(topics)


# Leaving.


@in_virtual_time
async def test_a_client_that_left_gets_nothing_more_and_others_do() -> None:
    async with house() as it:
        leaving, staying = await it.follower("news"), await it.follower("news")

        leaving.leave("news")
        live = it.broker.post("news")

        assert (leaving.story()[1:], staying.story()[1:]) == ([], [live])


@in_virtual_time
async def test_a_client_that_leaves_while_waiting_gets_nothing() -> None:
    async with house() as it:
        posted = it.broker.post_many("news", 3)
        client = it.client()
        it.broker.held = True
        arrival = client.follow(news=posted[0])
        (await it.broker.asked()).answer()
        reading = await it.broker.asked()

        arrival.gone = True
        client.leave("news")
        reading.answer()
        await quiet()
        it.broker.post("news")

        assert (client.answers, client.sent) == (0, [])


@in_virtual_time
async def test_a_client_that_leaves_before_anything_was_asked_costs_nothing() -> None:
    async with house() as it:
        client = it.client()
        client.follow("news").gone = True
        client.leave("news")

        await quiet()

        assert (it.broker.follows, client.sent) == ([], [])


@in_virtual_time
async def test_a_topic_withdrawn_while_waiting_is_left_out_of_the_answer() -> None:
    async with house() as it:
        client = it.client()
        it.broker.held = True
        arrival = client.follow("news", "sales")
        (await it.broker.asked()).answer()
        reading = await it.broker.asked()

        arrival.withdraw("news")
        client.leave("news")
        reading.answer()
        await quiet()
        it.broker.post("news")
        live = it.broker.post("sales")

        assert (client.story("news"), client.story("sales")[1:]) == ([], [live])


@in_virtual_time
async def test_a_topic_that_nobody_follows_is_unfollowed_after_a_while() -> None:
    async with house() as it:
        client = await it.follower("news")
        client.leave("news")

        it.hub.tick()
        await quiet()
        soon = set(it.broker.followed)
        for _ in range(10):
            it.hub.tick()
        await quiet()

        assert (soon, it.broker.followed) == ({"news"}, set())
        assert it.hub.position("news") is None


@in_virtual_time
async def test_a_topic_followed_again_in_the_meantime_stays_followed() -> None:
    async with house() as it:
        first = await it.follower("news")
        first.leave("news")
        it.hub.tick()

        second = await it.follower("news")
        for _ in range(10):
            it.hub.tick()
            await quiet()
        live = it.broker.post("news")

        assert second.story()[1:] == [live]
        assert it.broker.follows == [["news"]]


@in_virtual_time
async def test_a_forgotten_topic_can_be_followed_again() -> None:
    async with house() as it:
        first = await it.follower("news")
        first.leave("news")
        for _ in range(10):
            it.hub.tick()
            await quiet()
        missed = it.broker.post("news")

        second = await it.follower("news")
        live = it.broker.post("news")

        assert second.story() == [f"start {missed} new", live]


@in_virtual_time
async def test_a_topic_forgotten_and_followed_again_at_once_is_followed() -> None:
    async with house() as it:
        first = await it.follower("news")
        first.leave("news")
        for _ in range(10):
            it.hub.tick()

        second = await it.follower("news")
        live = it.broker.post("news")

        assert second.story()[1:] == [live]


@in_virtual_time
async def test_a_topic_followed_again_while_others_are_being_unfollowed_stays_followed() -> None:
    async with house() as it:
        first = await it.follower("news", "sales")
        it.broker.held = True
        first.leave("news")
        for _ in range(10):
            it.hub.tick()
        unfollowing = await it.broker.asked()
        first.leave("sales")
        for _ in range(10):
            it.hub.tick()
        second = it.client()
        second.follow("sales")

        unfollowing.answer()
        it.broker.release()
        await quiet()
        live = it.broker.post("sales")

        assert second.story("sales")[1:] == [live]


@in_virtual_time
async def test_a_topic_forgotten_while_it_is_being_checked_can_be_followed_again() -> None:
    async with house() as it:
        first = await it.follower("news")
        it.broker.held = True
        it.broker.interrupt(["news"])
        reading = await it.broker.asked()
        first.leave("news")
        for _ in range(10):
            it.hub.tick()
        second = it.client()
        second.follow("news")

        reading.answer()
        it.broker.release()
        await quiet()
        live = it.broker.post("news")

        assert second.story()[1:] == [live]
        assert first.story()[1:] == []


# A broker that is away.


@in_virtual_time
async def test_a_client_that_connects_while_the_broker_is_away_is_answered_once_it_is_back() -> (
    None
):
    async with house() as it:
        it.broker.away = True
        client = await it.follower("news")
        await pass_time(5)
        before = list(client.sent)

        it.broker.away = False
        await pass_time(2)
        live = it.broker.post("news")

        assert before == []
        assert client.story()[1:] == [live]


@in_virtual_time
async def test_a_client_that_joined_once_is_served_once_after_any_number_of_failed_rounds() -> None:
    async with house() as it:
        posted = it.broker.post_many("news", 3)
        it.broker.away = True
        client = await it.follower(news=posted[0])
        await pass_time(5)
        it.broker.away = False
        await pass_time(2)

        live = it.broker.post("news")

        assert client.story() == [f"start {posted[0]} resumed", *posted[1:], live]


@in_virtual_time
async def test_a_client_that_waited_too_long_is_refused_and_gets_nothing_later() -> None:
    async with house() as it:
        it.broker.away = True
        client = await it.follower("news")

        await pass_time(12)
        it.broker.away = False
        await pass_time(2)
        it.broker.post("news")

        assert client.refused
        assert client.sent == []


@in_virtual_time
async def test_a_client_that_left_while_waiting_is_not_even_refused() -> None:
    async with house() as it:
        it.broker.away = True
        client = it.client()
        arrival = client.follow("news")
        await quiet()
        arrival.gone = True
        client.leave("news")

        await pass_time(12)

        assert client.answers == 0


@in_virtual_time
async def test_followers_get_missed_events_once_the_broker_is_back() -> None:
    async with house() as it:
        client = await it.follower("news")
        it.broker.away = True
        it.broker.interrupt(["news"])
        posted = [it.broker.post_unheard("news") for _ in range(3)]
        await pass_time(30)

        it.broker.away = False
        await pass_time(2)
        live = it.broker.post("news")

        assert client.story()[1:] == [*posted, live]


@in_virtual_time
async def test_a_round_that_fails_between_following_and_reading_is_made_good() -> None:
    async with house() as it:
        posted = it.broker.post_many("news", 2)
        client = it.client()
        it.broker.held = True
        client.follow(news=posted[0])
        (await it.broker.asked()).answer()
        (await it.broker.asked()).fail()
        posted.append(it.broker.post("news"))

        it.broker.held = False
        await pass_time(2)
        live = it.broker.post("news")

        assert client.story()[1:] == [*posted[1:], live]
        assert it.broker.follows == [["news"]]


@in_virtual_time
async def test_an_unavailable_broker_is_asked_ever_more_rarely() -> None:
    async with house() as it:
        await it.follower("news")
        it.broker.away = True
        it.broker.interrupt(["news"])
        it.broker.questions.clear()

        await pass_time(30)

        assert 25 < len(it.broker.questions) < 120


@in_virtual_time
async def test_an_error_that_is_no_unavailability_ends_the_hub() -> None:
    ended = ""
    try:
        async with house() as it:
            it.broker.listen(it.hub)
            it.broker.held = True
            it.client().follow("news")
            (await it.broker.asked()).done.set_exception(ZeroDivisionError())
            await quiet()
    except* ZeroDivisionError:
        ended = "with its error"

    assert ended == "with its error"


@in_virtual_time
async def test_more_unsettled_feeds_than_a_round_takes_all_have_their_turn() -> None:
    async with house() as it:
        topics = [f"t{number}" for number in range(600)]
        clients = [await it.follower(topic) for topic in topics]
        posted = [it.broker.post_unheard(topic) for topic in topics]

        it.broker.interrupt(topics)
        await quiet()

        found = [c.positions(t) for c, t in zip(clients, topics, strict=True)]
        assert found == [[position] for position in posted]


class _Weak(SteeredBroker):
    """Answers only what is not too much at once."""

    async def read(self, questions: Sequence[Question]) -> list[History]:
        if len(questions) > 10:
            raise Unavailable("redis", "too much at once")
        return await super().read(questions)


@in_virtual_time
async def test_topics_too_many_for_one_round_are_asked_in_smaller_ones() -> None:
    broker = _Weak()
    hub = Hub(broker, RecordingObserver())
    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(hub.run(), name="hub")
        clients = [Client(hub) for _ in range(64)]
        for number, client in enumerate(clients):
            client.follow(f"user:{number}")

        await pass_time(8)

        assert [client.answers for client in clients] == [1] * 64
        assert not any(client.refused for client in clients)
        work.cancel()


class _Busy(Client):
    """A client for whom each frame takes five milliseconds, in which nothing else happens."""

    def write(self, data: bytes, publication: Publication | None = None) -> None:
        take_time(0.005)
        super().write(data, publication)


class _Counting(SteeredBroker):
    """Remembers how many questions it was asked at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def read(self, questions: Sequence[Question]) -> list[History]:
        self.sizes.append(len(questions))
        return await super().read(questions)


@in_virtual_time
async def test_a_client_that_missed_much_is_served_in_rounds_that_leave_time_for_others() -> None:
    broker = _Counting()
    hub = Hub(broker, RecordingObserver())
    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(hub.run(), name="hub")
        topics = [f"user:{number}" for number in range(300)]
        posted = {topic: broker.post_many(topic, 5) for topic in topics}
        clients = {topic: _Busy(hub) for topic in topics}
        for topic, client in clients.items():
            client.follow(**{topic: posted[topic][0]})

        await pass_time(20)

        # The first round cannot know; from then on one or two clients are enough for a turn.
        assert broker.sizes[0] > 100
        assert max(broker.sizes[1:]) <= 2
        assert all(clients[topic].positions(topic) == posted[topic][1:] for topic in topics)
        work.cancel()


@in_virtual_time
async def test_nobody_gets_anything_before_the_answer_when_rounds_become_smaller() -> None:
    async with house() as it:
        posted = it.broker.post_many("news", 3)
        it.broker.away = True
        clients = [it.client() for _ in range(4)]
        for client in clients:
            client.follow(news=posted[0])
        await pass_time(6)  # until a round takes one only

        it.broker.away = False
        await pass_time(2)

        for client in clients:
            assert client.story() == [f"start {posted[0]} resumed", *posted[1:]]


@in_virtual_time
async def test_the_connections_of_a_topic_are_those_that_follow_it_or_have_asked_to() -> None:
    async with house() as it:
        following = [await it.follower("user:42") for _ in range(2)]
        await it.follower("news")
        it.broker.held = True
        joining, asking = it.client(), it.client()
        joining.follow("user:42")
        await quiet()
        asking.follow("user:42")

        assert it.hub.connections("user:42") == {*following, joining, asking}
        assert it.hub.connections("sales") == set()
        it.broker.release()
