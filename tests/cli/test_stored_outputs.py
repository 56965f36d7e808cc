"""`--stored` shows what the results folder holds: no run, no data, no mixing of two searches."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedvlr_plugin.cli.request import Sources
from fedvlr_plugin.cli.tables import OK, USAGE, main
from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.reporting.stored_runs import best_searches, stored_table
from fedvlr_plugin.search.selection import all_tuned


@pytest.fixture
def call(tmp_path: Path, tiny: PreparedData, fake):
    specs: list[RunSpec] = []
    loaded: list[str] = []

    def load(name: str, root: Path | None) -> PreparedData:
        loaded.append(name)
        return tiny

    def runner(spec, *args, **kwargs):
        specs.append(spec)
        return fake(spec, *args, **kwargs)

    def call(*options: str, output: str = "table2") -> int:
        sources = Sources(lambda root: ["tiny"], lambda name, root: name, load)
        return main(["--results", str(tmp_path / "r"), *options], output=output, sources=sources, runner=runner)

    call.specs, call.loaded, call.root = specs, loaded, tmp_path / "r"
    return call


ROWS = ("--rows", "popularity", "VBPR", "FedAvg", "FedAvg+ours")
SEARCH = ("--search", "tpe", "--seeds", "2", "--rows", "FedAvg+ours", "--trials")


def test_a_table_is_drawn_again_without_runs_or_data(call, capsys) -> None:
    assert call(*ROWS) == OK
    first = (call.root / "tables" / "table2-quick-corrected.csv").read_text()
    (call.root / "tables" / "table2-quick-corrected.csv").unlink()
    call.specs.clear(), call.loaded.clear()
    assert call("--stored") == OK and not call.specs and not call.loaded
    assert (call.root / "tables" / "table2-quick-corrected.csv").read_text() == first
    assert call("--stored", "--rows", "FedAvg") == OK
    assert "VBPR" not in (call.root / "tables" / "table2-quick-corrected-part.csv").read_text()
    assert (call.root / "tables" / "table2-quick-corrected.csv").read_text() == first, "a part has files of its own"


def test_runs_on_another_version_of_the_data_are_named_in_every_file_too(
    call, tiny: PreparedData, fake, capsys
) -> None:
    pytest.importorskip("matplotlib", reason="figures need the extra [report]")
    rows = (*ROWS, "FedAvg+MLP")
    assert call(*rows, "--keep", "router_weights") == OK
    store, other = ResultsStore(call.root), PreparedData("tiny", tiny.interactions)
    before = [path.read_text() for path in written(call.root)]
    assert len(before) == 3 and not any("another version" in text for text in before)
    for row in ("FedAvg", "FedAvg+ours"):
        (record,) = [r for r in store.records() if r.row == row and r.spec.seed == 0]
        store.append(fake(record.spec, data=other), other, "quick")
    capsys.readouterr()
    assert call("--stored") == OK
    line = "2 stored runs were made on another version of the data and left out"
    assert line in capsys.readouterr().out.split("Written:")[0].splitlines()[1], "said before the table"
    assert all(path.read_text().count(line) == 1 for path in written(call.root))
    assert call(*rows) == OK, "a run on the data in hand leaves them out as well"
    assert all(path.read_text().count(line) == 1 for path in written(call.root))
    assert call("--stored", output="figure2") == OK
    (grid,) = (call.root / "figures").glob("figure2-*.md")
    assert "1 stored run was made on another version of the data and left out" in grid.read_text()


def written(root: Path) -> list[Path]:
    """The Markdown of Table 2, of the claims and of cost and accuracy."""
    return [*(root / "tables").glob("*.md"), *(root / "figures").glob("cost-accuracy-*.md")]


def test_figure_3_is_drawn_again_too(call) -> None:
    pytest.importorskip("matplotlib", reason="figures need the extra [report]")
    assert call("--rows", "FCF+ours", output="figure3") == OK
    first = (call.root / "figures" / "figure3-quick-corrected.csv").read_text()
    assert "w/o text" in first
    assert call("--stored", "--rows", "FCF+ours", output="figure3") == OK
    assert (call.root / "figures" / "figure3-quick-corrected-part.csv").read_text() == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--stored", "--profile", "paper"), "holds no run of profile paper"),
        (("--stored", "--datasets", "nowhere"), "holds no run"),
        (("--stored", "--seeds", "3"), "--seeds is about runs"),
        (("--stored", "--dropout", "0.5"), "--dropout is about runs"),
        (("--stored", "--rows", "FedAvgg"), "Did you mean 'FedAvg'"),
    ],
)
def test_what_cannot_be_shown_is_one_line(call, capsys, options, message) -> None:
    assert call(*ROWS) == OK
    assert call(*options) == USAGE
    assert message in capsys.readouterr().err


def test_router_weights_are_made_for_a_searched_row_that_was_stored_without(call) -> None:
    pytest.importorskip("matplotlib", reason="figures need the extra [report]")
    assert call(*SEARCH, "3") == OK
    before = len(call.specs)
    assert call(*SEARCH, "3", output="figure2") == OK
    assert len(call.specs) == before + 2, "both seeds again, with their weights; the search is not repeated"
    assert "FedAvg+ours" in (call.root / "figures" / "figure2-quick-corrected.csv").read_text()
    assert call(*SEARCH, "3", output="figure2") == OK and len(call.specs) == before + 2


def test_the_best_search_of_a_cell_counts_by_validation(call) -> None:
    assert call(*SEARCH, "4") == OK and call(*SEARCH, "3") == OK
    store, tuned = ResultsStore(call.root), all_tuned(ResultsStore(call.root), "quick", "corrected")
    assert sorted(t.tried for t in tuned) == [3, 4]
    small, large = sorted(tuned, key=lambda t: t.tried)
    for better in (small, large):
        pair = [t.model_copy(update={"value": 9.0 if t is better else 8.0}) for t in tuned]
        for order in (pair, pair[::-1]):
            assert [t.tried for t in best_searches(store, order)] == [better.tried]
    equal = [t.model_copy(update={"value": 8.0}) for t in tuned]
    assert [t.tried for t in best_searches(store, equal)] == [t.tried for t in best_searches(store, equal[::-1])] == [4]
    cell = stored_table(store, "quick", "corrected").cells["FedAvg+ours", "tiny"]
    chosen = best_searches(store, tuned)[0]
    assert [r.spec_hash for r in cell.records] == [spec.spec_hash for spec in chosen.specs()]


def test_a_search_whose_final_runs_are_not_done_hides_no_finished_one(call) -> None:
    assert call(*SEARCH, "4") == OK and call(*SEARCH, "3") == OK
    store = ResultsStore(call.root)
    small, large = sorted(all_tuned(ResultsStore(call.root), "quick", "corrected"), key=lambda t: t.tried)
    begun = large.model_copy(update={"value": small.value + 1, "seeds": large.seeds + 1})
    assert best_searches(store, [small, begun]) == best_searches(store, [begun, small]) == [small]
    assert best_searches(store, [begun]) == [begun]
