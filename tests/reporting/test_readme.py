"""The README's tables follow from the committed results, to the letter."""

import re

import pytest
from helpers.paths import ROOT

from fedvlr_plugin.errors import ConfigError, ResultsError
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.reporting.readme import BLOCK, END, refresh

GUIDES = ("README.md", "results/README.md", "benchmarks/README.md", "fedvlr_plugin/aggregation/README.md")
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in GUIDES}
README = "\n".join(TEXTS.values())
STORE = ResultsStore(ROOT / "results" / "published")


@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_shows_what_the_store_holds(name):
    assert BLOCK.search(TEXTS[name]), "a guide without a table need not be in GUIDES"
    assert refresh(TEXTS[name], STORE) == TEXTS[name], f"run: python benchmarks/readme.py {name}"


def test_no_guide_with_tables_is_left_out():
    found = {str(path.relative_to(ROOT)) for path in ROOT.glob("**/*.md") if ".venv" not in path.parts}
    assert {name for name in found if BLOCK.search((ROOT / name).read_text(encoding="utf-8"))} == set(GUIDES)


def test_a_number_changed_by_hand_is_found():
    blocks = [
        found[0]
        for found in BLOCK.finditer(README)
        if found["kind"] == "table2" and not re.search("seeds=|show=", found["options"])
    ]
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


def test_a_privacy_number_changed_by_hand_is_found():
    kinds = set()
    for found in BLOCK.finditer(README):
        if found["kind"] in ("table2", "table4"):  # made anew above
            continue
        block = found[0]
        line = next(text for text in block.splitlines() if text.startswith(("| none", "| krum")))
        changed = block.replace(line, line.replace("4", "5", 1).replace("1", "2", 1), 1)
        assert changed != block and refresh(changed, STORE) == block
        kinds.add(found["kind"])
    assert kinds == {"audit", "attacks"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ("table4 profile=quick datasets=ku", ConfigError, "needs folder"),
        ("table4 profile=quick datasets=ku folder=nowhere", ConfigError, "no noisy runs"),
        ("audit dataset=ku row=FCF profile=quick shown=seen", ConfigError, "Did you mean 'show'"),
        ("audit dataset=ku row=FCF profile=quick show=all", ConfigError, "seen, members"),
        ("audit dataset=nowhere row=FCF profile=quick show=seen", ResultsError, "cannot read"),
    ],
)
def test_bad_privacy_markers_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        refresh(f"<!-- {options} -->\n{END}", STORE)
