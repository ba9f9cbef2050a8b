"""The grant of an API key, and how NOTIFIER_API_KEYS spells it.

    name:sha256                         may post, to every audience
    name:sha256:read+control            may do these
    name:sha256:post:billing.*;user:7   may post to these topics only

A pattern is one of a token's `topics` claim. A user stands for the personal topic `user:ID`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from notifier.core.access import is_pattern, matches
from notifier.core.errors import Forbidden, Invalid
from notifier.core.events import Event
from notifier.core.findings import Finding
from notifier.core.names import EVERYONE
from notifier.core.routing import topics_of

MOST_PATTERNS = 16  # each of an event's 10,000 users is compared with each of them
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SETTING = "NOTIFIER_API_KEYS"


class Scope(StrEnum):
    """One kind of requests to the api."""

    POST = "post"
    READ = "read"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Grant:
    """The rights of a key of this name. `patterns` are the topics it is bound to; None: any."""

    name: str
    scopes: tuple[Scope, ...] = (Scope.POST,)
    patterns: tuple[str, ...] | None = None

    def check(self, scope: Scope) -> None:
        """Raise Forbidden unless the key has `scope`."""
        if scope not in self.scopes:
            has = " and ".join(self.scopes)
            raise Forbidden(
                f"API key {self.name} has the scope {has}, not {scope}; add {scope} in {_SETTING}"
            )

    def check_audience(self, event: Event) -> None:
        """Raise Forbidden unless the key is bound to all of an event's audience."""
        if self.patterns is not None:
            for topic in topics_of(event):
                self.check_topic(topic)

    def covers(self, topic: str) -> bool:
        """Whether `topic` is among those that the key is bound to."""
        if self.patterns is None:
            return True
        if topic == EVERYONE:  # as with personal topics, `*` alone does not open it
            return EVERYONE in self.patterns
        return any(matches(pattern, topic) for pattern in self.patterns)

    def check_topic(self, topic: str) -> None:
        """Raise Forbidden unless the key is bound to `topic`."""
        if not self.covers(topic):
            bound = ", ".join(self.patterns or ())
            raise Forbidden(
                f"API key {self.name} is bound to {bound}, not to {topic}; "
                f"name another audience, or add a pattern in {_SETTING}"
            )

    def __str__(self) -> str:
        bound = "every audience" if self.patterns is None else ", ".join(self.patterns)
        return f"{' and '.join(self.scopes)}, for {bound}"


class KeyEntry(NamedTuple):
    """One entry of NOTIFIER_API_KEYS: the SHA-256 of a key, in hexadecimal, and its grant."""

    digest: str
    grant: Grant


def is_key_name(text: str) -> bool:
    """Whether `text` can name a key."""
    return _NAME.fullmatch(text) is not None


def key_entry_of(text: str) -> KeyEntry:
    """Read one entry; raises Invalid, which quotes nothing: a secret may stand there by mistake."""
    name, _, rest = text.partition(":")
    digest, extended, rest = rest.partition(":")
    scopes, bound, patterns = rest.partition(":")
    if not is_key_name(name) or not _DIGEST.fullmatch(digest):
        raise Invalid("", "must be name:sha256 entries; `notifier key --name billing` makes one")
    grant = Grant(
        name,
        _scopes_of(scopes) if extended else (Scope.POST,),
        _patterns_of(patterns) if bound else None,
    )
    return KeyEntry(digest, grant)


def _scopes_of(text: str) -> tuple[Scope, ...]:
    given = text.split("+")
    if not set(given) <= set(Scope):
        there_are = ", ".join(Scope)
        raise Invalid(
            "",
            f"must have scopes of {there_are} behind the hash, joined by +: name:sha256:post+read",
        )
    return tuple(scope for scope in Scope if scope in given)


def _patterns_of(text: str) -> tuple[str, ...]:
    patterns = tuple(dict.fromkeys(text.split(";")))
    if len(patterns) > MOST_PATTERNS or not all(map(is_pattern, patterns)):
        raise Invalid(
            "",
            f"must have at most {MOST_PATTERNS} topics or patterns behind the scopes, joined by ;: "
            "name:sha256:post:billing.*;user:*",
        )
    return patterns


def key_entries_of(texts: Iterable[str]) -> list[KeyEntry]:
    """Read all entries; raises Invalid too where one key has two grants."""
    grants: dict[str, Grant] = {}
    for text in texts:
        digest, grant = key_entry_of(text)
        if grants.setdefault(digest, grant) != grant:
            raise Invalid("", "must have each key once: two entries with one hash differ")
    return [KeyEntry(digest, grant) for digest, grant in grants.items()]


def key_findings(texts: Iterable[str]) -> list[Finding]:
    """Describe the rights of each key of these entries; a name's keys should all have the same."""
    named: dict[str, set[Grant]] = {}
    for _, grant in key_entries_of(texts):
        named.setdefault(grant.name, set()).add(grant)
    return [
        finding for name, grants in named.items() for finding in _findings_of(name, list(grants))
    ]


def _findings_of(name: str, grants: Sequence[Grant]) -> Iterator[Finding]:
    for grant in sorted(grants, key=str):
        yield Finding("ok", "api key", f"{name} may {grant}")
    if len(grants) > 1:
        yield Finding(
            "warning",
            "api key",
            f"the keys named {name} may do different things",
            f"give them the same scopes and patterns in {_SETTING}, or different names",
        )
