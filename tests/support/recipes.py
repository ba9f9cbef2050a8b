"""The proxies of deploy/proxies, each run from its recipe with only the addresses replaced."""

import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.process import Process, free_port, wait_until
from tests.support.roles import TOKENS, Role, Service, running, service_of

RECIPES = Path(__file__).parents[2] / "deploy" / "proxies"
_PAGE = {"NOTIFIER_ALLOWED_ORIGINS": "https://app.example"}
FILES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile"}

_NGINX = """
user root;
pid {directory}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {recipe};
}}
"""
_CADDY = """
{{
	admin off
	default_bind 127.0.0.1
}}
import {recipe}
"""


class RunningProxy(Process):
    """A proxy before two gateways and an api, with a public port and one for producers.

    `changed` has further replacements, by patterns that the recipe must have.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        gateways: tuple[int, int],
        api: int,
        changed: Mapping[str, str] | None = None,
    ) -> None:
        self.public, self.internal = free_port(), free_port()
        replaced = {
            r"gateway-1\.internal:8000": f"127.0.0.1:{gateways[0]}",
            r"gateway-2\.internal:8000": f"127.0.0.1:{gateways[1]}",
            r"api\.internal:8001": f"127.0.0.1:{api}",
            r"(?m)^(\s*listen |\s*bind |http://):?80\b": rf"\g<1>127.0.0.1:{self.public}",
            r"(?m)^(\s*listen |\s*bind |http://):?8081\b": rf"\g<1>127.0.0.1:{self.internal}",
            "server_name notifier.example": "server_name _",
            **(changed or {}),
        }
        recipe = directory / FILES[name]
        recipe.write_text(_with(replaced, recipe_of(name)))
        command = _command(name, directory, recipe)
        environment = {"HOME": str(directory), "XDG_DATA_HOME": str(directory)}
        super().__init__(command, log=directory / "proxy.log", environment=environment)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.public}"

    @property
    def producers_url(self) -> str:
        """Where producers post."""
        return f"http://127.0.0.1:{self.internal}"

    def start(self) -> None:
        """Start it, and return once it listens."""
        super().start()
        wait_until(self._listens, seconds=30, otherwise=self.log_tail)

    def _listens(self) -> bool:
        assert self.is_running, self.log_tail()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.internal)) == 0


class TwoGateways(NamedTuple):
    """The service, and a second gateway of it."""

    service: Service
    other: Role


@contextmanager
def two_gateways(logs: Path, amqp_url: str, redis_url: str) -> Iterator[TwoGateways]:
    """Run them, at ports that a gateway has again when it is started again."""
    ports = [{"NOTIFIER_GATEWAY_PORT": str(free_port()), **_PAGE} for _ in range(2)]
    service = service_of(logs, amqp_url, redis_url, **ports[0])
    backend = {"NOTIFIER_REDIS_URL": redis_url}
    other = Role("gateway", logs / "other.log", **backend, **TOKENS, **ports[1])
    with running(service.api, service.router, service.gateway, other):
        yield TwoGateways(service, other)


def in_front_of(
    gateways: TwoGateways,
    name: str,
    directory: Path,
    changed: Mapping[str, str] | None = None,
) -> RunningProxy:
    """Make a proxy from its recipe, with some of it changed."""
    service, other = gateways
    directory.mkdir(exist_ok=True)
    first, second = (each.port("NOTIFIER_GATEWAY_PORT") for each in (service.gateway, other))
    api = service.api.port("NOTIFIER_API_PORT")
    return RunningProxy(name, directory, (first, second), api, changed)


def recipe_of(name: str) -> str:
    """The text of a recipe."""
    return (RECIPES / FILES[name]).read_text()


def _with(replaced: dict[str, str], text: str) -> str:
    for pattern, replacement in replaced.items():
        text, count = re.subn(pattern, replacement, text)
        assert count or "server_name" in pattern, f"the recipe lacks {pattern}"
    return text


def _command(name: str, directory: Path, recipe: Path) -> list[str | Path]:
    program = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    if program is None:
        pytest.fail(
            f"{name} is missing: sh tests/support/install-services.sh installs it on Debian"
        )
    if name == "haproxy":
        return [program, "-db", "-f", recipe]
    main = directory / "main"
    text = _NGINX if name == "nginx" else _CADDY
    main.write_text(text.format(directory=directory, recipe=recipe))
    if name == "nginx":
        return [program, "-p", directory, "-c", main, "-g", "daemon off;"]
    return [program, "run", "--adapter", "caddyfile", "--config", main]
