"""Figure 2's picture: it says what it shows, and no whisker leaves the range of weights."""

from __future__ import annotations

import dataclasses

import pytest

pytest.importorskip("matplotlib", reason="figures need the extra [report]")

from fedvlr_plugin.reporting.figure2 import RouterGroup, format_seeds, router_grid, router_picture, title, weight_bars

FEW = RouterGroup(
    "ku", "FedAvg+ours", "corrected", (0, 1, 2), 3, 3, 100,
    {"sum": 0.1, "mlp": 0.85, "gate": 0.05}, {"sum": 0.3, "mlp": 0.3, "gate": 0.02}, 0.2, 30.0, 12.0,
)  # fmt: skip
MANY = dataclasses.replace(FEW, least=4, most=251, users=104)


def test_whiskers_end_where_weights_do() -> None:
    bars = weight_bars([FEW])
    assert bars["sum"] == [(0.1, 0.0, pytest.approx(0.4))] and bars["mlp"] == [(0.85, pytest.approx(0.55), 1.0)]
    assert bars["gate"] == [(0.05, pytest.approx(0.03), pytest.approx(0.07))], "what lies inside is not cut"
    picture = router_picture([FEW, MANY])
    ends = [y for lines in picture.axes[0].collections for path in lines.get_paths() for y in path.vertices[:, 1]]
    assert len(ends) == 12 and min(ends) >= 0.0 and max(ends) <= 1.0


@pytest.mark.parametrize("groups", [[FEW], [FEW, MANY]])
def test_the_picture_says_what_it_shows_and_nothing_leaves_the_page(groups, texts_of, all_apart) -> None:
    picture = router_picture(groups)
    boxes = texts_of(picture)
    words = " ".join(" ".join(text for text, _ in boxes).split())
    for part in ("KU, FedAvg+ours, protocol corrected, seeds 0 to 2", "training items of a user", "100 users",
                 "mean router weight", "one standard deviation over these users", "cut off at 0 and 1", "view"):  # fmt: skip
        assert part in words, part
    all_apart(boxes, picture.bbox)


def test_the_caption_of_the_numbers_says_it_too_and_a_group_of_one_size_has_one_number() -> None:
    grid = router_grid([FEW, MANY])
    assert "cut off at 0 and 1" in grid.notes[0] and [line[2] for line in grid.lines] == ["3", "4 to 251"]


def test_seeds_are_spelled_as_they_are() -> None:
    assert [format_seeds(seeds) for seeds in ((0,), (0, 1, 2), (2, 0, 5))] == ["0", "0 to 2", "0, 2, 5"]
    assert title(dataclasses.replace(FEW, seeds=(3,))).endswith("seed 3")
