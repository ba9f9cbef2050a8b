"""The image itself, built from the Dockerfile and run as the chart says.

Its base is made by debootstrap in place of python:3.13-slim: Debian 13 and its Python 3.13, as that
has, but not the same bytes. Redis and RabbitMQ are real, on loopback.
"""

import asyncio
import json
import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.chart import ROLES, Object, config, deployment, minimal, of_kind, render
from tests.support.clients import Client, connected
from tests.support.images import Container, Image, built, require_tools
from tests.support.process import free_port
from tests.support.producers import amqp_producer
from tests.support.roles import AUDIENCE, ISSUER, KEY, SECRET, token

pytestmark = pytest.mark.image

DRAIN_RATE = 200
SOCKETS = 1000


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image, built once."""
    require_tools()
    with built(tmp_path_factory.mktemp("image")) as image:
        yield image


@dataclass(frozen=True)
class Pods:
    """A running container of each role, and the chart's objects that they come from."""

    gateway: Container
    router: Container
    api: Container
    objects: dict[str, list[Object]]
    secrets: dict[str, str]

    @property
    def gateway_url(self) -> str:
        """Where clients connect."""
        return f"ws://127.0.0.1:{self.gateway.env['NOTIFIER_GATEWAY_PORT']}"

    @property
    def api_url(self) -> str:
        """Where producers post."""
        return f"http://127.0.0.1:{self.api.env['NOTIFIER_API_PORT']}"


def rendered(**more: str) -> list[Object]:
    """The chart's objects, with ports that are free here: the containers share one network."""
    names = ("NOTIFIER_GATEWAY_PORT", "NOTIFIER_API_PORT", "NOTIFIER_PRIVATE_PORT")
    settings = {
        **{name: free_port() for name in names},
        "NOTIFIER_JWT_ISSUER": ISSUER,
        "NOTIFIER_JWT_AUDIENCE": AUDIENCE,
        "NOTIFIER_DRAIN_RATE": DRAIN_RATE,
        "NOTIFIER_MAX_CONNECTIONS": 12_000,
        **more,
    }
    return render(minimal(config=settings, test={"existingSecret": "notifier-test"}))


@pytest.fixture
def pods(image: Image, tmp_path: Path, amqp_url: str, redis_url: str) -> Iterator[Pods]:
    """One container of each role, ready."""
    secrets = {
        "NOTIFIER_AMQP_URL": amqp_url,
        "NOTIFIER_REDIS_URL": redis_url,
        "NOTIFIER_API_KEYS": KEY.entry,
        "NOTIFIER_JWT_SECRET": SECRET,
        "NOTIFIER_API_KEY": KEY.secret,
        "NOTIFIER_TOKEN": token("somebody"),
    }
    objects: dict[str, list[Object]] = {role: rendered() for role in ROLES}
    with ExitStack() as stack:
        made = {}
        for role in ROLES:
            pod = deployment(objects[role], role)["spec"]["template"]
            container = Container(tmp_path / role, image, pod, config(objects[role], role), secrets)
            made[role] = stack.enter_context(container)
        for container in made.values():
            container.wait_until_ready()
        yield Pods(**made, objects=objects, secrets=secrets)


def test_the_image_tells_its_version_and_its_command(image: Image) -> None:
    settings = image.config

    assert settings["Entrypoint"] == ["notifier"]
    assert settings["User"] == "10001:10001"
    assert settings["StopSignal"] == "SIGTERM"
    assert (
        settings["Labels"].items()
        >= {
            "org.opencontainers.image.title": "notifier",
            "org.opencontainers.image.version": "0.1.0",
        }.items()
    )


def test_all_of_python_is_compiled(image: Image) -> None:
    library = image.root / "opt/notifier/lib"
    sources = {path for path in library.rglob("*.py") if "__pycache__" not in path.parts}
    compiled = {
        path.parent.parent / f"{path.name.partition('.')[0]}.py" for path in library.rglob("*.pyc")
    }

    # Modules that a package ships for other versions of Python may not compile with this one.
    assert len(sources - compiled) < 0.01 * len(sources)
    assert {path for path in sources if "notifier" in path.parts[-4:]} <= compiled


def test_nothing_that_builds_is_left(image: Image) -> None:
    found = {path.name for path in (image.root / "opt/notifier").rglob("*")}

    assert not found & {"pip", "setuptools", "wheel", "requirements"}
    assert not (image.root / "build").exists()
    assert not any((image.root / "usr/bin" / tool).exists() for tool in ("gcc", "cc", "make"))


def test_traces_can_be_switched_on(image: Image) -> None:
    assert [*image.root.glob("opt/notifier/lib/python3.*/site-packages/opentelemetry/sdk")]


def test_nothing_in_it_belongs_to_the_user_that_runs_it(image: Image) -> None:
    owners = {path.lstat().st_uid for path in (image.root / "opt/notifier").rglob("*")}

    assert owners == {0}


async def test_an_event_in_rabbitmq_arrives_over_websocket(pods: Pods, amqp_url: str) -> None:
    async with (
        connected(pods.gateway_url, token("u1")) as client,
        amqp_producer(amqp_url) as producer,
    ):
        await producer.send({"type": "greeting", "id": "hello"}, "user.u1")

        assert (await client.next_event())["id"] == "hello"


def test_each_probe_is_answered(pods: Pods) -> None:
    containers = (pods.gateway, pods.router, pods.api)
    for name in ("startup", "liveness", "readiness"):
        assert [container.probe(name) for container in containers] == [200, 200, 200]


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({}, id="with a token of its own"),
        pytest.param({"NOTIFIER_JWKS_URL": "https://issuer.example/keys"}, id="with a token given"),
    ],
)
def test_the_helm_test_sees_an_event_arrive(
    pods: Pods, image: Image, tmp_path: Path, keys: dict[str, str]
) -> None:
    objects = rendered(**keys)
    [pod] = json.loads(json.dumps(of_kind(objects, "Pod")))
    here = {"API_URL": pods.api_url, "GATEWAY_URL": pods.gateway_url}  # there is no DNS
    for variable in pod["spec"]["containers"][0]["env"]:
        variable["value"] = here.get(variable["name"], variable.get("value"))

    with Container(tmp_path / "test", image, pod, config(objects, "gateway"), pods.secrets) as test:
        code = test.wait(90)

    assert code == 0, test.log_tail()
    assert test.log_tail().startswith("helm-test-")


async def test_a_thousand_clients_are_moved_away_at_the_set_pace_within_the_grace_period(
    pods: Pods,
) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    pod = deployment(pods.objects["gateway"], "gateway")["spec"]["template"]["spec"]
    clock = asyncio.get_running_loop().time
    async with AsyncExitStack() as leave:
        clients = await _crowd(leave, pods.gateway_url)
        endings = [asyncio.create_task(client.closed_with()) for client in clients]

        begun = clock()
        stopping = asyncio.create_task(
            asyncio.to_thread(pods.gateway.stop, pod["terminationGracePeriodSeconds"])
        )
        codes = await asyncio.gather(*endings)
        took = clock() - begun

        assert await stopping == 0
    assert set(codes) == {4000}
    assert took >= (SOCKETS / DRAIN_RATE) * 0.9  # the last tick closes without a pause after it


async def _crowd(leave: AsyncExitStack, url: str) -> list[Client]:
    clients: list[Client] = []
    for start in range(0, SOCKETS, 50):
        names = range(start, start + 50)
        clients += await asyncio.gather(
            *(leave.enter_async_context(connected(url, token(f"u{n}"))) for n in names)
        )
    return clients
