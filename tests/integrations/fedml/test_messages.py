"""What the server takes in and refuses, by hand, and messages as large as Table 3 counts them."""

import pytest
import torch
from helpers.fedml_pair import start

from fedvlr_plugin.data.synthetic import generated
from fedvlr_plugin.experiment.rows import federated_rows
from fedvlr_plugin.integrations.fedml.messages import Intake, on_the_wire, tensor_bytes
from fedvlr_plugin.reporting.table3 import held

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


ITEMS = 60


@pytest.mark.parametrize("row", federated_rows())
def test_messages_hold_what_table_3_counts(host, make_args, row, request):
    """Two modalities of CLIP's width and the width of the paper, float32, as Table 3 counts."""
    data = generated(3, ITEMS, 40, width=512)
    args = make_args(fedvlr_row=row, fedvlr_dtype="float32", settings={"dim": 64, "participation": 1.0})
    args.fedvlr_settings.pop("router_hidden")
    driver, counted = start(host, args, data), held(row, ITEMS)
    down = driver.aggregator.get_model_params()
    samples, up = driver.train_one(driver.clients[0], down)
    assert tensor_bytes(down) == counted.received_bytes
    assert tensor_bytes(up) == counted.sent_bytes
    if request.node.callspec.params["host"] == "fedml":
        assert tensor_bytes(down) < on_the_wire(down, None) < tensor_bytes(down) + 8_000
        assert tensor_bytes(up) < on_the_wire(up, samples) < tensor_bytes(up) + 8_000
