"""What every profile makes of every row: specifications, search and cost, against values written down beforehand.

`golden_profiles.json` was written by the code before backbones declared their own settings. A difference here means that stored
results of a profile are no longer found, so that a user computes them again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from fedvlr_plugin.data.synthetic import generated
from fedvlr_plugin.experiment.estimate import estimate_seconds
from fedvlr_plugin.experiment.profiles import PROFILES, search_for, spec_for
from fedvlr_plugin.experiment.rows import federated_rows, known_rows, parse_row
from fedvlr_plugin.reporting.table3 import closed_form, verdict
from fedvlr_plugin.search.space import space_of

GOLDEN = Path(__file__).with_name("golden_profiles.json")
DATASETS = ("ku", "ml", "movie", "beauty", "ml-100k", "planted", "mine")


def specs(profile: str, dataset: str, row: str) -> str:
    """One hash over the specifications of five seeds under both protocols."""
    hashes = [
        spec_for(PROFILES[profile], dataset, row, seed, protocol).spec_hash
        for seed in range(5)
        for protocol in ("corrected", "as_released")
    ]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16]


def search(profile: str, dataset: str, row: str) -> dict[str, object]:
    """How the profile searches a cell, and over which space."""
    if parse_row(row).kind in ("floor", "closed_form", "one_shot"):
        return {}
    space = [[d.name, list(d.values), [list(pair) for pair in d.sets]] for d in space_of(row)]
    return {"effort": search_for(PROFILES[profile], dataset, parse_row(row)), "space": space}


def current() -> dict[str, object]:
    """All values, as the golden file has them."""
    data = generated(40, 30, 400).interactions
    rows = [*known_rows(), "FedNCF+ours & new-item prior", "FedRAP & new-item prior", "Pop"]
    return {
        "specs": {p: {d: {r: specs(p, d, r) for r in rows} for d in DATASETS} for p in PROFILES},
        "search": {p: {r: search(p, "ku", r) for r in rows} for p in PROFILES},
        "seconds": {r: estimate_seconds(spec_for(PROFILES["quick"], "ku", r, 0), data) for r in rows},
        "client parameters": {r: [closed_form(r, 204, 560, w) for w in (64, 512, 32)] for r in federated_rows()},
        "table 3 verdicts": {
            r: [verdict(r, 204, 560, closed_form(r, 204, 560, w) // 1000) for w in (64, 512, 32)]
            for r in federated_rows()
        },
    }


@pytest.mark.parametrize("part", ["specs", "search", "seconds", "client parameters", "table 3 verdicts"])
def test_every_value_is_the_one_written_down(part: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))[part]
    assert json.loads(json.dumps(current()[part])) == golden
