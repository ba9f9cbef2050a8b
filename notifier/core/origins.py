"""Origins: the sites whose pages may ask (RFC 6454; Fetch standard, section 3.2)."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from notifier.core.header_lists import elements, parameters, values_of

Headers = Iterable[tuple[bytes, bytes]]
"""Names in lower case, and values."""

# An entry of the list: an origin, where * stands for subdomains, a part of a label, or any port.
# The last label is whole, or the entry would open the gateway to whole top-level domains.
ENTRY = re.compile(  # the chart has the same
    r"\*|[A-Za-z][A-Za-z0-9+.-]*://"
    r"(\[[0-9A-Fa-f:.]+\]|([A-Za-z0-9_.*-]+\.)?[A-Za-z0-9_-]+)(:([0-9]{1,5}|\*))?"
)
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^\s,/?#@:\[\]]+)(?::([0-9]{1,5}))?", re.IGNORECASE
)
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s,/?#@:\[\]]+)(?::([0-9]{1,5}))?", re.IGNORECASE)
_PORT = re.compile(r"[0-9]{1,5}")
_MOST_FORWARDED = 16  # elements of `Forwarded` that are looked at: one for each proxy
_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_LONGEST = 300  # characters of an origin: a host has 253
_LABEL = "[a-z0-9_-]"


class Site(NamedTuple):
    """An origin taken apart, in lower case; the port is 0 where it is the scheme's default."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, origin: str) -> Self | None:
        """Return the site, or None for a text that is no origin, such as `null`."""
        found = _ORIGIN.fullmatch(origin) if len(origin) <= _LONGEST else None
        if found is None:
            return None
        scheme, host, port = found[1].lower(), found[2].lower(), int(found[3] or 0)
        return cls(scheme, host, 0 if port == _DEFAULT_PORTS.get(scheme) else port)

    @property
    def text(self) -> str:
        """The origin as browsers write it."""
        return f"{self.scheme}://{self.host}" + (f":{self.port}" if self.port else "")


class Origins:
    """The list of origins whose pages may ask. Pages of the server's own host always may."""

    def __init__(self, listed: Iterable[str] = ()) -> None:
        entries = [entry.lower() for entry in listed]
        self.is_open = "*" in entries
        named = [entry for entry in entries if "*" not in entry]
        self._named = {site.text for site in map(Site.of, named) if site}
        patterns = [_pattern(entry) for entry in entries if "*" in entry and entry != "*"]
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def lists(self, origin: str) -> bool:
        """Whether the list names this origin, other than by `*`."""
        if origin in self._named:
            return True
        site = Site.of(origin)
        if site is None:
            return False
        matches = self._pattern is not None and self._pattern.fullmatch(site.text) is not None
        return matches or site.text in self._named

    def allow(self, origin: str, headers: Headers) -> bool:
        """Whether the page of a request with these headers may ask."""
        return self.is_open or self.lists(origin) or is_own(origin, headers)


def is_own(origin: str, headers: Headers) -> bool:
    """Whether a page comes from the host and port that the request itself was sent to.

    The scheme does not count, and the default ports are one: many clients that are no browser send
    `http://` with a `wss:` address, and a server behind a proxy does not see the client's scheme.
    A proxy may replace Host, and then says so in `X-Forwarded-Host` or `Forwarded`, which widen
    the own hosts. That is safe: this check guards against pages in a user's browser. A page cannot
    set headers of a WebSocket at all, and those of another request only after a preflight, which
    the gateway never grants to other sites. A client that is no browser can set them, and leave
    Origin out as well.
    """
    site = Site.of(origin)
    if site is None:
        return False
    host, port, lines = site.host, _own_port(site.port), list(headers)
    hosts = values_of(lines, b"host") + _items(lines, b"x-forwarded-host")
    found = map(_HOST.fullmatch, hosts + _forwarded(lines, "host"))
    own = [_own_port(each[2]) for each in found if each and each[1].lower() == host]
    # A proxy may leave the port out of the host, or have it replaced by an inner one.
    told = filter(_PORT.fullmatch, _items(lines, b"x-forwarded-port"))
    return port in own or (bool(own) and port in map(_own_port, told))


def is_https(headers: Headers) -> bool:
    """Whether the client used TLS, as the outermost proxy tells it in either of two headers."""
    lines = list(headers)
    told = filter(None, _items(lines, b"x-forwarded-proto"))
    standard = iter(_forwarded(lines, "proto"))
    return any(next(each, "").lower() in ("https", "wss") for each in (told, standard))


def _own_port(told: str | int | None) -> int:
    """Return a port; 0 for one that is the default of any scheme, and for none."""
    port = int(told or 0)
    return 0 if port in _DEFAULT_PORTS.values() else port


def _forwarded(headers: Sequence[tuple[bytes, bytes]], name: str) -> list[str]:
    """Return the values of a parameter of `Forwarded` (RFC 7239), the outermost proxy's first."""
    hops = elements(",".join(values_of(headers, b"forwarded")))[:_MOST_FORWARDED]
    return [told for told in (parameters(hop).get(name) for hop in hops) if told]


def _items(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """Return the items of a header that each proxy on the way may append to."""
    return [item.strip() for line in values_of(headers, name) for item in line.split(",")]


def _pattern(entry: str) -> str:
    """Return the expression of an entry: `*.` is any subdomain, other `*` are within a label."""
    scheme, _, rest = entry.partition("://")
    any_port = rest.endswith(":*")
    rest = rest.removesuffix(":*").removesuffix(f":{_DEFAULT_PORTS.get(scheme)}")
    subdomains = rest.startswith("*.")
    labels = re.escape(rest.removeprefix("*.")).replace(r"\*", f"{_LABEL}*")
    host = (rf"(?:{_LABEL}+\.)+" if subdomains else "") + labels
    return re.escape(scheme) + "://" + host + ("(?::[0-9]+)?" if any_port else "")
