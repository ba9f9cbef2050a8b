"""Nchan, a module of nginx: C, with its messages in memory."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from benchmarks.contenders.contender import (
    NO_TOKEN,
    Backends,
    Contender,
    Message,
    Server,
    running,
    upgrade,
)
from benchmarks.contenders.http import Request, through_http
from benchmarks.contenders.tutorial import listens
from benchmarks.machine import FILES
from tests.support.process import free_port

MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/nginx/modules")
CONFIGURATION = Path(__file__).parent / "servers" / "nginx.conf"


def _modules() -> str | None:
    return next((each for each in MODULES if Path(each, "ngx_nchan_module.so").exists()), None)


class Nchan(Contender):
    """One worker; published to by HTTP, which it parses on the same core."""

    name = "Nchan"
    follows = "one channel: the user's or that of everyone"
    lacks: ClassVar = {
        **NO_TOKEN,
        "unicast": "published by HTTP, not from Redis",
        "memory": "no token, one channel",
    }

    def missing(self) -> str | None:
        """See Contender."""
        if shutil.which("nginx") and _modules():
            return None
        return "nginx with Nchan: apt-get install nginx libnginx-mod-nchan"

    def version(self) -> str:
        """See Contender."""
        told = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
        nginx = re.search(r"nginx/(\S+)", told)
        query = ["dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"]
        debian = shutil.which("dpkg-query")
        nchan = (
            subprocess.run(query, capture_output=True, text=True, check=False) if debian else None
        )
        return f"Nchan {nchan.stdout if nchan else ''}, nginx {nginx[1] if nginx else ''}"

    @contextmanager
    def serve(self, backends: Backends) -> Iterator[Server]:
        """See Contender."""
        port = free_port()
        home = backends.home
        file = home / "nginx.conf"
        user = "user root;" if os.getuid() == 0 else ""  # its own directory is nobody else's
        values = {"home": home, "port": port, "files": FILES, "user": user, "modules": _modules()}
        file.write_text(CONFIGURATION.read_text().format_map(values))
        command = ["nginx", "-p", str(home), "-e", str(home / "error.log"), "-c", str(file)]
        with running(command, home, lambda: listens(port)) as process:
            yield Server(process.pid, port, through_http(port, _request), is_fed=False)

    def handshake(self, user: str, *, alone: bool) -> str:
        """See Contender."""
        return upgrade(f"/follow?channel={f'user-{user}' if alone else 'everyone'}")


def _request(message: Message) -> Request:
    channel = "everyone" if message.user is None else f"user-{message.user}"
    return Request(f"/publish?channel={channel}", message.data.encode())
