"""Table 4: which runs it needs, epsilon beside each number, the paper's figures beside ours, the curve."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from fedvlr_plugin.cli.arguments import parse_options
from fedvlr_plugin.cli.request import Sources
from fedvlr_plugin.cli.tables import OK, USAGE, main, report
from fedvlr_plugin.config import Privacy, RunSpec
from fedvlr_plugin.data.item_features import ItemFeatures, Modality
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.experiment.noise_options import NoiseOptions
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.experiment.variants import at_level, levels
from fedvlr_plugin.privacy.guarantee import guarantee_of
from fedvlr_plugin.reporting.captions import caption
from fedvlr_plugin.reporting.results_table import build_table
from fedvlr_plugin.reporting.table4.lines import named_levels, published4, stored_lines

pytest.importorskip("dp_accounting", reason="accounting needs the extra [dp]")


@pytest.fixture
def call(tmp_path: Path, tiny: PreparedData, fake):
    rng = np.random.default_rng(1)
    image = Modality("image", rng.normal(size=(120, 3)).astype(np.float32), np.ones(120, dtype=bool))
    data = PreparedData("ku", tiny.interactions, ItemFeatures([*tiny.features.values(), image]))
    sources = Sources(lambda root: ["ku"], lambda name, root: name, lambda name, root: data)
    specs: list[RunSpec] = []

    def runner(spec, *args, **kwargs):
        specs.append(spec)
        return fake(spec, *args, **kwargs)

    def call(*options: str) -> int:
        argv = ["--results", str(tmp_path / "r"), "--seeds", "2", "--datasets", "ku", *options]
        return main(argv, output="table4", sources=sources, runner=runner)

    call.specs, call.root, call.data = specs, tmp_path / "r", data
    return call


def lines_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


ROWS = ("--rows", "popularity", "FedAvg", "FedAvg+ours")


def test_every_row_runs_without_noise_and_at_every_level(call) -> None:
    assert call(*ROWS, "--epsilon", "8", "1", "--clip", "0.3", "--noise-scale", "0.05") == OK
    noises = [spec.conditions.privacy for spec in call.specs if spec.row == "FedAvg" and spec.seed == 1]
    assert [None if p is None else (p.mechanism, p.epsilon, p.noise_scale) for p in noises] == [
        None, ("paper_noise", None, 0.05), ("gaussian", 8.0, None), ("gaussian", 1.0, None),
    ]  # fmt: skip
    assert all(p.clip == 0.3 for p in noises if p is not None and p.mechanism == "gaussian")
    assert len(call.specs) == 1 + 2 * 2 * 4, "the floor once, two rows at four levels with two seeds"
    for row in ("FedAvg", "FedAvg+ours"):
        assert len({spec.training.model_dump_json() for spec in call.specs if spec.row == row}) == 1
    call(*ROWS, "--epsilon", "8", "1", "--clip", "0.3", "--noise-scale", "0.05")
    assert len(call.specs) == 17, "the second call draws from the store"


def test_epsilon_stands_beside_every_number(call) -> None:
    pytest.importorskip("matplotlib", reason="pictures need the extra [report]")
    assert call(*ROWS, "--epsilon", "4") == OK
    lines = lines_of(call.root / "tables" / "table4-quick-corrected-ku.csv")
    assert [(line["row"], line["noise"], line["ε"]) for line in lines] == [
        ("popularity", "none", ""), ("FedAvg", "none", "∞"), ("FedAvg", "paper", "∞"), ("FedAvg", "ε 4", "4"),
        ("FedAvg+ours", "none", "∞"), ("FedAvg+ours", "paper", "∞"), ("FedAvg+ours", "ε 4", "4"),
    ]  # fmt: skip
    before, after = (float(line["NDCG@50"].split(" ")[0]) for line in (lines[1], lines[3]))
    assert float(lines[3]["degrade % "]) == pytest.approx(100 * (1 - after / before), abs=0.1)
    text = (call.root / "tables" / "table4-quick-corrected-ku.md").read_text()
    assert "ε = 4 at δ = 0.0033 (add or remove one user)" in text and "does not cover the choice of hyper" in text
    assert "paper_noise, ε = ∞" in text
    for kind in ("png", "svg"):
        assert (call.root / "tables" / f"table4-quick-corrected-ku.{kind}").stat().st_size > 10_000
    assert (call.root / "tables" / "table4-quick-corrected-ku.tex").read_text().isascii(), (
        "plain LaTeX takes no other letters"
    )


def test_a_record_carries_the_guarantee_and_must_not_lose_it(call) -> None:
    call("--rows", "FedAvg", "--epsilon", "4", "--noise", "accounted")
    store = ResultsStore(call.root)
    noisy = [record for record in store.records() if record.privacy is not None]
    assert len(noisy) == 2 and len(store.records()) == 4
    for record in noisy:
        assert record.privacy == guarantee_of(record.spec, 30) and 3.9 < record.privacy.epsilon <= 4.0
    table = build_table(store, [record.spec for record in noisy])
    assert any("ε = 4 at δ" in line for line in caption(table))
    path = next(p for p in store.runs.glob("*.json") if json.loads(p.read_text())["privacy"])
    content = json.loads(path.read_text())
    del content["privacy"]
    path.write_text(json.dumps(content))
    with pytest.raises(ResultsError, match="privacy does not fit the conditions"):
        store.records()


def test_a_record_from_before_there_was_noise_can_be_read(call) -> None:
    call("--rows", "popularity")
    path = next((call.root / "runs").glob("*.json"))
    content = json.loads(path.read_text())
    assert content.pop("privacy") is None
    path.write_text(json.dumps(content))
    assert ResultsStore(call.root).records()[0].privacy is None


def test_the_paper_s_lines_stand_beside_ours(call) -> None:
    assert call("--rows", "FCF+ours", "FedNCF+ours", "--noise", "paper") == OK
    lines = lines_of(call.root / "tables" / "table4-quick-corrected-ku-paper.csv")
    assert [(line["row"], line["metric"]) for line in lines] == [
        (row, metric) for row in ("FCF+ours", "FedNCF+ours") for metric in ("HR@50", "NDCG@50")
    ]
    assert lines[0]["paper w/ ours"] == "55.39" and lines[0]["paper w/ noise"] == "53.78"
    assert lines[0]["paper degrade %"] == "2.91" and "not comparable" in lines[0]["verdict"]
    assert not (call.root / "figures").exists(), "no epsilon, no curve"


def test_the_published_figures_are_all_there() -> None:
    assert len(published4()) == 10
    for line in published4():
        assert line.degrade == pytest.approx(100 * (1 - line.noisy / line.without), abs=0.06), line


def test_the_curve_has_a_point_per_epsilon(call) -> None:
    pytest.importorskip("matplotlib", reason="figures need the extra [report]")
    assert call(*ROWS, "--epsilon", "1", "2", "--noise", "accounted") == OK
    lines = lines_of(call.root / "figures" / "privacy-curve-quick-corrected-ku.csv")
    assert [(line["row"], line["epsilon"]) for line in lines] == [
        (row, epsilon) for row in ("FedAvg", "FedAvg+ours") for epsilon in ("inf", "2", "1")
    ]
    assert all(float(line["promised"]) <= float(line["epsilon"]) for line in lines if line["promised"])
    for metric in ("hr", "ndcg"):
        for kind in ("png", "svg"):
            assert (call.root / "figures" / f"privacy-curve-quick-corrected-ku-{metric}.{kind}").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--rows", "VBPR"), "it is centralized"),
        (("--rows", "FedAvg", "--epsilon", "1e-7", "--delta", "1e-12"), "needs a noise multiplier above"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(call, capsys, options, complaint: str) -> None:
    assert call(*options) == USAGE
    assert complaint in capsys.readouterr().err and not call.specs


@pytest.mark.parametrize("options", [("--epsilon", "0"), ("--epsilon", "nan"), ("--delta", "1"), ("--noise", "none")])
def test_bad_options_are_one_line(options, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse_options(options, "run_table4.py", "Table 4", with_noise=True)
    assert stopped.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1


def test_smoke_needs_one_epsilon_unless_told_otherwise() -> None:
    def epsilons(*words: str) -> tuple[float, ...]:
        return parse_options(words, "run_table4.py", "Table 4", with_noise=True).noise.epsilons

    assert epsilons() == (1, 2, 4, 8) and epsilons("--profile", "smoke") == (8,)
    assert epsilons("--profile", "smoke", "--epsilon", "3", "2", "3") == (2, 3)


def test_a_level_changes_nothing_but_the_noise() -> None:
    spec = RunSpec(dataset="ku", row="FCF", seed=3)
    none, paper, *accounted = levels(NoiseOptions())
    assert at_level(spec, none) == spec and [level.name for level in accounted] == ["ε 8", "ε 4", "ε 2", "ε 1"]
    noisy = at_level(spec, paper)
    assert noisy.spec_hash != spec.spec_hash and math.isclose(noisy.conditions.privacy.noise_scale, 0.001)
    assert noisy.model_copy(update={"conditions": spec.conditions}) == spec
    floor = RunSpec(dataset="ku", row="popularity")
    assert at_level(floor, accounted[0]) == floor


def test_the_report_and_the_store_alone_show_the_same_lines(call) -> None:
    pytest.importorskip("matplotlib", reason="figures need the extra [report]")
    assert call(*ROWS, "--epsilon", "4", "1") == OK
    call(*ROWS, "--noise", "accounted", "--epsilon", "1", "--set", "rounds=7")  # of another table
    store = ResultsStore(call.root)
    lines = stored_lines(store, "quick", "corrected")
    assert [(line.row, line.level.name) for line in lines] == [
        ("popularity", "none"),
        *((row, name) for row in ("FedAvg", "FedAvg+ours") for name in ("none", "paper", "ε 4", "ε 1")),
    ]
    assert all(
        line.cell is not None and len(line.cell.records) == (1 if line.row == "popularity" else 2) for line in lines
    )
    assert report(["--results", str(call.root)]) == 0
    text = (call.root / "report.html").read_text()
    section = text[text.index("Noise and privacy") :]
    for line in lines:
        assert f"{line.cell.figures['ndcg@50'].mean:.2f}" in section
    assert section.count("<svg") == 2, "a curve per metric"
    assert section.count("&quot;epsilon&quot;: 3.9") == 4, "the manifests of the four runs at ε 4 hold the promise"
    assert stored_lines(store, "paper", "corrected") == []


def test_levels_that_share_a_name_are_told_apart() -> None:
    paper = [Privacy(mechanism="paper_noise", noise_scale=scale) for scale in (0.1, 0.01)]
    gaussian = [Privacy(epsilon=4.0, clip=clip) for clip in (0.5, 0.1)] + [Privacy(noise_multiplier=2.0)]
    names = [level.name for level in named_levels([*gaussian, *paper])]
    assert names[:3] == ["none", "paper 0.01", "paper 0.1"] and sorted(names[3:]) == ["z 2", "ε 4, C 0.1", "ε 4, C 0.5"]
