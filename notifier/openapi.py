"""FastAPI applications as every port has them, described by OpenAPI at `/openapi.json`."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from notifier.problems import MEDIA_TYPE, SCHEMA

_NO_TELEMETRY = {"tracing": False, "metrics": False, "logs": False}  # ours is at the ports, ADR 15


class Application(FastAPI):
    """A FastAPI application without pages of documentation, as those load scripts of others.

    It redirects nobody: a client that cannot follow a redirect, or follows it with GET, would lose
    an event. `security` has the schemes by which clients identify themselves (OpenAPI 3.1, 4.8.27).
    """

    def __init__(self, title: str, description: str, security: Mapping[str, Any]) -> None:
        super().__init__(
            title=title,
            description=description,
            version=version("notifier"),
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            telemetry=_NO_TELEMETRY,  # type: ignore[arg-type] # a TypedDict
        )
        self._security = security

    def openapi(self) -> dict[str, Any]:
        """See FastAPI; made once."""
        if self.openapi_schema is None:
            schema = super().openapi()
            parts = schema.setdefault("components", {})
            parts["securitySchemes"] = dict(self._security)
            parts.setdefault("schemas", {})["Problem"] = SCHEMA
        return super().openapi()


def parameter(name: str, place: str, description: str, **schema: object) -> dict[str, Any]:
    """Describe a parameter of the `query` or of a `header`; none is required."""
    told = {"type": "string", **schema}
    return {"name": name, "in": place, "description": description, "schema": told}


def problems(described: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Describe the refusals of an endpoint: each is a problem (RFC 9457)."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": description, "content": content}
        for status, description in described.items()
    }
