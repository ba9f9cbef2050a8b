"""The package for browsers as npm would hand it out, and its own tests in Node."""

import gzip
import json
import re
import subprocess
from pathlib import Path

import pytest

LARGEST_CORE = 6_144  # bytes
ENTRIES = {
    "notifier-push": "Notifier",
    "notifier-push/inbox": "NotifierInbox",
    "notifier-push/react": "useInbox",
}
RESOLUTIONS = [("es2022", "bundler"), ("node16", "node16")]
RESOLUTIONS_OF_5 = [("es2022", "bundler"), ("es2022", "node10")]
# As its command does, but for the types of others: those of browsers and React take seconds of CPU.
CHECK_BY_5 = """
const [compiler, ...asked] = process.argv.slice(1);
const ts = (await import(compiler)).default;
const { options, fileNames } = ts.parseCommandLine(asked);
const program = ts.createProgram(fileNames, options);
const others = /node_modules\\/(?!notifier-push)/;
const ours = program.getSourceFiles().filter(({ fileName }) => !others.test(fileName));
const found = ours.flatMap((file) => ts.getPreEmitDiagnostics(program, file));
console.log(ts.formatDiagnostics(found, ts.createCompilerHost(options)) || ours.length);
process.exit(found.length ? 1 : 0);
"""
PROGRAM = """
import { Notifier, type EventFrame } from "notifier-push";
import { NotifierInbox } from "notifier-push/inbox";
import { useInbox, useNotifier } from "notifier-push/react";

const getToken = async () => "token";
const notifier: Notifier = new Notifier({ url: "https://push.example", getToken });
const stop: () => void = notifier.on("event", ({ event }: EventFrame<{ order: number }>) => {
  console.log(event.data?.order);
});
const inbox: NotifierInbox = document.querySelector("notifier-inbox")!;
inbox.notifier = notifier;
export function useUnread(): number {
  return useInbox(useNotifier(() => notifier, []))[0].unread;
}
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


@pytest.fixture(scope="module")
def project(js_client: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty project that the package was installed into, offline."""
    folder = tmp_path_factory.mktemp("project")
    packed = run(
        js_client, "npm", "pack", "--ignore-scripts", "--json", "--pack-destination", folder
    )
    [description] = json.loads(packed)
    (folder / "packed.json").write_text(packed)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "program.ts").write_text(PROGRAM)
    run(folder, "npm", "install", "--offline", "--no-audit", f"./{description['filename']}")
    for each in ("react", "@types"):
        (folder / "node_modules" / each).symlink_to(js_client / "node_modules" / each)
    return folder


@pytest.mark.parametrize("name", ENTRIES)
def test_a_server_without_a_window_may_import_it(project: Path, name: str) -> None:
    look = f'import("{name}").then((it) => console.log(typeof it.{ENTRIES[name]}))'

    assert run(project, "node", "-e", look) == "function\n"


@pytest.mark.parametrize(("module", "resolution"), RESOLUTIONS)
def test_its_types_are_found(js_client: Path, project: Path, module: str, resolution: str) -> None:
    tsc = js_client / "node_modules/typescript/bin/tsc"

    run(project, "node", tsc, *ways(module, resolution))


@pytest.mark.parametrize(("module", "resolution"), RESOLUTIONS_OF_5)
def test_its_types_are_found_by_typescript_5(
    js_client: Path, project: Path, module: str, resolution: str
) -> None:
    compiler = js_client / "node_modules/typescript-5/lib/typescript.js"
    check = ("node", "--input-type=module", "-e", CHECK_BY_5, "--", compiler)

    checked = run(project, *check, *ways(module, resolution))

    assert int(checked) > len(ENTRIES)


def ways(module: str, resolution: str) -> tuple[str, ...]:
    """How a compiler is to read the program."""
    resolved = ("--module", module, "--moduleResolution", resolution)
    return ("--noEmit", "--strict", *resolved, "--target", "es2022", "program.ts")


def test_the_package_has_all_files_and_sources_that_it_names(project: Path) -> None:
    [description] = json.loads((project / "packed.json").read_text())
    paths = {file["path"] for file in description["files"]}
    assert {"LICENSE", "README.md", "dist/index.d.ts", "dist/index.js.map"} <= paths
    assert {"dist/inbox.js", "dist/element.d.ts", "dist/react.js", "dist/react.d.ts"} <= paths
    assert not any(path.startswith(("test/", "node_modules/", "dist/.")) for path in paths)
    installed = project / "node_modules/notifier-push"
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
