from notifier.adapters.tokens.known import KnownTokens
from notifier.core.access import Identity

ANN = Identity("42", 100.0)


def test_a_token_is_known_until_it_expires() -> None:
    known = KnownTokens()
    known.add("t", 1, ANN)

    assert known.get("t", 1, 99.9) is ANN
    assert known.get("t", 1, 100.0) is None


def test_another_token_is_not_known() -> None:
    known = KnownTokens()
    known.add("t", 1, ANN)

    assert known.get("u", 1, 0.0) is None
    assert known.get("t\udc80", 1, 0.0) is None


def test_under_other_keys_a_token_is_not_known_and_may_be_known_anew() -> None:
    known = KnownTokens()
    known.add("t", 1, ANN)

    assert known.get("t", 2, 0.0) is None
    known.add("t", 2, ANN)
    assert known.get("t", 2, 0.0) is ANN


def test_the_one_known_longest_makes_room() -> None:
    known = KnownTokens(most=2)
    for token in ("t", "u", "t", "v"):
        known.add(token, 1, ANN)

    assert [known.get(token, 1, 0.0) for token in ("t", "u", "v")] == [ANN, None, ANN]


def test_a_token_itself_is_not_kept() -> None:
    known = KnownTokens()
    known.add("s3cret", 1, ANN)

    assert "s3cret" not in repr(vars(known))
