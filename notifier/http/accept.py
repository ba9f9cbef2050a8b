"""A client's choice between media types: the header Accept (RFC 9110, section 12.5.1)."""

import re
from collections.abc import Iterable

from notifier.core.header_lists import elements, parameters

_MOST_RANGES = 32
_WEIGHT = re.compile(r"\.\d+|[01](?:\.\d*)?", re.ASCII)  # Java writes .2


def prefers(accept: Iterable[str], media_type: str, other: str) -> bool:
    """Whether a client wants one media type, and rather than the other, by the lines of the header.

    Of two with the same weight it wants the one that it names; `*/*` names none.
    """
    weights = _weights(",".join(accept))
    wanted, instead = _rank(weights, media_type), _rank(weights, other)
    return wanted[0] > 0 and wanted > instead


def _weights(accept: str) -> dict[str, float]:
    """Return the weight of each media range, the highest where it is there more than once."""
    weights: dict[str, float] = {}
    for element in elements(accept)[:_MOST_RANGES]:
        given = parameters(element)
        name, weight = next(iter(given), ""), given.get("q", "1")
        if _WEIGHT.fullmatch(weight):
            weights[name] = max(weights.get(name, 0.0), min(float(weight), 1.0))
    return weights


def _rank(weights: dict[str, float], media_type: str) -> tuple[float, int]:
    """Return the weight of the range that fits best, and how closely it fits."""
    ranges = ("*/*", f"{media_type.partition('/')[0]}/*", media_type)
    fits = [(weights[each], closeness) for closeness, each in enumerate(ranges) if each in weights]
    return fits[-1] if fits else (0.0, 0)
