"""The promises of documents as lines: a change that breaks a client loses or adds some.

An `offer` may not be lost: a path, a member that is taken or sent, a value that is taken. A
`demand` may not be new: a member or parameter that clients must give. Bounds are not compared.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from notifier.schemas import PLACE

Document = Mapping[str, Any]


class Promise(NamedTuple):
    """One line: `kind` is `offer` or `demand`, `subject` the schema or operation that it is of."""

    kind: str
    subject: str
    text: str

    def __str__(self) -> str:
        """The line, as `parsed` reads it."""
        return " | ".join(self)


def parsed(text: str) -> set[Promise]:
    """Read lines."""
    return {Promise(*line.split(" | ", 2)) for line in text.splitlines()}


def breaches(released: set[Promise], now: set[Promise]) -> list[str]:
    """Return a sentence for each change that breaks somebody who relies on `released`."""
    known = {each.subject for each in released}
    lost = (f"{each} is lost" for each in released - now if each.kind == "offer")
    demands = (each for each in now - released if each.kind == "demand")
    new = (f"{each} is new" for each in demands if each.subject in known)
    return sorted((*lost, *new))


def of_frames(asyncapi: Document) -> Iterator[Promise]:
    """Yield the promises of AsyncAPI's messages and of the schemas that these lead to."""
    schemas = asyncapi["components"]["schemas"]
    messages = asyncapi["components"]["messages"]
    for operation in asyncapi["operations"].values():
        taken = operation["action"] == "receive"
        address = asyncapi["channels"][operation["channel"]["$ref"].rpartition("/")[2]]["address"]
        for message in operation["messages"]:
            name = message["$ref"].rpartition("/")[2]
            yield Promise("offer", address, f"{'takes' if taken else 'sends'} {name}")
            yield from of_schemas(messages[name]["payload"], schemas, taken=taken)


def of_http(openapi: Document) -> Iterator[Promise]:
    """Yield the promises of OpenAPI's operations and of the schemas that these lead to."""
    schemas = openapi["components"]["schemas"]
    for path, operations in openapi["paths"].items():
        for method, told in operations.items():
            yield from _of_operation(f"{method.upper()} {path}", told, schemas)


def _of_operation(subject: str, told: Document, schemas: Document) -> Iterator[Promise]:
    yield Promise("offer", subject, f"is called {told['operationId']}")
    for parameter in told.get("parameters", ()):
        yield Promise("offer", subject, f"takes {parameter['in']} {parameter['name']}")
        if parameter.get("required"):
            yield Promise("demand", subject, f"requires {parameter['name']}")
    for media, content in told.get("requestBody", {}).get("content", {}).items():
        yield Promise("offer", subject, f"takes {media}")
        yield from _of_schema(f"{subject} body", content["schema"], schemas, set(), taken=True)
    for status, answer in told["responses"].items():
        yield Promise("offer", subject, f"answers {status}")
        for content in answer.get("content", {}).values():
            schema = content.get("schema", {})
            yield from _of_schema(f"{subject} {status}", schema, schemas, set(), taken=False)


def of_schemas(schema: Document, schemas: Document, *, taken: bool) -> Iterator[Promise]:
    """Yield the promises of a schema, and of those that it refers to."""
    yield from _of_schema("", schema, schemas, set(), taken=taken)


def _of_schema(
    subject: str, schema: Document, schemas: Document, seen: set[str], *, taken: bool
) -> Iterator[Promise]:
    if target := schema.get("$ref"):
        name = target.removeprefix(PLACE)
        if name not in seen:
            seen.add(name)
            yield from _of_schema(name, schemas[name], schemas, seen, taken=taken)
        return
    verb = "takes" if taken else "sends"
    for member, told in schema.get("properties", {}).items():
        yield Promise("offer", subject, f"{verb} {member}: {_kind(told)}")
        yield from _of_schema(f"{subject}.{member}", told, schemas, seen, taken=taken)
    for member in schema.get("required", ()) if "properties" in schema else ():
        if taken:
            yield Promise("demand", subject, f"requires {member}")
        else:
            yield Promise("offer", subject, f"always sends {member}")
    for value in schema.get("enum", ()) if taken else ():
        yield Promise("offer", subject, f"takes {value}")
    # Beside members, alternatives only say which of those go together.
    is_union = "properties" not in schema
    inner = [*schema.get("anyOf", ()), *schema.get("oneOf", ())] if is_union else []
    inner += [schema[each] for each in ("items", "additionalProperties") if schema.get(each)]
    for each in inner:
        yield from _of_schema(subject, each, schemas, seen, taken=taken)


def _kind(schema: Document) -> str:
    if target := schema.get("$ref"):
        return str(target.removeprefix(PLACE))
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    return str(schema.get("type", "any"))
