from notifier.adapters.tokens.token_cache import TokenCache, VerifiedToken, name_of
from notifier.core.access import Identity

ANN = VerifiedToken(Identity("42", 100.0), keys=1)


def known_of(*tokens: str, most: int = 10) -> TokenCache:
    known = TokenCache(most)
    for token in tokens:
        known.add(name_of(token), ANN)
    return known


def test_a_token_is_known_and_another_is_not() -> None:
    known = known_of("t")

    assert known.get(name_of("t")) is ANN
    assert known.get(name_of("u")) is None
    assert known.get(name_of("t\udc80")) is None


def test_a_record_holds_until_the_token_expires() -> None:
    assert ANN.holds(keys=1, now=99.9)
    assert not ANN.holds(keys=1, now=100.0)


def test_a_record_does_not_hold_under_other_keys() -> None:
    assert not ANN.holds(keys=2, now=0.0)


def test_a_record_may_be_replaced() -> None:
    known, anew = known_of("t"), VerifiedToken(ANN.identity, keys=2)
    known.add(name_of("t"), anew)

    assert known.get(name_of("t")) is anew


def test_the_one_known_longest_makes_room() -> None:
    known = known_of("t", "u", "t", "v", most=2)

    assert [known.get(name_of(token)) for token in ("t", "u", "v")] == [ANN, None, ANN]


def test_a_token_itself_is_not_kept() -> None:
    assert "s3cret" not in repr(vars(known_of("s3cret")))
