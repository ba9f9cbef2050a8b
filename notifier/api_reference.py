"""The page `/docs`: an OpenAPI document for people, as HTML without scripts and foreign hosts."""

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from html import escape
from typing import Any

Members = Mapping[str, Any]

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--code:#8882}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
section{border-top:1px solid var(--line);margin-top:2rem}
table{border-collapse:collapse;width:100%}
td,th{border-bottom:1px solid var(--line);padding:.3rem .6rem .3rem 0;text-align:left;
vertical-align:top;overflow-wrap:anywhere}
th{min-width:8rem}code,pre{background:var(--code);border-radius:4px;padding:.1rem .3rem}
pre{padding:.6rem;overflow-x:auto}b{font-variant:small-caps}
"""
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; style-src 'sha256-"
    + b64encode(sha256(_STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_LONGEST_RULE = 120  # characters of a pattern that are shown


def page_of(document: Members) -> str:
    """Return the page of an OpenAPI document."""
    info = document["info"]
    operations = [
        (method, path, told)
        for path, item in document["paths"].items()
        for method, told in item.items()
    ]
    schemas = document.get("components", {}).get("schemas", {})
    title = escape(f"{info['title']} {info['version']}")
    return "".join(
        (
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>",
            f"<p>{_text(info['description'])}</p>",
            '<p>For tools: <a href="openapi.json">openapi.json</a></p><nav><ul>',
            *(f"<li>{_link(*each)}" for each in operations),
            "</ul></nav>",
            *(_operation(*each) for each in operations),
            "<section><h2>Schemas</h2>",
            *(_schema(name, schema) for name, schema in schemas.items()),
            "</section></html>",
        )
    )


def _link(method: str, path: str, told: Members) -> str:
    name = escape(told["operationId"])
    return f'<a href="#{name}"><code>{method.upper()} {escape(path)}</code></a>'


def _operation(method: str, path: str, told: Members) -> str:
    name = escape(told["operationId"])
    return "".join(
        (
            f'<section id="{name}"><h2>{method.upper()} {escape(path)}</h2>',
            f"<p>{_text(told.get('description', ''))}</p>",
            _table("Parameters", (_parameter(each) for each in told.get("parameters", ()))),
            _contents("Body", told.get("requestBody", {}).get("content", {})),
            _table(
                "Answers",
                (
                    (status, f"{_text(each['description'])} {_kinds(each.get('content', {}))}")
                    for status, each in sorted(told["responses"].items())
                ),
            ),
            "</section>",
        )
    )


def _parameter(told: Members) -> tuple[str, str]:
    needed = " <b>required</b>" if told.get("required") else ""
    about = _text(told.get("description", ""))
    return told["name"], f"{about}{needed}<br>in {told['in']}: {_type(told['schema'])}"


def _table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f"<tr><th>{escape(name)}<td>{about}" for name, about in rows)
    return f"<h3>{title}</h3><table>{lines}</table>" if lines else ""


def _contents(title: str, contents: Members) -> str:
    rows = ((media, _content(told)) for media, told in contents.items())
    return _table(title, rows)


def _content(told: Members) -> str:
    examples = [each["value"] for each in told.get("examples", {}).values()]
    return _type(told.get("schema", {})) + "".join(_example(each) for each in examples)


def _kinds(contents: Members) -> str:
    return "<br>".join(_type(told.get("schema", {})) for told in contents.values())


def _schema(name: str, schema: Members) -> str:
    needed = schema.get("required", ())
    rows = (
        (
            member,
            (
                f"{_type(told)}{' <b>required</b>' if member in needed else ''} "
                f"{_text(told.get('description', ''))}"
            ),
        )
        for member, told in schema.get("properties", {}).items()
    )
    examples = "".join(_example(each) for each in schema.get("examples", ()))
    about = f"<p>{_text(schema.get('description', ''))}</p>"
    kind = "" if "properties" in schema else f"<p>{_type(schema)}</p>"
    rules = _table("", rows)
    return f'<h3 id="schema-{escape(name)}">{escape(name)}</h3>{about}{kind}{rules}{examples}'


def _type(schema: Members) -> str:
    """Describe a schema in a line, and link those that it refers to."""
    if target := schema.get("$ref"):
        name = escape(target.rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    for choice in ("oneOf", "anyOf"):
        if choice in schema and "properties" not in schema:
            return " or ".join(_type(each) for each in schema[choice])
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(f"<code>{escape(json.dumps(each))}</code>" for each in values)
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    kind = escape(schema.get("format", schema.get("type", "any JSON")))
    return " ".join((kind, *(_rule(name, schema[name]) for name in _SHOWN if name in schema)))


_SHOWN = ("minimum", "exclusiveMinimum", "maximum", "minLength", "maxLength", "pattern", "default")


def _rule(name: str, value: object) -> str:
    shown = json.dumps(value)
    return f"{name} <code>{escape(shown)}</code>" if len(shown) < _LONGEST_RULE else ""


def _example(value: object) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2))}</pre>"


def _text(text: str) -> str:
    """Escape text, and show the words between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{each}</code>" if i % 2 else each for i, each in enumerate(parts))
