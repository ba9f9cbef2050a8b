"""FastAPI applications as every port has them, described by OpenAPI at `/openapi.json`."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from notifier import __version__, api_reference
from notifier.problems import MEDIA_TYPE, SCHEMA, title_of
from notifier.schemas import ref, referenced

_NO_TELEMETRY = {"tracing": False, "metrics": False, "logs": False}  # ours is at the ports, ADR 15
JSON = "application/json"


class Application(FastAPI):
    """A FastAPI application that describes itself, unless `docs` is False.

    `/docs` is a page of our own, as FastAPI's load scripts of others. The application redirects
    nobody: a client that cannot follow a redirect, or follows it with GET, would lose an event.
    `security` has the schemes by which clients identify themselves (OpenAPI 3.1, 4.8.27).
    """

    def __init__(
        self, title: str, description: str, security: Mapping[str, Any], *, docs: bool = True
    ) -> None:
        super().__init__(
            title=title,
            description=description,
            version=__version__,
            license_info={"name": "MIT", "identifier": "MIT"},
            openapi_url="/openapi.json" if docs else None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            generate_unique_id_function=_name_of,
            telemetry=_NO_TELEMETRY,  # type: ignore[arg-type] # a TypedDict
        )
        self._security = security
        self._page: str | None = None
        if docs:
            self.add_route("/docs", self._docs, include_in_schema=False)

    def add_endpoint(
        self,
        method: str,
        path: str,
        endpoint: Callable[..., Any],
        **described: Any,  # noqa: ANN401 - as FastAPI takes it
    ) -> None:
        """Answer at a path and, undescribed, with a slash behind it: no redirect loses anybody."""
        self.add_api_route(path, endpoint, methods=[method], **described)
        self.add_api_route(f"{path}/", endpoint, methods=[method], include_in_schema=False)

    def openapi(self) -> dict[str, Any]:
        """See FastAPI; made once."""
        if self.openapi_schema is None:
            schema = super().openapi()
            parts = schema.setdefault("components", {})
            parts["securitySchemes"] = dict(self._security)
            parts["schemas"] = referenced(schema["paths"]) | {"Problem": SCHEMA}
        return super().openapi()

    async def _docs(self, _: Request) -> Response:
        if self._page is None:
            self._page = api_reference.page_of(self.openapi())
        return HTMLResponse(self._page, headers=api_reference.HEADERS)


def _name_of(route: APIRoute) -> str:
    return route.name


def parameter(name: str, place: str, description: str, **schema: object) -> dict[str, Any]:
    """Describe a parameter of the `query` or of a `header`; none is required."""
    told = schema if "$ref" in schema else {"type": "string", **schema}
    return {"name": name, "in": place, "description": description, "schema": told}


def members(**schemas: object) -> dict[str, Any]:
    """Describe an object that has all of these members."""
    return {"type": "object", "required": list(schemas), "properties": schemas}


def answer(description: str, schema: object, **examples: object) -> dict[str, Any]:
    """Describe an answer in JSON, with an example of each kind by its name."""
    return {"description": description, "content": {JSON: content(schema, **examples)}}


def body(schema: object, **examples: object) -> dict[str, Any]:
    """Describe a required body in JSON, with an example of each kind by its name."""
    return {"required": True, "content": {JSON: content(schema, **examples)}}


def content(schema: object, **examples: object) -> dict[str, Any]:
    """Describe one media type of a body, with an example of each kind by its name."""
    shown = {name.replace("_", " "): {"value": value} for name, value in examples.items()}
    return {"schema": schema} | ({"examples": shown} if shown else {})


def problems(described: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Describe the refusals of an endpoint: each is a problem (RFC 9457)."""
    return {
        status: {
            "description": description,
            "content": {MEDIA_TYPE: content(ref("Problem"), problem=_example(status, description))},
        }
        for status, description in described.items()
    }


def _example(status: int, description: str) -> dict[str, Any]:
    title = title_of(HTTPStatus(status))
    return {"type": "about:blank", "title": title, "status": status, "detail": description}
