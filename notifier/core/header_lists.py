"""Lists in headers, and the parameters of their elements (RFC 9110, sections 5.6.1 and 5.6.6)."""

import re

_QUOTED = r'"(?:[^"\\]|\\.)*+"'
_BALANCED = re.compile(rf'(?:[^"]|{_QUOTED})*+')
_PIECES = {each: re.compile(rf'(?:[^{each}"]|{_QUOTED})+') for each in ",;"}
_ESCAPE = re.compile(r"\\(.)")


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
    # A quote that never ends separates: it must not swallow the text that a proxy wrote behind it.
    # Looking for its end once keeps the time linear; a client may send thousands of them.
    balanced = _BALANCED.match(value)
    end = balanced.end() if balanced else 0
    parts = _PIECES[separator].findall(value[:end])
    parts += value[end:].replace('"', separator).split(separator)
    return [each for each in parts if each.strip()]


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return _ESCAPE.sub(r"\1", value[1:-1]) if is_quoted else value
