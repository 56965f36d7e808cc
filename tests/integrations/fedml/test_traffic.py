"""The pair's messages are as large as Table 3 counts them, and FedML's pickle around them is a little larger."""

import pytest
from helpers.fedml_pair import start

from fedvlr_plugin.data.synthetic import generated
from fedvlr_plugin.experiment.rows import federated_rows
from fedvlr_plugin.integrations.fedml.messages import on_the_wire, tensor_bytes
from fedvlr_plugin.reporting.table3 import held

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
