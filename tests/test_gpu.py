"""A GPU gives what the CPU gives. Skipped, with that reason, where torch sees no CUDA device.

float64 to 1e-9 for all that is federated; the same run twice on the GPU to the last bit, resuming included.
"""

import numpy as np
import pytest
import torch
from helpers.federation_toy import cases
from helpers.toy import make_toy

from fedvlr_plugin.centralized.model_registry import find_model
from fedvlr_plugin.centralized.trainable import Trainable
from fedvlr_plugin.config import Attack, Conditions, ExecutionConfig, Faults, Privacy, Protocol, Robust, RunSpec, Secure
from fedvlr_plugin.data.synthetic import generated
from fedvlr_plugin.experiment.rows import parse_row
from fedvlr_plugin.experiment.run import run
from fedvlr_plugin.federation.checkpoint import Checkpoints
from fedvlr_plugin.federation.ranking import rank_federation
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.federation.training import fit

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none")
ALL = torch.arange(9)
CONDITIONS = [
    Conditions(privacy=Privacy(noise_multiplier=1.0, clip=0.1)),
    Conditions(privacy=Privacy(noise_multiplier=1.0, clip=0.1, adaptive_quantile=0.5)),
    Conditions(privacy=Privacy(mechanism="paper_noise", noise_scale=0.01)),
    Conditions(secure=Secure(bound=5.0)),
    Conditions(faults=Faults(dropout=0.3, stragglers=0.2)),
    *(Conditions(robust=Robust(rule=rule)) for rule in ("norm_clip", "median", "trimmed_mean", "krum", "multi_krum")),
    Conditions(robust=Robust(rule="geometric_median"), attack=Attack(kind="promotion", share=0.3)),
    *(Conditions(attack=Attack(kind=kind, share=0.3)) for kind in ("sign_flip", "scaling", "promotion")),
]


def federation(spec, device, backbone, fusion, **execution):
    return Federation(spec, backbone, fusion, make_toy(), ExecutionConfig(device=device, **execution))


def states(*federations):
    return [{name: value.cpu() for name, value in f.state(moments=True).items()} for f in federations]


def assert_same(spec, backbone, fusion, tolerance=1e-9, **execution):
    a = federation(spec, "cpu", backbone, fusion)
    b = federation(spec, DEVICE, backbone, fusion, **execution)
    for number in (1, 2, 3):
        here, there = a.round(number), b.round(number)
        assert here.loss == pytest.approx(there.loss, abs=tolerance)
        assert (here.clients, here.samples, here.left_out) == (there.clients, there.samples, there.left_out)
    assert b.device.type == torch.device(DEVICE).type
    for name, value in here.sums.items():
        assert torch.allclose(value, there.sums[name].cpu(), atol=tolerance, rtol=0), name
    assert torch.allclose(a.score(ALL), b.score(ALL).cpu(), atol=tolerance, rtol=0)
    for name, value in a.server.snapshot().items():
        assert torch.allclose(value, b.server.snapshot()[name].cpu(), atol=tolerance, rtol=0), name
    one, two = rank_federation(a, "test"), rank_federation(b, "test")
    assert np.array_equal(one.above, two.above) and np.array_equal(one.tied, two.tied)
    if a.router_weights() is not None:
        assert np.allclose(a.router_weights(), b.router_weights(), atol=tolerance, rtol=0)


@cases
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_gpu_gives_what_the_cpu_gives(make_spec, backbone, fusion, optimizer):
    assert_same(make_spec(backbone, client_optimizer=optimizer), backbone, fusion, block_clients=3)


@cases
def test_under_the_released_protocol_too(make_spec, backbone, fusion):
    changes = {"keep_private_state": False, "negative_pool": "train_items", "negatives": 1, "name": "as_released"}
    assert_same(make_spec(backbone, **changes), backbone, fusion)


@cases
def test_client_by_client_too(make_spec, backbone, fusion):
    assert_same(make_spec(backbone), backbone, fusion, engine="sequential")


@pytest.mark.parametrize("conditions", CONDITIONS, ids=str)
@pytest.mark.parametrize("backbone, fusion", [("FCF", "blfm"), ("FedNCF", "none"), ("FedRAP", "blfm")])
def test_under_conditions_too(make_spec, backbone, fusion, conditions):
    if conditions.privacy is not None:
        pytest.importorskip("dp_accounting", reason="accounting needs the extra [dp]")
    spec = make_spec(backbone, participation=1.0).model_copy(update={"conditions": conditions})
    assert_same(spec, backbone, fusion)


@cases
def test_the_same_run_twice_is_bit_identical_and_so_is_going_on(make_spec, backbone, fusion, tmp_path):
    spec = make_spec(backbone, rounds=4, eval_every=1)

    def valid_of(f):
        return lambda: {"ndcg@50": -abs(float(f.score(ALL).mean()) - 0.1)}

    class Killed(Exception):
        pass

    def kill(report):
        if report.round == 3:
            raise Killed

    one, two, broken, again = (federation(spec, DEVICE, backbone, fusion) for _ in range(4))
    fit(one, valid_of(one)), fit(two, valid_of(two))
    with pytest.raises(Killed):
        fit(broken, valid_of(broken), kill, Checkpoints(tmp_path / "c", 2))
    fit(again, valid_of(again), checkpoints=Checkpoints(tmp_path / "c", 2))
    first, *others = (f.server.state(moments=True) for f in (one, two, again))
    for other in others:
        assert all(torch.equal(value, other[name]) for name, value in first.items())
    assert torch.equal(one.score(ALL), two.score(ALL)) and torch.equal(one.score(ALL), again.score(ALL))


@pytest.mark.parametrize("row", ["FedAvg", "FCF+ours", "FedNCF+ours", "PFedRec", "FedRAP+ours"])
def test_a_larger_set_is_bit_identical_twice(row):
    """Hundreds of clients on the same items: sums whose order a GPU does not fix by itself would show here."""
    data, parsed = generated(300, 400, 12_000), parse_row(row)
    spec = RunSpec.model_validate({"dataset": "made", "row": row, "training": {"rounds": 2, "local_epochs": 2}})
    made = [
        Federation(spec, parsed.backbone, parsed.fusion, data, ExecutionConfig(device=DEVICE)) for _ in range(2)
    ]  # fmt: skip
    for f in made:
        f.round(1), f.round(2)
    first, second = states(*made)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("row", ["VBPR", "BM3", "MGCN", "PGL"])
def test_a_centralized_model_scores_alike_and_learns(row):
    data = generated(60, 80, 1500)
    spec = RunSpec.model_validate({"dataset": "made", "row": row, "training": {"rounds": 3}})
    done = run(spec, ExecutionConfig(device=DEVICE), data=data)
    again = run(spec, ExecutionConfig(device=DEVICE), data=data)
    assert [r.train_loss for r in again.curve] == [r.train_loss for r in done.curve], "the same bits twice"
    assert len(done.curve) == 3 and done.curve[-1].train_loss < done.curve[0].train_loss
    if DEVICE == "cuda":
        assert done.resources.peak_device_bytes > 0
    torch.manual_seed(0)
    there = Trainable(find_model(row), data, Protocol(), {}, DEVICE)
    here = Trainable(find_model(row), data, Protocol(), {}, "cpu")
    here.model.load_state_dict(there.model.state_dict())
    here.model.eval(), there.model.eval()
    users = torch.arange(60)
    assert torch.allclose(here.scorer()(users), there.scorer()(users).cpu(), atol=1e-4)
