"""The package for browsers as npm would hand it out, and its own tests in Node."""

import gzip
import json
import re
import subprocess
from pathlib import Path

LARGEST_CORE = 6_144  # bytes
PROGRAM = """
import { Notifier, type EventFrame } from "notifier-push";
import { NotifierInbox } from "notifier-push/inbox";

const getToken = async () => "token";
const notifier: Notifier = new Notifier({ url: "https://push.example", getToken });
const stop: () => void = notifier.on("event", ({ event }: EventFrame<{ order: number }>) => {
  console.log(event.data?.order);
});
const inbox: NotifierInbox = document.querySelector("notifier-inbox")!;
inbox.notifier = notifier;
"""


def run(folder: Path, *command: str | Path) -> str:
    ended = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def test_the_tests_in_node_pass(js_client: Path) -> None:
    run(js_client, "npm", "run", "--silent", "test")


def test_the_core_is_small(js_client: Path) -> None:
    """As an application's bundler makes it; the other modules are loaded when they are needed."""
    later = [f"--external:./{each}-*" for each in ("history", "http", "tabs")]
    bundled = ("--bundle", "--minify", "--format=esm", "--target=es2022", *later)

    core = run(js_client, "node_modules/.bin/esbuild", "dist/index.js", *bundled)

    assert [each for each in ("history", "http", "tabs") if f"./{each}-" not in core] == []
    assert len(gzip.compress(core.encode())) <= LARGEST_CORE


def test_the_package_is_installed_into_an_empty_project_offline(
    js_client: Path, tmp_path: Path
) -> None:
    packed = run(
        js_client, "npm", "pack", "--ignore-scripts", "--json", "--pack-destination", tmp_path
    )
    [description] = json.loads(packed)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "program.ts").write_text(PROGRAM)

    run(tmp_path, "npm", "install", "--offline", "--no-audit", f"./{description['filename']}")

    for module, name in {
        "notifier-push": "Notifier",
        "notifier-push/inbox": "NotifierInbox",
    }.items():
        look = f'import("{module}").then((it) => console.log(typeof it.{name}))'
        assert run(tmp_path, "node", "-e", look) == "function\n"
    checked = ("--noEmit", "--strict", "--target", "es2022", "--moduleResolution", "bundler")
    compiler = js_client / "node_modules/.bin/tsc"
    run(tmp_path, compiler, *checked, "--module", "es2022", "--types", "", "program.ts")
    paths = {file["path"] for file in description["files"]}
    assert {"LICENSE", "README.md", "dist/index.d.ts", "dist/index.js.map"} <= paths
    assert {"dist/inbox.js", "dist/element.d.ts", "dist/react.js", "dist/react.d.ts"} <= paths
    assert not any(path.startswith(("test/", "node_modules/", "dist/.")) for path in paths)
    installed = tmp_path / "node_modules/notifier-push"
    said = json.loads((installed / "package.json").read_text())
    assert (said["license"], said["publishConfig"]["provenance"]) == ("MIT", True)
    for made in paths:
        if made.endswith((".js", ".d.ts")):
            sources = json.loads((installed / f"{made}.map").read_text())["sources"]
            assert all((installed / "dist" / each).resolve().is_file() for each in sources), made


def test_the_lock_names_hashes_and_no_registry(js_client: Path) -> None:
    packages = json.loads((js_client / "package-lock.json").read_text())["packages"]

    assert all(each.get("integrity") for name, each in packages.items() if name)
    assert not any("resolved" in each for each in packages.values())


def test_each_package_runs_on_the_oldest_node_that_this_one_names(js_client: Path) -> None:
    """And so does the Makefile, which asks for it."""
    packages = json.loads((js_client / "package-lock.json").read_text())["packages"]
    needed = {name: each.get("engines", {}).get("node", "") for name, each in packages.items()}
    oldest = int(needed.pop("").removeprefix(">="))

    too_new = {name for name, node in needed.items() if least(node) > oldest}

    assert too_new == set()
    asked = (js_client.parents[1] / "Makefile").read_text()
    assert re.findall(r"process\.versions\.node\) < (\d+)|Node (\d+) or newer", asked) == [
        (f"{oldest}", ""),
        ("", f"{oldest}"),
    ]


def least(node: str) -> int:
    """The oldest major version in a range such as `^18.17.0 || >=20`."""
    return min(map(int, re.findall(r"(?:^|[^\d.])(\d+)(?:\.|\b)", node)), default=0)
