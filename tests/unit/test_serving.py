import resource
import socket
from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from notifier.serving import ServingError, room_for, serve


async def hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


APP = Starlette(routes=[Route("/", hello)])


async def test_an_application_is_served_on_a_port_that_the_system_chose() -> None:
    async with (
        serve(APP, host="127.0.0.1", port=0, setting="X") as port,
        httpx.AsyncClient() as http,
    ):
        assert (await http.get(f"http://127.0.0.1:{port}/")).text == "hello"


async def test_a_port_that_is_taken_is_an_error_that_names_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ServingError, match=f"port {port}: .*; set NOTIFIER_API_PORT"):
            async with serve(APP, host="127.0.0.1", port=port, setting="NOTIFIER_API_PORT"):
                pass


async def test_nobody_listens_any_more_afterwards() -> None:
    async with serve(APP, host="127.0.0.1", port=0, setting="X") as port:
        pass

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


async def test_nobody_listens_any_more_after_an_error_either() -> None:
    with pytest.raises(ExceptionGroup):
        async with serve(APP, host="127.0.0.1", port=0, setting="X") as port:
            raise RuntimeError

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()


# Room for connections.


@pytest.fixture
def most_files() -> Iterator[int]:
    """The bound on open files that a process may not raise; the other one is 600 meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_bound_on_open_files_is_raised_as_far_as_connections_need(most_files: int) -> None:
    assert room_for(1_000) == 1_000
    assert 1_000 < resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= most_files


def test_no_more_connections_are_taken_than_files_may_be_open(most_files: int) -> None:
    assert most_files - 1_000 < room_for(10 * most_files) < most_files


def test_a_bound_that_is_high_enough_is_left_alone(most_files: int) -> None:
    assert room_for(100) == 100 < most_files
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 600
