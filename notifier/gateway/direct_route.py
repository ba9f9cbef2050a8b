"""WebSocket routes of FastAPI's with a single dependency, which are called directly.

All that leans on FastAPI's internals stands here. Solving dependencies in general, with exit stacks
and a response that nobody sends, takes 46 us a connect, a third of all that a connect costs. The
middleware does nothing for a WebSocket: it marks, bounds and measures answers over HTTP.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIWebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from notifier.core.errors import NotifierError
from notifier.openapi import Application


class DirectWebSocketRoute(APIWebSocketRoute):
    """A route whose `endpoint(socket, found)` takes the result of its one dependency.

    The dependency is a coroutine function of the connection alone.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], provider: FastAPI) -> None:
        super().__init__(path, endpoint, dependency_overrides_provider=provider)
        self._socket, self._name, self._find = self._names()

    def _names(self) -> tuple[str, str, Callable[[WebSocket], Awaitable[Any]]]:
        [needed] = self.dependant.dependencies
        if needed.dependencies or needed.http_connection_param_name is None or needed.call is None:
            raise TypeError(f"{needed.call} must depend on the connection alone")
        if self.dependant.websocket_param_name is None or needed.name is None:
            raise TypeError(f"{self.endpoint} must take the socket and its dependency")
        return self.dependant.websocket_param_name, needed.name, needed.call

    async def call(self, socket: WebSocket) -> None:
        """Call the dependency, then the endpoint."""
        await self.endpoint(**{self._socket: socket, self._name: await self._find(socket)})


class DirectApplication(Application):
    """An application that calls its direct routes past its middleware.

    Its handler of NotifierError answers for them too. While dependencies are overridden, FastAPI
    serves these routes as any other: a replacement may depend on anything.
    """

    def __init__(
        self, title: str, description: str, security: Mapping[str, Any], *, docs: bool = True
    ) -> None:
        super().__init__(title, description, security, docs=docs)
        self._direct: dict[str, DirectWebSocketRoute] = {}

    def add_direct_websocket_route(self, path: str, endpoint: Callable[..., Any]) -> None:
        """Serve WebSockets at a path without parameters; see DirectWebSocketRoute."""
        self._direct[path] = route = DirectWebSocketRoute(path, endpoint, self)
        self.router.routes.append(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        route = self._direct.get(scope["path"]) if scope["type"] == "websocket" else None
        if route is None or self.dependency_overrides:
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        socket = WebSocket(scope, receive, send)
        try:
            await route.call(socket)
        except NotifierError as error:
            refuse: Any = self.exception_handlers[NotifierError]
            await refuse(socket, error)
