"""The real service as processes, on a RabbitMQ and a Redis of its own, with links to spoil.

Each process reaches RabbitMQ and Redis, and each client its gateway, over a link of the tests'
(`tests/support/proxy.py`). Processes keep their addresses when they are started again.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, TypeVar

import httpx
import redis

from notifier.api.keys import NewKey, new_key
from tests.chaos.backend import Backend
from tests.chaos.clients import Crowd
from tests.chaos.marks import People
from tests.chaos.producers import Flow
from tests.chaos.reports import Reports
from tests.chaos.returns import Returns
from tests.support.invariants import Complaint, Ledger
from tests.support.process import free_port
from tests.support.proxy import Proxy
from tests.support.roles import KEY, TOKENS, Role, clean_environment
from tests.support.services import LocalRedis, RabbitServer, RedisServer
from tests.support.spoilt import faked_clock, small_disk
from tests.support.tls import NO_AUTHORITIES

P = ParamSpec("P")
T = TypeVar("T")

# RabbitMQ 3.10 can wedge a quorum queue for good when killed within 2 s of its declaration.
_SETTLING = 3.0
SEND_BUFFER = 65_536  # bytes that may wait in a gateway for one client
_SETTINGS = {
    "NOTIFIER_PARTITIONS": "2",
    "NOTIFIER_HISTORY_SIZE": "5000",
    "NOTIFIER_INBOX_SIZE": "5000",  # an absence ends before history does
    "NOTIFIER_HEARTBEAT_SECONDS": "5",
    "NOTIFIER_SEND_BUFFER_BYTES": str(SEND_BUFFER),
}
ORDERS = new_key("backend", ["read", "control"])
_DURABLE = {"appendonly": "yes", "appendfsync": "always"}


@dataclass(frozen=True)
class Ground:
    """The parts of a world, where a failure wants other than most.

    `durable`: Redis keeps all that it has answered for. `settings` are those of every role.
    `ahead`: by how many seconds the clock of the last gateway is.  `disk`: of how many bytes
    Redis' disk is, where it is one of its own. `acts`: users mark what they read, clients publish,
    events come back for a user who is away, or are reported on, and a backend sends users away.
    """

    durable: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)
    ahead: int = 0
    disk: int = 0
    acts: bool = True
    replicated: bool = False  # Redis gets a replica, which does without containers


FORGETFUL = Ground(durable=False)


async def off(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do what blocks in a thread."""
    return await asyncio.to_thread(work, *args, **kwargs)


async def until(is_so: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Return once it is so; AssertionError when that takes too long."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    while not is_so():
        assert clock() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.02)


async def until_told(ask: Callable[[], Awaitable[bool]], what: str, seconds: float = 30) -> None:
    """The same for what has to be asked for."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    while not await ask():
        assert clock() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.05)


@dataclass
class Links:
    """The links of a world, by who is at the near end: roles, and clients at gateways."""

    rabbitmq: dict[str, Proxy]
    redis: dict[str, Proxy]
    gateways: dict[str, Proxy]


class World:
    """Everything there is while failures are provoked."""

    def __init__(self, directory: Path, chance: random.Random, ground: Ground) -> None:
        self.chance = chance
        self.directory = directory
        self.rabbitmq = RabbitServer()
        self.ground = ground
        self.disk = directory / "disk"
        made = LocalRedis if ground.replicated or ground.disk else RedisServer
        self.redis = made(**self.redis_options)
        self.cleanup: AsyncExitStack
        self.ledger = Ledger()
        self.links: Links
        self.api: Role
        self.routers: list[Role]
        self.gateways: list[Role]
        self.flow: Flow
        self.crowd: Crowd
        self.people: People
        self.reports: Reports
        self.returns: Returns
        self.backend: Backend

    @property
    def redis_options(self) -> dict[str, str]:
        """The options that this world's Redis is started with."""
        durable = _DURABLE if self.ground.durable else {}
        disk = {"dir": str(self.disk)} if self.ground.disk else {}
        return {"enable_debug_command": "yes", **durable, **disk}

    @property
    def roles(self) -> list[Role]:
        """All processes of the service."""
        return [self.api, *self.routers, *self.gateways]

    def counts(self) -> Counter[str]:
        """How much has happened so far, under the names that the table has for it."""
        return Counter(
            {
                "events": len(self.ledger.posted),
                "marks": self.people.confirmed,
                "handed back": len(self.returns.ids),
                "reports": len(self.reports.ids),
                "orders": self.backend.orders,
                "gaps told": self.crowd.gaps,
                "repeats": self.crowd.repeats,
            }
        )

    @property
    def complaints(self) -> list[Complaint]:
        """All complaints so far."""
        crews = (self.crowd, self.people, self.returns, self.reports, self.backend)
        return [complaint for each in crews for complaint in each.complaints]

    @property
    def is_drained(self) -> bool:
        """Whether everybody has everything, and all that had to come back has."""
        return not (self.crowd.missing or self.returns.missing)

    def seconds(self, least: float, most: float) -> float:
        """A random time."""
        return self.chance.uniform(least, most)

    @contextmanager
    def admin(self) -> Any:  # noqa: ANN401  # as redis-py's stubs have it
        """A connection to Redis that no link is in the way of."""
        with redis.Redis.from_url(self.redis.url, socket_timeout=20) as client:
            yield client

    async def ask_redis(self, *command: str) -> Any:  # noqa: ANN401  # a reply of Redis
        """Send Redis one command past all links."""

        def ask() -> Any:  # noqa: ANN401  # as above
            with self.admin() as client:
                return client.execute_command(*command)

        return await off(ask)

    async def servers(self) -> str:
        """Which servers these are, as the table names them."""

        def ask() -> tuple[str, dict[str, str]]:
            told = httpx.get(
                f"{self.rabbitmq.management_url}/api/overview", timeout=30, verify=NO_AUTHORITIES
            ).json()
            with self.admin() as client:
                return told["rabbitmq_version"], dict(client.info("server"))

        rabbitmq, told = await off(ask)
        valkey = told.get("valkey_version")
        redis_ = f"Valkey {valkey}" if valkey else f"Redis {told['redis_version']}"
        return f"RabbitMQ {rabbitmq}, {redis_}"

    async def metric(self, role: Role, name: str, **labels: str) -> float:
        """The value of one sample of a role's metrics."""
        return await off(role.metric, name, **labels)

    async def sum_of(self, roles: list[Role], name: str, **labels: str) -> float:
        """The sum of one sample over those roles that run."""
        running = [role for role in roles if role.is_running]
        return sum([await self.metric(role, name, **labels) for role in running])

    async def ready(self, *roles: Role) -> None:
        """Return when roles, or all of them, say that they can do their work."""
        for role in roles or self.roles:
            await off(role.wait_until_ready, 60)

    async def in_trouble(self, role: Role, part: str, seconds: float = 30) -> str:
        """Return why a part of a role does not work, once the role says so."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while (why := (await off(role.readiness))[1]["parts"][part]) == "ok":
            assert clock() < deadline, f"{role.log.stem} says after {seconds:g} s: {part} is ok"
            await asyncio.sleep(0.05)
        return str(why)

    async def dead_letters(self) -> int:
        """How many entries lie in the queue of dead letters."""
        listed = await off(self.rabbitmq.ctl, "list_queues", "--quiet", "name", "messages")
        found = dict(line.split("\t") for line in listed.splitlines() if "\t" in line)
        return int(found["notifier.dead"])

    async def settle(self) -> None:
        """Wait until marks are right and all has come back, while nothing new comes."""
        if self.ground.acts:
            await self.people.settle()
            await self.returns.settle()
            await self.backend.settle()

    async def all_arrives(self, seconds: float) -> None:
        """Hold producers until everybody has everything; AssertionError when it takes too long."""
        await self.flow.pause()
        try:
            await until(lambda: not self.crowd.missing, "everybody has everything", seconds)
        finally:
            self.flow.resume()

    async def busiest(self, roles: list[Role]) -> Role:
        """The router that routes most at the moment."""
        name, labels = "notifier_events_total", {"stage": "routed"}
        before = [await self.metric(role, name, **labels) for role in roles]
        await asyncio.sleep(0.2)
        after = [await self.metric(role, name, **labels) for role in roles]
        return max(zip(roles, before, after, strict=True), key=lambda each: each[2] - each[1])[0]


@asynccontextmanager
async def world(
    seed: int, ground: Ground | None = None, *, package: bool = False
) -> AsyncIterator[World]:
    """Start the service, its clients and its producers; all flows when the block begins.

    With `package`, some clients are of the package for browsers.
    """
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="notifier-chaos-")))
        stack.enter_context(clean_environment(directory))
        this = World(directory, random.Random(seed), ground or Ground())
        this.cleanup = stack
        await _start_servers(this, stack)
        await _lay_links(this, stack)
        await _start_roles(this, stack)
        this.crowd = await stack.enter_async_context(_crowd(this, package=package))
        this.people = People(this.crowd, keeps=this.ground.durable)
        this.flow = await stack.enter_async_context(_flow(this))
        this.reports = Reports(this.ledger, this.people, keeps=this.ground.durable)
        amqp = _amqp(this, "producer")
        this.returns = Returns(this.ledger, this.people, this.reports, amqp)
        this.backend = Backend(await stack.enter_async_context(_api(this, ORDERS)), this.chance)
        for crew in (this.people, this.returns, this.backend) if this.ground.acts else ():
            await stack.enter_async_context(crew)
        await asyncio.sleep(_SETTLING)
        yield this
        await off(_stop, this)


async def _start_servers(this: World, stack: AsyncExitStack) -> None:
    if this.ground.disk:
        this.disk.mkdir()
        stack.enter_context(small_disk(this.disk, this.ground.disk))
    servers = (this.rabbitmq, this.redis)
    await asyncio.gather(*(off(server.__enter__) for server in servers))
    for server in servers:
        stack.callback(server.__exit__, None, None, None)


async def _lay_links(this: World, stack: AsyncExitStack) -> None:
    async def lay(target: int, *names: str) -> dict[str, Proxy]:
        return {name: await stack.enter_async_context(Proxy(target)) for name in names}

    this.links = Links(
        rabbitmq=await lay(this.rabbitmq.port, "api", "router-0", "router-1", "producer"),
        redis=await lay(this.redis.port, "api", "router-0", "router-1", "gateway-0", "gateway-1"),
        gateways={},
    )


async def _start_roles(this: World, stack: AsyncExitStack) -> None:
    logs = this.directory

    def redis_(name: str) -> str:
        return f"redis://127.0.0.1:{this.links.redis[name].port}/0"

    def role(kind: str, name: str, **settings: str) -> Role:
        settings = {**_SETTINGS, **this.ground.settings, **settings}
        made = Role(kind, logs / f"{name}.log", **settings)
        stack.callback(made.kill)
        return made

    api = {"NOTIFIER_AMQP_URL": _amqp(this, "api"), "NOTIFIER_REDIS_URL": redis_("api")}
    api["NOTIFIER_API_KEYS"] = f"{KEY.entry},{ORDERS.entry}"
    api["NOTIFIER_API_PORT"] = str(free_port())
    this.api = role("api", "api", **api)
    this.routers = [
        role("router", n, NOTIFIER_AMQP_URL=_amqp(this, n), NOTIFIER_REDIS_URL=redis_(n))
        for n in ("router-0", "router-1")
    ]
    this.gateways = []
    for name in ("gateway-0", "gateway-1"):
        port = free_port()
        this.links.gateways[name] = await stack.enter_async_context(Proxy(port))
        own = {"NOTIFIER_GATEWAY_PORT": str(port), "NOTIFIER_REDIS_URL": redis_(name)}
        if this.ground.ahead and name == "gateway-1":
            own |= faked_clock(this.ground.ahead)
        this.gateways.append(role("gateway", name, **TOKENS, **own))
    for each in this.roles:
        each.start()
    await this.ready()


def _api(this: World, key: NewKey) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {key.secret}"}
    return httpx.AsyncClient(
        base_url=this.api.api_url, headers=headers, timeout=20, verify=NO_AUTHORITIES
    )


def _amqp(this: World, name: str) -> str:
    return f"amqp://guest:guest@127.0.0.1:{this.links.rabbitmq[name].port}/?heartbeat=1"


def _stop(this: World) -> None:
    for role in this.roles:
        role.__exit__()  # wants exit code 0


@asynccontextmanager
async def _crowd(this: World, *, package: bool) -> AsyncIterator[Crowd]:
    links = this.links.gateways.values()
    doors = {f"127.0.0.1:{link.port}": f"127.0.0.1:{link.target}" for link in links}
    marks = this.ground.acts
    async with Crowd(this.ledger, doors, this.chance, marks=marks, package=package) as crowd:
        await until(lambda: crowd.is_complete, "all clients are connected")
        yield crowd


@asynccontextmanager
async def _flow(this: World) -> AsyncIterator[Flow]:
    doors = this.crowd.doors if this.ground.acts else ()
    async with (
        _api(this, KEY) as http,
        Flow(this.ledger, http, _amqp(this, "producer"), doors, this.chance) as flow,
    ):
        yield flow
