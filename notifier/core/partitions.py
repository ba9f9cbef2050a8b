"""Which router takes from which partition. Pure: routers that know the same come to the same."""

from collections.abc import Collection, Mapping
from hashlib import blake2b
from itertools import product
from typing import NamedTuple


class Share(NamedTuple):
    """The router that takes from a partition, and the one that takes over; None for none."""

    owner: str
    heir: str | None


def shared_out(partitions: Collection[str], routers: Collection[str]) -> Mapping[str, Share]:
    """Share partitions out between routers, of which there is at least one.

    No router owns more than one partition more than another. By rendezvous hashing: each
    partition goes to the router with the highest hash of both names that has not had its fill, so
    few partitions move when a router comes or goes, and to nobody else where the numbers allow.
    """
    owners = _owners(partitions, routers)
    without = {gone: _owners(partitions, {*routers} - {gone}) for gone in set(owners.values())}
    return {name: Share(owner, without[owner].get(name)) for name, owner in owners.items()}


def _owners(partitions: Collection[str], routers: Collection[str]) -> dict[str, str]:
    if not routers:
        return {}
    fill, remainder = divmod(len(partitions), len(routers))
    owners: dict[str, str] = {}
    owned = dict.fromkeys(routers, 0)
    for partition, router in sorted(product(partitions, routers), key=_weight, reverse=True):
        has_room = owned[router] < fill or (owned[router] == fill and remainder > 0)
        if partition not in owners and has_room:
            remainder -= owned[router] == fill
            owned[router] += 1
            owners[partition] = router
    return owners


def _weight(pair: tuple[str, str]) -> bytes:
    return blake2b(" ".join(pair).encode(), digest_size=8).digest()
