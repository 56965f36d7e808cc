"""Bytes sent against accuracy: counted right, and a picture whose names do not touch each other."""

from __future__ import annotations

import csv
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from fedvlr_plugin.cli.request import Sources
from fedvlr_plugin.cli.tables import OK, main
from fedvlr_plugin.config import Conditions, ModelConfig, Privacy, RunSpec, TrainingConfig
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.evaluation.significance import Interval
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.reporting.cost_accuracy import (
    Level,
    Point,
    cost_accuracy_grid,
    cost_accuracy_picture,
    cost_points,
    levels,
)
from fedvlr_plugin.reporting.plots import spread_out
from fedvlr_plugin.reporting.results_table import Figure, build_table
from fedvlr_plugin.reporting.table3 import held_by

N_ITEMS, N_USERS, DIM = 120, 30, 64


def table_of(tmp_path: Path, data: PreparedData, fake, rows: list[str], best_round: int = 3):
    store, specs = ResultsStore(tmp_path), []
    for row, seed in itertools.product(rows, (0, 1)):
        specs.append(RunSpec(dataset=data.name, row=row, seed=seed, training=TrainingConfig(rounds=4)))
        result = dataclasses.replace(fake(specs[-1], data=data), best_round=best_round + seed)
        store.append(result, data)
    return build_table(store, specs)


def test_bytes_are_upload_times_uploads_until_the_selected_round(tmp_path, tiny, fake) -> None:
    table = table_of(tmp_path, tiny, fake, ["FedAvg", "FedAvg+ours"])
    plain, ours = cost_points(table)
    assert plain.upload == N_ITEMS * DIM * 4 and ours.upload == 3 * plain.upload, "three views go up"
    # the stand-in counts 10 updates a round: a third of an upload per user and round, 3 and 4 rounds count
    assert plain.uploads == pytest.approx(3.5 / 3) and plain.sent == pytest.approx(plain.upload * 3.5 / 3)
    assert plain.figure == table.figure("FedAvg", "tiny", "ndcg@50")
    lines = cost_accuracy_grid([plain, ours]).lines
    assert [line[1] for line in lines] == ["FedAvg", "FedAvg+ours"] and lines[1][2] == ours.upload


def test_the_count_follows_the_width_and_not_what_sits_on_top() -> None:
    spec = RunSpec(dataset="x", row="FCF", model=ModelConfig(dim=8))
    noisy = spec.model_copy(update={"conditions": Conditions(privacy=Privacy(epsilon=1.0))})
    assert held_by(spec, 50, {"text": 4}).sent_bytes == 50 * 8 * 4 == held_by(noisy, 50, {"text": 4}).sent_bytes
    assert held_by(spec.model_copy(update={"dtype": "float64"}), 50, {}).sent_bytes == 50 * 8 * 8


def test_floors_and_the_best_centralized_row_are_levels(tmp_path, tiny, fake) -> None:
    rows = ["chance", "popularity", "VBPR", "BM3", "FedAvg"]
    table = table_of(tmp_path, tiny, fake, rows)
    best = max(("VBPR", "BM3"), key=lambda row: table.figure(row, "tiny", "ndcg@50").mean)
    assert [(level.row, level.kind) for level in levels(table)] == [
        ("chance", "floor"), ("popularity", "floor"), (best, "recbole"),
    ]  # fmt: skip
    assert [point.row for point in cost_points(table)] == ["FedAvg"]


def crowd(seed: int) -> tuple[list[Point], list[Level]]:
    """Four data sets with all 16 federated rows, most of them nearly equal, and levels that fall together."""
    rng = np.random.default_rng(seed)

    def figure(mean: float) -> Figure:
        return Figure(mean, None, 1, Interval(mean - 1, mean + 1), None, None)

    rows = [f"{b}{v}" for b in ("FedAvg", "FCF", "FedNCF", "PFedRec", "FedRAP") for v in ("", "+MLP", "+ours")]
    points = [
        Point(dataset, row, 10**5, 10.0, float(rng.choice([0.0, 1e5, 1e5, 2e7])), figure(17 + rng.normal() / 10))
        for dataset in ("ku", "ml", "food", "x")
        for row in [*rows, "FedAvg+VBPR"]
    ]
    heights = {"chance": 2.4, "popularity": 5.0, "cold-first": 5.0, "VBPR": 5.01}
    kinds = {"VBPR": "recbole"}
    return points, [
        Level(dataset, row, kinds.get(row, "floor"), figure(height))
        for dataset in ("ku", "ml", "food", "x")
        for row, height in heights.items()
    ]


@pytest.mark.parametrize("seed", [0, 1])
def test_no_two_texts_of_the_picture_touch(seed: int, texts_of, all_apart) -> None:
    points, floors = crowd(seed)
    picture = cost_accuracy_picture(points, floors)
    boxes = texts_of(picture)
    shown = [text for text, _ in boxes]
    for row in {point.row for point in points}:
        assert shown.count(row) == 4, "each row is named once in each panel"
    assert shown.count("popularity, cold-first") == 4
    all_apart(boxes, picture.bbox)


def test_apart_moves_as_little_as_it_must() -> None:
    assert spread_out([1.0, 5.0], 1.0, 0.0, 10.0) == [1.0, 5.0]
    assert spread_out([4.0, 4.0], 1.0, 0.0, 10.0) == [3.5, 4.5]
    assert spread_out([9.9, 9.9, 9.9], 1.0, 0.0, 10.0) == [8.0, 9.0, 10.0]
    assert spread_out([0.0, 0.1, 5.0], 1.0, 0.0, 10.0) == [0.0, 1.0, 5.0]
    wanted = sorted(np.random.default_rng(0).normal(5, 1, 12).tolist())
    places = spread_out(wanted, 0.5, 0.0, 10.0)
    assert all(b - a >= 0.5 - 1e-9 for a, b in itertools.pairwise(places)) and 0 <= places[0] and places[-1] <= 10


def test_table_2_writes_it_in_every_form(tmp_path, tiny, fake) -> None:
    pytest.importorskip("matplotlib", reason="figures need the extra [report]")
    sources = Sources(lambda root: ["tiny"], lambda name, root: name, lambda name, root: tiny)
    argv = ["--results", str(tmp_path), "--seeds", "1", "--set", "rounds=2", "--rows", "popularity", "FCF", "FCF+ours"]
    assert main(argv, sources=sources, runner=fake) == OK
    stem = tmp_path / "figures" / "cost-accuracy-quick-corrected"
    assert all(stem.with_suffix(kind).stat().st_size > 100 for kind in (".md", ".csv", ".tex", ".png", ".svg"))
    lines = list(csv.DictReader(stem.with_suffix(".csv").open()))
    assert [line["row"] for line in lines] == ["FCF", "FCF+ours"]
    assert float(lines[1]["MB sent"]) == pytest.approx(3 * float(lines[0]["MB sent"]), rel=0.02)
