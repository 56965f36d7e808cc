"""Uploads that do not count, options that FedML ignores, restarts, and liars under FedML's robust rules."""

import pickle
import sys

import pytest
import torch
from helpers.fedml_pair import assert_same_model, reference, start

from fedvlr_plugin.errors import ConfigError, FedVLRError, ResultsError
from fedvlr_plugin.integrations.fedml.messages import WEIGHT, lost_upload
from fedvlr_plugin.integrations.fedml.options import check_options
from fedvlr_plugin.integrations.fedml.task import load_data


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


@pytest.mark.parametrize("row", ["FedRAP+ours", "FedNCF", "PFedRec"])
@pytest.mark.parametrize("stop", ["between", "within"])
def test_a_restart_goes_on_from_checkpoint_and_store(host, make_args, tmp_path, row, stop):
    """Stopped after a round, or after clients trained for one that the server never finished."""
    where = {"fedvlr_checkpoint": str(tmp_path), "fedvlr_private_state_dir": str(tmp_path / "private")}
    first = start(host, make_args(fedvlr_row=row, **where))
    first.one_round()
    first.one_round()
    if stop == "within":
        broadcast = first.aggregator.get_model_params()
        for client in first.clients.values():
            first.train_one(client, broadcast)
    second = start(host, make_args(fedvlr_row=row, **where))
    assert second.aggregator.round == 3
    second.run()
    assert_same_model(second, reference(second))


def test_files_of_another_run_are_refused(host, make_args, tmp_path):
    where = {"fedvlr_checkpoint": str(tmp_path), "fedvlr_private_state_dir": str(tmp_path / "private")}
    start(host, make_args(**where)).one_round()
    with pytest.raises(ConfigError, match="another run"):
        start(host, make_args(random_seed=2, **where))
    (tmp_path / "server.safetensors").unlink()
    with pytest.raises(ConfigError, match="another run"):
        start(host, make_args(random_seed=2, **where)).one_round()


@pytest.mark.parametrize("name", ["server.safetensors", "private/user_0.safetensors"])
def test_damaged_files_and_pickles_are_refused_by_name(host, make_args, tmp_path, name):
    """One flipped byte, and a pickle in the file's place: neither is loaded, and the pickle is not run."""
    where = {"fedvlr_checkpoint": str(tmp_path), "fedvlr_private_state_dir": str(tmp_path / "private")}
    everyone = make_args(settings={"participation": 1.0}, **where)
    start(host, everyone).one_round()
    path, ran = tmp_path / name, tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (ran.touch, ())

    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    for bad in (bytes(content), pickle.dumps(Bomb())):
        path.write_bytes(bad)
        with pytest.raises(ResultsError, match=path.name):
            start(host, make_args(settings={"participation": 1.0}, **where)).one_round()
    torch.save({"run": Bomb()}, path)
    with pytest.raises(ResultsError, match=path.name):
        start(host, make_args(settings={"participation": 1.0}, **where)).one_round()
    assert not ran.exists()


REFUSED = [
    ({"enable_dp": True, "dp_solution_type": "nbafl"}, "nbafl"),
    ({"enable_dp": True, "dp_solution_type": "dp_clip"}, "dp_clip"),
    ({"enable_dp": True, "dp_solution_type": "ldp"}, "ldp"),
    ({"enable_fhe": True}, "enable_fhe"),
    ({"enable_defense": True, "defense_type": "weak_dp"}, "weak_dp"),
    ({"enable_defense": True, "defense_type": "robust_learning_rate"}, "robust_learning_rate"),
    ({"enable_defense": True, "defense_type": "foolsgold"}, "foolsgold"),
    ({"enable_defense": True, "defense_type": "trimmed_mean"}, "needs beta"),
    ({"enable_defense": True, "defense_type": "trimmed_mean", "beta": 0.5}, "below 0.5, is needed, got 0.5"),
    (
        {"enable_defense": True, "defense_type": "trimmed_mean", "beta": 0.1, "enable_attack": True},
        "enable_attack with trimmed_mean",
    ),
    ({"enable_defense": True, "defense_type": "geo_median"}, "batch_num, client_num_per_round"),
    ({"enable_defense": True, "defense_type": "rfa", "fedvlr_robust": "krum"}, "two rules for one sum"),
    ({"enable_attack": True, "attack_type": "label_flipping"}, "label_flipping"),
    ({"enable_contribution": True}, "enable_contribution"),
    ({"federated_optimizer": "FedOpt"}, "FedOpt"),
    ({"federated_optimizer": "FedNova"}, "FedNova"),
    ({"weight_decay": 0.001}, "weight_decay"),
    ({"using_mlops": True}, "using_mlops"),
    ({"enable_tracking": True}, "enable_tracking"),
    ({"backend": "MPI"}, "never calls the aggregator"),
    ({"training_type": "cross_silo", "backend": "MQTT_S3"}, "MQTT_S3"),
    ({"training_type": "cross_silo", "backend": "GRPC", "scenario": "hierarchical"}, "horizontal"),
    ({"training_type": "cross_silo", "backend": "GRPC", "worker_num": 2, "client_num_in_total": 6}, "worker_num"),
    ({"training_type": "cross_device"}, "cross_device"),
    ({"fedvlr_rwo": "FedAvg"}, "fedvlr_rwo"),
]


@pytest.mark.parametrize("changes, name", REFUSED, ids=[name for _, name in REFUSED])
def test_options_that_fedml_ignores_are_refused_by_name(make_args, changes, name):
    check_options(make_args())
    with pytest.raises(ConfigError, match=name):
        check_options(make_args(**changes))


@pytest.mark.parametrize(
    "changes, part",
    [
        ({"fedvlr_row": "BM3"}, "not federated"),
        ({"dataset": "generated:6x40"}, "generated:USERS"),
        ({"dataset": "generated:6x40x90", "client_num_in_total": 7}, "6 users"),
        ({"dataset": "generated:6x40x90", "epochs": 3}, "local_epochs"),
        ({"dataset": "generated:6x40x90", "fedvlr_protocol": "correct"}, "fedvlr_protocol"),
        ({"dataset": "generated:6x40x90", "training_type": "cross_silo", "backend": "GRPC", "worker_num": 7}, "1 to 6"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(make_args, changes, part):
    with pytest.raises(FedVLRError, match=part) as caught:
        load_data(make_args(**changes))
    assert "\n" not in str(caught.value)


def test_noise_of_an_earlier_run_is_not_carried_on_in_silence(host, make_args, monkeypatch):
    """FedML's switch for noise stays on for the process."""
    if "fedml.core.security.fedml_defender" not in sys.modules:
        pytest.skip("the switch is FedML's own")
    from fedml.core.dp.fedml_differential_privacy import FedMLDifferentialPrivacy

    start(host, make_args())
    monkeypatch.setattr(FedMLDifferentialPrivacy.get_instance(), "is_enabled", True)
    with pytest.raises(ConfigError, match="start a new process"):
        start(host, make_args())
