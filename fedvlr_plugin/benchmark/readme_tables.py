"""Tables inside a Markdown text, made from the results store and from nothing else.

A table stands between two comments; what is between them is replaced as a whole:

    <!-- table2 profile=paper protocol=corrected datasets=ku,ml rows=FedAvg,FedAvg+ours -->
    <!-- end of table -->

`profile` and `datasets` are needed; `protocol` is corrected and `rows` all stored ones unless given. With `seeds` it
is the table of faults (`fault_table`), with `show=claims` what the runs say of the paper's claims (`claims`), with
`show=budget` what was spent on the searches (`budget`). Those of privacy are in `readme_privacy`. Imports `rebuild`,
`table`, `layouts`, `fault_table`, `claims`, `budget`, `readme_privacy`.
"""

from __future__ import annotations

import re

from fedvlr_plugin.benchmark.budget import stored_budget
from fedvlr_plugin.benchmark.claims import claims_grid, findings
from fedvlr_plugin.benchmark.fault_table import fault_table
from fedvlr_plugin.benchmark.grids import markdown_grid
from fedvlr_plugin.benchmark.layouts import table_and_caption
from fedvlr_plugin.benchmark.readme_privacy import refresh_privacy
from fedvlr_plugin.benchmark.rebuild import stored_specs
from fedvlr_plugin.benchmark.table import build_table
from fedvlr_plugin.errors import ConfigError, did_you_mean, unknown_name
from fedvlr_plugin.experiment.rows import known_rows
from fedvlr_plugin.experiment.store import ResultsStore

END = "<!-- end of table -->"
BLOCK = re.compile(r"<!-- table2 (?P<options>[^>]*?) ?-->\n(?P<body>.*?)" + re.escape(END), re.DOTALL)
KEYS = ("profile", "protocol", "datasets", "rows", "seeds", "show")
SHOW = ("table", "claims", "budget")


def refresh(text: str, store: ResultsStore) -> str:
    """The text with every table made anew.

    Raises `ConfigError` for unknown options, a block that does not end, or one for which nothing is stored.
    """
    if text.count("<!-- table2 ") != len(BLOCK.findall(text)):
        raise ConfigError(f"a line '<!-- table2 ... -->' has no '{END}' after it")

    def block(found: re.Match[str]) -> str:
        return f"<!-- table2 {found['options']} -->\n{_make(found['options'], store)}{END}"

    return refresh_privacy(BLOCK.sub(block, text), store)


def _make(options: str, store: ResultsStore) -> str:
    given: dict[str, str] = {}
    for part in options.split():
        key, _, value = part.partition("=")
        if key not in KEYS or not value:
            raise ConfigError(f"unknown table option '{part}'.{did_you_mean(key, KEYS)} Known: {', '.join(KEYS)}=...")
        given[key] = value
    for key in ("profile", "datasets"):
        if key not in given:
            raise ConfigError(f"a table needs {key}=..., got '{options}'")
    if given.get("show", "table") not in SHOW:
        raise unknown_name("show", given["show"], SHOW)
    datasets = given["datasets"].split(",")
    if given.get("show") == "budget":
        budget = stored_budget(store, given["profile"], given.get("protocol", "corrected"), datasets)
        return f"\n{markdown_grid(budget)}\n"
    wanted = given["rows"].split(",") if "rows" in given else None
    if "seeds" in given:
        text = fault_table(store, given["profile"], datasets[0], wanted or [], int(given["seeds"]))
        return f"\n{text}\n"
    specs = [
        spec
        for spec in stored_specs(store, given["profile"], given.get("protocol", "corrected"))
        if spec.dataset in datasets and (wanted is None or spec.row in wanted)
    ]
    if not specs:
        raise ConfigError(f"no runs are stored in '{store.root}' for the table '{options}'")
    there = {spec.row for spec in specs}
    rows = [row for row in known_rows() if row in there] + sorted(there - set(known_rows()))
    table = build_table(store, specs, None, given["profile"], rows, datasets)
    if given.get("show") == "claims":
        return f"\n{markdown_grid(claims_grid(findings(store, table)))}\n"
    return table_and_caption(table)
