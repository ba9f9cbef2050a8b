"""Values of headers, and the lists and parameters in them (RFC 9110, sections 5.6.1 and 5.6.6)."""

import re
from collections.abc import Iterable

# No possessive quantifiers: on Python 3.11.2, which Debian 12 has, these take quadratic time.
_QUOTED = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_PIECES = {each: re.compile(rf'(?:[^{each}"]+|{_QUOTED.pattern})+') for each in ",;"}
_ESCAPE = re.compile(r"\\(.)")


def values_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """Return the values of a header, in the order of their lines; `name` is in lower case."""
    return [str(value, "latin-1") for each, value in headers if each == name]


def elements(value: str) -> list[str]:
    """Return the elements of a list; commas in quotes separate none."""
    return _split(value, ",")


def parameters(element: str) -> dict[str, str]:
    """Return the parameters of an element by their names in lower case; the first of a name counts.

    A part without `=`, such as the media type that the parameters belong to, is a name too.
    """
    found: dict[str, str] = {}
    for part in _split(element, ";"):
        name, _, value = part.partition("=")
        found.setdefault(name.strip().lower(), _unquoted(value.strip()))
    return found


def _split(value: str, separator: str) -> list[str]:
    end = _end_of_quoted(value)
    parts = _PIECES[separator].findall(value[:end])
    parts += value[end:].replace('"', separator).split(separator)
    return [each for each in parts if each.strip()]


def _end_of_quoted(value: str) -> int:
    """Return where a quote begins that never ends, or the end.

    It separates: it must not swallow the text that a proxy wrote behind it. Looking for its end
    once keeps the time linear; a client may send thousands of them.
    """
    end = 0
    while (begin := value.find('"', end)) >= 0:
        quoted = _QUOTED.match(value, begin)
        if not quoted:
            return begin
        end = quoted.end()
    return len(value)


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return _ESCAPE.sub(r"\1", value[1:-1]) if is_quoted else value
