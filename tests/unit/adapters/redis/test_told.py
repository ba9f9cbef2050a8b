from notifier.adapters.redis.broker import _Told
from notifier.core.positions import Position


async def test_of_what_was_compared_the_newest_is_remembered() -> None:
    told = _Told()
    told.unknown_to("first")
    topics = [f"user:{number}" for number in range(50)]
    told.note("first", [(topic, Position("e", 5)) for topic in topics])
    told.unknown_to("second")
    told.note("first", [(topic, Position("e", 6)) for topic in topics])

    told.settle("second", told.unknown_to("second"))

    remembered = told.unknown_to("third")
    assert sorted(remembered) == sorted((topic, Position("e", 6)) for topic in topics)
