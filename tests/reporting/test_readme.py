"""The tables of README and guides follow from the committed results, to the letter."""

import re

import pytest
from helpers.paths import ROOT

from fedvlr_plugin.errors import ConfigError, ResultsError, UnknownNameError
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.reporting.claims import Finding
from fedvlr_plugin.reporting.comparisons import Comparison
from fedvlr_plugin.reporting.readme import BLOCK, END, bullets, refresh

NAMES = ("README.md", "results/README.md", "benchmarks/README.md", "fedvlr_plugin/aggregation/README.md")
DOCUMENTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
README = DOCUMENTS["README.md"]
ALL = "\n".join(DOCUMENTS.values())
STORE = ResultsStore(ROOT / "results" / "published")


@pytest.mark.parametrize("name", NAMES)
def test_a_document_shows_what_the_store_holds(name):
    assert BLOCK.search(DOCUMENTS[name])
    assert refresh(DOCUMENTS[name], STORE) == DOCUMENTS[name], f"run: python benchmarks/readme.py {name}"


def test_no_other_document_has_tables_of_results():
    for path in ROOT.rglob("README.md"):
        name = path.relative_to(ROOT).as_posix()
        if name not in NAMES and not {".venv", "build"} & set(path.parts):
            assert not BLOCK.search(path.read_text(encoding="utf-8")), name


def test_a_number_changed_by_hand_is_found():
    blocks = [
        found[0]
        for found in BLOCK.finditer(ALL)
        if found["kind"] == "table2" and not re.search("seeds=|show=", found["options"])
    ]
    block = min(blocks, key=len)
    line = next(text for text in block.splitlines() if text.startswith("| FedAvg "))
    changed = block.replace(line, line.replace("2", "3", 1), 1)
    assert changed != block and refresh(changed, STORE) == block


def test_tables_without_markers_are_not_results():
    outside = BLOCK.sub("", ALL)
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
    for found in BLOCK.finditer(ALL):
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


def finding(
    backbone: str, difference: float, p: float, paper: bool | None = True, dataset: str = "ku", enough: bool = True
) -> Finding:
    compared = Comparison(difference, p, p, enough)
    return Finding("+ours beats +MLP", dataset, "hr@50", f"{backbone}+ours", f"{backbone}+MLP", compared, paper)


def test_a_bullet_says_what_the_tests_say_and_no_more():
    found = [finding("FCF", 3.26, 0.01), finding("FedAvg", -9.0, 0.2, False), finding("FedRAP", -2.0, 0.04, None, "ml"),
             finding("FedNCF", 7.0, 0.01, None, enough=False)]  # fmt: skip
    text = " ".join(line.strip() for line in bullets(found, ["mlp"], "corrected"))
    assert text == (
        "* **+ours against +MLP** (corrected; KU, ML): of 4 comparisons better in 1 (FCF on KU, HR@50 +3.3), worse in 1 "
        "(FedRAP on ML, HR@50 -2.0), undecided in 1, without enough runs in 1. In the paper better in 1 of 2."
    )
    assert all(len(line) <= 100 for line in bullets(found, ["mlp"], "corrected"))


def test_a_bullet_of_best_rows_gives_every_difference():
    claim = "the best federated row beats cold-first"
    found = [Finding(claim, "ku", "hr@50", "FCF", "cold-first", Comparison(-10.55, 0.3, 0.3, True), None)]
    text = " ".join(line.strip() for line in bullets(found, ["floor"], "corrected"))
    assert text.endswith("(corrected; KU): FCF minus cold-first on KU: HR@50 -10.6 (undecided).")


def test_bullets_of_unknown_or_empty_claims_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'floor'"):
        bullets([finding("FCF", 1.0, 0.5)], ["flor"], "corrected")
    with pytest.raises(ConfigError, match="say anything on the claim 'floor'"):
        bullets([finding("FCF", 1.0, 0.5)], ["floor"], "corrected")


def claims(protocol: str) -> dict[tuple[str, str, str], list[set[str]]]:
    """(claim, data set, metric) -> backbones for which it holds, does not hold, is undecided, lacks runs; from the tested guide."""
    released = protocol == "as_released"
    (block,) = (
        found["body"]
        for found in BLOCK.finditer(DOCUMENTS["results/README.md"])
        if "show=claims" in found["options"] and ("as_released" in found["options"]) == released
    )
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines() if line.startswith("| +ours")
    ]
    return {
        (claim, dataset, metric): [{pair.split()[0] for pair in cell.split(", ") if pair} for cell in words]
        for claim, dataset, metric, _, *words in lines
    }


def test_the_sentence_below_the_bullets_follows_from_the_claims():
    """The words of the README, against the tested grids of claims in the guide."""
    sentence = " ".join(README.split())
    assert (
        "show no gain of `+ours` that a verdict can rest on, under either protocol, and most pairs need more"
        in sentence
    )
    counted = [
        (len(holds), sum(map(len, (holds, fails, undecided, lacking))), len(lacking))
        for protocol in ("corrected", "as_released")
        for holds, fails, undecided, lacking in claims(protocol).values()
    ]
    gains, pairs, lacking = (sum(column) for column in zip(*counted, strict=True))
    assert gains == 0 and pairs == 80 and lacking > pairs / 2
