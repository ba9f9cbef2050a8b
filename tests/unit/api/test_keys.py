import hashlib

import pytest
from structlog.testing import capture_logs

from notifier.api.keys import ApiKeys, new_key
from notifier.core.errors import Invalid, Unauthorized
from notifier.core.grants import Grant, Scope


def test_a_new_key_is_taken_for_its_producer() -> None:
    secret, entry = new_key("billing")

    assert ApiKeys([entry]).grant_of(f"Bearer {secret}").name == "billing"


def test_only_the_hash_is_kept() -> None:
    secret, entry = new_key("billing")

    assert entry == f"billing:{hashlib.sha256(secret.encode()).hexdigest()}"
    assert secret not in entry


def test_keys_are_never_alike() -> None:
    assert new_key("billing").secret != new_key("billing").secret


def test_two_keys_of_one_producer_are_both_taken() -> None:
    old, new = new_key("billing"), new_key("billing")
    keys = ApiKeys([old.entry, new.entry])

    assert [keys.grant_of(f"Bearer {key.secret}").name for key in (old, new)] == ["billing"] * 2


def test_each_of_many_producers_is_told_apart() -> None:
    made = {name: new_key(name) for name in ("a", "b", "c")}
    keys = ApiKeys(key.entry for key in made.values())

    found = {name: keys.grant_of(f"bearer {key.secret}").name for name, key in made.items()}

    assert found == {"a": "a", "b": "b", "c": "c"}


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "nk_x"])
def test_a_missing_key_is_told_how_to_be_sent(header: str) -> None:
    with pytest.raises(Unauthorized, match="Authorization: Bearer"):
        ApiKeys([new_key("billing").entry]).grant_of(header)


@pytest.mark.parametrize("secret", ["nk_wrong", "é", "\x00", "x" * 10_000])
def test_a_wrong_key_is_not_repeated(secret: str) -> None:
    with pytest.raises(Unauthorized) as error:
        ApiKeys([new_key("billing").entry]).grant_of(f"Bearer {secret}")

    assert str(error.value) == "this API key is not known"


def test_the_hash_itself_is_no_key() -> None:
    _, entry = new_key("billing")

    with pytest.raises(Unauthorized):
        ApiKeys([entry]).grant_of(f"Bearer {entry.partition(':')[2]}")


def test_without_keys_nobody_is_taken() -> None:
    with pytest.raises(Unauthorized):
        ApiKeys([]).grant_of("Bearer x")


@pytest.mark.parametrize(("header", "told"), [("", []), ("Bearer s3cret", ["api_key_not_checked"])])
def test_keys_open_to_all_take_everybody_and_log_a_key_that_is_given(
    header: str, told: list[str]
) -> None:
    with capture_logs() as logs:
        assert ApiKeys([], open_to=Grant("dev")).grant_of(header) == Grant("dev")

    assert [line["event"] for line in logs] == told
    assert "s3cret" not in str(logs)


def test_keys_that_are_replaced_are_not_taken_any_more() -> None:
    old, new = new_key("billing"), new_key("billing")
    keys = ApiKeys([old.entry])

    keys.replace([new.entry])

    assert keys.grant_of(f"Bearer {new.secret}").name == "billing"
    with pytest.raises(Unauthorized):
        keys.grant_of(f"Bearer {old.secret}")


def test_a_new_key_has_the_scopes_and_patterns_asked_for() -> None:
    key = new_key("billing", ["control", "read"], ["billing.*", "user:*"])

    grant = ApiKeys([key.entry]).grant_of(f"Bearer {key.secret}")

    assert grant == Grant("billing", (Scope.READ, Scope.CONTROL), ("billing.*", "user:*"))


def test_a_new_key_bound_to_topics_posts_unless_told_otherwise() -> None:
    key = new_key("billing", patterns=["billing.*"])

    assert ApiKeys([key.entry]).grant_of(f"Bearer {key.secret}").scopes == (Scope.POST,)


@pytest.mark.parametrize("pattern", ["", "a,b", "a;b", "a b", "é", "a" * 129])
def test_no_key_is_made_that_could_not_be_set(pattern: str) -> None:
    with pytest.raises(Invalid, match="topic: must be at most 16"):
        new_key("billing", patterns=[pattern])


def test_keys_of_one_name_each_have_scopes_of_their_own() -> None:
    posts, reads = new_key("billing"), new_key("billing", ["read"])
    keys = ApiKeys([posts.entry, reads.entry])

    found = [keys.grant_of(f"Bearer {key.secret}").scopes for key in (posts, reads)]

    assert found == [(Scope.POST,), (Scope.READ,)]


def test_bad_entries_leave_the_former_keys_in_force() -> None:
    key = new_key("billing")
    keys = ApiKeys([key.entry])

    with pytest.raises(Invalid):
        keys.replace([f"{key.entry}:reed"])

    assert keys.grant_of(f"Bearer {key.secret}").name == "billing"
