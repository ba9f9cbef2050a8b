"""Events of every shape that producers may send, for hypothesis."""

import json
import string
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st
from msgspec import UNSET, Raw

from notifier.core.events import RESERVED_EXTENSIONS, Event

# Without surrogates, control characters, and those that Unicode will never assign.
_NONCHARACTERS = [
    *range(0xFDD0, 0xFDF0),
    *(plane + last for plane in range(0, 0x110000, 0x10000) for last in (0xFFFE, 0xFFFF)),
]
PRINTABLE = st.characters(
    exclude_categories=["Cs", "Cc"], exclude_characters="".join(map(chr, _NONCHARACTERS))
)
WORDS = st.text(PRINTABLE, min_size=1, max_size=256)
TEXTS = st.text(PRINTABLE, min_size=1, max_size=300)
SOURCES = st.sampled_from(["/a", "//h:1/b?c=%20#d", "urn:x:1", "http://[::1]/%C3%A9"])
TRACES = st.just("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
_LETTERS = string.ascii_lowercase + string.digits
NAMES = st.text(
    _LETTERS + string.ascii_uppercase + "-._~:@/+=|$!&", min_size=1, max_size=128
).filter(lambda name: name not in (".", ".."))
TOPICS = (NAMES | NAMES.map("user:".__add__)).filter(
    lambda name: name not in ("user:", "user:.", "user:..")  # of no user
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
    max_leaves=8,
)
MOMENTS = st.datetimes(
    datetime(1, 1, 2),  # noqa: DTZ001  # the zone is drawn below
    datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
)
_EXTENSIONS = st.dictionaries(
    st.text(_LETTERS, min_size=1, max_size=20).filter(lambda name: name not in RESERVED_EXTENSIONS),
    st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.text(PRINTABLE, max_size=50),
    max_size=3,
)
_INDENTED = st.builds(
    lambda value, indent: json.dumps(value, indent=indent).encode(), JSON, st.none() | st.just(2)
)


@st.composite
def _events(draw: st.DrawFn) -> Event:
    members: dict[str, Any] = draw(
        st.one_of(
            st.fixed_dictionaries({"users": st.lists(NAMES, min_size=1, max_size=3)}),
            st.fixed_dictionaries({"topic": TOPICS}),
            st.just({"everyone": True}),
        )
    )
    members |= draw(
        st.one_of(
            st.just({}),
            st.fixed_dictionaries({"data": _INDENTED.map(Raw)}),
            st.fixed_dictionaries({"data_base64": st.binary(max_size=9)}),
        )
    )
    members |= draw(
        st.one_of(
            st.just({}),
            st.fixed_dictionaries({"ttl": st.floats(0.001, 2_592_000)}),
            st.fixed_dictionaries({"expires": MOMENTS}),
        )
    )
    optional = {
        "id": WORDS,
        "source": SOURCES,
        "time": MOMENTS,
        "subject": TEXTS,
        "datacontenttype": TEXTS,
        "dataschema": st.just("https://a.example/b.json"),
        "collapse_key": WORDS,
        "silent": st.booleans(),
        "traceparent": TRACES,
        "extensions": _EXTENSIONS,
    }
    members |= draw(st.fixed_dictionaries({}, optional=optional))
    return Event(type=draw(WORDS), **members)


EVENTS = _events()


def given(event: Event) -> dict[str, Any]:
    """Return what an event has, as plain values that can be compared."""
    members = {name: getattr(event, name) for name in event.__struct_fields__}
    return {
        name: bytes(value) if isinstance(value, Raw) else value
        for name, value in members.items()
        if value is not UNSET
    }
