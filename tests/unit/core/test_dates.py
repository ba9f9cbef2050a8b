"""Moments in frames and in log lines."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis.strategies import integers

from notifier.core.dates import iso


@given(integers(min_value=0, max_value=253_402_300_799_999))
def test_a_moment_is_written_to_its_millisecond_as_rfc_3339_has_it(milliseconds: int) -> None:
    written = iso(milliseconds / 1000)

    assert written.endswith("Z")
    whole, thousandths = divmod(milliseconds, 1000)
    expected = datetime.fromtimestamp(whole, UTC).replace(microsecond=thousandths * 1000)
    assert datetime.fromisoformat(written) == expected
