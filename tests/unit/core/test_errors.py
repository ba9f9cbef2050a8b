import pytest

from notifier.core.errors import CloseCode, Invalid, Unavailable


def test_an_invalid_body_names_its_field() -> None:
    assert str(Invalid("users[3]", "must be text")) == "users[3]: must be text"


def test_an_invalid_whole_names_no_field() -> None:
    assert str(Invalid("", "the batch is empty")) == "the batch is empty"


def test_an_unavailable_backend_is_named() -> None:
    assert str(Unavailable("redis", "timed out")) == "redis is unavailable: timed out"


@pytest.mark.parametrize("code", list(CloseCode))
def test_codes_below_4500_say_come_back(code: CloseCode) -> None:
    assert code.comes_back == (code < 4500)


def test_a_code_is_read_by_its_name() -> None:
    assert CloseCode.SLOW_CONSUMER.reason == "slow_consumer"
