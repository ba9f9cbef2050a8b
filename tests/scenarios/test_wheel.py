"""The wheel, installed into an empty environment as `pip install` does it."""

import os
import shutil
import site
import subprocess
import sys
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from notifier import __version__


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    tree = tmp_path_factory.mktemp("tree")  # building leaves files beside the sources
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(pytestconfig.rootpath / name, tree)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(pytestconfig.rootpath / "notifier", tree / "notifier", ignore=ignored)
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", ".")
    subprocess.run([sys.executable, "-m", "pip", *build], cwd=tree, check=True, timeout=120)
    [made] = (tree / "dist").iterdir()
    return made


def test_its_name_is_free_and_its_metadata_complete(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
        [entry_points] = [name for name in names if name.endswith("/entry_points.txt")]
        entries = archive.read(entry_points).decode()
        said = Parser().parsestr(archive.read(metadata).decode())

    assert wheel.name == f"notifier_push-{__version__}-py3-none-any.whl"
    assert said["Name"] == "notifier-push"
    assert "[pytest11]\nnotifier = notifier.pytest_plugin" in entries
    assert said["License-Expression"] == "MIT"
    assert said["Requires-Python"] == ">=3.11"
    assert "Typing :: Typed" in said.get_all("Classifier", [])
    assert {"notifier/py.typed", "notifier/page/static/page.js"} <= set(names)
    assert {name.split("/")[0] for name in names} == {
        "notifier",
        f"notifier_push-{__version__}.dist-info",
    }


def test_installed_alone_it_has_the_command_the_client_and_the_plugin(
    wheel: Path, tmp_path: Path
) -> None:
    home = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin/python")]
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*pip, *install], check=True, timeout=120)
    # Its requirements, from the environment of the tests; without that one's notifier.
    environment = {**os.environ, "PYTHONPATH": site.getsitepackages()[0]}

    def said(*command: str) -> str:
        program = home / "bin" / command[0]
        return subprocess.check_output(
            [program, *command[1:]], env=environment, text=True, cwd=tmp_path, timeout=60
        )

    assert said("notifier", "--version") == f"notifier {__version__}\n"
    where = said("python", "-c", "import notifier.client; print(notifier.client.__file__)")
    assert Path(where).is_relative_to(home)
    assert said("python", "-c", "import notifier.pytest_plugin as it; print(it.notifier)")
