"""The names of users and topics: their rule, and the topic of a user."""

import re

from notifier.core.errors import Invalid

LONGEST_NAME = 128
EVERYONE = "everyone"
# Followed by each gateway itself. No name has an asterisk, so no client follows it.
GATEWAYS = "*gateways"
_PERSONAL = "user:"
# Without the characters of our notations: `,` (cursors), `{}` (hash tags), `*` (patterns), quotes.
_LETTER = r"[A-Za-z0-9\-._~:@/+=|$!&]"
# Nor `.` and `..`: clients and proxies take them out of a path, also as %2E, so no order would ever
# reach such a user.
PATTERN = rf"(?!\.\.?(?!{_LETTER})){_LETTER}{{1,128}}"
_NAME = re.compile(PATTERN)
_RULE = "1 to 128 of the characters A-Z a-z 0-9 - . _ ~ : @ / + = | $ ! &, and not . or .. alone"


def is_name(text: str) -> bool:
    """Whether `text` can name a user or a topic."""
    return _NAME.fullmatch(text) is not None


def checked_name(text: str, field: str) -> str:
    """Return `text`, or raise Invalid for `field` with the rule in its reason."""
    if not is_name(text):
        raise Invalid(field, f"must be {_RULE}")
    return text


def checked_topic(text: str, field: str) -> str:
    """Return `text` if it names a topic, personal ones included; else raise Invalid for `field`."""
    checked_name(text.removeprefix(_PERSONAL), field)
    return text


def personal_topic(user: str) -> str:
    """Return the topic of one user's own stream."""
    return _PERSONAL + user


def user_of(personal: str) -> str:
    """Return whose a personal topic is."""
    return personal.removeprefix(_PERSONAL)


def is_personal(topic: str) -> bool:
    """Whether `topic` is some user's own stream."""
    return topic.startswith(_PERSONAL)
