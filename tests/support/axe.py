"""axe-core: what automatic rules find on a page that keeps people from using it."""

from pathlib import Path

_AXE = Path(__file__).parents[2] / "clients/js/node_modules/axe-core/axe.min.js"
_RUN = """async () => (await axe.run()).violations.flatMap(({ id, nodes }) =>
  nodes.map(({ target, failureSummary }) => `${id}: ${target}: ${failureSummary}`))"""


def barriers() -> str:
    """An expression whose value is the list of those on a page; frames are left out."""
    return f"(() => {{ {_AXE.read_text()} }})(), ({_RUN})()"
