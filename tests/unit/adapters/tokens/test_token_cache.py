from notifier.adapters.tokens.token_cache import TokenCache, name_of
from notifier.core.access import Identity

ANN = Identity("42", 100.0)
BEA = Identity("43", 100.0)
KEYS = 1


def known_of(*tokens: str, most: int = 10) -> TokenCache:
    known = TokenCache(most)
    for token in tokens:
        known.add(name_of(token), ANN, KEYS)
    return known


def test_a_token_is_known_and_another_is_not() -> None:
    known = known_of("t")

    assert known.get(name_of("t"), KEYS) is ANN
    assert known.get(name_of("u"), KEYS) is None
    assert known.get(name_of("t\udc80"), KEYS) is None


def test_a_token_is_not_known_under_other_keys() -> None:
    assert known_of("t").get(name_of("t"), KEYS + 1) is None


def test_a_token_is_forgotten_once_other_keys_have_verified_one() -> None:
    known = known_of("t")
    known.add(name_of("u"), BEA, KEYS + 1)

    assert known.get(name_of("u"), KEYS + 1) is BEA
    assert known.get(name_of("t"), KEYS + 1) is None
    assert known.get(name_of("t"), KEYS) is None


def test_a_token_that_is_verified_again_has_its_new_identity() -> None:
    known = known_of("t")
    known.add(name_of("t"), BEA, KEYS)

    assert known.get(name_of("t"), KEYS) is BEA


def test_those_known_longest_make_room() -> None:
    known = known_of("t", "u", "v", "w", "x", most=4)

    assert [known.get(name_of(token), KEYS) for token in "tuvwx"] == [None, None, ANN, ANN, ANN]


def test_a_token_itself_is_not_kept() -> None:
    assert "s3cret" not in repr(vars(known_of("s3cret")))
