from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.routing import APIWebSocketRoute
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

from notifier.core.errors import NotifierError, Unauthorized
from notifier.gateway.direct_route import DirectApplication


async def visitor(connection: HTTPConnection) -> str:
    return connection.query_params["who"]


async def endpoint(socket: WebSocket, who: Annotated[str, Depends(visitor)]) -> None:
    await socket.accept(subprotocol=who)


async def name() -> str:
    return "replaced"


async def replacement(who: Annotated[str, Depends(name)]) -> str:
    return who


async def subprotocol_of(app: FastAPI) -> str:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "websocket",
        "path": "/ws",
        "query_string": b"who=ann",
        "headers": [],
        "subprotocols": [],
    }
    await app(scope, receive, send)
    return str(sent[0]["subprotocol"])


def made() -> DirectApplication:
    app = DirectApplication("direct", "", {})
    app.add_direct_websocket_route("/ws", endpoint)
    return app


async def test_the_endpoint_gets_the_socket_and_its_dependency() -> None:
    assert await subprotocol_of(made()) == "ann"


async def test_a_replacement_may_itself_depend_on_something() -> None:
    app = made()
    app.dependency_overrides[visitor] = replacement

    assert await subprotocol_of(app) == "replaced"


async def test_fastapis_own_route_answers_alike() -> None:
    """A canary: the internals that the direct route reads still mean what they meant."""
    app, plain = made(), FastAPI()
    plain.add_api_websocket_route("/ws", endpoint)
    [ours] = [each for each in app.router.routes if isinstance(each, APIWebSocketRoute)]
    [theirs] = [each for each in plain.router.routes if isinstance(each, APIWebSocketRoute)]

    assert await subprotocol_of(app) == await subprotocol_of(plain)
    assert ours.dependant.websocket_param_name == theirs.dependant.websocket_param_name == "socket"
    assert [each.call for each in theirs.dependant.dependencies] == [visitor]


async def test_a_dependency_that_needs_more_than_the_connection_is_refused_at_start() -> None:
    async def nested(socket: WebSocket, who: Annotated[str, Depends(replacement)]) -> None:
        pass

    with pytest.raises(TypeError, match="must depend on the connection alone"):
        made().add_direct_websocket_route("/nested", nested)


@pytest.mark.parametrize("overrides", [{}, {visitor: replacement}], ids=["direct", "by FastAPI"])
async def test_the_handler_of_refusals_answers_for_an_endpoint(
    overrides: dict[Callable[..., Any], Callable[..., Any]],
) -> None:
    async def refusing(_socket: WebSocket, who: Annotated[str, Depends(visitor)]) -> None:
        raise Unauthorized(f"not {who}")

    async def refuse(socket: WebSocket, error: Exception) -> None:
        await socket.accept(subprotocol=str(error))

    app = DirectApplication("direct", "", {})
    app.add_direct_websocket_route("/ws", refusing)
    app.add_exception_handler(NotifierError, refuse)
    app.dependency_overrides = overrides

    assert await subprotocol_of(app) == ("not replaced" if overrides else "not ann")


async def test_a_direct_route_is_called_past_the_middleware() -> None:
    async def deaf(_scope: Scope, _receive: Receive, _send: Send) -> None:
        pass

    app = made()
    app.add_middleware(lambda _: deaf)

    assert await subprotocol_of(app) == "ann"
