"""Findings: the facts that `notifier check` prints about a backend, and the words they share.

Each backend's adapters have a `check`, which returns findings. A check bounds each of its steps in
time and leaves nothing behind. A fault of the backend is a finding, never an exception. No finding
contains a password.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal
from urllib.parse import SplitResult, urlsplit

PATIENCE = 3.0  # seconds for each step of a check
TOO_LATE = f"no answer within {PATIENCE:.0f} s"

_PORTS = {"amqp": 5672, "amqps": 5671, "redis": 6379, "rediss": 6379, "http": 80, "https": 443}
_ENCRYPTED = {"amqp": "amqps", "redis": "rediss", "http": "https"}

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about a backend.

    With an `error` the service does not work, or loses events silently. With a `warning` it works
    for now. `mend` tells the remedy; it is empty where none is needed.
    """

    level: Level
    subject: str
    text: str
    mend: str = ""


def render(findings: Sequence[Finding]) -> str:
    """Return plain text: a line for each finding, in columns, and a line below for its remedy."""
    width = max((len(finding.subject) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<7}  {finding.subject:<{width}}  {_one_line(finding.text)}")
        if finding.mend:
            lines.append(f"{'':{width + 11}}mend: {_one_line(finding.mend)}")
    return "\n".join(lines)


def _one_line(text: str) -> str:
    # A server's own words may hold line breaks, or sequences that a terminal obeys.
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def place_of(url: str) -> str:
    """Return host and port, or the path of a socket; raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return parts.path
    if "@" in url and "@" not in parts.netloc:
        raise ValueError("the host is the beginning of a password")
    return f"{host_of(parts)}:{parts.port or _PORTS[parts.scheme]}"


def host_of(parts: SplitResult) -> str:
    """Return the host as URLs write it, an IPv6 address in brackets."""
    name = parts.hostname or "localhost"
    return f"[{name}]" if ":" in name else name


def unreadable_address(subject: str, setting: str) -> Finding:
    """Return an error without the parser's words, as they may quote a piece of the password."""
    mend = (
        f"correct {setting}; in its password, write / # ? : @ and , as %2F %23 %3F %3A %40 and %2C"
    )
    return Finding("error", subject, "the address cannot be read", mend)


def password_in_clear(subject: str, url: str, setting: str) -> list[Finding]:
    """Return a warning if the address sends a password without TLS, except to this machine."""
    parts = urlsplit(url)
    if parts.scheme not in _ENCRYPTED or _is_loopback(parts.hostname or "localhost"):
        return []
    text = f"the password for {host_of(parts)} crosses the network in clear"
    mend = f"use {_ENCRYPTED[parts.scheme]}:// in {setting}"
    return [Finding("warning", subject, text, mend)]


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, to be compared."""
    return tuple(map(int, re.findall(r"\d+", version)))
