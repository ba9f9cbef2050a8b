from notifier.adapters.redis.confirmed_positions import ConfirmedPositions
from notifier.core.positions import Position


async def test_the_newest_of_compared_positions_is_remembered() -> None:
    confirmed = ConfirmedPositions()
    confirmed.unverified_on("first")
    topics = [f"user:{number}" for number in range(50)]
    confirmed.remember("first", [(topic, Position("e", 5)) for topic in topics])
    confirmed.unverified_on("second")
    confirmed.remember("first", [(topic, Position("e", 6)) for topic in topics])

    confirmed.mark_verified("second", confirmed.unverified_on("second"))

    remembered = confirmed.unverified_on("third")
    assert sorted(remembered) == sorted((topic, Position("e", 6)) for topic in topics)
