"""A crowd: each follower gets each publication once and in order, a part of them in each turn."""

import asyncio
from collections.abc import Sequence

import pytest

from notifier.core import crowd
from notifier.core.crowd import MOST_WAVES, Crowd
from notifier.core.publications import Publication
from tests.support.connections import RecordingConnection
from tests.support.observers import RecordingObserver


class Follower(RecordingConnection):
    """Notes the offsets that it got."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets: list[int] = []

    def write(self, data: bytes, publication: Publication | None = None) -> None:
        """See Connection."""
        del data
        if publication is not None:
            self.offsets.append(publication.position.offset)


class House:
    """A crowd of followers, and the publications that it was given."""

    def __init__(self, followers: int) -> None:
        self.observer = RecordingObserver()
        self.crowd = Crowd(self.observer, lambda: 1.0)
        self.followers = [Follower() for _ in range(followers)]
        self._given = 0
        for follower in self.followers:
            self.crowd.add(follower)

    def publish(self, number: int = 1) -> None:
        for _ in range(number):
            self._given += 1
            self.crowd.write(Publication("news", "e", self._given, b"0:0:\n{}"))

    def got(self) -> list[Sequence[int]]:
        return [follower.offsets for follower in self.followers]


@pytest.fixture(autouse=True)
def _two_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "TURN", 2)


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_small_crowd_is_written_to_at_once() -> None:
    house = House(2)

    house.publish(2)

    assert house.got() == [[1, 2], [1, 2]]


async def test_a_large_crowd_is_written_to_a_part_in_each_turn_and_others_come_in_between() -> None:
    house = House(5)
    seen: list[list[Sequence[int]]] = []

    house.publish()
    seen.append([list(each) for each in house.got()])
    await turns(1)
    seen.append([list(each) for each in house.got()])
    await turns(1)

    assert seen == [[[1], [1], [], [], []], [[1], [1], [1], [1], []]]
    assert house.got() == [[1]] * 5


async def test_publications_that_come_meanwhile_wait_and_keep_their_order() -> None:
    house = House(5)

    house.publish(3)
    await turns(10)

    assert house.got() == [[1, 2, 3]] * 5


async def test_a_follower_that_left_gets_nothing_more_of_the_waves_under_way() -> None:
    house = House(5)

    house.publish(2)
    house.crowd.drop(house.followers[4])
    house.crowd.drop(house.followers[0])
    await turns(10)

    assert house.got() == [[1], [1, 2], [1, 2], [1, 2], []]


async def test_one_that_comes_back_gets_the_publications_from_then_on() -> None:
    house = House(5)

    house.publish(1)
    house.crowd.drop(house.followers[4])
    house.crowd.add(house.followers[4])
    house.publish(1)
    await turns(10)

    assert house.got() == [[1, 2], [1, 2], [1, 2], [1, 2], [2]]


async def test_a_crowd_that_has_shrunk_gets_its_publications_behind_those_under_way() -> None:
    house = House(5)

    house.publish(1)
    for follower in house.followers[:4]:
        house.crowd.drop(follower)
    house.publish(1)
    await turns(10)

    assert house.got()[4] == [1, 2]


async def test_a_publication_for_a_crowd_that_has_left_meanwhile_holds_up_nothing() -> None:
    house, newcomer = House(5), Follower()

    house.publish(1)
    for follower in house.followers:
        house.crowd.drop(follower)
    house.publish(1)
    house.crowd.add(newcomer)
    house.publish(1)
    await turns(10)

    assert newcomer.offsets == [3]


async def test_a_newcomer_gets_nothing_of_the_waves_under_way() -> None:
    house, newcomer = House(5), Follower()

    house.publish(1)
    house.crowd.add(newcomer)
    house.publish(1)
    await turns(10)

    assert newcomer.offsets == [2]


async def test_at_most_so_many_waves_wait() -> None:
    house = House(5)

    house.publish(MOST_WAVES + 1)

    assert house.got() == [[1]] * 5
    await turns(100)
    assert house.got() == [list(range(1, MOST_WAVES + 2))] * 5


async def test_all_that_is_under_way_is_written_before_what_must_not_overtake_it() -> None:
    house = House(5)

    house.publish(2)
    house.crowd.finish()

    assert house.got() == [[1, 2]] * 5
    house.publish(1)
    await turns(10)
    assert house.got() == [[1, 2, 3]] * 5


async def test_a_publication_is_counted_once_when_it_has_reached_all() -> None:
    house = House(5)

    house.publish()
    before = list(house.observer.told)
    await turns(3)

    assert (before, house.observer.told) == ([], [("fanned_out", 5)])
