"""Figures 2 and 3 and the report: right numbers, self-contained files, parts really removed."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fedvlr_plugin.cli.request import Sources
from fedvlr_plugin.cli.tables import OK, USAGE, main
from fedvlr_plugin.cli.tables import report as write_report
from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.data.item_features import ItemFeatures, Modality
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.experiment.variants import leave_one_out
from fedvlr_plugin.reporting.figure2 import router_groups
from fedvlr_plugin.reporting.stored_runs import stored_profiles, stored_table

pytest.importorskip("matplotlib", reason="figures need the extra [report]")


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

    def call(output: str, *options: str) -> int:
        argv = ["--results", str(tmp_path / "r"), "--seeds", "2", *options]
        return main(argv, output=output, sources=sources, runner=runner)

    call.specs, call.root = specs, tmp_path / "r"
    return call


def test_figure_2_groups_users_by_activity(call, tiny: PreparedData, fake, tmp_path: Path) -> None:
    assert call("figure2", "--rows", "FedAvg+ours", "FCF+ours") == OK
    names = {path.name for path in (call.root / "figures").iterdir()}
    assert {f"figure2-quick-corrected.{kind}" for kind in ("md", "csv", "tex")} <= names
    assert {f"figure2-quick-corrected-ku-FCF+ours.{kind}" for kind in ("png", "svg")} <= names
    x = tiny.interactions
    sizes = np.repeat([1, 2, 6, 7], [8, 8, 7, 7])
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    items = np.concatenate([np.arange(size) for size in sizes])
    data = PreparedData("tiny", dataclasses.replace(x, train_indptr=indptr, train_items=items), tiny.features)
    spec = RunSpec(dataset="tiny", row="FedAvg+ours")
    weights = np.zeros((30, 3))
    weights[:16, 0] = 1.0  # users with little history use the first view only, the others the second
    weights[16:, 1] = 1.0
    result = dataclasses.replace(fake(spec, data=data), outputs={"router_weights": weights})
    store = ResultsStore(tmp_path / "own")
    groups = router_groups(store, [store.append(result, data)])
    assert [(g.least, g.most, g.users) for g in groups] == [(1, 1, 8), (2, 2, 8), (6, 6, 7), (7, 7, 7)]
    assert [g.weights["sum"] for g in groups] == [1, 1, 0, 0] and [g.weights["mlp"] for g in groups] == [0, 0, 1, 1]
    assert groups[0].heterogeneity == pytest.approx(14 / 30) and groups[3].heterogeneity == pytest.approx(16 / 30)
    assert groups[0].spread["sum"] == 0.0


def test_figure_2_wants_routers(call, capsys) -> None:
    assert call("figure2", "--rows", "FedAvg+ours", "FedAvg") == USAGE
    assert "only rows that have routers" in capsys.readouterr().err and not call.specs


def test_figure_3_leaves_each_part_out(call) -> None:
    assert call("figure3", "--rows", "FedRAP+ours") == OK
    found = {(spec.model.modalities, spec.model.id_embedding) for spec in call.specs}
    assert found == {(None, True), (("image",), True), (("text",), True), (None, False)}
    assert len(call.specs) == 8
    lines = list(csv.DictReader((call.root / "figures" / "figure3-quick-corrected.csv").open()))
    assert [line["variant"] for line in lines] == ["full", "w/o text", "w/o image", "w/o id"]
    assert (call.root / "figures" / "figure3-quick-corrected-ku.svg").is_file()
    first, *others = lines
    change = float(others[0]["NDCG@50"].split(" ")[0]) - float(first["NDCG@50"].split(" ")[0])
    assert float(others[0]["Δ NDCG@50"]) == pytest.approx(change, abs=0.011)
    call("figure3", "--rows", "FedRAP+ours")
    assert len(call.specs) == 8, "the second call draws from the store"


def test_a_variant_keeps_all_other_settings() -> None:
    spec = RunSpec(dataset="ku", row="FCF+MLP", seed=3)
    variants = leave_one_out(spec, ["text"])
    assert list(variants) == ["full", "w/o text", "w/o id"] and variants["full"] == spec
    assert variants["w/o text"].model.modalities == () and variants["w/o text"].training == spec.training
    assert variants["w/o id"].seed == 3 and not variants["w/o id"].model.id_embedding
    assert list(leave_one_out(RunSpec(dataset="ku", row="FCF"), ["text"])) == ["full"]


class Page(HTMLParser):
    """Collects text, ids, references and addresses, and checks that tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.ids, self.links, self.cells, self.titles = [], Counter(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        if tag not in {"meta", "br", "use", "path"} and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids[value] += 1
            if name in {"src", "href", "xlink:href"}:
                self.links.append(value)
            if name == "title" and tag == "td":
                self.titles.append(value)

    def handle_endtag(self, tag) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data) -> None:
        if self.open and self.open[-1] in {"td", "a"}:
            self.cells.append(data)


@pytest.fixture
def report(call) -> tuple[Path, Path]:
    rows = ["popularity", "VBPR", "FedAvg", "FedAvg+MLP", "FedAvg+ours", "FCF+ours"]
    assert call("table2", "--rows", *rows) == OK
    assert write_report(["--results", str(call.root)]) == 0
    return call.root, call.root / "report.html"


def test_the_report_holds_every_number_and_asks_nothing_of_the_network(report) -> None:
    root, path = report
    text = path.read_text()
    page = Page(text)
    table = stored_table(ResultsStore(root), "quick", "corrected")
    assert len(table.cells) == 6
    for (row, _), cell in table.cells.items():
        assert row in page.cells
        for figure in cell.figures.values():
            assert any(value.startswith(f"{figure.mean:.2f}") for value in page.cells)
            assert any(f"{figure.interval.low:.2f} to {figure.interval.high:.2f}" in title for title in page.titles)
        for record in cell.records:
            assert record.key in text
    assert all(link.startswith("#") for link in page.links), "only references within the page"
    assert not re.search(r"@import|url\((?!#)|<link|fetch\(|XMLHttpRequest", text)
    assert not [name for name, times in page.ids.items() if times > 1]
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert "<svg" in text and "client_lr" in text and "corrected p" in text


def test_the_report_of_an_empty_folder_is_refused(tmp_path: Path, capsys) -> None:
    assert write_report(["--results", str(tmp_path)]) == 2
    assert "no runs are stored" in capsys.readouterr().err and not (tmp_path / "report.html").exists()


def test_tables_are_rebuilt_from_the_store_alone(call) -> None:
    call("table2", "--rows", "popularity", "FedAvg", "VBPR")
    store = ResultsStore(call.root)
    assert stored_profiles(store) == [("quick", "corrected")]
    table = stored_table(store, "quick", "corrected")
    assert table.rows == ("popularity", "VBPR", "FedAvg") and table.datasets == ("ku",)
    assert {row: cell.figures["hr@50"].n for (row, _), cell in table.cells.items()} == {
        "popularity": 1, "VBPR": 2, "FedAvg": 2,
    }  # fmt: skip
    for path in store.runs.glob("*--FedAvg--*.parquet"):
        path.unlink()
    with pytest.raises(ResultsError, match="cannot read"):
        stored_table(store, "quick", "corrected")
