"""The identity of a client, and the topics that it may follow and publish to."""

import re
from collections.abc import Iterable

from msgspec import Struct

from notifier.core.errors import Forbidden, Unauthorized
from notifier.core.names import EVERYONE, is_name, is_personal, personal_topic

MOST_PATTERNS = 100
_PATTERN = re.compile(r"[A-Za-z0-9\-._~:@/+=|$!&*]{1,128}")


def is_pattern(text: str) -> bool:
    """Whether `text` can be a pattern of topics, in which `*` stands for any characters."""
    return _PATTERN.fullmatch(text) is not None


def matches(pattern: str, topic: str) -> bool:
    """Whether a pattern is of `topic`."""
    # `*` alone must not open other people's personal topics: those need a pattern that names them.
    if is_personal(topic) and not is_personal(pattern):
        return False
    first, *rest = pattern.split("*")
    if not rest:
        return topic == pattern
    # Part by part, not by a regular expression: `*a*a*a*…` would make that backtrack for ever.
    *middle, last = rest
    at = len(first)
    for part in middle:
        found = topic.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return topic.startswith(first) and topic.endswith(last) and len(topic) - len(last) >= at


class Identity(Struct, frozen=True, gc=False):
    """The claims of a verified token. `patterns` may contain `*`.

    `expires` and `issued` are in Unix seconds; `issued` is whole ones, 0 where the token says none.
    """

    user: str
    expires: float
    patterns: tuple[str, ...] = ()
    issued: int = 0

    def may_follow(self, topic: str) -> bool:
        """Whether this user's clients may follow `topic`."""
        if topic == EVERYONE or topic == personal_topic(self.user):
            return True
        return any(matches(pattern, topic) for pattern in self.patterns)

    def check_topic(self, topic: str) -> None:
        """Raise Forbidden unless this user's clients may follow `topic`."""
        if not self.may_follow(topic):
            raise Forbidden(f"the token does not allow topic {topic}")

    def may_publish(self, topic: str) -> bool:  # noqa: ARG002 - deny by default
        """Whether this user's clients may publish to `topic`."""
        return False

    @property
    def has_presence(self) -> bool:
        """Whether there are topics that this user may be a member of."""
        return False

    def may_attend(self, topic: str) -> bool:  # noqa: ARG002 - deny by default
        """Whether this user may be a member of `topic`, and see the others."""
        return False


class WiderIdentity(Identity, frozen=True, gc=False):
    """An Identity whose token has the claims `publish` or `presence`.

    Others have no members for them. Personal topics and `everyone` are open to neither.
    """

    publish: tuple[str, ...] = ()
    presence: tuple[str, ...] = ()

    def may_publish(self, topic: str) -> bool:
        """See Identity."""
        return _opens(self.publish, topic)

    @property
    def has_presence(self) -> bool:
        """See Identity."""
        return bool(self.presence)

    def may_attend(self, topic: str) -> bool:
        """See Identity. The claim `topics` has to allow the topic too."""
        return _opens(self.presence, topic) and self.may_follow(topic)


def _opens(patterns: Iterable[str], topic: str) -> bool:
    if topic == EVERYONE or is_personal(topic):
        return False
    return any(matches(pattern, topic) for pattern in patterns)


def identity_of(  # noqa: PLR0913 - one argument for each claim
    user: object,
    expires: float,
    patterns: object,
    *,
    publish: object = None,
    presence: object = None,
    names: tuple[str, str] = ("sub", "topics"),
    issued: float = 0,
) -> Identity:
    """Make an Identity of a token's claims for the user, `exp` and the topics; raises Unauthorized.

    `publish` and `presence` are the claims of these names, `issued` is `iat`. `names` are those of
    the user's and the topics' claim. A whole number stands for its decimal digits: some issuers
    number their users.
    """
    if isinstance(user, int) and not isinstance(user, bool):
        user = str(user)
    if not isinstance(user, str) or not is_name(user):
        raise Unauthorized(f"the token's {names[0]} is not a user id that notifier can carry")
    topics = tuple(_checked_patterns(patterns, names[1]))
    speaks_in = tuple(_checked_patterns(publish, "publish"))
    attends = tuple(_checked_patterns(presence, "presence"))
    if speaks_in or attends:
        return WiderIdentity(user, expires, topics, int(issued), speaks_in, attends)
    return Identity(user, expires, topics, int(issued))


def _checked_patterns(patterns: object, name: str) -> Iterable[str]:
    if patterns is None:
        return ()
    if not isinstance(patterns, list) or len(patterns) > MOST_PATTERNS:
        raise Unauthorized(f"the token's {name} must be a list of at most {MOST_PATTERNS} patterns")
    if not all(isinstance(each, str) and is_pattern(each) for each in patterns):
        raise Unauthorized(f"a pattern in the token's {name} is malformed")
    return patterns
