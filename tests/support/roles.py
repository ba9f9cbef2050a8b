"""The roles of the service as processes of their own, as they run in production."""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from notifier.adapters.tokens.minting import mint
from notifier.api.keys import new_key
from tests.support.commands import Command
from tests.support.process import wait_until
from tests.support.tls import NO_AUTHORITIES

ISSUER = "https://issuer.example/"
AUDIENCE = "notifier"
SECRET = "a-secret-that-only-the-tests-know-of"
KEY = new_key("shop")
TOKENS = {
    "NOTIFIER_JWT_SECRET": SECRET,
    "NOTIFIER_JWT_ISSUER": ISSUER,
    "NOTIFIER_JWT_AUDIENCE": AUDIENCE,
}
_PORTS = {
    "gateway": ("NOTIFIER_GATEWAY_PORT",),
    "router": (),
    "api": ("NOTIFIER_API_PORT",),
    "dev": ("NOTIFIER_GATEWAY_PORT", "NOTIFIER_API_PORT"),
}
_PRIVATE = "NOTIFIER_PRIVATE_PORT"


def token(
    user: str,
    *topics: str,
    seconds: float = 600,
    publish: Sequence[str] = (),
    presence: Sequence[str] = (),
) -> str:
    """A token of `user`, who may follow what matches the patterns `topics`."""
    return mint(
        SECRET,
        user,
        topics=topics,
        issuer=ISSUER,
        audience=AUDIENCE,
        lifetime=seconds,
        publish=publish,
        presence=presence,
    )


class Role(Command):
    """One role's process; the system chooses its ports unless `settings` do.

    Leaving the `with` block stops it by SIGTERM, if it runs, and wants exit code 0.
    """

    def __init__(self, role: str, log: Path, **settings: str) -> None:
        self.log = log
        self._ports = (*_PORTS[role], _PRIVATE)
        environment = {"NOTIFIER_HOST": "127.0.0.1", **dict.fromkeys(self._ports, "0"), **settings}
        super().__init__(role, log=log, **environment)
        self._role = role
        self._begin = 0
        self._is_ending = False

    def another(self, log: Path, **environment: str) -> "Role":
        """A further one with the same settings, and an environment of its own besides."""
        return Role(self._role, log, **{**self._environment, **environment})

    def start(self) -> None:
        """Start it; returns before it is ready."""
        self._begin = self.log.stat().st_size if self.log.exists() else 0
        self._is_ending = False
        super().start()

    def wait_until_ready(self, seconds: float = 30) -> None:
        """Return when it listens and says that it can do its work."""
        wait_until(self._is_ready, seconds=seconds, otherwise=lambda: self._complaint("ready"))

    def _is_ready(self) -> bool:
        assert self.is_running, self._complaint("running")
        listening = {line["setting"] for line in self.lines("listening")}
        try:
            return listening.issuperset(self._ports) and self.readiness()[0] == httpx.codes.OK
        except httpx.TransportError:
            return False  # when it has just ended, the next call says so

    def _complaint(self, state: str) -> str:
        return f"{self.log.stem} is not {state}; its log ends with:\n{self.log_tail()}"

    def output(self) -> str:
        """Its output since it was started last."""
        return self.log.read_bytes()[self._begin :].decode()

    def reload(self, happening: str = "settings_reloaded") -> None:
        """Send SIGHUP, and return when it has told what came of it."""
        before = len(self.lines(happening))
        os.kill(self.pid, signal.SIGHUP)
        wait_until(lambda: len(self.lines(happening)) > before, seconds=30, otherwise=self.log_tail)

    def lines(self, happening: str | None = None) -> list[dict[str, Any]]:
        """Its log lines since it was started last, those of one happening or all."""
        # The last piece may be half a line as yet.
        texts = self.output().split("\n")[:-1]
        found = [json.loads(text) for text in texts if text.startswith("{")]
        return [line for line in found if happening in (None, line.get("event"))]

    def port(self, setting: str) -> int:
        """The port that it listens on for a setting."""
        ports = {line["setting"]: line["port"] for line in self.lines("listening")}
        return int(ports[setting])

    @property
    def gateway_url(self) -> str:
        """Where clients connect."""
        return f"ws://127.0.0.1:{self.port('NOTIFIER_GATEWAY_PORT')}"

    @property
    def api_url(self) -> str:
        """Where producers post."""
        return f"http://127.0.0.1:{self.port('NOTIFIER_API_PORT')}"

    @property
    def page_url(self) -> str:
        """Where `dev` serves its page."""
        return self.gateway_url.replace("ws", "http", 1) + "/"

    @property
    def private_url(self) -> str:
        """Where it tells about itself."""
        return f"http://127.0.0.1:{self.port(_PRIVATE)}"

    def readiness(self) -> tuple[int, dict[str, Any]]:
        """The status and the body of /readyz."""
        answer = httpx.get(f"{self.private_url}/readyz", timeout=10, verify=NO_AUTHORITIES)
        return answer.status_code, answer.json()

    def is_alive(self) -> bool:
        """Whether /livez says so."""
        return (
            httpx.get(f"{self.private_url}/livez", timeout=10, verify=NO_AUTHORITIES).text
            == "alive\n"
        )

    def samples(self) -> dict[str, float]:
        """All samples of /metrics, of one moment, by name and labels as they are written there."""
        lines = httpx.get(
            f"{self.private_url}/metrics", timeout=10, verify=NO_AUTHORITIES
        ).text.splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {sample: float(value) for sample, _, value in pairs}

    def metric(self, name: str, **labels: str) -> float:
        """The value of one sample of /metrics, 0.0 when there is none yet."""
        pairs = ",".join(f'{label}="{value}"' for label, value in labels.items())
        return self.samples().get(f"{name}{{{pairs}}}" if pairs else name, 0.0)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, of those that end it."""
        self._is_ending = True
        self._signal(number)

    def __exit__(self, *_: object) -> None:
        try:
            if self.is_running:
                code = self.wait() if self._is_ending else self.stop()
                assert code == 0, f"{self.log.stem} exited with {code}\n{self.log_tail()}"
        finally:
            self.kill()

    def __enter__(self) -> Self:
        self.start()
        return self


@contextmanager
def clean_environment(directory: Path) -> Iterator[None]:
    """Start processes where no .env is, without settings from outside, and with this checkout."""
    outside = {name: value for name, value in os.environ.items() if name.startswith("NOTIFIER_")}
    before, paths = Path.cwd(), os.environ.get("PYTHONPATH")
    for name in outside:
        del os.environ[name]
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)
        os.environ.update(outside)
        del os.environ["PYTHONPATH"]
        if paths is not None:
            os.environ["PYTHONPATH"] = paths


@contextmanager
def running(*roles: Role) -> Iterator[None]:
    """Start roles side by side, and stop those that still run: each must end with exit code 0."""
    try:
        for role in roles:
            role.start()
        for role in roles:
            role.wait_until_ready()
        yield
        with ThreadPoolExecutor(len(roles)) as pool:
            list(pool.map(lambda role: role.__exit__(), roles))
    finally:
        for role in roles:
            role.kill()


@dataclass(frozen=True)
class Service:
    """One process of each role, on one RabbitMQ and one Redis."""

    api: Role
    router: Role
    gateway: Role
    amqp_url: str


def service_of(logs: Path, amqp_url: str, redis_url: str, **settings: str) -> Service:
    """One process of each role, not started yet."""
    amqp, redis = {"NOTIFIER_AMQP_URL": amqp_url}, {"NOTIFIER_REDIS_URL": redis_url}
    return Service(
        Role("api", logs / "api.log", **amqp, NOTIFIER_API_KEYS=KEY.entry, **settings),
        Role("router", logs / "router.log", **amqp, **redis, **settings),
        Role("gateway", logs / "gateway.log", **redis, **TOKENS, **settings),
        amqp_url,
    )
