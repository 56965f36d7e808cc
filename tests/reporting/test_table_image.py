"""Tables as pictures: every number is drawn, nothing overlaps or leaves the page, however many data sets there are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.experiment.profiles import PROFILES, specs_for
from fedvlr_plugin.experiment.rows import known_rows
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.reporting.captions import caption
from fedvlr_plugin.reporting.grid import Grid, format_value
from fedvlr_plugin.reporting.plots import bars, save_picture
from fedvlr_plugin.reporting.results_table import build_table
from fedvlr_plugin.reporting.table2.formats import blocks
from fedvlr_plugin.reporting.table_image import grid_picture, table_picture, wrap


@pytest.fixture
def table(tmp_path: Path, tiny: PreparedData, fake):
    store, datasets = ResultsStore(tmp_path / "store"), ("ku", "ml", "tiny")
    specs = specs_for(PROFILES["smoke"], datasets, [*known_rows()][::2], 2)
    for spec in specs:
        data = PreparedData(spec.dataset, tiny.interactions, tiny.features)
        store.append(fake(spec, data=data), data)
    return build_table(store, specs, profile="smoke", rows=known_rows())


def test_table_2_is_drawn_whole_and_nothing_overlaps(table, texts_of, all_apart) -> None:
    picture = table_picture(table)
    boxes = texts_of(picture)
    drawn = [text for text, _ in boxes]
    for block in blocks(table):
        for text in {t.text for line in block.lines for t in line if t.text}:
            assert drawn.count(text) >= sum(t.text == text for line in block.lines for t in line), text
    assert {"KU", "ML", "tiny", "row", "paper", "Δ", *known_rows()} <= set(drawn)
    assert " ".join(drawn).endswith(" ".join(caption(table)))
    all_apart(boxes, picture.bbox)
    width, height = picture.get_size_inches()
    assert width < 16 and height < 22, "data sets stand below each other, so that the print stays legible"


def test_the_best_number_is_bold(table) -> None:
    from matplotlib.text import Text

    bold = {text.get_text() for text in table_picture(table).findobj(Text) if text.get_weight() == "bold"}
    assert bold == {text.text for block in blocks(table) for line in block.lines for text in line if text.best}
    assert bold


def test_a_long_grid_is_drawn_whole(texts_of, all_apart) -> None:
    lines = tuple(
        ("KU", row, level, None if row == "chance" else 7.96, "38.24 ± 1.10 ▼", "30.39..43.14", 12.345)
        for row in ("chance", "FedAvg", "FedAvg+ours")
        for level in ("none", "paper", "ε 8", "ε 4, C 0.05, quantile 0.5")
    )
    headings = ("data set", "row", "noise", "ε", "HR@50", "95 %", "degrade %")
    grid = Grid(headings, lines, ("A note that is very long. " * 20, "$ and _ and % are themselves."))
    picture = grid_picture(grid)
    boxes = texts_of(picture)
    drawn = [text for text, _ in boxes]
    assert drawn.count("12.35") == drawn.count("38.24 ± 1.10 ▼") == 12 and drawn.count(format_value(None)) == 4
    assert drawn[-1] == "$ and _ and % are themselves."
    all_apart(boxes, picture.bbox)
    ends = {text: {round(box.x1) for other, box in boxes if other == text} for text in ("38.24 ± 1.10 ▼", "HR@50")}
    assert ends["38.24 ± 1.10 ▼"] == ends["HR@50"], "numbers are aligned to the right, with their spread too"
    empty = dataclasses.replace(grid, lines=())
    assert [text for text, _ in texts_of(grid_picture(empty))][: len(headings)] == list(headings)


def test_notes_are_broken_between_words() -> None:
    text = "aa bb cccc d eeeeeeeee f"
    assert wrap(text, 5.0, lambda part: float(len(part))) == ["aa bb", "cccc", "d", "eeeeeeeee", "f"]
    assert wrap("", 5.0, len) == []


def test_the_same_picture_is_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="figures need the extra [report]")
    grid = Grid(("row", "x"), (("FCF", 1.0), ("FedAvg", 2.0)))
    for name, draw in (("t", lambda: grid_picture(grid)), ("b", lambda: bars(["a"], {"x": [(1.0, 0.5, 2.0)]}, "y"))):
        one, two = (save_picture(draw(), tmp_path / f"{name}.{number}") for number in (1, 2))
        assert [path.name for path in (*one, *two)] == [
            f"{name}.{number}{kind}" for number in (1, 2) for kind in (".png", ".svg")
        ]
        assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
