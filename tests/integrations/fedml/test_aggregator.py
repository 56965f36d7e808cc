"""Uploads that do not count: left out, counted, and the round goes on."""

import pytest
import torch
from helpers.fedml_pair import start

from fedvlr_plugin.integrations.fedml.messages import WEIGHT, lost_upload


def nan(message):
    message["views"][0, 0, 0] = float("nan")


def wrong_shape(message):
    message["views"] = message["views"][:, :-1]


def wrong_type(message):
    message["views"] = message["views"].float()


def missing(message):
    del message["views"]


def late(message):
    message["fedvlr.round"] -= 1


def twice(message):
    message["fedvlr.client"] = torch.tensor(8)


def lost(message):
    client = int(message["fedvlr.client"])
    number = int(message["fedvlr.round"])
    message.clear()
    message.update(lost_upload(number, client))


def infinite_weight(message):
    message[WEIGHT] = torch.tensor(float("inf"), dtype=torch.float64)


def no_weight(message):
    del message[WEIGHT]


def rubbish(message):
    message["views"] = "not a tensor"


FAULTS = [
    (nan, "not finite"),
    (wrong_shape, "wrong shape"),
    (wrong_type, "wrong type"),
    (missing, "wrong names"),
    (late, "stale"),
    (twice, "duplicate"),
    (lost, "lost"),
    (infinite_weight, "wrong weight"),
    (no_weight, "wrong weight"),
    (rubbish, "no message of ours"),
]


@pytest.mark.parametrize("fault, reason", FAULTS, ids=[f.__name__ for f, _ in FAULTS])
def test_a_bad_upload_is_left_out_and_counted(host, make_args, fault, reason):
    """The rest makes the round: the same as if the client had never been asked."""

    def one_round(bad):
        driver = start(host, make_args(fedvlr_row="FedAvg+ours", settings={"participation": 1.0}))
        aggregator, raw = driver.aggregator, []
        broadcast = aggregator.get_model_params()
        for client in reversed(driver.clients.values()):
            if client.client == 5 and bad is None:
                continue
            entry = driver.train_one(client, broadcast)
            if client.client == 5:
                bad(entry[1])
            raw.append(entry)
        kept, places = aggregator.on_before_aggregation(raw)
        assert len(kept) == len(places)
        aggregator.set_model_params(aggregator.on_after_aggregation(aggregator.aggregate(kept)))
        return aggregator

    broken, without = one_round(fault), one_round(None)
    assert broken.left_out == {reason: 1} and not without.left_out
    for name, value in without.server.snapshot().items():
        assert torch.allclose(value, broken.server.snapshot()[name], atol=1e-12, rtol=0)


def test_a_round_without_any_upload_changes_nothing_but_the_round(host, make_args):
    aggregator = start(host, make_args()).aggregator
    before = aggregator.server.snapshot()
    kept, _ = aggregator.on_before_aggregation([(1, lost_upload(1, 0))])
    aggregator.set_model_params(aggregator.on_after_aggregation(aggregator.aggregate(kept)))
    assert aggregator.round == 2
    assert all(torch.equal(value, aggregator.server.snapshot()[name]) for name, value in before.items())
