import pytest
from hypothesis import given
from hypothesis.strategies import binary, builds, from_regex, just, sampled_from

from notifier.adapters.redis.signals import payload_of, signal_of
from notifier.core.signals import Kind, Signal

signals = builds(
    Signal,
    just("user:42"),
    sampled_from(Kind),
    from_regex(r"[a-z_]{1,64}", fullmatch=True),
    binary(),
)


@given(signals)
def test_a_signal_is_read_as_it_was_written(signal: Signal) -> None:
    assert signal_of("user:42", payload_of(signal)) == signal


@given(signals)
def test_a_gateway_that_knows_no_signals_takes_none_for_a_publication(signal: Signal) -> None:
    _, offset, _ = payload_of(signal).split(b":", 2)  # as such a gateway reads every message

    with pytest.raises(ValueError, match="invalid literal"):
        int(offset)


@pytest.mark.parametrize("payload", [b"", b"k.1:7:{}", b"signal:7:frame", b"signal::other:x:"])
def test_other_messages_are_no_signals(payload: bytes) -> None:
    assert signal_of("news", payload) is None
