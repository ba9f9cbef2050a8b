"""Sentences about wrong settings, in our words: each names the variable, and a good value."""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.fields import FieldInfo

PREFIX = "NOTIFIER_"
CLIENT_VARIABLES = {
    "NOTIFIER_API_KEY": "API key that `notifier send` posts with.",
    "NOTIFIER_TOKEN": "Token that `notifier listen` connects with.",
}
# Kubernetes puts these into every container for a Service of that name, unless told not to.
_SERVICE_LINK = re.compile(r"(.*_)?(SERVICE_(HOST|PORT\w*)|PORT_\d+_(TCP|UDP)\w*)")

_COMPARED = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_WANTED = {
    "int": "must be a whole number",
    "float": "must be a number",
    "finite": "must be a finite number",
    "bool": "must be true or false",
    "string": "must be text",
}


class SettingsError(Exception):
    """The settings cannot work. `lines` name the variables, the fault, and a good value."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def variable(name: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + name.upper()


def line(item: Mapping[str, Any], fields: Mapping[str, FieldInfo]) -> str:
    """Return the sentence about one wrong value, for an error of pydantic's."""
    name = str(item["loc"][0])
    return f"{variable(name)}: {_reason(item)}; {example(name, fields)}"


def example(name: str, fields: Mapping[str, FieldInfo]) -> str:
    """Give an example of a good value."""
    return f"for example {variable(name)}={(fields[name].examples or [''])[0]}"


def _reason(item: Mapping[str, Any]) -> str:
    """Say in our words why a value cannot be: pydantic's errors are named by their type."""
    kind, bounds = str(item["type"]), item.get("ctx", {})
    if kind == "value_error":
        return str(item["msg"]).removeprefix("Value error, ")
    if kind == "literal_error":
        return f"must be {bounds['expected']}"
    if kind in _COMPARED:
        words, bound = _COMPARED[kind]
        return f"must be {words} {bounds[bound]}".removesuffix(".0")
    return _WANTED.get(kind.partition("_")[0], "has a form that is not taken here")


def unknown(environ: Mapping[str, str | None], fields: Mapping[str, FieldInfo]) -> Iterator[str]:
    """Find misspelt variables: a setting that nobody reads is a setting that does not hold."""
    known = {variable(name) for name in fields}
    known |= {f"{name}_FILE" for name in known} | CLIENT_VARIABLES.keys()
    for name in sorted(environ):
        rest = name.removeprefix(PREFIX)
        if not name.startswith(PREFIX) or name in known:
            continue
        if _SERVICE_LINK.fullmatch(rest) or (environ[name] or "").startswith(("tcp://", "udp://")):
            continue
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}?" if close else "`notifier settings` lists all"
        yield f"{name}: is not a setting; {hint}"
