"""Table 3: closed forms against counts by hand, the paper's odd cells by name, live counts against closed forms."""

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedvlr_plugin.cli.main import app
from fedvlr_plugin.reporting.table3 import closed_form, held, table3, verdict


@pytest.mark.parametrize(
    "row, expected",
    [
        ("FedAvg", 560 * 64),
        ("FCF+MLP", 3 * 560 * 64),
        ("PFedRec+ours", 3 * 560 * 64 + 12_547),
        ("FedRAP", 2 * 560 * 64),
        ("FedRAP+ours", 4 * 560 * 64 + 12_547),
        ("FedNCF", (560 + 204) * 128 + 10_945),
        ("FedNCF+MLP", 128 * 204 + 640 * 560 + 142_913),
        ("FedNCF+ours", 128 * 204 + 640 * 560 + 180_420),
        ("FedAvg+VBPR", 1024 * 204 + 512 * 560),
    ],
)
def test_closed_forms_on_ku(row, expected):
    assert closed_form(row, 204, 560) == expected


def test_every_cell_of_the_paper_is_there_and_the_odd_ones_are_named():
    cells = table3()
    assert len(cells) == 112
    odd = {(c.row, c.dataset): c.verdict for c in cells if c.verdict != "follows"}
    assert odd == {
        ("FedAvg", "KU"): "ODD: follows width 512",
        ("PFedRec", "KU"): "ODD: follows width 512",
        ("FCF", "Dance"): "ODD: follows width 512",
        ("FCF", "Food"): "ODD: follows width 512",
        ("FedNCF", "Movie"): "ODD: follows width 32",
        ("FedAvg+VBPR", "Food"): "ODD: follows width 64",
        ("FedNCF+ours", "Dance"): "ODD: -1 K",
        ("FedNCF+ours", "Food"): "ODD: -1 K",
        ("FedNCF+ours", "Movie"): "ODD: -1 K",
    }
    assert verdict("FedAvg", 204, 560, 36) == "ODD: +1 K"


def test_live_clients_hold_what_the_method_says():
    """n d down, the head at home; +ours: three views down and a router of 12,547 more; nothing private in between."""
    plain, ours = held("FedAvg", 100), held("FedAvg+ours", 100)
    assert (plain.private, plain.received, plain.sent) == (65, 6400, 6400)
    assert (ours.private - plain.private, ours.received, ours.sent) == (12_547, 19_200, 19_200)
    assert held("FedRAP", 100).own_rows == 6400
    assert held("FedAvg+VBPR", 100).private == 129
    ncf = held("FedNCF", 100)
    assert ncf.private == 128 and ncf.received == 2 * 6400 + 10_945
    assert ncf.sent_bytes == 4 * ncf.sent


def test_the_command_prints_the_chosen_data_sets_and_writes_them(tmp_path: Path):
    target = tmp_path / "new folder" / "table3.csv"
    shown = CliRunner().invoke(app, ["table3", "--datasets", "ku", "--csv", str(target)])
    assert shown.exit_code == 0, shown.output
    assert "14 of 16 cells follow the closed form. Odd: FedAvg on KU (follows width 512); PFedRec on KU" in shown.output
    head, *lines = list(csv.reader(target.open(newline="")))
    assert head[:3] == ["row", "data set", "paper K"] and len(lines) == 16 and {line[1] for line in lines} == {"KU"}


def test_the_command_refuses_what_the_paper_does_not_have(tmp_path: Path):
    shown = CliRunner().invoke(app, ["table3", "--datasets", "kuu"])
    assert shown.exit_code == 2 and "error: unknown data set 'kuu'" in shown.output and "Did you mean" in shown.output
    (tmp_path / "file").write_text("")
    shown = CliRunner().invoke(app, ["table3", "--datasets", "ku", "--csv", str(tmp_path / "file" / "t.csv")])
    assert shown.exit_code == 2 and "error: cannot write" in shown.output and "with --csv FILE" in shown.output
