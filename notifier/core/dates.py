"""Moments as RFC 3339 has them, in UTC."""

from datetime import UTC, datetime
from functools import lru_cache


def iso(seconds: float) -> str:
    """Return Unix seconds, with milliseconds."""
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{date_and_time(whole)}.{thousandths:03d}Z"


@lru_cache(maxsize=4)  # of all that happens within a second, by this machine's clock and Redis'
def date_and_time(second: int) -> str:
    """Return a whole Unix second, without `Z`."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
