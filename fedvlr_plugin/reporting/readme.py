"""Tables inside a Markdown text, made from the results store and from nothing else.

A table stands between two comments; what is between them is replaced as a whole:

    <!-- table2 profile=paper protocol=corrected datasets=ku,ml rows=FedAvg,FedAvg+ours -->
    <!-- end of table -->

`profile` and `datasets` are needed; `protocol` is corrected and `rows` all stored ones unless given. With `seeds` it
is the table of faults, with `show=claims` what the runs say of the paper's claims, with `show=evidence` that in
sentences and what each verdict rests on, with `show=budget` what was spent on the searches. Two short forms are for the README: `show=brief` is one data set with a line per backbone, `show=bullets
claim=vanilla,mlp` one bullet per claim. The privacy tables:

    <!-- table4 profile=quick datasets=ku,ml folder=table4 -->     Table 4, compact; its runs lie in a store of their own
    <!-- audit dataset=ku row=FedAvg+ours profile=quick show=seen -->       the audit: `seen` or `members`
    <!-- attacks dataset=ku row=FedAvg profile=quick -->                   the attack bench, means over seeds
    <!-- end of table -->
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence

from fedvlr_plugin.errors import ConfigError, did_you_mean, unknown_name
from fedvlr_plugin.experiment.profiles import get_profile, specs_for
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import METRICS, display_name, paper_value
from fedvlr_plugin.reporting.claims import Finding, claims_grid, findings
from fedvlr_plugin.reporting.comparisons import Outcome
from fedvlr_plugin.reporting.evidence import evidence
from fedvlr_plugin.reporting.faults import faults_grid, faults_markdown
from fedvlr_plugin.reporting.grid import Grid
from fedvlr_plugin.reporting.results_table import Table, build_table
from fedvlr_plugin.reporting.stored_runs import in_order, stored_budget, stored_specs
from fedvlr_plugin.reporting.table2.formats import marks, table_and_caption
from fedvlr_plugin.reporting.table4.grids import compact_grid
from fedvlr_plugin.reporting.table4.lines import stored_lines
from fedvlr_plugin.reporting.table_formats import markdown_grid

END = "<!-- end of table -->"
KEYS: Mapping[str, Sequence[str]] = {
    "table2": ("profile", "datasets", "protocol", "rows", "seeds", "show", "claim"),
    "table4": ("profile", "datasets", "folder"),
    "audit": ("dataset", "row", "profile", "show"),
    "attacks": ("dataset", "row", "profile"),
}
OPTIONAL = {"table2": ("protocol", "rows", "seeds", "show", "claim")}
BLOCK = re.compile(
    rf"<!-- (?P<kind>{'|'.join(KEYS)}) (?P<options>[^>]*?) ?-->\n(?P<body>.*?)" + re.escape(END), re.DOTALL
)
SHOW = ("table", "claims", "evidence", "budget", "brief", "bullets")
CLAIMS: Mapping[str, tuple[str, str]] = {
    "vanilla": ("+ours beats the vanilla row", "+ours against the vanilla row"),
    "mlp": ("+ours beats +MLP", "+ours against +MLP"),
    "centralized": (
        "the best +ours row beats the best centralized row",
        "The best +ours row against the best centralized row",
    ),
    "floor": ("the best federated row beats cold-first", "The best federated row against cold-first"),
}  # name in a marker: the claim as `findings` words it, and the beginning of its bullet
WORDS: Mapping[Outcome, str] = {
    "holds": "better", "does not hold": "worse", "undecided": "undecided", "not enough runs": "without enough runs",
}  # fmt: skip
FUSIONS = ("", "+MLP", "+ours")
LINE = 100  # characters of a line of the README


def refresh(text: str, store: ResultsStore) -> str:
    """Make every table of the text anew.

    Raises:
        ConfigError: an option is unknown or missing, a block does not end, or nothing is stored for it.
        ResultsError: a damaged audit.
    """
    begun = sum(text.count(f"<!-- {kind} ") for kind in KEYS)
    if begun != len(BLOCK.findall(text)):
        raise ConfigError(f"a line '<!-- table2 ... -->' has no '{END}' after it")

    def block(found: re.Match[str]) -> str:
        kind, options = found["kind"], found["options"]
        return f"<!-- {kind} {options} -->\n{MAKERS[kind](_parse(kind, options), store)}{END}"

    return BLOCK.sub(block, text)


def _parse(kind: str, options: str) -> dict[str, str]:
    """The options of a block by name, checked against `KEYS`."""
    known = KEYS[kind]
    given: dict[str, str] = {}
    for part in options.split():
        key, _, value = part.partition("=")
        if key not in known or not value:
            raise ConfigError(f"unknown table option '{part}'.{did_you_mean(key, known)} Known: {', '.join(known)}=...")
        given[key] = value
    for key in known:
        if key not in given and key not in OPTIONAL.get(kind, ()):
            raise ConfigError(f"a table of kind {kind} needs {key}=..., got '{options}'")
    return given


def _table2(given: Mapping[str, str], store: ResultsStore) -> str:
    """Table 2, or with `show` or `seeds` what belongs to it: claims, budget, faults."""
    if given.get("show", "table") not in SHOW:
        raise unknown_name("show", given["show"], SHOW)
    datasets = given["datasets"].split(",")
    protocol = given.get("protocol", "corrected")
    if given.get("show") == "budget":
        return f"\n{markdown_grid(stored_budget(store, given['profile'], protocol, datasets))}\n"
    wanted = given["rows"].split(",") if "rows" in given else None
    if "seeds" in given:
        plain = specs_for(get_profile(given["profile"]), datasets[:1], wanted or [], int(given["seeds"]), protocol)
        return f"\n{faults_markdown(faults_grid(store, plain, profile=given['profile']))}\n"
    specs = [
        spec
        for spec in stored_specs(store, given["profile"], protocol)
        if spec.dataset in datasets and (wanted is None or spec.row in wanted)
    ]
    if not specs:
        options = " ".join(f"{key}={value}" for key, value in given.items())
        raise ConfigError(f"no runs are stored in '{store.root}' for the table '{options}'")
    rows = in_order({spec.row for spec in specs})
    table = build_table(store, specs, None, given["profile"], rows, datasets)
    if given.get("show") == "claims":
        return f"\n{markdown_grid(claims_grid(findings(store, table)))}\n"
    if given.get("show") == "evidence":
        return "\n" + "".join(f"* {sentence}\n" for sentence in evidence(store, table, findings(store, table))) + "\n"
    if given.get("show") == "brief":
        return f"\n{markdown_grid(brief_grid(table, datasets[0]), brief_columns(datasets[0]))}\n"
    if given.get("show") == "bullets":
        chosen = given.get("claim", ",".join(CLAIMS)).split(",")
        return "\n" + "\n".join(bullets(findings(store, table), chosen, protocol)) + "\n\n"
    return table_and_caption(table)


def brief_grid(table: Table, dataset: str) -> Grid:
    """One line per backbone with HR@50 / NDCG@50 of its three fusions, then the rows that are no backbone's."""
    backbones = [row for row in table.rows if f"{row}+ours" in table.rows]
    lines: list[tuple[str | None, ...]] = [
        (name, *(_brief(table, name + fusion, dataset) for fusion in FUSIONS), _published(f"{name}+ours", dataset))
        for name in backbones
    ]
    lines += [
        (row, _brief(table, row, dataset), None, None, _published(row, dataset))
        for row in table.rows
        if row.partition("+")[0] not in backbones and (row, dataset) in table.cells
    ]
    title = f"{display_name(dataset)}: HR@50 / NDCG@50"
    notes = (
        "Test split, percent, means over seeds. Paper: of +ours, or of the row itself without a fusion.",
        "▲ better, ▼ worse than vanilla; † better, ▽ worse than +MLP: over seeds and users (5 %, Holm).",
        "In brackets: only these trained models differ, or runs are too few for a verdict.",
    )
    return Grid((title, "vanilla", "+MLP", "+ours", "paper"), tuple(lines), notes)


def brief_columns(dataset: str) -> tuple[str, ...]:
    """The columns of `brief_grid` that hold text."""
    return (f"{display_name(dataset)}: HR@50 / NDCG@50",)


def _brief(table: Table, row: str, dataset: str) -> str | None:
    """`41.7 / 18.9 ▼`: both means with the marks of significant differences."""
    found = [table.figure(row, dataset, metric) for metric in METRICS]
    texts = [
        f"{figure.mean:.1f}{marks(table, row, dataset, metric)}"
        for metric, figure in zip(METRICS, found, strict=True)
        if figure is not None
    ]
    return " / ".join(texts) or None


def _published(row: str, dataset: str) -> str | None:
    values = [paper_value(row, dataset, metric) for metric in METRICS]
    return " / ".join(f"{value:.1f}" for value in values if value is not None) or None


def bullets(found: Sequence[Finding], claims: Sequence[str], protocol: str) -> list[str]:
    """One bullet per claim, no longer than `LINE` a line; says what the tests say and no more.

    Args:
        found: what the stored runs say. claims: keys of `CLAIMS`, in order. protocol: named in the bullet.

    Raises:
        UnknownNameError: a claim that is not in `CLAIMS`. ConfigError: nothing is stored for a claim.
    """
    out = []
    for name in claims:
        if name not in CLAIMS:
            raise unknown_name("claim", name, CLAIMS)
        claim, title = CLAIMS[name]
        pairs = [finding for finding in found if finding.claim == claim]
        if not pairs:
            raise ConfigError(f"no stored runs of protocol {protocol} say anything on the claim '{name}'")
        datasets = ", ".join(dict.fromkeys(display_name(finding.dataset) for finding in pairs))
        text = _each(pairs) if name in ("centralized", "floor") else _counted(pairs)
        bullet = f"* **{title}** ({protocol}; {datasets}): {text}"
        out += textwrap.wrap(bullet, LINE, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
    return out


def _counted(pairs: Sequence[Finding]) -> str:
    """How many comparisons are better, worse, undecided and without enough runs; those that are decided are named if they are few."""
    parts = []
    for word, label in WORDS.items():
        chosen = [finding for finding in pairs if finding.word == word]
        named = "; ".join(
            f"{finding.better.partition('+')[0]} on {display_name(finding.dataset)}, "
            f"{finding.metric.upper()} {finding.difference:+.1f}"
            for finding in chosen
        )
        few = 0 < len(chosen) <= 4 and word in ("holds", "does not hold")
        parts.append(f"{label} in {len(chosen)}" + (f" ({named})" if few else ""))
    known = [finding for finding in pairs if finding.paper is not None]
    paper = f" In the paper better in {sum(bool(f.paper) for f in known)} of {len(known)}." if known else ""
    return f"of {len(pairs)} comparisons {', '.join(parts)}.{paper}"


def _each(pairs: Sequence[Finding]) -> str:
    """Every difference with its word, by data set, with the two rows that are compared."""
    parts = []
    for dataset in dict.fromkeys(finding.dataset for finding in pairs):
        mine = [finding for finding in pairs if finding.dataset == dataset]
        numbers = ", ".join(f"{f.metric.upper()} {f.difference:+.1f} ({WORDS[f.word]})" for f in mine)
        parts.append(f"{mine[0].better} minus {mine[0].worse} on {display_name(dataset)}: {numbers}")
    return "; ".join(parts) + "."


def _table4(given: Mapping[str, str], store: ResultsStore) -> Grid:
    datasets = given["datasets"].split(",")
    lines = stored_lines(store.below(given["folder"]), given["profile"], "corrected")
    lines = [line for line in lines if line.dataset in datasets]
    if not lines:
        raise ConfigError(f"no noisy runs of {given['datasets']} are stored in '{store.below(given['folder']).root}'")
    return compact_grid(lines)


def _audit(given: Mapping[str, str], store: ResultsStore) -> Grid:
    from fedvlr_plugin.audit.results import read_audit
    from fedvlr_plugin.reporting.audit_tables import member_grid, sight_grid

    grids = {"seen": sight_grid, "members": member_grid}
    if given["show"] not in grids:
        raise ConfigError(f"show={given['show']} is not a table of the audit; allowed: {', '.join(grids)}")
    return grids[given["show"]](read_audit(store.audit_path(given["dataset"], given["row"], given["profile"])))


def _attacks(given: Mapping[str, str], store: ResultsStore) -> Grid:
    from fedvlr_plugin.reporting.attacks import attack_grid, read_outcomes

    name = f"attacks-{given['dataset']}-{given['row']}-{given['profile']}.csv"
    return attack_grid(read_outcomes(store.tables / name))


TEXT_COLUMNS = ("data set", "row", "noise", "what is seen", "defence")


def _drawn(make: Callable[[Mapping[str, str], ResultsStore], Grid]) -> Callable[[Mapping[str, str], ResultsStore], str]:
    return lambda given, store: f"\n{markdown_grid(make(given, store), TEXT_COLUMNS)}\n"


MAKERS: Mapping[str, Callable[[Mapping[str, str], ResultsStore], str]] = {
    "table2": _table2,
    "table4": _drawn(_table4),
    "audit": _drawn(_audit),
    "attacks": _drawn(_attacks),
}
