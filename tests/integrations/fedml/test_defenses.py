"""Malicious clients under FedML's robust rules, through super(), and under ours in the aggregator."""

import sys

import pytest
import torch
from helpers.fedml_pair import start
from scipy.stats import trim_mean

from fedvlr_plugin.errors import ConfigError, FedVLRError
from fedvlr_plugin.integrations.fedml.defenses import distinct_weights
from fedvlr_plugin.integrations.fedml.messages import WEIGHT, lost_upload

MALICIOUS, CLIENTS = 6, 9
FEDMLS = {
    "norm_diff_clipping": {"norm_bound": 0.05},
    "krum": {"byzantine_client_num": 1, "krum_param_m": 1},
    "multikrum": {"byzantine_client_num": 1, "krum_param_m": 4},
    "trimmed_mean": {"beta": 0.13},
    "rfa": {},
    "geo_median": {"byzantine_client_num": 1, "batch_num": CLIENTS},
    "geo_median of batches": {"byzantine_client_num": 1, "batch_num": 4},
    "wise_median": {},
}
OURS = {
    "norm_clip": {},
    "median": {},
    "trimmed_mean": {"trim": 0.34},
    "krum": {"malicious": 0.13},
    "multi_krum": {"malicious": 0.13},
    "geometric_median": {},
}


@pytest.fixture
def fresh_defence(host, make_args):
    """FedML's defence is a switch of the process: put it back around a test. Gives the options for one."""
    if "fedml.core.security.fedml_defender" not in sys.modules:
        pytest.skip("FedML's robust rules need FedML itself")
    from fedml.core.security.fedml_defender import FedMLDefender

    def options(rule):
        more = {"using_gpu": False, "device_type": "cpu", "client_num_per_round": CLIENTS}
        return {"enable_defense": True, "defense_type": rule.split(" of ")[0], **FEDMLS[rule], **more}

    FedMLDefender._defender_instance = None
    yield options
    FedMLDefender._defender_instance = None


def one_round(host, args, scale=-1000.0, lost=()):
    """The aggregator after a round in which one of nine clients sends `scale` times its upload, its step, the uploads.

    The malicious client's comes first: FedML takes the first ones where it loses weights. One client has no
    samples; where alpha follows samples its upload does not count and is not among them.

    Shared weights step by plain SGD of rate 1, so the ID table's step is the combined upload of its one view.
    """
    aggregator = (driver := start(host, args)).aggregator
    before, raw = aggregator.server.snapshot()["id_table"], []
    for client in sorted(driver.clients.values(), key=lambda one: one.client != MALICIOUS):
        weight, message = driver.train_one(client, aggregator.get_model_params())
        if client.client == MALICIOUS:
            message["views"] *= scale
        raw.append((weight, lost_upload(1, client.client) if client.client in lost else message))
    uploads = torch.stack([message["views"][0].clone() for _, message in raw if float(message.get(WEIGHT, 0))])
    kept, _ = aggregator.on_before_aggregation(raw)
    aggregator.on_after_aggregation(aggregator.aggregate(kept))
    return aggregator, before - aggregator.server.snapshot()["id_table"], uploads


def plain_sgd(row):
    settings = {
        "participation": 1.0,
        "local_epochs": 6,
        "server_optimizer": "sgd",
        "server_lr": 1.0,
        "server_lr_id": 1.0,
    }
    return {"fedvlr_row": row, "settings": settings}


def assert_bounded(host, make_args, row, options):
    _, clean, _ = one_round(host, make_args(**plain_sgd(row)), scale=1.0)
    _, harmed, _ = one_round(host, make_args(**plain_sgd(row)))
    _, defended, _ = one_round(host, make_args(**plain_sgd(row), **options))
    assert (harmed - clean).norm() > 100 * clean.norm()
    assert (defended - clean).norm() < 3 * clean.norm()


@pytest.mark.parametrize("row", ["PFedRec", "FedAvg"])
@pytest.mark.parametrize("rule", FEDMLS)
def test_fedmls_robust_rules_bound_a_scaled_sign_flip(host, fresh_defence, make_args, rule, row):
    assert_bounded(host, make_args, row, fresh_defence(rule))


@pytest.mark.parametrize("row", ["PFedRec", "FedAvg"])
@pytest.mark.parametrize("rule", OURS)
def test_our_robust_rules_in_the_aggregator_bound_a_scaled_sign_flip(host, make_args, rule, row):
    assert_bounded(host, make_args, row, {"fedvlr_robust": {"rule": rule, **OURS[rule]}})


def test_fedmls_trimmed_mean_is_the_trimmed_mean_of_each_coordinate(host, fresh_defence, make_args):
    options = fresh_defence("trimmed_mean") | {"beta": 0.25}
    _, step, uploads = one_round(host, make_args(**plain_sgd("FedAvg"), **options))
    assert torch.allclose(step, torch.from_numpy(trim_mean(uploads.numpy(), 0.25, axis=0)), atol=1e-12, rtol=0)
    assert step.abs().sum() > 0


@pytest.mark.parametrize("rule", ["rfa", "geo_median"])
def test_fedmls_geometric_medians_end_at_one_clients_upload(host, fresh_defence, make_args, rule):
    """What the documentation says of them; should FedML mend its iteration, this fails and the text must change."""
    _, step, uploads = one_round(host, make_args(**plain_sgd("FedAvg"), **fresh_defence(rule)))
    distance = (uploads - step).flatten(1).norm(dim=1)
    assert float(distance.min()) < 1e-3 * float(distance.median()) and int(distance.argmin()) != 0


def test_the_last_short_batch_weighs_what_the_others_do():
    raw = distinct_weights([(5.0, {})] * 8, batch=3)
    weights = [sum(w for w, _ in raw[begin : begin + 3]) for begin in (0, 3, 6)]
    assert weights == pytest.approx([3.0] * 3, rel=1e-6)
    assert len({w for w, _ in raw}) == 8 and len(set(weights)) == 3


def test_krum_with_too_few_uploads_leaves_the_round_out_and_counts(host, fresh_defence, make_args):
    """2 f + 2 <= n - m: five are enough for f = m = 1, four are not; FedML itself would end the server."""
    for lost, counts in (((0, 1, 2, 3), {"lost": 4}), ((0, 1, 2, 3, 4), {"lost": 5, "too few for krum": 4})):
        args = make_args(**plain_sgd("FedAvg"), **fresh_defence("krum"))
        aggregator, step, _ = one_round(host, args, lost=lost)
        left_out = {name: n for name, n in aggregator.left_out.items() if name != "rounds without any upload"}
        assert left_out == counts and aggregator.round == 2
        assert bool(step.any()) == (len(lost) == 4)


def test_a_rule_that_cannot_work_is_refused_before_any_round(host, fresh_defence, make_args):
    with pytest.raises(FedVLRError, match="9 clients are called"):
        start(host, make_args(**plain_sgd("FedAvg"), **(fresh_defence("krum") | {"byzantine_client_num": 4})))
    for wanted, part in (("krumm", "krum"), ({"rule": "krum", "trimm": 1}, "trim"), (3, "a rule")):
        with pytest.raises(FedVLRError, match=part):
            start(host, make_args(fedvlr_robust=wanted))


def test_noise_of_an_earlier_run_is_not_carried_on_in_silence(host, make_args, monkeypatch):
    """FedML's switch for noise stays on for the process."""
    if "fedml.core.security.fedml_defender" not in sys.modules:
        pytest.skip("the switch is FedML's own")
    from fedml.core.dp.fedml_differential_privacy import FedMLDifferentialPrivacy

    start(host, make_args())
    monkeypatch.setattr(FedMLDifferentialPrivacy.get_instance(), "is_enabled", True)
    with pytest.raises(ConfigError, match="start a new process"):
        start(host, make_args())
