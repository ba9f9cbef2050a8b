import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator
from email.utils import parsedate_to_datetime

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from notifier.http import incoming, turns
from notifier.serving import ServingError, room_for, serve, trouble_with_files
from tests.support.tls import NO_AUTHORITIES


async def hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


APP = Starlette(routes=[Route("/", hello)])


async def test_an_application_is_served_on_a_port_that_the_system_chose() -> None:
    async with (
        serve(APP, host="127.0.0.1", port=0, setting="X") as port,
        httpx.AsyncClient(verify=NO_AUTHORITIES) as http,
    ):
        assert (await http.get(f"http://127.0.0.1:{port}/")).text == "hello"


@pytest.mark.parametrize(("host", "reached"), [("::", ["127.0.0.1", "::1"]), ("0::0", ["::1"])])
async def test_all_addresses_are_those_of_both_versions_of_ip(
    host: str, reached: list[str]
) -> None:
    async with serve(APP, host=host, port=0, setting="X") as port:
        for address in reached:
            _, writer = await asyncio.open_connection(address, port)
            writer.close()
            await writer.wait_closed()


async def test_an_idle_connection_outlives_those_of_proxies() -> None:
    nginx_upstream_keepalive = load_balancer_idle_timeout = 60

    assert max(nginx_upstream_keepalive, load_balancer_idle_timeout) < incoming.LONGEST_PAUSE


@pytest.mark.parametrize(("headers", "status"), [(90, 200), (101, 400)])
async def test_the_headers_of_a_request_are_bounded_in_number(headers: int, status: int) -> None:
    many = [(f"x-{number}", "") for number in range(headers)]
    async with (
        serve(APP, host="127.0.0.1", port=0, setting="X") as port,
        httpx.AsyncClient(verify=NO_AUTHORITIES) as client,
    ):
        answer = await client.get(f"http://127.0.0.1:{port}/", headers=many)

    assert answer.status_code == status


async def test_the_server_is_the_one_that_notifier_leans_on() -> None:
    state = uvicorn.Server(uvicorn.Config(APP, log_config=None)).server_state
    members = {"startup", "main_loop", "shutdown", "capture_signals"}

    # If this fails after an upgrade, read notifier/serving.py against uvicorn's server.py.
    assert uvicorn.__version__.startswith("0.54.")
    assert members <= vars(uvicorn.Server).keys()
    assert (state.connections, state.tasks, state.default_headers) == (set(), set(), [])


async def test_answers_tell_the_date() -> None:
    async with (
        serve(APP, host="127.0.0.1", port=0, setting="X") as port,
        httpx.AsyncClient(verify=NO_AUTHORITIES) as client,
    ):
        answer = await client.get(f"http://127.0.0.1:{port}/")

    assert parsedate_to_datetime(answer.headers["date"]).timestamp() == pytest.approx(
        time.time(), abs=60
    )


async def test_a_request_under_way_is_answered_when_the_server_shuts_down() -> None:
    asked = asyncio.Event()

    async def slow(_: Request) -> PlainTextResponse:
        asked.set()
        await asyncio.sleep(0.3)
        return PlainTextResponse("hello")

    app = Starlette(routes=[Route("/", slow)])
    async with httpx.AsyncClient(verify=NO_AUTHORITIES) as client:
        async with serve(app, host="127.0.0.1", port=0, setting="X") as port:
            asking = asyncio.ensure_future(client.get(f"http://127.0.0.1:{port}/"))
            await asked.wait()
        answer = await asking

    assert (answer.text, answer.headers["connection"]) == ("hello", "close")


async def test_a_port_that_is_taken_is_an_error_that_names_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ServingError, match=f"port {port}: .*; set NOTIFIER_API_PORT"):
            async with serve(APP, host="127.0.0.1", port=port, setting="NOTIFIER_API_PORT"):
                pass


@pytest.mark.parametrize("host", ["999.1.1.1", "192.0.2.1"])
async def test_a_host_that_is_not_this_machine_is_an_error_that_names_its_setting(
    host: str,
) -> None:
    with pytest.raises(ServingError, match=f"{host}: no address .* NOTIFIER_HOST"):
        async with serve(APP, host=host, port=0, setting="NOTIFIER_API_PORT"):
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


def test_files_that_are_too_few_are_a_trouble_that_says_the_remedy(most_files: int) -> None:
    trouble = trouble_with_files(10 * most_files)

    assert "600 open files are too few" in (trouble or "")
    assert str(10 * most_files + 256) in (trouble or "")
    assert "NOTIFIER_MAX_CONNECTIONS" in (trouble or "")


@pytest.mark.usefixtures("most_files")
def test_files_that_are_enough_are_no_trouble_until_none_is_left() -> None:
    before = trouble_with_files(300)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            while True:
                stack.enter_context(socket.socket())
        during = trouble_with_files(300)

    assert (before, trouble_with_files(300)) == (None, None)
    assert "no client can be taken: Too many open files" in (during or "")


# Thousands at once.


class Crowd:
    """Clients whose requests are there at the same moment."""

    def __init__(self, port: int, number: int, request: bytes) -> None:
        self._sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(number)]
        self._request = request

    def ask(self) -> None:
        """Send all requests."""
        for each in self._sockets:
            each.sendall(self._request)

    def answered(self) -> int:
        """Read all answers to their end, and count the good ones."""
        answers = []
        for each in self._sockets:
            with each, each.makefile("rb") as answer:
                answers.append(answer.read())
        return sum(answer.startswith(b"HTTP/1.1 200") for answer in answers)


ONE_REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def test_a_crowd_is_served_over_many_turns_of_the_loop() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def slow(_: Request) -> PlainTextResponse:
        turns_of.append(turns)
        return PlainTextResponse("hello")

    turns_of: list[int] = []
    app = Starlette(routes=[Route("/", slow)])
    async with serve(app, host="127.0.0.1", port=0, setting="X") as port:
        crowd = Crowd(port, 200, ONE_REQUEST)
        for _ in range(400):  # so that all are accepted
            await asyncio.sleep(0)
        counting = asyncio.create_task(count_turns())
        crowd.ask()
        answered = await asyncio.to_thread(crowd.answered)
        counting.cancel()

    assert answered == 200
    assert max(turns_of.count(turn) for turn in turns_of) < 100


async def test_a_client_that_waits_for_a_turn_is_not_closed_for_being_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def busy(_: Request) -> PlainTextResponse:
        time.sleep(0.02)  # noqa: ASYNC251  # the loop is what it keeps busy
        return PlainTextResponse("hello")

    monkeypatch.setattr(incoming, "_LONGEST_HEAD", 0.5)
    monkeypatch.setattr(turns, "_TURN", 0.0)  # one after another
    app = Starlette(routes=[Route("/", busy)])
    async with serve(app, host="127.0.0.1", port=0, setting="X") as port:
        crowd = Crowd(port, 50, ONE_REQUEST)
        crowd.ask()

        assert await asyncio.to_thread(crowd.answered) == 50


async def test_a_client_that_sends_half_a_head_is_closed_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(incoming, "_LONGEST_HEAD", 0.2)
    monkeypatch.setattr(turns, "_TURN", 0.0)
    async with serve(APP, host="127.0.0.1", port=0, setting="X") as port:
        crowd = Crowd(port, 5, b"GET / HTTP/1.1\r\nHost: x\r\n")
        crowd.ask()

        assert await asyncio.wait_for(asyncio.to_thread(crowd.answered), 10) == 0


# A full port.


class Line:
    """A client's connection to a port, over a real socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def get(self) -> bytes:
        """Ask, and return the head of the answer; keep the connection."""
        self.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await self.reader.readuntil(b"\r\n\r\n")
        await self.reader.read(len("hello"))
        return head


@contextlib.asynccontextmanager
async def lines(port: int, count: int) -> AsyncIterator[list[Line]]:
    """So many connections, closed at the end."""
    made = [Line(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(count)]
    yield made
    for line in made:
        line.writer.close()


async def test_a_full_port_closes_the_connection_that_has_been_idle_longest() -> None:
    async with (
        serve(APP, host="127.0.0.1", port=0, setting="X", most=2) as port,
        lines(port, 2) as (first, second),
    ):
        await first.get()
        await second.get()
        await first.get()  # now the second one is idle for longer
        async with lines(port, 1) as (third,):
            answers = [await third.get(), await first.get()]

            assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
            assert await second.reader.read() == b""


@pytest.mark.parametrize(
    "begun", [b"GET / HTT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe"]
)
async def test_a_full_port_closes_no_connection_with_a_request_under_way(begun: bytes) -> None:
    async with (
        serve(APP, host="127.0.0.1", port=0, setting="X", most=1) as port,
        lines(port, 1) as (first,),
    ):
        await first.get()
        first.writer.write(begun)
        await first.writer.drain()
        async with lines(port, 1) as (second,):
            assert (await second.get()).startswith(b"HTTP/1.1 503")
            assert not first.reader.at_eof()


async def test_an_idle_connection_that_ends_by_itself_gives_its_place_once() -> None:
    async with (
        serve(APP, host="127.0.0.1", port=0, setting="X", most=2) as port,
        lines(port, 2) as (first, second),
    ):
        await first.get()
        await second.get()
        first.writer.close()
        await first.writer.wait_closed()
        async with lines(port, 2) as (third, fourth):
            answers = [await third.get(), await fourth.get()]

            assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
