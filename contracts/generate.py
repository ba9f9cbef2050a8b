"""Writes docs/contracts/: `make contracts`, and with `--release` the promises that then hold.

`python -m contracts.generate --check` fails for files that are not current, and for a change that
breaks whoever relies on the last release.
"""

import json
import sys
from pathlib import Path

from contracts.documents import documents
from contracts.promises import Promise, breaches, of_frames, of_http, parsed

FOLDER = Path(__file__).parent.parent / "docs" / "contracts"
RELEASED = FOLDER / "released.txt"


def files() -> dict[str, str]:
    """Return the text of each file by its name."""
    return {name: json.dumps(each, indent=1) + "\n" for name, each in documents().items()}


def promises() -> set[Promise]:
    """Return the promises of the code as it is."""
    found = documents()
    clients = (each for name, each in found.items() if name.startswith("openapi"))
    return {
        *of_frames(found["asyncapi.json"]),
        *(promise for document in clients for promise in of_http(document)),
    }


def released() -> set[Promise]:
    """Return the promises of the last release."""
    return parsed(RELEASED.read_text())


def main(*options: str) -> None:
    """Write the files, or check them."""
    if "--check" not in options:
        FOLDER.mkdir(exist_ok=True)
        for name, text in files().items():
            (FOLDER / name).write_text(text)
    if "--release" in options:
        RELEASED.write_text("".join(f"{each}\n" for each in sorted(promises())))
    stale = [name for name, text in files().items() if (FOLDER / name).read_text() != text]
    found = [*(f"{name} is not current: make contracts" for name in stale)]
    found += breaches(released(), promises())
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
