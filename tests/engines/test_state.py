"""The state of an engine: copies, with or without moments; what earlier versions stored; nothing half-understood."""

import numpy as np
import pytest
import torch
from helpers.federation_toy import ALL, build, cases, train

from fedvlr_plugin.engines.private_items import ScratchRows
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.federation.checkpoint import Checkpoints
from fedvlr_plugin.federation.training import fit
from fedvlr_plugin.tensor_files import read_tensors, write_tensors

ENGINES = pytest.mark.parametrize("engine", ["batched", "sequential"])
PRIVATE_ITEMS = ("FedRAP", "blfm")


@cases
@ENGINES
def test_a_state_is_a_copy_and_comes_back(make_spec, backbone, fusion, engine):
    federation = build(make_spec, backbone, fusion, engine, participation=1.0)
    train(federation, 2)
    state, scores = federation.engine.state(moments=False), federation.score(ALL)
    before = {name: value.clone() for name, value in state.items()}
    broadcast = federation.server.broadcast()
    federation.engine.local_round(broadcast, ALL, federation.problem.client_weights(ALL), 3)
    assert all(torch.equal(value, state[name]) for name, value in before.items()), "training changed a copy"
    federation.engine.load(state)
    assert torch.equal(federation.score(ALL), scores)
    federation.engine.local_round(broadcast, ALL, federation.problem.client_weights(ALL), 4)
    assert all(torch.equal(value, state[name]) for name, value in before.items()), "training changed what was loaded"


@cases
@ENGINES
def test_training_goes_on_from_parameters_alone_with_new_optimizers(make_spec, backbone, fusion, engine):
    """A loaded engine of either kind takes the same steps: moments of another round are not mixed in."""
    first, second = (build(make_spec, backbone, fusion, engine, participation=1.0) for _ in range(2))
    train(first, 2), train(second, 3)
    state = first.state(moments=False)
    uplinks = []
    for federation in (first, second):
        federation.load(state, moments=False)
        uplinks.append(federation.round(5))
    for name, value in uplinks[0].sums.items():
        assert torch.equal(value, uplinks[1].sums[name]), name
    assert torch.equal(first.score(ALL), second.score(ALL))


@ENGINES
def test_what_is_kept_of_the_best_round_holds_no_moments(make_spec, engine):
    federation = build(make_spec, *PRIVATE_ITEMS, engine, participation=1.0)
    train(federation, 1)
    kept, whole = (sum(value.numel() for value in federation.engine.state(moments=m).values()) for m in (False, True))
    assert whole > 2.5 * kept - 100


def test_a_checkpoint_of_an_earlier_version_is_gone_on_from(make_spec, tmp_path):
    """Its best round was stored without `model.` and as `dense.*`; its moments as they are now."""

    def build_one():
        return build(make_spec, *PRIVATE_ITEMS, rounds=4, eval_every=1)

    def validation(federation):
        return lambda: {"ndcg@50": -abs(float(federation.score(ALL).mean()) - 0.1)}

    path = tmp_path / "checkpoint"
    whole = build_one()
    fitted = fit(whole, validation(whole))

    class Killed(Exception):
        pass

    def kill(record):
        if record.round == 3:
            raise Killed

    broken = build_one()
    with pytest.raises(Killed):
        fit(broken, validation(broken), kill, Checkpoints(path, 2))
    tensors, facts = read_tensors(path)
    earlier = {}
    for name, value in tensors.items():
        if name == "best.clients.clients":
            continue
        name = name.replace("best.server.model.", "best.server.").replace("best.clients.values.", "best.clients.dense.")
        earlier[name] = value
    assert earlier.keys() != tensors.keys()
    write_tensors(path, earlier, facts)
    again = build_one()
    continued = fit(again, validation(again), checkpoints=Checkpoints(path, 2))
    assert continued.best_round == fitted.best_round
    assert [r.train_loss for r in continued.records] == [r.train_loss for r in fitted.records]
    assert torch.equal(again.score(ALL), whole.score(ALL))


def test_private_parameters_that_an_earlier_version_exported_load(make_spec):
    """RecBole checkpoints of before hold `head`, `router` and `own.*`."""
    federation, other = build(make_spec, *PRIVATE_ITEMS), build(make_spec, *PRIVATE_ITEMS)
    train(federation, 2)
    state = federation.engine.state(moments=False)
    exported = {name.removeprefix("values."): value for name, value in state.items() if name != "clients"}
    other.server.load(federation.server.state(moments=False))
    other.engine.load(exported)
    assert torch.equal(federation.score(ALL), other.score(ALL))


def test_a_state_of_the_other_engine_or_of_other_clients_is_refused(make_spec):
    batched, sequential = (build(make_spec, *PRIVATE_ITEMS, engine) for engine in ("batched", "sequential"))
    train(batched, 1), train(sequential, 1)
    with pytest.raises(ConfigError, match="no private state of the sequential engine"):
        sequential.engine.load(batched.engine.state(moments=False))
    with pytest.raises(KeyError):
        batched.engine.load(sequential.engine.state(moments=False))
    state = batched.engine.state(moments=False)
    state["clients"] = state["clients"].flip(0)
    with pytest.raises(ConfigError, match="of other clients"):
        batched.engine.load(state)


@pytest.mark.parametrize("budget", [10**6, 10])
def test_scratch_rows_hold_what_was_written(budget):
    scratch = ScratchRows(50, 3, np.dtype(np.float64), budget)
    expected = np.arange(150.0).reshape(50, 3)
    for begin in range(0, 50, 20):
        scratch.values[begin : begin + 20] = expected[begin : begin + 20]
        scratch.drop()
    values = torch.from_numpy(scratch.values)
    del scratch
    assert np.array_equal(values.numpy(), expected)
