"""Events made of a command's options and its standard input.

Texts are joined, not decoded and encoded again: numbers leave with all the digits they came with.
"""

import json
import os
import re
import select
import stat
from collections.abc import Callable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec.json import Decoder

from notifier.core.bounded_json import read_json
from notifier.core.errors import Invalid, Unreadable
from notifier.core.events import LARGEST_BATCH, LARGEST_BODY, MOST_IN_BATCH

AUDIENCE = frozenset({"users", "topic", "everyone"})
STDIN = "standard input"
_CHUNK = 64 * 1024
_VALUE = Decoder(Any)
_MEMBERS = Decoder(dict[str, msgspec.Raw])
_LIST = Decoder(list[msgspec.Raw])
_HALF = re.compile(r"[\ud800-\udfff]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Lines(NamedTuple):
    """Events of successive lines, and the numbers of these lines."""

    events: list[bytes]
    numbers: list[int]

    @property
    def body(self) -> bytes:
        """A body of POST /v1/events: a single event stands alone, as it may be larger so."""
        return self.events[0] if len(self.events) == 1 else b"[%b]" % b",".join(self.events)

    def is_full_with(self, text: bytes) -> bool:
        """Whether a body has no room for one more event."""
        size = sum(map(len, self.events)) + len(self.events) + len(text) + len(b"[]")
        return bool(self.events) and (size > LARGEST_BATCH or len(self.events) == MOST_IN_BATCH)


def event(members: Mapping[str, Any], data: bytes | None) -> bytes:
    """Return an event of `members` and of `data`, which is JSON; raises Invalid."""
    for name, value in members.items():
        # Arguments whose bytes are no text of the locale have halves of characters.
        if _HALF.search(str(value)):
            raise Invalid(name, "is not text in the encoding of this terminal (LANG, LC_ALL)")
    text = json.dumps(members).encode()
    return text if data is None else text[:-1] + b', "data": %b}' % data


def data_of(option: str, stdin: Callable[[], BufferedReader]) -> bytes:
    """Return the JSON of `--data`: a file's after @, standard input's for -, else the option's.

    Raises Invalid.
    """
    if option == "-":
        return _json(stdin().read(LARGEST_BODY + 1), f"--data - ({STDIN})", "send JSON there")
    if option.startswith("@"):
        return _json(_content(option[1:]), f"--data {option}", "write JSON into the file")
    remedy = "write text as --data '\"text\"', a file's content as --data @FILE"
    return _json(os.fsencode(option), "--data", remedy)


def _content(name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            return file.read(LARGEST_BODY + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not a file's name"
        remedy = "name a file that can be read"
        raise Invalid(f"--data @{name}", f"{reason}; {remedy}") from error


def _json(text: bytes, field: str, remedy: str) -> bytes:
    """Return `text` without the white space around its JSON; raises Invalid."""
    try:
        read_json(text, _VALUE, LARGEST_BODY)
    except Invalid as error:
        raise Invalid(field, f"{error.reason}; {remedy}") from error
    return text.removeprefix(_BYTE_ORDER_MARK).strip()


def unasked_data(stdin: BufferedReader) -> bytes | None:
    """Return the JSON list or object on standard input, beside options that make one event.

    None where it is empty. Raises Invalid for anything else: a script or a list of users, which
    the shell reads from there, must not become data unnoticed.
    """
    text = stdin.read(LARGEST_BODY + 1)
    if not text.strip():
        return None
    remedy = "--data - takes any JSON, </dev/null keeps standard input out"
    data = _json(text, f"{STDIN}, the event's data", remedy)
    if data[:1] not in b"[{":
        raise Invalid(f"{STDIN}, the event's data", f"must be a JSON object or list; {remedy}")
    return data


def state_of(descriptor: int) -> Literal["ready", "open", "absent"]:
    """Say whether standard input is "ready", "open" with nothing in it yet, or "absent".

    A file that the shell has begun to read is the shell's, as in `while read` or `sh -s`.
    """
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return "absent" if os.lseek(descriptor, 0, os.SEEK_CUR) else "ready"
    except OSError:
        return "absent"
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return "absent"
    return "ready" if select.select([descriptor], [], [], 0)[0] else "open"


def bodies(stdin: BufferedReader, defaults: Mapping[str, Any]) -> Iterator[bytes | Lines]:
    """Yield bodies of POST /v1/events: one document, or one event a line, as the lines come.

    `defaults` are the members of each event that leaves them out. Raises Invalid.
    """
    first, number = b"", 0
    while not first.strip():
        number += 1
        if not (first := stdin.readline(LARGEST_BODY + 1)):
            raise Invalid(STDIN, "is empty; send an event, a list of events, or one event a line")
    first = first.removeprefix(_BYTE_ORDER_MARK)
    if _is_event(first):
        for lines in _as_they_come(first, number, stdin):
            yield from _groups(lines, defaults)
    else:
        yield _document(first + stdin.read(LARGEST_BODY + 1), defaults)


def _is_event(line: bytes) -> bool:
    try:
        _MEMBERS.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return False
    return True


def _document(text: bytes, defaults: Mapping[str, Any]) -> bytes:
    text = _json(text, STDIN, "send an event, a list of events, or one event a line")
    if not defaults:
        return text
    if not text.startswith(b"["):
        return _completed(text, STDIN, defaults)
    events = [bytes(each) for each in _LIST.decode(text)]
    completed = (
        _completed(each, f"event {number} on {STDIN}", defaults)
        for number, each in enumerate(events, 1)
    )
    return b"[%b]" % b",".join(completed)


def _completed(text: bytes, field: str, defaults: Mapping[str, Any]) -> bytes:
    """Return an event with those of `defaults` that it leaves out; raises Invalid."""
    try:
        members = read_json(text, _MEMBERS, LARGEST_BODY)
    except Invalid as error:
        reason = error.reason if isinstance(error, Unreadable) else "must be a JSON object"
        raise Invalid(field, f"{reason}; mend it, and send from there on") from error
    text = text.removeprefix(_BYTE_ORDER_MARK).strip()
    missing = {name: value for name, value in defaults.items() if name not in members}
    if not missing:
        return text
    added = json.dumps(missing)[1:-1].encode()
    return b"{%b%b%b" % (added, b", " if members else b"", text[1:])


def _groups(lines: list[tuple[int, bytes]], defaults: Mapping[str, Any]) -> Iterator[Lines]:
    """Yield the events of `lines` in as few bodies as can be; raises Invalid behind the good."""
    group, bad = Lines([], []), None
    for number, line in lines:
        try:
            text = _completed(line, f"line {number} of {STDIN}", defaults)
        except Invalid as error:
            bad = error
            break
        if group.is_full_with(text):
            yield group
            group = Lines([], [])
        group.events.append(text)
        group.numbers.append(number)
    if group.events:
        yield group
    if bad:
        raise bad


def _as_they_come(
    first: bytes, number: int, stdin: BufferedReader
) -> Iterator[list[tuple[int, bytes]]]:
    """Yield the lines that are there, numbered and without empty ones, then wait for more."""
    yield [(number, first)]
    rest = b""
    while chunk := stdin.read1(_CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        yield [(number + at, line) for at, line in enumerate(lines, 1) if line.strip()]
        number += len(lines)
        if len(rest) > LARGEST_BODY:
            raise Invalid(f"line {number + 1} of {STDIN}", f"has more than {LARGEST_BODY} bytes")
    if rest.strip():
        yield [(number + 1, rest)]
