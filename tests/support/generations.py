"""Servers newer than this machine's, each generation in a root folder of a newer Debian.

`TEST_SERVERS` chooses one. Its commands run inside the folder, as root, in a mount namespace of
their own: it has this machine's processes, devices and temporary files, and goes with the command.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

_ROOTS = Path("/var/cache/notifier-tests")
_SUITES = {"new": "trixie", "newest": "sid"}  # as in install-services.sh
_INSIDE = """
root=$1 temporary=$2; shift 2
mkdir -p "$root$temporary" || exit
for each in /proc /dev "$temporary"; do mount --rbind "$each" "$root$each" || exit; done
exec chroot "$root" "$@"
"""


def chosen_root() -> Path | None:
    """The root folder of the generation that `TEST_SERVERS` names; None for this machine's own."""
    name = os.environ.get("TEST_SERVERS")
    if not name:
        return None
    if name not in _SUITES:
        _fail(f"TEST_SERVERS={name} names no generation of servers: use {' or '.join(_SUITES)}.")
    root = _ROOTS / _SUITES[name]
    if os.geteuid() != 0 or not root.is_dir() or not shutil.which("unshare"):
        _fail(
            f"TEST_SERVERS={name} needs root on Debian and the folder {root}: run "
            f"`sh tests/support/install-services.sh {name}` as root, which makes it."
        )
    return root


def inside(root: Path, name: str) -> list[str]:
    """The words that run a command of a root folder, to which its arguments are added.

    The process becomes the command itself, with its process id.
    """
    shell = ["unshare", "--mount", "sh", "-c", _INSIDE, "inside"]
    return [*shell, str(root), tempfile.gettempdir(), name]


def _fail(why: str) -> None:
    pytest.fail(why, pytrace=False)
