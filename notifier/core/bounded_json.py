"""Reads JSON within bounds, and explains its faults in our own words.

Libraries have sentences of their own for bad input. Producers and clients get none of them: each
error names the field, its rule and the remedy.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec.json import Decoder

from notifier.core.errors import Invalid, TooLarge, Unreadable

T = TypeVar("T")

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_AT_PATH = re.compile(r"^(?P<reason>.*) - at `\$\.?(?P<path>.*)`$", re.DOTALL)
_WRONG_TYPE = re.compile(r"Expected `([\w |]+)`, got `([\w |]+)`")
_WRONG_NUMBER = re.compile(r"Expected `(?:int|float)` ([<>]=?) ([\d.e+-]+)")
_MISSING = re.compile(
    r"Object (?:missing required|contains unknown) field `(?P<name>.*)`", re.DOTALL
)
# Of a character beyond 16 bits: its first half without the second, or its second without the first.
_HALF = re.compile(
    rb"\\u[Dd](?:[89ABab][0-9A-Fa-f]{2}(?!\\u[Dd][C-Fc-f][0-9A-Fa-f]{2})"
    rb"|(?<!\\u[Dd][89ABab][0-9A-Fa-f]{2}\\u[Dd])[C-Fc-f][0-9A-Fa-f]{2})"
)
_AT_BYTE = re.compile(r"\(byte (\d+)\)")
_COMPARED = {">": "more than", ">=": "at least", "<": "less than", "<=": "at most"}
_SAID = {
    "array": "a list",
    "object": "an object",
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
}
_ITEMS = Decoder(list[msgspec.Raw])
_LONGEST_SHOWN = 64
_MOST_NESTED = 256  # lists and objects within one another; many readers take no more than that
TOO_DEEP = f"JSON is nested too deeply: at most {_MOST_NESTED} lists and objects in one another"
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
NOT_A_MEMBER = "is not a member"


def check_size(size: int, most: int) -> None:
    """Raise TooLarge for more than `most` bytes."""
    if size > most:
        raise TooLarge("", f"at most {most} bytes are taken here, this has {size}")


def is_too_deep(text: bytes) -> bool:
    """Whether JSON is nested deeper than is taken anywhere.

    Python's own bound differs from release to release, and grows.
    """
    if text.count(b"[") + text.count(b"{") <= _MOST_NESTED:
        return False
    unescaped = text.replace(rb"\\", b"").replace(rb"\"", b"")
    outside_strings = b"".join(unescaped.split(b'"')[::2])
    depth = 0
    for bracket in outside_strings.translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > _MOST_NESTED:
            return True
    return False


def read_json(
    body: bytes, decoder: Decoder[T], most: int, rules: Mapping[str, str] | None = None
) -> T:
    """Decode JSON of at most `most` bytes; raises TooLarge, Unreadable, or Invalid by `rules`."""
    check_size(len(body), most)
    if is_too_deep(body):
        raise Unreadable("", TOO_DEEP)
    return _read(body, decoder, rules or {})


def is_list(text: bytes) -> bool:
    """Whether JSON is a list, by its first character."""
    return unmarked(text).lstrip()[:1] == b"["


def unmarked(text: bytes) -> bytes:
    """Return JSON without a byte order mark, which is ignored (RFC 8259, section 8.1)."""
    return text.removeprefix(_BYTE_ORDER_MARK)


def read_items(body: bytes, most: int) -> list[bytes]:
    """Split a JSON array of at most `most` bytes as `read_json` does.

    Items are read one by one afterwards, so the depth of each is left to its reader.
    """
    check_size(len(body), most)
    return [bytes(item) for item in _read(body, _ITEMS, {})]


def _read(body: bytes, decoder: Decoder[T], rules: Mapping[str, str]) -> T:
    body = unmarked(body)
    if not body.strip():
        raise Unreadable("", "not JSON: there is nothing in it")
    try:
        body.decode()  # `data` is carried unparsed, so nothing later would notice broken UTF-8
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise named(error, rules) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable("", not_json(error, body)) from error


def not_json(error: Exception, text: bytes) -> str:
    """Return the place where `text` stops being JSON, for an error of msgspec's or of UTF-8's."""
    if isinstance(error, RecursionError):
        return TOO_DEEP
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    found = _AT_BYTE.search(str(error))
    before = text[: int(found[1])] if found else text  # a half behind the fault is not its reason
    if half := _HALF.search(before.replace(rb"\\", b"")):
        name = half[0].decode()
        return f"{name} is half of a character (RFC 8259, section 8.2); send both halves"
    return f"not JSON from byte {found[1]} on" if found else "not JSON: it ends too early"


def named(error: msgspec.ValidationError, rules: Mapping[str, str]) -> Invalid:
    """Turn `Expected … - at `$.users[3]`` into an Invalid whose field is `users[3]`.

    `rules` has the rule of each member, as "must be …".
    """
    match = _AT_PATH.match(str(error))
    reason, path = (match["reason"], match["path"]) if match else (str(error), "")
    if missing := _MISSING.match(reason):
        path = f"{path}.{missing['name'][:_LONGEST_SHOWN]}".lstrip(".")
        return Invalid(path, "is missing" if "missing" in reason else NOT_A_MEMBER)
    rule = rules.get(re.split(r"[.\[]", path, maxsplit=1)[0], "")
    if path.startswith("[...]"):
        path = ""  # msgspec does not tell the names of a dictionary's members
    return Invalid(path, _kinds_in_words(reason) or rule or _in_words(reason))


def _in_words(reason: str) -> str:
    """Say what is wrong where no rule does."""
    if (number := _WRONG_NUMBER.fullmatch(reason)) is not None:
        return f"must be {_COMPARED[number[1]]} {number[2]}"
    if "out of range" in reason:
        return "a number is too large to be read"
    return "has a form that is not taken here"


def _kinds_in_words(reason: str) -> str:
    """Say `Expected `str`, got `int`` as a person would; empty where the rule says it better."""
    if (kinds := _WRONG_TYPE.fullmatch(reason)) is None:
        return ""
    wanted, given = (each.split(" | ") for each in kinds.groups())
    if not {*wanted, *given} <= _SAID.keys():
        return ""
    return f"must be {_either(wanted)}, not {_either(given)}"


def _either(kinds: list[str]) -> str:
    return " or ".join(_SAID[kind] for kind in kinds)
