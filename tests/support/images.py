"""The container image and its containers, without an engine and without a registry of images.

buildah builds the Dockerfile on a base that debootstrap makes, and runc runs what the chart
renders. All of that needs root, on Debian.
"""

import json
import os
import platform
import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.chart import Object
from tests.support.process import Process, wait_until

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/python:3.13-slim"
# Debian 13 has Python 3.13, and python:3.13-slim is made on it.
_SUITE, _PACKAGES = "trixie", "ca-certificates,python3-venv,python-is-python3"
_KEPT_BASE = Path("/var/cache/notifier-image-test") / _SUITE
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_SECCOMP = Path("/usr/share/containers/seccomp.json")


def run(*command: str | Path) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def require_tools() -> None:
    """Fail with what to do, where images cannot be built."""
    missing = [tool for tool in ("buildah", "debootstrap", "runc") if not shutil.which(tool)]
    if missing or os.geteuid() != 0:
        pytest.fail(
            f"The image test needs {', '.join(['root', *missing])}: run `make image-test` as root "
            "on Debian, which installs what is missing.",
            pytrace=False,
        )


def base() -> Path:
    """The root file system of the stand-in for the Dockerfile's base; kept for the next time."""
    if not _KEPT_BASE.exists():
        made = _KEPT_BASE.with_suffix(".making")
        shutil.rmtree(made, ignore_errors=True)
        made.parent.mkdir(parents=True, exist_ok=True)
        run("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _SUITE, made)
        made.rename(_KEPT_BASE)
    shutil.copy(_AUTHORITIES, _KEPT_BASE / _AUTHORITIES.relative_to("/"))  # those of this machine
    return _KEPT_BASE


@dataclass(frozen=True)
class Image:
    """A built image: where its files are mounted, and what its configuration says."""

    root: Path
    config: Mapping[str, Any]

    @property
    def env(self) -> dict[str, str]:
        """The variables that it sets."""
        return dict(each.split("=", 1) for each in self.config["Env"])


@contextmanager
def built(home: Path) -> Iterator[Image]:
    """The image of this repository, built and mounted in a storage of its own."""
    storage = ("--root", home / "storage", "--runroot", home / "run", "--storage-driver", "overlay")

    def buildah(*arguments: str | Path) -> str:
        return run("buildah", *storage, *arguments).strip()

    try:
        scratch = buildah("from", "scratch")
        buildah("add", "--quiet", scratch, base(), "/")
        buildah("config", "--env", f"PIP_CERT={_AUTHORITIES}", *_paths(), scratch)
        buildah("commit", "--quiet", scratch, BASE)
        options = ("--isolation", "chroot", "--pull-never", "--layers=false", "--format", "docker")
        buildah("bud", "--quiet", *options, "--tag", "notifier", ROOT)
        description = json.loads(buildah("inspect", "--type", "image", "notifier"))
        mounted = buildah("mount", buildah("from", "--pull-never", "notifier"))
        yield Image(Path(mounted), description["Docker"]["config"])
    finally:
        buildah("umount", "--all")
        buildah("rm", "--all")
        shutil.rmtree(home, ignore_errors=True)


def _paths() -> tuple[str, str]:
    return "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Container(Process):
    """A container of a rendered pod, on this machine's network; `secrets` are those of the cluster.

    It runs under the user, capabilities, seccomp profile, limits, variables and mounts of its pod.
    """

    def __init__(
        self,
        home: Path,
        image: Image,
        pod: Object,
        config: Mapping[str, str],
        secrets: Mapping[str, str],
    ) -> None:
        home.mkdir()
        self._name = f"notifier-{home.parent.name}-{home.name}"
        self._spec = pod["spec"]
        self.container: Object = self._spec["containers"][0]
        self._secrets = secrets
        self.env = image.env | self._variables(config)
        (home / "config.json").write_text(json.dumps(self._bundle(image, self._volume(home))))
        self._runc = ("runc", "--root", str(home / "state"))
        command = (*self._runc, "run", "--bundle", str(home), self._name)
        super().__init__(command, log=home / "log", environment={})

    def _variables(self, config: Mapping[str, str]) -> dict[str, str]:
        own = {each["name"]: each["value"] for each in self.container["env"]}
        return (dict(config) if "envFrom" in self.container else {}) | own

    def _bundle(self, image: Image, secrets: Path) -> dict[str, Any]:
        return {
            "ociVersion": "1.0.2",
            "root": {
                "path": str(image.root),
                "readonly": self.container["securityContext"]["readOnlyRootFilesystem"],
            },
            "process": self._process_of(image),
            "mounts": [*_SYSTEM_MOUNTS, *self._mounts(secrets)],
            "linux": {
                "namespaces": [{"type": each} for each in ("pid", "mount", "ipc", "uts")],
                "resources": {"memory": {"limit": self._memory()}},
                "seccomp": _seccomp(),
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
            },
        }

    def _process_of(self, image: Image) -> dict[str, Any]:
        pod, own = self._spec["securityContext"], self.container["securityContext"]
        command = self.container.get("command") or image.config["Entrypoint"]
        assert own["capabilities"]["drop"] == ["ALL"]
        return {
            "args": [*command, *self.container.get("args", ())],
            "env": [f"{name}={value}" for name, value in self.env.items()],
            "cwd": image.config["WorkingDir"],
            "user": {
                "uid": pod["runAsUser"],
                "gid": pod["runAsGroup"],
                "additionalGids": [pod["fsGroup"]],
            },
            "capabilities": {},
            "noNewPrivileges": not own["allowPrivilegeEscalation"],
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": _files(), "soft": _files()}],
        }

    def _mounts(self, secrets: Path) -> Iterator[dict[str, Any]]:
        for mount in self.container.get("volumeMounts", ()):
            assert (mount["name"], mount["readOnly"]) == ("secrets", True)
            yield {
                "destination": mount["mountPath"],
                "type": "bind",
                "source": str(secrets),
                "options": ["bind", "ro", "nosuid", "nodev", "noexec"],
            }

    def _volume(self, home: Path) -> Path:
        """The pod's projected volume as a kubelet makes it: of root, readable by fsGroup."""
        directory = home / "secrets"
        directory.mkdir(mode=0o755)
        [volume] = [each["projected"] for each in self._spec["volumes"]]
        for source in volume["sources"]:
            for item in source["secret"]["items"]:
                file = directory / item["path"]
                file.write_text(self._secrets[item["key"]])
                file.chmod(volume["defaultMode"] | 0o440)
                os.chown(file, 0, self._spec["securityContext"]["fsGroup"])
        return directory

    def _memory(self) -> int:
        limit: str = self.container["resources"]["limits"]["memory"]
        return int(limit[:-2]) * {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}[limit[-2:]]

    def probe(self, name: str) -> int:
        """The status with which one of the pod's probes is answered; 0 when it is not."""
        asked = self.container[f"{name}Probe"]["httpGet"]
        ports = {each["name"]: each["containerPort"] for each in self.container["ports"]}
        try:
            url = f"http://127.0.0.1:{ports[asked['port']]}{asked['path']}"
            return httpx.get(url, timeout=10).status_code
        except httpx.TransportError:
            return 0

    def wait_until_ready(self) -> None:
        """Return when its readiness probe is answered with 200."""
        wait_until(self._is_ready, seconds=60, otherwise=self.log_tail)

    def _is_ready(self) -> bool:
        assert self.is_running, self.log_tail()
        return self.probe("readiness") == httpx.codes.OK

    def kill(self) -> None:
        """End it at once and forget it, whether it runs or not."""
        command = [*self._runc, "delete", "--force", self._name]
        subprocess.run(command, capture_output=True, check=False)
        super().kill()


def _files() -> int:
    """As many open files as this machine allows; container engines allow many."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


_SYSTEM_MOUNTS: list[dict[str, Any]] = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=64k"],
    },
]


def _seccomp() -> dict[str, Any]:
    """The default profile of container engines, for a process without capabilities."""
    profile = json.loads(_SECCOMP.read_text())
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    [architecture] = [
        each
        for each in profile["archMap"]
        if each["architecture"] == f"SCMP_ARCH_{platform.machine().upper()}"
    ]
    return {
        "defaultAction": profile["defaultAction"],
        "architectures": [architecture["architecture"], *architecture["subArchitectures"]],
        "syscalls": [
            {key: rule[key] for key in ("names", "action", "args", "errnoRet") if rule.get(key)}
            for rule in profile["syscalls"]
            if "caps" not in rule["includes"]
            and machine in rule["includes"].get("arches", [machine])
            and machine not in rule["excludes"].get("arches", [])
        ],
    }
