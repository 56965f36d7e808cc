"""What the verdicts on the paper's claims rest on, in sentences: counts, the searches and seeds behind each, what is missing.

Every number comes from the store: the findings, the selections of the searches, the records. So no sentence says
`small search` from memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedvlr_plugin.experiment.rows import CLOSED_FORMS
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import display_name
from fedvlr_plugin.reporting.claims import WORDS, Finding
from fedvlr_plugin.reporting.comparisons import shortage
from fedvlr_plugin.reporting.results_table import Cell, Table
from fedvlr_plugin.reporting.stored_runs import best_searches
from fedvlr_plugin.search.selection import SelectedConfiguration, all_tuned


def evidence(store: ResultsStore, table: Table, found: Sequence[Finding]) -> list[str]:
    """Return the sentences of a table: the counts claim by claim, the evidence of each verdict, what runs are missing.

    Args:
        store: where the selections of the searches are.
        table: whose cells the findings are about.
        found: the findings of the table.
    """
    return [*counted(found), *_verdicts(store, table, found), *_missing(table, found)]


def counted(found: Sequence[Finding]) -> list[str]:
    """Return one sentence per claim: in how many comparisons it holds, does not hold, is undecided, or lacks runs."""
    sentences = []
    for claim in dict.fromkeys(f.claim for f in found):
        words = [f.word for f in found if f.claim == claim]
        counts = ", ".join(f"{word} in {words.count(word)}" for word in WORDS)
        sentences.append(f"{claim}: {counts} of {len(words)} comparisons (rows, data sets, metrics)")
    return sentences


def _verdicts(store: ResultsStore, table: Table, found: Sequence[Finding]) -> list[str]:
    """A sentence per pair of rows with a verdict: the differences, and how each row was searched and run."""
    decided = [f for f in found if f.word in ("holds", "does not hold")]
    sentences = []
    for claim, dataset, better, worse in dict.fromkeys((f.claim, f.dataset, f.better, f.worse) for f in decided):
        mine = [f for f in decided if (f.claim, f.dataset, f.better, f.worse) == (claim, dataset, better, worse)]
        words = "; ".join(
            f"{word}: " + ", ".join(f"{f.metric.upper()} {f.difference:+.2f}" for f in mine if f.word == word)
            for word in dict.fromkeys(f.word for f in mine)
        )
        effort = "; ".join(_effort(store, table, table.cells[row, dataset]) for row in (better, worse))
        sentences.append(f"{display_name(dataset)}, {better} over {worse}: {words} ({effort})")
    return sentences


def _effort(store: ResultsStore, table: Table, cell: Cell) -> str:
    """`FedRAP+ours: grid of 32 trials, 5 seeds of at most 60 rounds`."""
    if cell.records[0].row in CLOSED_FORMS:
        return f"{cell.row} is a closed form without seeds"
    protocol = cell.records[0].protocol
    searches = best_searches(store, all_tuned(store, table.profile or "", protocol))
    mine = [t for t in searches if (t.base.row, t.base.dataset) == (cell.row, cell.dataset) and _is_of(t, cell)]
    search = (
        f"{mine[0].method} search of {mine[0].tried + mine[0].failed + mine[0].pruned} trials" if mine else "no search"
    )
    seeds = len({record.seed for record in cell.records})
    rounds = max(record.spec.training.rounds for record in cell.records)
    return f"{cell.row}: {search}, {seeds} {'seed' if seeds == 1 else 'seeds'} of at most {rounds} rounds"


def _is_of(tuned: SelectedConfiguration, cell: Cell) -> bool:
    return {spec.spec_hash for spec in tuned.specs()} >= {record.spec_hash for record in cell.records}


def _missing(table: Table, found: Sequence[Finding]) -> list[str]:
    """A sentence per data set: which rows of open comparisons lack seeds or rounds."""
    sentences = []
    for dataset in table.datasets:
        open_pairs = [f for f in found if f.dataset == dataset and f.word == "not enough runs"]
        rows = {row for f in open_pairs for row in (f.better, f.worse)}
        reasons: dict[str, list[str]] = {}
        for row in table.rows:
            reason = shortage(table.cells[row, dataset].records) if row in rows else ""
            if reason:
                reasons.setdefault(reason, []).append(row)
        if reasons:
            spelled = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())
            sentences.append(f"{display_name(dataset)}, not enough runs: {spelled}")
    return sentences
