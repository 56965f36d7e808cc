"""Options that FedML ignores and settings that do not fit are refused by name."""

import pytest

from fedvlr_plugin.errors import ConfigError, FedVLRError
from fedvlr_plugin.integrations.fedml.options import check_options
from fedvlr_plugin.integrations.fedml.task import load_data

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


def test_values_under_both_names_are_compared_as_numbers(make_args):
    """YAML reads `1e-3` as text; it is the number 0.001 all the same."""
    load_data(make_args(dataset="generated:6x40x90", learning_rate="1e-3", settings={"client_lr": 0.001}))
    with pytest.raises(ConfigError, match="client_lr"):
        load_data(make_args(dataset="generated:6x40x90", learning_rate="1e-2", settings={"client_lr": 0.001}))
