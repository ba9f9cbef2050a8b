"""The backend around each example: a page, tokens, a producer, and a notifier on memory."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from notifier.client import Producer
from notifier.telemetry import logs
from notifier.testing import Notifier, running

_HERE = Path(__file__).parent
_CLIENT = _HERE.parent / "clients/js/dist"
_PORT = 8080

Work = Callable[[Producer], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def no_work(_: Producer) -> AsyncIterator[None]:
    """Do nothing beside the requests."""
    yield


@dataclass(frozen=True, slots=True)
class Example:
    """An example: its folder, its own routes, and its work in the background."""

    name: str
    add_routes: Callable[[FastAPI], None] = lambda _: None
    work: Work = no_work


def create_app(example: Example, notifier: Notifier) -> FastAPI:
    """Make the backend; `app.state.producer` posts to notifier."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Producer(notifier.api_url, notifier.api_key) as producer, example.work(producer):
            app.state.producer = producer
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(_HERE / example.name / "index.html")

    @app.get("/style.css")
    def style() -> FileResponse:
        return FileResponse(_HERE / "style.css")

    # A real backend takes the user from its own session, never from the query.
    @app.get("/token")
    def token(user: str) -> dict[str, str]:
        return {"url": notifier.url, "token": notifier.token(user)}

    app.mount("/client", StaticFiles(directory=_CLIENT))
    example.add_routes(app)
    return app


def run(example: Example) -> None:
    """Serve an example until Ctrl+C; the first argument is its port, 8080 without one."""
    if not (_CLIENT / "index.js").exists():
        sys.exit(f"The client for browsers is not built: make example NAME={example.name}")
    port = int(sys.argv[1]) if len(sys.argv) > 1 else _PORT
    logs.configure("console", "WARNING")
    with running() as notifier:
        print(f"Open http://127.0.0.1:{port}/#user=ann and, in another browser, #user=bob")
        app = create_app(example, notifier)
        uvicorn.run(app, host="127.0.0.1", port=port, log_config=None)
