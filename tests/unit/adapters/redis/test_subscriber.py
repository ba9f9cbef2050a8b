import weakref

from notifier.adapters.redis.subscriber import Subscriber
from notifier.telemetry.metrics import Metrics


def subscriber() -> Subscriber:
    """One that is not connected."""
    return Subscriber("redis://127.0.0.1:1", Metrics(), ping=5, silence=15)


async def test_a_confirmation_comes_once_no_topic_of_it_is_missing() -> None:
    following = subscriber()
    both, one = following.subscribe({"a", "b"}), following.subscribe({"b"})
    assert both is not None
    assert one is not None

    following.unsubscribe({"b"})  # which nobody will confirm any more

    assert one.came.done()
    assert not both.came.done()
    following.unsubscribe({"a"})
    assert both.came.done()


async def test_confirmations_that_nobody_waits_for_do_not_gather_while_redis_is_away() -> None:
    following = subscriber()
    confirmation = following.subscribe({"a"})
    assert confirmation is not None
    given_up = weakref.ref(confirmation.came)

    confirmation.came.cancel()
    del confirmation
    following.subscribe({"a"})

    assert given_up() is None
