"""Writes what stands twice in the chart: run by `make chart`, and compared by tests/deploy.

From notifier's settings comes the part of values.schema.json that takes them; from the comments of
values.yaml that begin with `# --` comes the table in the chart's README.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from notifier.settings import Settings, variable

CHART = Path(__file__).parent / "notifier"
BEGIN = "<!-- values: made by `make chart` from values.yaml -->\n"
END = "<!-- end of values -->"

_BOUNDS = {
    "ge": "minimum",
    "le": "maximum",
    "gt": "exclusiveMinimum",
    "lt": "exclusiveMaximum",
}
_LISTS = [
    "NOTIFIER_ALLOWED_ORIGINS",
    *("NOTIFIER_JWT_AUDIENCE", "NOTIFIER_JWT_DISCOVERY_URL", "NOTIFIER_JWT_ISSUER"),
]
_SECRETS = ["NOTIFIER_API_KEYS"]  # hashes, but of keys that someone may try to guess
_KEY = re.compile(r"( *)([\w.-]+):(?: (.*))?")


class Row(NamedTuple):
    """A documented value."""

    path: str
    default: str
    meaning: str


def is_secret(name: str, field: FieldInfo) -> bool:
    """Whether a setting may only stand in a Secret."""
    return _has_secret(field.annotation) or variable(name) in _SECRETS


def _has_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(map(_has_secret, get_args(annotation)))


def settings_schema() -> dict[str, Any]:
    """Make the schemas of `config` and `secrets`: every setting, each in one of them."""
    properties = Settings.model_json_schema()["properties"]
    config, secrets = {}, {}
    for name, field in Settings.model_fields.items():
        if is_secret(name, field):
            secrets[variable(name)] = {"$ref": "#/$defs/secret"}
        else:
            config[variable(name)] = _plain(variable(name), properties[name])
    return {"config": config | dict.fromkeys(secrets, True), "secrets": secrets}


def _plain(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    kept = ("type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    options = schema.get("anyOf", [schema])
    [plain] = [option for option in options if option.get("type") != "null"]
    found = {key: plain[key] for key in kept if key in plain}
    if name.endswith("_PORT"):
        found["minimum"] = 1  # 0 would let the system choose, and nobody would know
    if plain["type"] == "array":
        found = {"type": ["array", "string"], "items": {"type": "string"}}
    return found


def schema_text(text: str) -> str:
    """Return values.schema.json with the settings of today in it."""
    schema = json.loads(text)
    for section, properties in settings_schema().items():
        schema["properties"][section]["properties"] = properties
    _require_sections(schema, yaml.safe_load((CHART / "values.yaml").read_text()))
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _require_sections(schema: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Require what has a section as its default: null takes it away, and templates stumble there.

    A section whose lines are all commented out is null too.
    """
    properties = schema.get("properties", {})
    sections = [name for name in properties if isinstance(defaults.get(name), dict | list)]
    if sections:
        schema["required"] = [*dict.fromkeys([*schema.get("required", ()), *sections])]
    for name in sections:
        if isinstance(defaults[name], dict):
            _require_sections(properties[name], defaults[name])


def rows(text: str) -> Iterator[Row]:
    """Yield each documented value of values.yaml."""
    values = yaml.safe_load(text)
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            comment.append(line.strip())
            continue
        if key := _KEY.match(line):
            indent = len(key[1])
            path = [*((i, name) for i, name in path if i < indent), (indent, key[2])]
            if meaning := _meaning(comment):
                names = [name for _, name in path]
                yield Row(".".join(names), _default(values, names), meaning)
        comment = []


def _meaning(comment: list[str]) -> str:
    starts = [number for number, line in enumerate(comment) if line.startswith("# -- ")]
    lines = comment[starts[-1] :] if starts else []
    return " ".join(line.removeprefix("# -- ").removeprefix("# ") for line in lines)


def _default(values: Any, names: list[str]) -> str:  # noqa: ANN401 - whatever YAML holds
    for name in names:
        values = values[name]
    return json.dumps(values, ensure_ascii=False)


def table() -> str:
    """Make the README's table of values."""
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for row in rows((CHART / "values.yaml").read_text()):
        default = f"`{row.default}`".replace("|", "\\|")
        lines.append(f"| `{row.path}` | {default} | {row.meaning} |")
    return "\n".join(lines) + "\n"


def readme_text(text: str) -> str:
    """Return the chart's README with the table of today in it."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


def main() -> None:
    """Write both files anew."""
    for name, renew in (("values.schema.json", schema_text), ("README.md", readme_text)):
        path = CHART / name
        path.write_text(renew(path.read_text()))


if __name__ == "__main__":
    main()
