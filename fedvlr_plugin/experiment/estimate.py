"""What a run will cost, before it starts: from stored runs of the same row and data where there are any, else by rate.

    seconds = rounds * (samples per round * seconds per sample + users * items * seconds per score)

An estimate, to choose a profile by and to draw an ETA from; no result depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable

from fedvlr_plugin.backbones import BACKBONES
from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.experiment.rows import parse_row

FLOOR_SECONDS = 0.2
INVERSIONS = 18
PER_INVERSION = 2.0e-11  # seconds times n^3, the validation included
OVERHEAD_SECONDS = 0.5
PER_SCORE = 1.5e-9
PER_SAMPLE_CENTRALIZED = 1.0e-5


def samples_per_round(spec: RunSpec, interactions: Interactions) -> float:
    """Expected samples of one round: positives and negatives, local epochs, share of the clients."""
    positives = len(interactions.train_items)
    return positives * (1 + spec.protocol.negatives) * spec.training.local_epochs * spec.training.participation


def estimate_seconds(spec: RunSpec, interactions: Interactions, history: Iterable[RunRecord] = ()) -> float:
    """Expected wall seconds of one run, all its rounds counted (stopping early makes it less)."""
    row = parse_row(spec.row)
    if row.kind == "floor":
        return FLOOR_SECONDS
    if row.kind in ("closed_form", "one_shot"):
        return OVERHEAD_SECONDS + INVERSIONS * PER_INVERSION * float(interactions.n_items) ** 3
    rates = [
        record.cost.wall_s / (record.rounds * samples_per_round(record.spec, interactions))
        for record in history
        if (record.row, record.dataset) == (spec.row, spec.dataset) and record.rounds
    ]
    samples = samples_per_round(spec, interactions) * spec.training.rounds
    if rates:
        return samples * sum(rates) / len(rates)
    validations = spec.training.rounds / spec.training.eval_every
    scoring = validations * PER_SCORE * interactions.n_users * interactions.n_items
    if row.backbone is None:
        epoch = len(interactions.train_items) * spec.training.rounds * PER_SAMPLE_CENTRALIZED
        return OVERHEAD_SECONDS + epoch + scoring
    rate = BACKBONES.get(row.backbone).seconds_per_sample
    per_sample = {"none": rate.id_view, "vbpr": rate.id_view, "mlp": rate.one_view}.get(str(row.fusion), rate.routed)
    return OVERHEAD_SECONDS + samples * per_sample + scoring


def format_seconds(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
