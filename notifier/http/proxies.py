"""The address of a client behind proxies, as far as these are trusted."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.requests import HTTPConnection
from starlette.types import Scope

from notifier.core.header_lists import elements, parameters, values_of
from notifier.http.port import HANDOVER, Header

_MOST_HOPS = 16  # that are looked at, from the right
_Address = IPv4Address | IPv6Address

# RFC 7239, section 6, where brackets stand around IPv6 only; X-Forwarded-For is written so too.
_NODE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d{1,5})?|([0-9.]+)(?::\d{1,5})?|([0-9A-Fa-f:.]+)")


class Proxies:
    """The networks of proxies that are believed when they tell where a request came from.

    Raises ValueError for a text that is no network, such as 10.0.0.0/8 or fd00::/8.
    """

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = tuple(ip_network(each, strict=False) for each in networks)

    def client(self, peer: str, headers: Sequence[Header]) -> str:
        """Return the nearest address that is no trusted proxy's; `peer` is the connection's own.

        Each proxy appends the address that it sees, so the addresses are read from the right, and
        what stands left of one that is not trusted is not believed. Where both headers are there
        and differ, a client wrote one of them: neither is believed.
        """
        address = _address(peer)
        if address is None:
            return peer
        found = {self._nearest(address, hops) for hops in _told(headers)}
        return str(found.pop() if len(found) == 1 else address)

    def _nearest(self, address: _Address, hops: list[str]) -> _Address:
        while hops and self._trusts(address):
            told = _address(hops.pop())
            if told is None:
                break  # `unknown`, a name, or rubbish
            address = told
        return address

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def client_of(request: HTTPConnection) -> str:
    """Return where a request came from, by the `proxies` that its application trusts.

    Called only where a header has it: see `address_of`.
    """
    proxies: Proxies = request.app.state.proxies
    return proxies.client(_peer_of(request.scope), request.scope["headers"])


def _peer_of(scope: Scope) -> str:
    handover = scope.get("extensions", {}).get(HANDOVER, {})
    for end in ("from", "to"):
        if end in handover:
            return str(handover[end].client)
    return str((scope.get("client") or ("",))[0])


def _told(headers: Sequence[Header]) -> list[list[str]]:
    """Return the addresses that each of the two headers has, where it is there."""
    names = (b"forwarded", b"x-forwarded-for")
    forwarded, others = (",".join(values_of(headers, name)) for name in names)
    hops = []
    if forwarded:
        nearest = elements(forwarded)[-_MOST_HOPS:]
        hops.append([parameters(each).get("for", "") for each in nearest])
    if others:
        hops.append(others.rsplit(",", _MOST_HOPS)[-_MOST_HOPS:])
    return hops


def _address(text: str) -> _Address | None:
    """Return an address, without its port; IPv4 as such where IPv6 carries it."""
    if found := _NODE.fullmatch(text.strip()):
        with suppress(ValueError):
            address = ip_address(found[1] or found[2] or found[3])
            return getattr(address, "ipv4_mapped", None) or address
    return None
