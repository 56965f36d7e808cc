"""The audit as two tables: what is read out of what is seen, and whether a client is in the sum.
The attack bench in short: means over seeds, defences by attacks, from the bench's CSV file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from fedvlr_plugin.audit.results import Audit, Estimate, ObservationLine
from fedvlr_plugin.audit.robustness import HEAD
from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.files import read_bytes
from fedvlr_plugin.paper.tables import display_name
from fedvlr_plugin.reporting.grid import Grid, Value

SIGHTS = (
    ("history AUC", "auc"),
    ("other's history", "other"),
    ("random items", "random"),
    ("hit@10", "hit@10"),
    ("hit@n", "hit@n"),
    ("chance of hit@n", "chance"),
    ("head cosine", "head"),
    ("other's head", "other head"),
    ("router r", "router"),
)
WITH_INTERVAL = ("auc", "hit@n", "head", "router")
SHARES = ("auc", "other", "random", "hit@10", "hit@n", "chance")


def sight_grid(audit: Audit) -> Grid:
    """What the probes read out of each sight under each noise."""
    headings = ["noise", "ε", "what is seen", *(heading for heading, _ in SIGHTS)]
    lines = [_sight(line) for line in audit.sights]
    return Grid(tuple(headings), tuple(lines), (*_made(audit), *SIGHT_NOTES))


def _sight(line: ObservationLine) -> tuple[Value, ...]:
    cells: list[Value] = [line.noise, format_epsilon(line.epsilon), line.sight]
    for _, name in SIGHTS:
        found = line.figures.get(name)
        cells.append(None if found is None else _spell(found, name in SHARES, name in WITH_INTERVAL))
    return tuple(cells)


def member_grid(audit: Audit) -> Grid:
    """How well a client's presence in the sum is told, and what the promise allows."""
    headings = ("noise", "ε", "clients", "AUC, the upload known", "AUC, all others known", "best test", "bound of ε")
    lines = tuple(
        (
            line.noise,
            format_epsilon(line.epsilon),
            line.clients,
            _spell(line.knows_one, True, True),
            _spell(line.knows_all, True, True),
            None if line.best is None else f"{100 * line.best:.1f}",
            None if line.bound is None else f"{100 * line.bound:.1f}",
        )
        for line in audit.members
    )
    cut = [100 * line.clipped for line in audit.members if line.best is not None]
    notes = MEMBER_NOTES if not cut else (*MEMBER_NOTES, f"Uploads cut to C: {min(cut):.0f} to {max(cut):.0f} %.")
    return Grid(headings, lines, (*_made(audit), *notes))


def format_epsilon(epsilon: float | None) -> str:
    """Three digits, `∞` for no promise."""
    return "∞" if epsilon is None else f"{epsilon:.3g}"


def _spell(found: Estimate, share: bool, interval: bool) -> str:
    factor, digits = (100.0, 1) if share else (1.0, 2)
    text = f"{factor * found.mean:.{digits}f}"
    if interval:
        text += f" ({factor * found.low:.{digits}f}..{factor * found.high:.{digits}f})"
    return text


def _made(audit: Audit) -> tuple[str, ...]:
    spec = audit.specs[0]
    made = (
        f"{spec.row} on {display_name(spec.dataset)}, settings of the profile {audit.profile}, {spec.training.rounds} "
        f"rounds with all clients, {len(audit.specs)} seed(s); at most {audit.most_audited} clients audited, half of "
        "them left out of the sum. In brackets: 95 % bootstrap intervals over clients."
    )
    if audit.delta is None:
        return (made,)
    return (made, f"Epsilon is that of all {spec.training.rounds} rounds, δ = {audit.delta:.3g}, C = {audit.clip:g}.")


SIGHT_NOTES = (
    "AUC and hits in percent. History AUC: items of the history against all others; controls, among the others: the history "
    "of another client, and random items. hit@10 and hit@n: share of the 10 (n_u) best scored items that are in the history.",
    "Head: cosine of the guessed and the true head, and with another client's head. Router: correlation of guessed and true "
    "weights over clients, each view's mean taken away.",
    "What is the same for the client and for another (of a sum) is popularity and tells nothing of one client. The masked "
    "uploads are those of at most 32 clients in the last round. Better probes may find more.",
)
MEMBER_NOTES = (
    "AUC in percent of telling clients that are in the sum from clients that are not. The first test knows the upload in "
    "question; the second knows all the others' too, which is what differential privacy is promised against.",
    "Best test: no test against this Gaussian noise can be expected to do better; bound: what (ε, δ) alone allows.",
)


ROW, ATTACK, DEFENCE, SEED, _, HR, NDCG, EXPOSURE = range(len(HEAD))
NONE, PROMOTION = "none", "promotion"


def read_outcomes(path: Path) -> list[list[str]]:
    """The lines of a bench; raises `ResultsError` for a file that is not one."""
    lines = list(csv.reader(io.StringIO(read_bytes(path).decode("utf-8", "replace"))))
    if not lines or lines[0] != HEAD or any(len(line) != len(HEAD) for line in lines):
        raise ResultsError(f"'{path}' is not a table of the attack bench; run benchmarks/run_attacks.py again")
    return lines[1:]


def attack_grid(outcomes: Sequence[Sequence[str]]) -> Grid:
    """HR@50 / NDCG@50 of each defence under each attack, and the exposure of the target with nobody lying and under promotion.

    Raises `ResultsError` where a cell is no number.
    """
    attacks = list(dict.fromkeys(line[ATTACK] for line in outcomes))
    defences = list(dict.fromkeys(line[DEFENCE] for line in outcomes))
    exposed = [attack for attack in (NONE, PROMOTION) if attack in attacks]
    headings = ["defence", *("nobody lies" if a == NONE else a for a in attacks)]
    headings += [f"exposure, {'nobody lies' if a == NONE else a}" for a in exposed]
    body = []
    for defence in defences:
        cells: list[Value] = [_both(outcomes, attack, defence) for attack in attacks]
        body.append((defence, *cells, *(_cell(outcomes, attack, defence, EXPOSURE) for attack in exposed)))
    seeds = len({line[SEED] for line in outcomes})
    rows = " / ".join(dict.fromkeys(line[ROW] for line in outcomes))
    note = (
        f"HR@50 / NDCG@50 of {rows} on the test split in percent, mean ± standard deviation over {seeds} seed(s). Exposure: "
        "share of honest clients, not trained on the target, with it in their first 50, in percent."
    )
    return Grid(tuple(headings), tuple(body), (note,))


def _both(outcomes: Sequence[Sequence[str]], attack: str, defence: str) -> str | None:
    parts = [_cell(outcomes, attack, defence, column) for column in (HR, NDCG)]
    return None if parts[0] is None or parts[1] is None else f"{parts[0]} / {parts[1]}"


def _cell(outcomes: Sequence[Sequence[str]], attack: str, defence: str, column: int) -> str | None:
    try:
        found = [float(line[column]) for line in outcomes if (line[ATTACK], line[DEFENCE]) == (attack, defence)]
    except ValueError:
        raise ResultsError(f"the attack bench holds a figure that is no number ({attack}, {defence})") from None
    if not found:
        return None
    return f"{mean(found):.1f}" + (f" ± {stdev(found):.1f}" if len(found) > 1 else "")
