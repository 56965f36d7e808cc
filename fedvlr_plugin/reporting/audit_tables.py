"""The privacy audit as two tables: what is read out of what the server sees, and whether a client is in the sum."""

from __future__ import annotations

from fedvlr_plugin.audit.results import Audit, Estimate, ObservationLine
from fedvlr_plugin.paper.tables import display_name
from fedvlr_plugin.reporting.grid import Grid, Value, format_count, format_interval

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
        cells.append(None if found is None else _format_estimate(found, name in SHARES, name in WITH_INTERVAL))
    return tuple(cells)


def member_grid(audit: Audit) -> Grid:
    """How well a client's presence in the sum is told, and what the promise allows."""
    headings = ("noise", "ε", "clients", "AUC, the upload known", "AUC, all others known", "best test", "bound of ε")
    lines = tuple(
        (
            line.noise,
            format_epsilon(line.epsilon),
            line.clients,
            _format_estimate(line.knows_one, True, True),
            _format_estimate(line.knows_all, True, True),
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


def _format_estimate(found: Estimate, share: bool, interval: bool) -> str:
    factor, digits = (100.0, 1) if share else (1.0, 2)
    text = f"{factor * found.mean:.{digits}f}"
    if interval:
        text += f" ({format_interval(factor * found.low, factor * found.high, digits)})"
    return text


def _made(audit: Audit) -> tuple[str, ...]:
    spec = audit.specs[0]
    made = (
        f"{spec.row} on {display_name(spec.dataset)}, settings of the profile {audit.profile}, {spec.training.rounds} "
        f"rounds with all clients, {format_count(len(audit.specs), 'seed')}; at most {audit.most_audited} clients audited, half of "
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
