from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from notifier.core.partitions import shared_out

ROUTERS = st.sets(st.text("abcdef0123456789", min_size=4, max_size=16), min_size=1, max_size=8)
PARTITIONS = st.integers(0, 24).map(lambda number: [f"notifier.events.{n}" for n in range(number)])


@given(PARTITIONS, ROUTERS)
def test_each_partition_has_an_owner_and_none_owns_two_more_than_another(
    partitions: list[str], routers: set[str]
) -> None:
    shares = shared_out(partitions, routers)

    owned = Counter(dict.fromkeys(routers, 0))
    owned.update(share.owner for share in shares.values())
    assert shares.keys() == set(partitions)
    assert owned.keys() == routers
    assert max(owned.values()) - min(owned.values()) <= 1


@given(PARTITIONS, ROUTERS, st.randoms())
def test_the_order_in_which_routers_are_known_does_not_matter(
    partitions: list[str], routers: set[str], random: Random
) -> None:
    shuffled = sorted(routers)
    random.shuffle(shuffled)

    assert shared_out(partitions, shuffled) == shared_out(partitions, routers)


@given(PARTITIONS, ROUTERS)
def test_the_heir_is_the_router_that_owns_it_once_the_owner_is_gone(
    partitions: list[str], routers: set[str]
) -> None:
    shares = shared_out(partitions, routers)

    for name, (owner, heir) in shares.items():
        if others := routers - {owner}:
            assert shared_out(partitions, others)[name].owner == heir
        else:
            assert heir is None


def test_few_partitions_move_when_a_router_goes() -> None:
    partitions = [f"notifier.events.{number}" for number in range(12)]
    moved = needed = 0
    for number in range(100):
        routers = {f"router {number}.{each}" for each in range(4)}
        before = shared_out(partitions, routers)
        gone = min(routers)
        after = shared_out(partitions, routers - {gone})

        moved += sum(before[name].owner != after[name].owner for name in partitions)
        needed += sum(before[name].owner == gone for name in partitions)

    # Without a hash of both names, by the partition's number say, eight or nine of twelve would.
    assert needed == 300
    assert moved < 1.4 * needed
