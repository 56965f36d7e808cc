"""The pair in one process: the same model as the sequential engine, whatever the backbone and the fusion."""

import os

import pytest
import torch
from helpers.federation_toy import ALL, cases
from helpers.fedml_pair import assert_same_model, reference, start

from fedvlr_plugin.data.synthetic import generated
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.experiment.rows import VARIANTS
from fedvlr_plugin.integrations.fedml.task import load_data, load_model

NAME = {fusion: variant for variant, fusion in VARIANTS.items()}


@cases
def test_the_pair_equals_the_sequential_engine(host, make_args, backbone, fusion):
    row = f"{backbone}+{NAME[fusion]}" if NAME[fusion] else backbone
    driver = start(host, make_args(fedvlr_row=row))
    before = driver.aggregator.server.snapshot()
    driver.run()
    federation = reference(driver)
    assert_same_model(driver, federation)
    engine = driver.trainer.engine_for(driver.clients[0])
    assert torch.allclose(
        engine.score(driver.aggregator.server.broadcast(), ALL), federation.score(ALL), atol=1e-9, rtol=0
    )
    after = driver.aggregator.server.snapshot()
    assert any(not torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("row", ["FedAvg+ours", "FedRAP+ours", "FedNCF"])
def test_the_batched_engine_under_the_pair_is_the_same(host, make_args, row):
    driver = start(host, make_args(fedvlr_row=row, fedvlr_engine="batched"))
    driver.run()
    assert_same_model(driver, reference(driver))


@pytest.mark.parametrize("together, blocks", [(1, 9), (3, 3), (1000, 1)])
def test_users_to_come_are_trained_in_blocks_and_each_upload_is_its_own(host, make_args, monkeypatch, together, blocks):
    """Every upload, whatever the block, and also asked for out of order, is what the sequential engine sends."""
    from fedvlr_plugin.integrations.fedml import block_training

    args = {"settings": {"participation": 1.0}}
    fast, slow = start(host, make_args(fedvlr_engine="batched", **args)), start(host, make_args(**args))
    engine, calls = fast.trainer.engine_for(fast.clients[0]), []
    plain = engine.local_round
    monkeypatch.setattr(engine, "local_round", lambda *a: calls.append(len(a[1])) or plain(*a))
    down = fast.aggregator.get_model_params()
    monkeypatch.setattr(block_training, "BYTES_AT_ONCE", together * down["views"].nbytes)
    fast.trainer.ahead.expect(1, range(9))
    for user in (4, 0, 1, 2, 3, 5, 6, 7, 8):
        mine, theirs = (one.train_one(one.clients[user], down)[1] for one in (fast, slow))
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            assert torch.allclose(mine[name], value, atol=1e-12, rtol=0), (user, name)
    assert len(calls) == blocks and sum(calls) == 9
    fast.train_one(fast.clients[4], down)
    assert calls[blocks:] == [1], "asked for again: trained alone"


def test_a_user_that_is_not_finite_in_a_block_is_the_only_one_left_out(host, make_args):
    driver = start(host, make_args(fedvlr_engine="batched", settings={"participation": 1.0}))
    driver.one_round()
    engine = driver.trainer.engine_for(driver.clients[0])
    engine.store.values["head"][engine.problem.histories.slot_of[5]] = float("nan")
    line = driver.one_round()
    assert line.left_out == {"not finite": 1}


def test_going_on_from_a_checkpoint_without_the_private_state_is_refused(host, make_args, tmp_path):
    """It would train on, from private states of the start."""
    args = {"fedvlr_checkpoint": str(tmp_path), "fedvlr_engine": "batched"}
    start(host, make_args(**args)).one_round()
    with pytest.raises(ConfigError, match="fedvlr_private_state_dir"):
        start(host, make_args(**args)).one_round()


@pytest.mark.slow
@pytest.mark.parametrize("row", ["FedAvg+ours", "FedNCF+ours"])
def test_ku_sized_data_merged_chunk_by_chunk(host, make_args, row):
    """82 of 204 users a round, more uploads than are held at once, so they are merged on the way."""
    data = generated(204, 560, 3_488, width=16)
    driver = start(
        host,
        make_args(fedvlr_row=row, fedvlr_engine="batched", settings={"local_epochs": 1, "participation": 0.4}),
        data,
    )
    driver.run()
    assert_same_model(driver, reference(driver))


@pytest.mark.slow
@pytest.mark.skipif("FEDVLR_DATA" not in os.environ, reason="FEDVLR_DATA names no data root with the real data sets")
@pytest.mark.parametrize("host", ["fedml"], indirect=True)
@pytest.mark.parametrize("row", ["FedAvg+ours", "FedRAP+ours"])
def test_the_real_ku_through_load_data(host, make_args, row):
    """The released data, all users, three rounds: the model and every user's scores are the sequential engine's."""
    settings = {"participation": 1.0, "local_epochs": 1, "batch_size": 2048}
    args = make_args(fedvlr_row=row, dataset="ku", fedvlr_data_root=os.environ["FEDVLR_DATA"], settings=settings)
    dataset, n_items = load_data(args)
    model = load_model(args)
    trainer, aggregator = host.Trainer(model, args), host.Aggregator(model, args)
    driver = host.Driver(args, dataset, trainer, aggregator)
    assert (len(driver.clients), n_items) == (204, 560)
    driver.run()
    federation = reference(driver)
    assert_same_model(driver, federation)
    everyone = torch.arange(204)
    scores = trainer.engine_for(driver.clients[0]).score(aggregator.server.broadcast(), everyone)
    assert torch.allclose(scores, federation.score(everyone), atol=1e-9, rtol=0)


def test_uploads_hold_the_broadcasts_names_and_nothing_private(host, make_args):
    driver = start(host, make_args(fedvlr_row="FedRAP+ours"))
    driver.one_round()
    names = {n for n in driver.trainer.get_model_params() if not n.startswith("fedvlr.")}
    assert names == set(driver.aggregator.server.broadcast().named())
    notes = {n for n in driver.trainer.get_model_params() if n.startswith("fedvlr.")}
    assert notes == {"fedvlr.round", "fedvlr.client", "fedvlr.weight", "fedvlr.broken"}


def test_touched_rows_give_the_same_model_and_smaller_messages(host, make_args):
    data = generated(12, 400, 100, width=16)
    dense, touched = start(host, make_args(), data), start(host, make_args(fedvlr_upload="touched"), data)
    dense.run(), touched.run()
    assert_same_model(touched, reference(dense))
    size = [sum(v.numel() for v in d.trainer.get_model_params().values()) for d in (dense, touched)]
    assert size[1] < 0.5 * size[0]


def test_global_random_state_is_untouched(host, make_args):
    before = torch.get_rng_state()
    start(host, make_args()).run()
    assert torch.equal(before, torch.get_rng_state())


def test_plain_sp_explains_itself(host, make_args):
    driver = start(host, make_args())
    with pytest.raises(ConfigError, match="algorithm_flow=Driver"):
        next(iter(driver.clients[0]))
