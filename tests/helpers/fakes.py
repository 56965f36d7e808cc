"""A stand-in for `run`: results that follow from the specification alone, at once."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from fedvlr_plugin.config import ExecutionConfig, RunSpec
from fedvlr_plugin.data.interactions import Interactions
from fedvlr_plugin.data.item_features import ItemFeatures, Modality
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.evaluation.ranks import Ranks
from fedvlr_plugin.evaluation.round_record import RoundRecord
from fedvlr_plugin.experiment.result import OnRound, Resources, RunResult

if TYPE_CHECKING:
    from matplotlib.transforms import Bbox


def make_data(name: str = "tiny", n_users: int = 30, n_items: int = 120, seed: int = 0) -> PreparedData:
    rng = np.random.default_rng(seed)
    picks = np.stack([rng.choice(n_items, 6, replace=False) for _ in range(n_users)])
    indptr = np.arange(n_users + 1, dtype=np.int64) * 4
    tokens = tuple(f"u{u}" for u in range(n_users)), tuple(f"i{i}" for i in range(n_items))
    interactions = Interactions(
        n_users, n_items, indptr, np.sort(picks[:, :4], axis=1).reshape(-1), picks[:, 4], picks[:, 5], *tokens
    )
    text = Modality("text", rng.normal(size=(n_items, 4)).astype(np.float32), np.ones(n_items, dtype=bool))
    return PreparedData(name, interactions, ItemFeatures([text]))


def fake_run(
    spec: RunSpec,
    execution: ExecutionConfig | None = None,
    *,
    data: PreparedData,
    on_round: OnRound | None = None,
    outputs: tuple[str, ...] = (),
) -> RunResult:
    rng = np.random.default_rng([spec.seed, int(spec.spec_hash, 16) % 2**32])
    x = data.interactions

    def ranks(held: np.ndarray) -> Ranks:
        users = np.flatnonzero(held >= 0)
        above = rng.integers(0, 100, len(users))
        return Ranks(users, held[users], above, np.zeros_like(users), x.cold_items[held[users]])

    curve = []
    for number in range(1, spec.training.rounds + 1):
        record = RoundRecord(number, {"local": 0.01, "evaluation": 0.001}, 1.0 / number, summary(ranks(x.valid)))
        curve.append(record)
        if on_round is not None:
            on_round(record)
    return RunResult(
        spec=spec,
        execution=execution or ExecutionConfig(),
        data_name=data.name,
        interactions_fingerprint=x.fingerprint,
        data_fingerprint=data.fingerprint,
        best_round=len(curve),
        curve=tuple(curve),
        valid=ranks(x.valid),
        test=ranks(x.test),
        resources=Resources(0.5, 0.4, 10**8, 0, 10 * len(curve), 200 * len(curve)),
        outputs={name: rng.random((x.n_users, 3)) for name in outputs},
    )


def check_apart(boxes: list[tuple[str, Bbox]], page: Bbox) -> None:
    """No text touches another, or leaves the page."""
    for (one, a), (two, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), (one, two)
    for text, box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, text
