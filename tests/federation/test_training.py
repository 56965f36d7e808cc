"""Selection by validation only, early stopping, divergence, and `run` reading the test split once."""

import numpy as np
import pytest
from helpers.toy import make_toy

from fedvlr_plugin.config import ExecutionConfig, ModelConfig, Protocol, TrainingConfig, build_config
from fedvlr_plugin.devices import check_device
from fedvlr_plugin.engines.base import Uplink
from fedvlr_plugin.errors import ConfigError, DeviceError, FedVLRError
from fedvlr_plugin.experiment import run as run_module
from fedvlr_plugin.experiment.run import check_spec, run
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.federation.training import DivergedError, fit


def scripted(federation, scores):
    """A validation that answers from a list."""
    left = iter(scores)
    return lambda: {"ndcg@50": next(left), "hr@50": 0.0}


def test_the_best_round_is_put_back_and_ties_keep_the_first(make_spec):
    federation = Federation(make_spec(rounds=6, patience=None), "FCF", "blfm", make_toy())
    kept = []

    def remember(report):
        kept.append(federation.server.snapshot())

    fitted = fit(federation, scripted(federation, [1.0, 3.0, 2.0, 3.0, 1.0, 0.0]), remember)
    assert fitted.best_round == 2 and len(fitted.records) == 6
    assert all((kept[1][name] == value).all() for name, value in federation.server.snapshot().items())


def test_patience_counts_validations_without_gain(make_spec):
    federation = Federation(make_spec(rounds=50, patience=2, eval_every=2), "FCF", "none", make_toy())
    fitted = fit(federation, scripted(federation, [1.0, 2.0, 2.0, 1.0, 9.0]))
    assert fitted.best_round == 4 and fitted.records[-1].round == 8


def test_divergence_stops_with_the_rates_in_the_message(make_spec, monkeypatch):
    federation = Federation(make_spec(client_lr=7.5), "FCF", "none", make_toy())
    monkeypatch.setattr(federation, "round", lambda number: Uplink({}, float("nan"), 1, 1))
    with pytest.raises(DivergedError, match=r"loss of round 1 is nan; lower client_lr \(7.5\)"):
        fit(federation, lambda: {"ndcg@50": 0.0, "hr@50": 0.0})


def test_test_items_are_read_once_and_only_after_training(make_spec, monkeypatch):
    phases = []
    real = run_module.rank_federation

    def spy(federation, phase, *rest):
        phases.append(phase)
        return real(federation, phase, *rest)

    monkeypatch.setattr(run_module, "rank_federation", spy)
    result = run(make_spec("FCF", rounds=4), data=make_toy())
    assert phases == ["valid"] * 5 + ["test"]
    assert result.best_round >= 1 and len(result.curve) == 4


def test_a_changed_test_split_changes_nothing_before_the_end(make_spec):
    """The test items of all users replaced: the same curve and the same best round."""
    import dataclasses

    data = make_toy()
    moved = np.array([next(i for i in range(23) if i not in set(data.interactions.history(u).tolist())
                           | {int(data.interactions.valid[u]), int(data.interactions.test[u])})
                      for u in range(9)])  # fmt: skip
    other = dataclasses.replace(data, interactions=dataclasses.replace(data.interactions, test=moved))
    one, two = run(make_spec("FedAvg+ours"), data=data), run(make_spec("FedAvg+ours"), data=other)
    assert [r.valid for r in one.curve] == [r.valid for r in two.curve]
    assert one.best_round == two.best_round and not (one.test.items == two.test.items).any()


def test_run_refuses_what_is_not_there(make_spec):
    with pytest.raises(DeviceError, match="is not a device"):
        check_device("gpu")
    with pytest.raises(DeviceError, match="is not there|is not supported"):
        check_device("cuda:77")
    with pytest.raises(ConfigError, match="unknown output 'heads'; allowed: router_weights"):
        run(make_spec("FCF"), data=make_toy(), outputs=("heads",))
    with pytest.raises(ConfigError, match="no router"):
        run(make_spec("FCF"), data=make_toy(), outputs=("router_weights",))
    with pytest.raises(ConfigError, match="client_lr.*greater than 0.*got 0"):
        build_config(TrainingConfig, {"client_lr": 0})
    with pytest.raises(ConfigError, match="Did you mean 'rounds'"):
        build_config(TrainingConfig, {"round": 3})
    with pytest.raises(ConfigError, match="negatives"):
        build_config(Protocol, {"negatives": 0})
    with pytest.raises(ConfigError, match="engine"):
        build_config(ExecutionConfig, {"engine": "turbo"})


def test_private_outputs_only_on_request(make_spec):
    assert run(make_spec("FCF+ours"), data=make_toy()).outputs == {}
    weights = run(make_spec("FCF+ours"), data=make_toy(), outputs=("router_weights",)).outputs["router_weights"]
    assert weights.shape == (9, 3)


@pytest.mark.parametrize(
    "row, changes, budget, message",
    [
        ("FCF+VBPR", {}, 2**30, "does not support the fusion 'VBPR'; its rows: FCF, FCF\\+MLP, FCF\\+ours"),
        ("FCF+ours", {"views": ("sum", "gat")}, 2**30, "unknown view operator 'gat'.*Did you mean 'gate'"),
        ("FCF+ours", {"views": ("sum", "sum")}, 2**30, "named twice"),
        ("FedNCF", {"dim": 10}, 2**30, "multiple of 4, got 10"),
        ("FedRAP", {"params": {"lamb": 0.1}}, 2**30, "lamb"),
        ("FedRAP", {}, 1000, "memory budget 1000 bytes is too small.*at least 8832 bytes"),
        ("FedRap+our", {}, 2**30, "unknown fusion 'our'"),
    ],
)
def test_a_run_is_refused_before_its_data_is_touched(make_spec, row, changes, budget, message):
    spec = make_spec("FCF", **changes).model_copy(update={"row": row})
    with pytest.raises(FedVLRError, match=message) as caught:
        check_spec(spec, ExecutionConfig(memory_budget=budget), n_items=23)
    assert "\n" not in str(caught.value)
    check_spec(make_spec("FedRAP+ours"), ExecutionConfig(), n_items=23)


def test_lists_of_names_may_be_written_with_commas():
    assert build_config(ModelConfig, {"views": "sum, only:text"}).views == ("sum", "only:text")
    assert build_config(ModelConfig, {"modalities": "text"}).modalities == ("text",)
