"""Reads a producer's request: its body, and the headers and the query beside it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from fastapi import Request

from notifier.bodies import content_of
from notifier.core import events
from notifier.core.errors import Invalid
from notifier.core.ingress import Body

_PREFIX = b"ce-"
_PARAMETERS: Final = ("users", "topic", "everyone", "type")
_MISNOMERS = {"user": "users", "topics": "topic"}
_LONGEST_SHOWN = 32


async def body_of(request: Request) -> Body:
    """Read the request; raises TooLarge, and Invalid for a bad header or parameter.

    An audience in the query is for senders that cannot choose their body: only it counts then.
    """
    headers, query = request.headers, request.query_params
    check_parameters(request, _PARAMETERS)
    audience = _audience_in(query)
    return Body(
        content=await content_of(request, events.LARGEST_BODY),
        content_type=_content_type_in(headers.getlist("content-type")),
        content_encoding=", ".join(headers.getlist("content-encoding")),
        attributes=attributes_among(request.scope["headers"]),
        audience=audience,
        type=query.get("type", ""),
        is_addressed=bool(audience),
        is_stated=True,
    )


def _content_type_in(given: Sequence[str]) -> str:
    """Return the content type, JSON where none is given; it becomes an attribute in binary mode."""
    if len(given) > 1:
        raise Invalid("content_type", "stands in more than one header; send it once")
    try:
        return given[0].encode("latin-1").decode() if given else "application/json"
    except UnicodeDecodeError as error:
        raise Invalid("content_type", "is not UTF-8") from error


def attributes_among(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, object]:
    """Return the CloudEvents attributes among headers (HTTP binding, section 3.1.3.2).

    Raises Invalid for a value that is not UTF-8, and for a name that stands there twice.
    """
    found: dict[str, object] = {}
    for name, value in headers:
        if not name.startswith(_PREFIX):
            continue
        attribute = name[len(_PREFIX) :].decode("latin-1")
        if attribute in found:
            raise Invalid(attribute, "stands in more than one header; send it once")
        found[attribute] = _text_of(attribute, value)
    return found


def _text_of(attribute: str, value: bytes) -> str:
    value = value.strip()
    if (
        len(value) > 1 and value[:1] == value[-1:] == b'"'
    ):  # as senders once had to (RFC 9110, 5.6.4)
        parts = value[1:-1].split(b"\\\\")
        value = b"\\".join(part.replace(b"\\", b"") for part in parts)
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError as error:
        raise Invalid(
            attribute, "is not UTF-8: send its header in UTF-8, percent-encoded best"
        ) from error


def check_parameters(request: Request, known: Sequence[str] = ()) -> None:
    """Raise Invalid for a parameter of the query that is not `known`, or is there twice.

    Names that begin with `_` are anybody's.
    """
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name in known and names.count(name) > 1:
            separated = "; separate several by commas" if name == "users" else ""
            raise Invalid(name, f"is given more than once{separated}")
        if name not in known and _MISNOMERS.get(name) in known:
            raise Invalid(name, f"is called {_MISNOMERS[name]} in the query")
        if name not in known and not name.startswith("_"):
            there_are = ", ".join(known) or "none"
            raise Invalid(name[:_LONGEST_SHOWN], f"is no parameter here; there are {there_are}")


def _audience_in(query: Mapping[str, str]) -> dict[str, object]:
    audience: dict[str, object] = {}
    if "users" in query:
        audience["users"] = query["users"].split(",")
    if "topic" in query:
        audience["topic"] = query["topic"]
    if "everyone" in query:
        if query["everyone"] != "true":
            raise Invalid("everyone", "can only be true; leave it out otherwise")
        audience["everyone"] = True
    if "type" in query and not audience:
        raise Invalid("type", "stands in the query only beside users, topic or everyone")
    return audience
