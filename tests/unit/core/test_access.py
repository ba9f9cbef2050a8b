import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.core.access import MOST_PATTERNS, Identity, identity_of
from notifier.core.errors import Unauthorized

SHORT = st.text("ab:", max_size=8)


def follower(*patterns: str) -> Identity:
    return Identity("42", 2e9, patterns)


@pytest.mark.parametrize("topic", ["user:42", "everyone"])
def test_the_own_topic_and_everyone_need_no_pattern(topic: str) -> None:
    assert follower().may_follow(topic)


@pytest.mark.parametrize("topic", ["news", "user:43", "user:4", "user:421"])
def test_nothing_else_is_open_without_a_pattern(topic: str) -> None:
    assert not follower().may_follow(topic)


@pytest.mark.parametrize(
    ("pattern", "topic"),
    [
        ("news", "news"),
        ("*", "news"),
        ("team:7:*", "team:7:chat"),
        ("team:*:chat", "team:7:chat"),
        ("*a*a*", "banana"),
        ("a**b", "ab"),
        ("user:*", "user:43"),
        ("user:4*", "user:43"),
    ],
)
def test_a_pattern_opens_the_topics_it_matches(pattern: str, topic: str) -> None:
    assert follower(pattern).may_follow(topic)


@pytest.mark.parametrize(
    ("pattern", "topic"),
    [
        ("news", "news2"),
        ("team:7:*", "team:8:chat"),
        ("team:*:chat", "team:7"),
        ("ab*ba", "aba"),
        ("*a*a*a*a", "banana"),
        ("a.c", "abc"),
    ],
)
def test_a_pattern_opens_nothing_else(pattern: str, topic: str) -> None:
    assert not follower(pattern).may_follow(topic)


@pytest.mark.parametrize("pattern", ["*", "**", "*:43", "u*", "use*3", "*user:43"])
def test_a_pattern_that_does_not_name_personal_topics_opens_no_other_users(pattern: str) -> None:
    assert not follower(pattern).may_follow("user:43")


@given(st.text("ab:*", max_size=8), SHORT)
def test_a_star_stands_for_any_text(pattern: str, topic: str) -> None:
    expected = re.fullmatch(fnmatch.translate(pattern), topic) is not None

    assert follower(pattern).may_follow(topic) == expected


def test_a_pattern_made_to_backtrack_is_answered_all_the_same() -> None:
    pattern = "a*" * 63 + "b"

    assert not follower(pattern).may_follow("a" * 128)


def test_claims_become_an_identity() -> None:
    identity = identity_of("42", 2e9, ["news", "team:7:*"])

    assert identity == Identity("42", 2e9, ("news", "team:7:*"))


def test_topics_are_no_claim_that_a_token_needs() -> None:
    assert identity_of("42", 2e9, None).patterns == ()


@pytest.mark.parametrize("publish", [None, []])
def test_nobody_may_publish_without_the_claim_or_pays_for_it(publish: object) -> None:
    identity = identity_of("42", 2e9, ["*"], publish=publish)

    assert type(identity) is Identity
    assert not identity.may_publish("news")


@pytest.mark.parametrize(
    ("topic", "may"),
    [
        ("room:7", True),
        ("room:8", False),
        ("team:7:chat", True),
        ("everyone", False),
        ("user:42", False),
        ("user:43", False),
    ],
)
def test_the_claim_publish_opens_topics_and_never_personal_ones_or_everyone(
    topic: str, *, may: bool
) -> None:
    claim = ["room:7", "team:*", "user:*", "user:42", "everyone", "every*"]
    identity = identity_of("42", 2e9, None, publish=claim)

    assert identity.may_publish(topic) == may
    assert not identity.may_follow("room:7")  # that is another claim


@pytest.mark.parametrize(
    ("topic", "may"),
    [
        ("room:7", True),
        ("team:7:chat", True),
        ("hall:1", False),  # the claim topics does not open it
        ("everyone", False),
        ("user:42", False),
    ],
)
def test_the_claim_presence_opens_topics_that_the_user_may_follow(topic: str, *, may: bool) -> None:
    claim = ["room:7", "team:*", "hall:1", "*", "user:*", "everyone"]
    identity = identity_of("42", 2e9, ["room:*", "team:*"], presence=claim)

    assert identity.may_attend(topic) == may
    assert identity.has_presence
    assert not identity.may_publish(topic)  # that is another claim


def test_a_token_without_the_claim_presence_attends_nothing() -> None:
    identity = identity_of("42", 2e9, ["*"], publish=["*"])

    assert not identity.has_presence
    assert not identity.may_attend("room:7")


@pytest.mark.parametrize("presence", ["room", True, {"room": 1}, [1], ["a b"], ["a"] * 101])
def test_a_malformed_claim_presence_is_refused(presence: object) -> None:
    with pytest.raises(Unauthorized, match="presence"):
        identity_of("42", 2e9, None, presence=presence)


@pytest.mark.parametrize("publish", ["room", True, {"room": 1}, [1], [""], ["a b"], ["a"] * 101])
def test_a_malformed_claim_publish_is_refused(publish: object) -> None:
    with pytest.raises(Unauthorized, match="publish"):
        identity_of("42", 2e9, None, publish=publish)


@pytest.mark.parametrize("user", [None, True, 4.2, "", "a b", "a" * 129, ["42"]])
def test_a_sub_that_is_no_user_id_is_refused(user: object) -> None:
    with pytest.raises(Unauthorized, match="sub"):
        identity_of(user, 2e9, None)


@pytest.mark.parametrize(
    "patterns", ["news", {"news": 1}, [1], [""], ["a b"], ["é"], ["a" * 129], ["a"] * 101]
)
def test_a_malformed_claim_is_refused_instead_of_ignored(patterns: object) -> None:
    with pytest.raises(Unauthorized, match="topics"):
        identity_of("42", 2e9, patterns)


def test_as_many_patterns_as_the_bound_says_are_taken() -> None:
    identity = identity_of("42", 2e9, ["news"] * MOST_PATTERNS)

    assert len(identity.patterns) == MOST_PATTERNS
