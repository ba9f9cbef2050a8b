"""The files that contributors and their tools read."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def root(pytestconfig: pytest.Config) -> Path:
    return pytestconfig.rootpath


def tracked(root: Path) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [path for line in listed.splitlines() if (path := root / line).is_file()]


def targets(root: Path) -> set[str]:
    return set(re.findall(r"^([a-z./-]+):", (root / "Makefile").read_text(), re.MULTILINE))


def test_each_file_that_comments_on_dependencies_name_is_there(root: Path) -> None:
    text = (root / "pyproject.toml").read_text()
    comments = re.findall(r"^    \".+?\",? +# (.+)$", text, re.MULTILINE)
    named = [path for each in comments for path in re.findall(r"`([\w/]+\.py)`", each)]

    assert named
    assert [path for path in named if not list(root.glob(f"**/{path}"))] == []


def test_make_run_shows_its_progress_while_it_sets_up(root: Path) -> None:
    command = ["make", "--dry-run", "--always-make", "run"]

    printed = subprocess.check_output(command, cwd=root, text=True).splitlines()

    [packages] = [line for line in printed if "-r requirements/run.txt" in line]
    assert "--quiet" not in packages
    assert [line[:40] for line in printed if line.startswith("echo")] == [
        'echo "Setting up .venv, once. 1 of 3: Py',
        'echo "Setting up .venv, 2 of 3: the pack',
        'echo "Setting up .venv, 3 of 3: notifier',
    ]


def steps(workflow: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401  # YAML
    for job in workflow["jobs"].values():
        yield from job.get("steps", ())


@pytest.mark.parametrize(
    "file",
    [
        "CONTRIBUTING.md",
        "README.md",
        ".pre-commit-config.yaml",
        ".devcontainer/devcontainer.json",
        ".ci/run",
    ],
)
def test_each_make_target_that_a_file_names_exists(root: Path, file: str) -> None:
    text = (root / file).read_text()

    named = set(
        re.findall(r"(?:^|[`\"]|entry: |; then )make (\.?[a-z][a-z/-]*)", text, re.MULTILINE)
    )

    assert named, "the pattern finds nothing any more"
    assert named <= targets(root)


def test_each_path_that_contributing_names_exists(root: Path) -> None:
    text = (root / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:notifier|tests|deploy)/[a-z_/.]+)`", text))

    missing = [path for path in named if not (root / path).exists()]

    assert len(named) > 5, "the pattern finds too little"
    assert missing == []


def test_the_hosted_check_is_the_script_that_ci_runs(root: Path) -> None:
    workflow = yaml.safe_load((root / ".github/workflows/check.yaml").read_text())

    assert "bash .ci/run" in [step.get("run") for step in steps(workflow)]
    assert workflow[True].keys() >= {"push", "pull_request"}  # YAML 1.1 reads `on` as true


def test_the_hosted_check_runs_on_newer_pythons_without_services(root: Path) -> None:
    workflow = yaml.safe_load((root / ".github/workflows/check.yaml").read_text())

    job = workflow["jobs"]["newer-python"]

    assert job["strategy"]["matrix"]["python"] == ["3.13", "3.14"]
    assert job["container"] == "python:${{ matrix.python }}-bookworm"
    assert "make check" in [step.get("run") for step in job["steps"]]
    assert "check" in targets(root)


def test_a_release_is_checked_and_builds_package_image_and_chart(root: Path) -> None:
    workflow = yaml.safe_load((root / ".github/workflows/release.yaml").read_text())

    commands = "\n".join(step.get("run", "") for step in steps(workflow))

    assert workflow["jobs"]["check"]["uses"] == "./.github/workflows/check.yaml"
    assert workflow["jobs"]["release"]["needs"] == "check"
    for built in ("pip wheel", "docker build", "helm package deploy/helm/notifier"):
        assert built in commands
    for path in re.findall(r"(?:-r |package )(\S+/\S+)", commands):
        assert (root / path).exists(), path


def test_pre_commit_runs_the_tools_of_the_environment(root: Path) -> None:
    config = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())

    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]

    assert [hook["language"] for hook in hooks] == ["system", "system"]
    assert {hook["entry"].split()[0] for hook in hooks} == {".venv/bin/ruff", "make"}


def test_the_devcontainer_has_the_oldest_python_that_is_supported(root: Path) -> None:
    container = json.loads((root / ".devcontainer/devcontainer.json").read_text())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]

    oldest = project["requires-python"].removeprefix(">=")

    assert f":{oldest}-bookworm" in container["image"]
    assert (root / container["postCreateCommand"].split()[-1]).exists()


def test_files_are_as_editorconfig_says(root: Path) -> None:
    for path in tracked(root):
        if path.suffix in {".png", ".svg", ".ico"}:
            continue
        lines = path.read_bytes().split(b"\n")

        assert lines[-1] == b"", f"{path} ends without a newline"
        if path.suffix != ".md":
            assert not any(line.endswith((b" ", b"\t", b"\r")) for line in lines), path
