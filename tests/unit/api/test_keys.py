import hashlib

import pytest
from structlog.testing import capture_logs

from notifier.api.keys import ApiKeys, new_key
from notifier.core.errors import Unauthorized


def test_a_new_key_is_taken_for_its_producer() -> None:
    secret, entry = new_key("billing")

    assert ApiKeys([entry]).name_of(f"Bearer {secret}") == "billing"


def test_only_the_hash_is_kept() -> None:
    secret, entry = new_key("billing")

    assert entry == f"billing:{hashlib.sha256(secret.encode()).hexdigest()}"
    assert secret not in entry


def test_keys_are_never_alike() -> None:
    assert new_key("billing").secret != new_key("billing").secret


def test_two_keys_of_one_producer_are_both_taken() -> None:
    old, new = new_key("billing"), new_key("billing")
    keys = ApiKeys([old.entry, new.entry])

    assert [keys.name_of(f"Bearer {key.secret}") for key in (old, new)] == ["billing", "billing"]


def test_each_of_many_producers_is_told_apart() -> None:
    made = {name: new_key(name) for name in ("a", "b", "c")}
    keys = ApiKeys(key.entry for key in made.values())

    found = {name: keys.name_of(f"bearer {key.secret}") for name, key in made.items()}

    assert found == {"a": "a", "b": "b", "c": "c"}


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "nk_x"])
def test_a_missing_key_is_told_how_to_be_sent(header: str) -> None:
    with pytest.raises(Unauthorized, match="Authorization: Bearer"):
        ApiKeys([new_key("billing").entry]).name_of(header)


@pytest.mark.parametrize("secret", ["nk_wrong", "é", "\x00", "x" * 10_000])
def test_a_wrong_key_is_not_repeated(secret: str) -> None:
    with pytest.raises(Unauthorized) as error:
        ApiKeys([new_key("billing").entry]).name_of(f"Bearer {secret}")

    assert str(error.value) == "this API key is not known"


def test_the_hash_itself_is_no_key() -> None:
    _, entry = new_key("billing")

    with pytest.raises(Unauthorized):
        ApiKeys([entry]).name_of(f"Bearer {entry.partition(':')[2]}")


def test_without_keys_nobody_is_taken() -> None:
    with pytest.raises(Unauthorized):
        ApiKeys([]).name_of("Bearer x")


@pytest.mark.parametrize(("header", "told"), [("", []), ("Bearer s3cret", ["api_key_not_checked"])])
def test_keys_open_to_all_take_everybody_and_tell_whoever_gives_one(
    header: str, told: list[str]
) -> None:
    with capture_logs() as logs:
        assert ApiKeys([], open_to="dev").name_of(header) == "dev"

    assert [line["event"] for line in logs] == told
    assert "s3cret" not in str(logs)


def test_keys_that_are_replaced_are_not_taken_any_more() -> None:
    old, new = new_key("billing"), new_key("billing")
    keys = ApiKeys([old.entry])

    keys.replace([new.entry])

    assert keys.name_of(f"Bearer {new.secret}") == "billing"
    with pytest.raises(Unauthorized):
        keys.name_of(f"Bearer {old.secret}")
