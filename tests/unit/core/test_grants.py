import pytest

from notifier.core.access import matches
from notifier.core.errors import Forbidden, Invalid
from notifier.core.events import Event
from notifier.core.grants import (
    MOST_PATTERNS,
    Grant,
    Scope,
    key_entries_of,
    key_entry_of,
    key_findings,
)

HASH = "a" * 64
OTHER = "b" * 64


def bound(*patterns: str) -> Grant:
    return Grant("billing", patterns=patterns)


@pytest.mark.parametrize(
    ("entry", "grant"),
    [
        (f"billing:{HASH}", Grant("billing", (Scope.POST,), None)),
        (f"billing:{HASH}:read", Grant("billing", (Scope.READ,), None)),
        (f"billing:{HASH}:control+post", Grant("billing", (Scope.POST, Scope.CONTROL), None)),
        (
            f"billing:{HASH}:post:team:7:*;user:*;a|b+c",
            Grant("billing", (Scope.POST,), ("team:7:*", "user:*", "a|b+c")),
        ),
    ],
    ids=["unadorned", "scope", "scopes", "patterns"],
)
def test_an_entry_tells_the_scopes_of_its_key(entry: str, grant: Grant) -> None:
    assert key_entry_of(entry) == (HASH, grant)


@pytest.mark.parametrize(
    ("rest", "rule"),
    [
        (":", "scopes of post, read, control"),
        (":reed", "scopes of post, read, control"),
        (":POST", "scopes of post, read, control"),
        (":post;read", "scopes of post, read, control"),
        (":post+", "scopes of post, read, control"),
        ("::billing.*", "scopes of post, read, control"),
        (":post:", "patterns"),
        (":post:;", "patterns"),
        (":post:{a}", "patterns"),
        (":post:" + ";".join(f"t{n}" for n in range(MOST_PATTERNS + 1)), "at most 16"),
    ],
    ids=str,
)
def test_an_entry_that_is_misspelt_is_refused_with_the_rule(rest: str, rule: str) -> None:
    with pytest.raises(Invalid, match=rule):
        key_entry_of(f"billing:{HASH}{rest}")


def test_one_key_has_one_grant() -> None:
    with pytest.raises(Invalid, match="each key once"):
        key_entries_of([f"billing:{HASH}", f"billing:{HASH}:control"])

    assert len(key_entries_of([f"billing:{HASH}", f"billing:{HASH}", f"billing:{OTHER}"])) == 2


@pytest.mark.parametrize("scope", [Scope.READ, Scope.CONTROL])
def test_an_unadorned_key_may_post_and_nothing_else(scope: Scope) -> None:
    _, grant = key_entry_of(f"billing:{HASH}")

    grant.check(Scope.POST)
    with pytest.raises(Forbidden, match=f"has the scope post, not {scope}"):
        grant.check(scope)


def test_a_key_of_other_scopes_may_not_post() -> None:
    with pytest.raises(Forbidden, match="has the scope read and control, not post"):
        Grant("support", (Scope.READ, Scope.CONTROL)).check(Scope.POST)


@pytest.mark.parametrize(
    ("patterns", "event"),
    [
        (("billing.*",), Event(type="t", topic="billing.paid")),
        (("user:*",), Event(type="t", users=["42", "43"])),
        (("user:acme-*", "news"), Event(type="t", users=["acme-1"])),
        (("everyone",), Event(type="t", everyone=True)),
    ],
    ids=["topic", "users", "some users", "everyone"],
)
def test_a_bound_key_posts_to_its_own_audience(patterns: tuple[str, ...], event: Event) -> None:
    bound(*patterns).check_audience(event)


@pytest.mark.parametrize(
    ("patterns", "event", "named"),
    [
        (("billing.*",), Event(type="t", topic="shop.paid"), "shop.paid"),
        (("billing.*",), Event(type="t", topic="billing"), "billing"),
        (("billing.*",), Event(type="t", users=["42"]), "user:42"),
        (("*",), Event(type="t", users=["42"]), "user:42"),
        (("*",), Event(type="t", topic="user:42"), "user:42"),
        (("*",), Event(type="t", everyone=True), "everyone"),
        (("every*", "e*e", "user:*"), Event(type="t", topic="everyone"), "everyone"),
        (("user:acme-*",), Event(type="t", users=["acme-1", "acme-2", "42"]), "user:42"),
        (("user:4",), Event(type="t", users=["42"]), "user:42"),
    ],
    ids=[
        "another topic",
        "the prefix alone",
        "a user",
        "a user under *",
        "a personal topic under *",
        "everyone under *",
        "everyone by a pattern",
        "the last of several users",
        "a longer id",
    ],
)
def test_a_bound_key_is_refused_any_other_audience(
    patterns: tuple[str, ...], event: Event, named: str
) -> None:
    with pytest.raises(Forbidden, match=f"is bound to .*, not to {named};"):
        bound(*patterns).check_audience(event)


def test_a_key_without_patterns_posts_to_every_audience() -> None:
    for event in (
        Event(type="t", everyone=True),
        Event(type="t", users=["42"]),
        Event(type="t", topic="news"),
    ):
        Grant("billing").check_audience(event)


def test_patterns_of_keys_are_those_of_tokens() -> None:
    assert matches("billing.*", "billing.paid")
    assert not matches("*", "user:42")


def test_check_tells_each_key_and_warns_of_names_whose_keys_differ() -> None:
    entries = [
        f"billing:{HASH}:post:billing.*;user:*",
        f"ops:{OTHER}:control",
        f"ops:{'c' * 64}:read",
    ]

    found = [(each.level, each.text) for each in key_findings(entries)]

    assert found == [
        ("ok", "billing may post, for billing.*, user:*"),
        ("ok", "ops may control, for every audience"),
        ("ok", "ops may read, for every audience"),
        ("warning", "the keys named ops may do different things"),
    ]


def test_check_is_content_with_keys_of_one_name_that_do_the_same() -> None:
    found = key_findings([f"billing:{HASH}", f"billing:{OTHER}"])

    assert [each.level for each in found] == ["ok"]
