"""The privacy tables inside a Markdown text, made from the results store (see `readme_tables`).

    <!-- table4 profile=quick datasets=ku,ml folder=table4 -->     Table 4, compact; its runs lie in a store of their own
    <!-- audit dataset=ku row=FedAvg+ours profile=quick show=seen -->       the audit: `seen` or `members`
    <!-- attacks dataset=ku row=FedAvg profile=quick -->                   the attack bench, means over seeds
    <!-- end of table -->

Imports `table4_stored`, `table4_compact`; `audit` where a block asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from tabulate import tabulate

from fedvlr_plugin.benchmark.grids import Grid, shown
from fedvlr_plugin.benchmark.table4_compact import compact_grid
from fedvlr_plugin.benchmark.table4_stored import stored_lines
from fedvlr_plugin.errors import ConfigError, did_you_mean
from fedvlr_plugin.experiment.store import ResultsStore

END = "<!-- end of table -->"
BLOCK = re.compile(
    r"<!-- (?P<kind>table4|audit|attacks) (?P<options>[^>]*?) ?-->\n(?P<body>.*?)" + re.escape(END), re.DOTALL
)
KEYS: Mapping[str, Sequence[str]] = {
    "table4": ("profile", "datasets", "folder"),
    "audit": ("dataset", "row", "profile", "show"),
    "attacks": ("dataset", "row", "profile"),
}


def refresh_privacy(text: str, store: ResultsStore) -> str:
    """The text with every such table made anew.

    Raises:
        ConfigError: an option that is unknown or missing, or nothing stored. ResultsError: a damaged audit.
    """

    def block(found: re.Match[str]) -> str:
        kind, options = found["kind"], found["options"]
        grid = MAKERS[kind](_parse(kind, options), store)
        return f"<!-- {kind} {options} -->\n\n{_markdown(grid)}\n{END}"

    return BLOCK.sub(block, text)


def _parse(kind: str, options: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for part in options.split():
        key, _, value = part.partition("=")
        if key not in KEYS[kind] or not value:
            known = KEYS[kind]
            raise ConfigError(f"unknown table option '{part}'.{did_you_mean(key, known)} Known: {', '.join(known)}=...")
        given[key] = value
    for key in KEYS[kind]:
        if key not in given:
            raise ConfigError(f"a table of kind {kind} needs {key}=..., got '{options}'")
    return given


def _table4(given: Mapping[str, str], store: ResultsStore) -> Grid:
    datasets = given["datasets"].split(",")
    lines = stored_lines(ResultsStore(store.root / given["folder"]), given["profile"], "corrected")
    lines = [line for line in lines if line.dataset in datasets]
    if not lines:
        raise ConfigError(f"no noisy runs of {given['datasets']} are stored in '{store.root / given['folder']}'")
    return compact_grid(lines)


def _audit(given: Mapping[str, str], store: ResultsStore) -> Grid:
    from fedvlr_plugin.audit.audit_table import member_grid, sight_grid
    from fedvlr_plugin.audit.findings import read_audit

    grids = {"seen": sight_grid, "members": member_grid}
    if given["show"] not in grids:
        raise ConfigError(f"show={given['show']} is not a table of the audit; allowed: {', '.join(grids)}")
    name = f"{given['dataset']}-{given['row']}-{given['profile']}.json"
    return grids[given["show"]](read_audit(store.root / "audit" / name))


def _attacks(given: Mapping[str, str], store: ResultsStore) -> Grid:
    from fedvlr_plugin.audit.attack_summary import attack_grid, read_outcomes

    name = f"attacks-{given['dataset']}-{given['row']}-{given['profile']}.csv"
    return attack_grid(read_outcomes(store.root / "tables" / name))


MAKERS: Mapping[str, Callable[[Mapping[str, str], ResultsStore], Grid]] = {
    "table4": _table4,
    "audit": _audit,
    "attacks": _attacks,
}


def _markdown(grid: Grid) -> str:
    body = [[shown(value) for value in line] for line in grid.lines]
    align = ["left" if heading in LEFT else "right" for heading in grid.headings]
    drawn = tabulate(body, grid.headings, tablefmt="pipe", colalign=align, disable_numparse=True)
    return drawn + "\n\n" + "\n".join(grid.notes) + "\n"


LEFT = ("data set", "row", "noise", "what is seen", "defence")
