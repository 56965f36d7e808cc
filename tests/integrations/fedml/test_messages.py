"""The server's door, by hand: each reason once, and what is whole goes in once."""

import pytest
import torch

from fedvlr_plugin.integrations.fedml.messages import Intake

GOOD = {"views": torch.ones(2, 3, 4), "layer.a.bias": torch.zeros(5)}


def changed(**tensors):
    return GOOD | {name.replace("_", "."): value for name, value in tensors.items()}


BAD = {
    "wrong names": {"views": torch.ones(2, 3, 4)},
    "wrong shape": changed(views=torch.ones(2, 4, 3)),
    "wrong type": changed(views=torch.ones(2, 3, 4, dtype=torch.float64)),
    "not finite": changed(views=torch.full((2, 3, 4), float("inf"))),
}


@pytest.mark.parametrize("reason", BAD)
def test_broken_uploads_are_refused_and_counted(reason):
    door = Intake(GOOD, round=3)
    assert door.admit(1, 3, BAD[reason]) == reason and door.left_out == {reason: 1}
    assert door.admit(1, 3, GOOD) is None, "a refused client may send again"


def test_stale_duplicate_and_uncalled_clients():
    door = Intake(GOOD, round=3, clients=torch.tensor([1, 2]))
    assert door.admit(1, 3, GOOD) is None
    assert door.admit(1, 3, GOOD) == "duplicate"
    assert door.admit(2, 2, GOOD) == "stale" == door.admit(2, 4, GOOD)
    assert door.admit(7, 3, GOOD) == "unknown client"
    assert door.admit(2, 3, changed(views=torch.full((2, 3, 4), float("nan")))) == "not finite"
    assert door.left_out == {"duplicate": 1, "stale": 2, "unknown client": 1, "not finite": 1}
