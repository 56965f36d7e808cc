"""The README's tables follow from the committed results, to the letter."""

from pathlib import Path

import pytest

from fedvlr_plugin.benchmark.readme_tables import BLOCK, END, refresh
from fedvlr_plugin.benchmark.store import ResultsStore
from fedvlr_plugin.errors import ConfigError

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
STORE = ResultsStore(ROOT / "results")


def test_the_readme_shows_what_the_store_holds():
    assert README.count("<!-- table2 ") >= 2
    assert refresh(README, STORE) == README, "run: python benchmarks/readme.py"


def test_a_number_changed_by_hand_is_found():
    blocks = [found[0] for found in BLOCK.finditer(README) if "seeds=" not in found["options"]]
    block = min(blocks, key=len)
    line = next(text for text in block.splitlines() if text.startswith("| FedAvg "))
    changed = block.replace(line, line.replace("2", "3", 1), 1)
    assert changed != block and refresh(changed, STORE) == block


def test_tables_without_markers_in_the_readme_are_not_results():
    outside = README
    while "<!-- table2 " in outside:
        start = outside.index("<!-- table2 ")
        outside = outside[:start] + outside[outside.index(END, start) + len(END) :]
    assert not [line for line in outside.splitlines() if line.startswith(("| FedRAP", "| FedAvg+ours  ", "| VBPR "))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("profile=quick", "needs datasets"),
        ("profile=quick dataset=ku", "Did you mean 'datasets'"),
        ("profile=quick datasets=nowhere", "no runs are stored"),
    ],
)
def test_bad_markers_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        refresh(f"<!-- table2 {options} -->\n{END}", STORE)
    with pytest.raises(ConfigError, match="has no"):
        refresh(f"<!-- table2 {options} -->\n", STORE)
