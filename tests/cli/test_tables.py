"""The table runner from options to the printed table, with a stand-in for `run` and generated data."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fedvlr_plugin.cli.request import Sources
from fedvlr_plugin.cli.tables import FAILED, INTERRUPTED, OK, USAGE, main
from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.errors import FedVLRError, unknown_name
from fedvlr_plugin.experiment.profiles import PROFILES, specs_for
from fedvlr_plugin.experiment.result import RunResult
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import METRICS
from fedvlr_plugin.reporting.captions import caption
from fedvlr_plugin.reporting.results_table import build_table
from fedvlr_plugin.reporting.table2.formats import csv_text, group_ends, markdown, print_table
from fedvlr_plugin.reporting.verdict import Verdict

Fake = Callable[..., RunResult]
ROWS = ["popularity", "VBPR", "FedAvg", "FedAvg+ours"]


class Counter:
    """Counts the runs; may fail or be interrupted at a given one."""

    def __init__(self, fake: Fake) -> None:
        self.fake, self.specs = fake, list[RunSpec]()
        self.fail_row: str | None = None
        self.interrupt_after: int | None = None

    def __call__(self, spec: RunSpec, *args: object, **kwargs: object) -> RunResult:
        if self.interrupt_after is not None and len(self.specs) >= self.interrupt_after:
            raise KeyboardInterrupt
        self.specs.append(spec)
        if spec.row == self.fail_row:
            raise FedVLRError("the loss is NaN")
        return self.fake(spec, *args, **kwargs)


@pytest.fixture
def sources(tiny: PreparedData) -> Sources:
    def check(name: str, root: Path | None) -> str:
        if name.casefold() not in {"ku", "tiny"}:
            raise unknown_name("data set", name, ["ku", "tiny"])
        return name.casefold()

    def load(name: str, root: Path | None) -> PreparedData:
        return PreparedData(name, tiny.interactions, tiny.features)

    return Sources(lambda root: ["ku", "tiny"], check, load)


@pytest.fixture
def call(tmp_path: Path, sources: Sources, fake: Fake):
    runner = Counter(fake)

    def run(*options: str, rows: list[str] = ROWS) -> int:
        argv = ["--results", str(tmp_path / "results"), "--set", "rounds=2", "--rows", *rows, *options]
        return main(argv, sources=sources, runner=runner)

    run.runner, run.root = runner, tmp_path / "results"
    return run


def test_runs_everything_once_and_prints_the_table(call, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--seeds", "3") == OK
    assert len(call.runner.specs) == 2 * (1 + 3 * 3)  # two data sets; the floor has no seed
    out = capsys.readouterr().out
    assert "checking the request" in out.splitlines()[0]
    for text in ("KU", "tiny", *ROWS, "54.90", "HR@50", "NDCG@50", "corrected", "4 negatives", "all items", "quick"):
        assert text in out, text
    assert re.search(r"\d\.\d\d ± \d", out)
    assert call("--seeds", "3") == OK
    assert len(call.runner.specs) == 20, "the second call must not compute anything"
    assert "0 runs to do; 20 of 20 stored" in capsys.readouterr().out


def test_only_what_is_missing_is_computed(call) -> None:
    call("--seeds", "1", "--datasets", "tiny", rows=["FedAvg"])
    call("--seeds", "2", "--datasets", "tiny", rows=["FedAvg", "FCF"])
    assert [(s.row, s.seed) for s in call.runner.specs] == [("FedAvg", 0), ("FCF", 0), ("FedAvg", 1), ("FCF", 1)]


def test_overwrite_always_and_never(call, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--seeds", "1", "--datasets", "tiny")
    assert call(*arguments, "--overwrite", "never", rows=["FedAvg"]) == OK
    assert call(*arguments, "--overwrite", "always", rows=["FedAvg"]) == OK
    assert len(call.runner.specs) == 2
    assert call(*arguments, "--overwrite", "never", rows=["FedAvg", "FCF"]) == USAGE
    assert len(call.runner.specs) == 2 and "1 of the 2 runs" in capsys.readouterr().err


def test_an_interrupt_keeps_what_is_finished(call, capsys: pytest.CaptureFixture[str]) -> None:
    call.runner.interrupt_after = 2
    assert call("--seeds", "1", "--datasets", "tiny") == INTERRUPTED
    assert "same command" in capsys.readouterr().err
    call.runner.interrupt_after = None
    assert call("--seeds", "1", "--datasets", "tiny") == OK
    assert [s.row for s in call.runner.specs] == ROWS


def test_a_failing_row_does_not_stop_the_others(call, capsys: pytest.CaptureFixture[str]) -> None:
    call.runner.fail_row = "FedAvg"
    assert call("--seeds", "1", "--datasets", "tiny") == FAILED
    shown = capsys.readouterr()
    assert "tiny FedAvg, seed 0: the loss is NaN" in shown.err
    assert [s.row for s in call.runner.specs] == ROWS and "FedAvg+ours" in shown.out
    assert "1 of 4 runs are not stored" in shown.out


def test_dry_run_does_nothing(call, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--dry-run", "--seeds", "1") == OK
    assert not call.runner.specs and re.search(r"8 runs to do, about \d+", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "rows", "message"),
    [
        (["--datasets", "kuu"], ROWS, "unknown data set 'kuu'. Did you mean 'ku'?"),
        ([], ["FedAvgg"], "unknown row 'FedAvgg'. Did you mean 'FedAvg'?"),
        ([], ["FedAvg+our"], "unknown fusion 'our'"),
        ([], ["FCF+VBPR"], "does not support the fusion 'VBPR'"),
        (["--set", "client_lr=0"], ROWS, "client_lr: Input should be greater than 0 (got 0)"),
        (["--set", "clientlr=0.1"], ROWS, "unknown setting 'clientlr'. Did you mean 'client_lr'?"),
        (["--device", "cuda:99"], ROWS, "device 'cuda:99' is not there"),
        (["--device", "gpu"], ROWS, "'gpu' is not a device; allowed: cpu, cuda"),
    ],
)
def test_bad_requests_are_one_line_and_do_no_work(call, options, rows, message, capsys) -> None:
    assert call(*options, rows=rows) == USAGE
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and err.count("\n") == 1
    assert not call.runner.specs and not list(call.root.glob("runs/*.json"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--profile", "fast"], "invalid choice: 'fast'"),
        (["--seeds", "0"], "'0' is not a whole number of at least 1"),
        (["--memory-budget", "much"], "'much' is not a size"),
        (["--set", "client_lr"], "not of the form KEY=VALUE"),
        (["--protocol", "correct"], "invalid choice: 'correct'"),
        (["--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_bad_options_are_one_line(options, message, capsys, sources) -> None:
    with pytest.raises(SystemExit) as raised:
        main(options, sources=sources)
    err = capsys.readouterr().err
    assert raised.value.code == 2 and message in err and err.count("\n") == 1


def test_a_results_folder_below_a_file_is_refused_before_any_work(tmp_path, sources, fake, capsys) -> None:
    (tmp_path / "file").write_text("")
    runner = Counter(fake)
    assert main(["--results", str(tmp_path / "file" / "x")], sources=sources, runner=runner) == USAGE
    assert "cannot write" in capsys.readouterr().err and not runner.specs


def test_options_reach_the_run(call) -> None:
    seen = []
    call.runner.fake = lambda spec, execution, **kw: seen.append(execution) or _raise()
    call("--engine", "sequential", "--memory-budget", "1.5G", "--datasets", "tiny", "--seeds", "1", rows=["FedAvg"])
    assert seen[0].engine == "sequential" and seen[0].memory_budget == 3 * 2**29


def _raise() -> RunResult:
    raise FedVLRError("enough seen")


@pytest.fixture
def table_of(tmp_path: Path, tiny: PreparedData, fake: Fake):
    def build(datasets: tuple[str, ...] = ("ku", "tiny"), rows: list[str] = ROWS, seeds: int = 3):
        store = ResultsStore(tmp_path / "store")
        specs = specs_for(PROFILES["smoke"], datasets, rows, seeds)
        for spec in specs:
            data = PreparedData(spec.dataset, tiny.interactions, tiny.features)
            store.append(fake(spec, data=data), data)
        return build_table(store, specs, profile="smoke"), store, specs

    return build


def test_figures_are_means_over_seeds(table_of) -> None:
    table, store, specs = table_of()
    values = [r.test["hr@50"] for r in store.records() if (r.row, r.dataset) == ("FedAvg+ours", "ku")]
    figure = table.figure("FedAvg+ours", "ku", "hr@50")
    assert len(set(values)) > 1 and figure.n == 3
    assert figure.mean == pytest.approx(np.mean(values)) and figure.sd == pytest.approx(np.std(values, ddof=1))
    assert figure.paper == 54.90 and figure.difference == pytest.approx(np.mean(values) - 54.90)
    assert table.figure("popularity", "ku", "hr@50").sd is None
    assert table.figure("FedAvg", "tiny", "hr@50").paper is None
    best = max(("FedAvg", "FedAvg+ours"), key=lambda row: table.figure(row, "ku", "hr@50").mean)
    assert table.best("ku", "hr@50") == best


def test_markdown_and_csv_say_the_same(table_of) -> None:
    table, _, _ = table_of()
    text = markdown(table)
    header, _, *lines = [line for line in text.splitlines() if line.startswith("|")][: 2 + len(ROWS)]
    columns = [c.strip() for c in header.strip("|").split("|")]
    assert columns[:6] == ["row", "KU HR@50", "KU 95 %", "KU paper", "KU Δ", "KU NDCG@50"]
    assert columns[-4:] == ["tiny HR@50", "tiny 95 %", "tiny NDCG@50", "tiny 95 %"]
    rows = {line.strip("|").split("|")[0].strip(): [c.strip() for c in line.strip("|").split("|")] for line in lines}
    data = {(r["row"], r["dataset"], r["metric"]): r for r in csv.DictReader(io.StringIO(csv_text(table)))}
    for row in ROWS:
        spelled = rows[row][1].strip("*")
        figure = data[row, "ku", "hr@50"]
        assert spelled.split(" ± ")[0] == f"{float(figure['mean']):.2f}"
        if row != "popularity":
            assert spelled.split(" ± ")[1].split(" ")[0] == f"{float(figure['sd']):.2f}"
            assert rows[row][2] == f"{float(figure['low']):.2f}..{float(figure['high']):.2f}"
            assert rows[row][3] == f"{float(figure['paper']):.2f}"
            assert figure["verdict"].startswith("not comparable") and rows[row][4] == "≠"
    assert sum("**" in cell for line in lines for cell in line.split("|")) == 4


def test_a_cell_that_is_not_stored_is_a_dash(table_of, tmp_path: Path) -> None:
    _, store, specs = table_of()
    for path in store.runs.glob("ku--FedAvg--*.json"):
        path.unlink()
    table = build_table(store, specs)
    assert table.figure("FedAvg", "ku", "hr@50") is None
    line, _ = [line for line in markdown(table).splitlines() if re.match(r"\| FedAvg +\| +–", line)]
    assert "11.27" in line and "3 of 20 runs are not stored yet" in markdown(table)


def test_a_comparable_cell_shows_its_difference(table_of) -> None:
    table, _, _ = table_of()
    figure = dataclasses.replace(table.figure("FedAvg", "ku", "hr@50"), mean=12.5, verdict=Verdict("higher"))
    cell = dataclasses.replace(table.cells["FedAvg", "ku"], figures=dict.fromkeys(METRICS, figure))
    shown = markdown(dataclasses.replace(table, cells={**table.cells, ("FedAvg", "ku"): cell}))
    line = next(line for line in shown.splitlines() if line.startswith("| FedAvg "))
    assert [c.strip() for c in line.strip("|").split("|")][3:5] == ["11.27", "+1.23"]


def test_runs_on_another_version_of_the_data_are_left_aside_and_said(table_of, fake, tiny) -> None:
    table, store, specs = table_of(("tiny",), ["FedAvg"], 2)
    other = PreparedData("tiny", tiny.interactions)
    assert other.fingerprint != tiny.fingerprint
    store.append(fake(specs[0], data=other), other)
    for chosen in (build_table(store, specs), build_table(store, specs, {"tiny": tiny.fingerprint})):
        assert chosen.cells == table.cells
        assert any(line.startswith("1 stored run was made on another version of the data") for line in caption(chosen))
    assert not any("another version" in line for line in caption(table))
    assert build_table(store, specs, {"tiny": other.fingerprint}).cells["FedAvg", "tiny"].records[0].spec == specs[0]


def test_the_terminal_shows_every_number_however_narrow(table_of) -> None:
    table, _, _ = table_of()
    for width in (70, 220):
        console = Console(width=width, file=io.StringIO())
        print_table(table, console)
        out = console.file.getvalue()
        assert max(map(len, out.splitlines()[:8])) <= width
        for (row, dataset), cell in table.cells.items():
            for figure in cell.figures.values():
                assert f"{figure.mean:.2f}" in out, (row, dataset)


def test_groups() -> None:
    assert group_ends(["chance", "popularity", "VBPR", "FedAvg", "FedAvg+ours", "FCF"]) == {1, 2, 4}
