"""The audit on real rounds: what a plain uplink leaks, what masks and noise hide, and that epsilon's bound is kept."""

import json

import numpy as np
import pytest
import torch
from helpers.toy import make_toy
from typer.testing import CliRunner

from fedvlr_plugin.aggregation.rule import WeightedSum
from fedvlr_plugin.audit import observations
from fedvlr_plugin.audit.inference import cosine, recover
from fedvlr_plugin.audit.membership import RecordingRule, auc_bound, gaussian_auc
from fedvlr_plugin.audit.privacy_audit import KNOWS_ALL, trace
from fedvlr_plugin.audit.results import auc_estimate, member_line, read_audit, sight_lines
from fedvlr_plugin.cli.main import app
from fedvlr_plugin.cli.privacy import main
from fedvlr_plugin.config import ExecutionConfig, Privacy
from fedvlr_plugin.data.synthetic import generated
from fedvlr_plugin.errors import ConfigError, ResultsError
from fedvlr_plugin.experiment.rows import parse_row
from fedvlr_plugin.experiment.variants import Level
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.privacy.accounting import epsilon_of


@pytest.fixture(scope="module")
def data():
    return generated(160, 120, 2400, width=16)


def look(spec, data=None):
    """One round of a row, everyone a member: the federation, what the watch saw, heads before the round."""
    data = data or make_toy()
    row = parse_row(spec.row)
    federation = Federation(spec, row.backbone, row.fusion, data, ExecutionConfig())
    everyone = torch.ones(data.interactions.n_users, dtype=torch.bool)
    watch = RecordingRule(WeightedSum(), everyone, everyone, None)
    federation.rule = watch
    return federation, watch


def test_one_local_step_gives_head_and_router_away_exactly(make_spec):
    """Float64, one step: rows outside the history are multiples of w_u ⊗ theta_u, so both come back to 1e-9."""
    federation, watch = look(make_spec("FedAvg+ours", local_epochs=1, batch_size=4096, participation=1.0, negatives=8))
    for number in (1, 2):
        broadcast = federation.server.broadcast()
        heads = federation.engine.store.values["head"].clone()
        weights = federation.engine.router_weights(broadcast)
        federation.round(number)
    checked = 0
    for position, user in enumerate(watch.uploads.clients.tolist()):
        rows = watch.dense(position)
        mine = torch.from_numpy(federation.data.interactions.history(user))
        outside = rows.clone()
        outside[mine] = 0.0
        if not outside.any():
            continue
        found = recover(outside, 3)
        slot = int(federation.problem.histories.slot_of[user])
        assert cosine(found.head, heads[slot, :8]) == pytest.approx(1.0, abs=1e-9)
        assert np.allclose(found.router.numpy(), weights[user], atol=1e-9)
        checked += 1
    assert checked >= 6


def test_a_plain_uplink_tells_the_history_and_a_masked_one_nothing(make_spec, data):
    spec = make_spec("FedAvg+ours", rounds=3, participation=1.0, batch_size=2048)
    found = [trace(spec.model_copy(update={"seed": seed}), Level("none", None), data, 80) for seed in (1, 2)]
    lines = {line.sight: line.figures for line in sight_lines(found)}
    plain, masked = lines[observations.UPLOAD], lines[observations.MASKED]
    assert plain["auc"].mean > 0.99 and plain["hit@n"].mean > 0.95 and plain["head"].mean > 0.9
    assert plain["random"].low < 0.5 < plain["random"].high
    assert masked["auc"].low < 0.5 < masked["auc"].high and abs(masked["head"].mean) < 0.3
    summed = lines[observations.SUM]
    assert abs(summed["auc"].mean - summed["other"].mean) < 0.1  # popularity: no more of this client than of the next
    assert plain["router"].mean > 0.8 and "router" not in summed  # the same guess for all of a seed is no knowledge


def test_masked_words_are_uniform(make_spec):
    federation, watch = look(make_spec("FedAvg+ours", participation=1.0))
    federation.round(1)
    words = observations.masked_rows(watch.uploads, 5, 1).numpy().astype(np.int64) & 0xFFFFFFFF
    counts = np.bincount((words >> 24).reshape(-1), minlength=256)
    expected = words.size / 256
    assert ((counts - expected) ** 2 / expected).sum() < 255 + 5 * np.sqrt(2 * 255)


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_no_test_beats_epsilon_and_the_best_one_comes_near(make_spec, data, epsilon):
    """The likelihood ratio against the real mechanism: below the bound, and not far below what the noise allows."""
    privacy = Privacy(epsilon=epsilon, clip=1e-3)
    traces = [
        trace(make_spec("FCF", seed=seed, rounds=3, participation=1.0), Level("e", privacy), data, 160)
        for seed in (1, 2)
    ]
    line = member_line(traces)
    assert line.clipped > 0.95 and line.epsilon <= epsilon
    assert line.knows_all.low <= line.best <= line.bound
    assert abs(line.knows_all.mean - line.best) < 0.11  # 2 x 160 clients: sd of an AUC of one half is 0.032
    assert line.knows_one.low <= line.best


def test_uploads_that_resemble_each_other_do_not_seem_to_break_the_guarantee(make_spec):
    """FedNCF's shared layers make all uploads point the same way: compared within one run, they would tell all."""
    spec = make_spec("FedNCF", rounds=2, participation=1.0)
    data = generated(160, 40, 1200, width=8)
    line = member_line([trace(spec, Level("e", Privacy(epsilon=1.0, clip=1e-3)), data, 160)])
    assert line.knows_all.low <= line.best <= line.bound


def test_without_noise_membership_is_certain_for_who_knows_the_others(make_spec, data):
    found = trace(make_spec("FedAvg", rounds=1, participation=1.0), Level("none", None), data, 40)
    assert auc_estimate([(found.tests[KNOWS_ALL], found.inside)]).low == 1.0
    assert np.allclose(found.tests[KNOWS_ALL], found.inside, atol=1e-6) and found.inside.sum() == 20


def test_bounds_by_hand():
    assert auc_bound(0.0, 0.0) == pytest.approx(0.5)
    assert auc_bound(np.log(3.0), 0.0) == pytest.approx(0.75)  # corners (0,0), (1/4,3/4), (1,1)
    assert auc_bound(0.0, 0.1) == pytest.approx(0.5 + 0.1 - 0.005)
    assert auc_bound(1000.0, 0.0) == 1.0 and gaussian_auc(0.0, 5) == 1.0
    for z, rounds in ((0.5, 1), (4.0, 20), (20.0, 5)):
        assert gaussian_auc(z, rounds) <= auc_bound(epsilon_of(z, rounds, 1e-4), 1e-4) + 1e-9
    with pytest.raises(ConfigError, match="epsilon"):
        auc_bound(-1.0, 0.0)


def test_too_few_clients_and_partial_cohorts_are_refused(make_spec, data):
    with pytest.raises(ConfigError, match="at least 4 clients"):
        trace(make_spec("FCF", participation=1.0), Level("none", None), data, 3)
    with pytest.raises(ConfigError, match="participation 1"):
        trace(make_spec("FCF"), Level("none", None), data, 20)


def test_the_command_writes_means_only(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ["--dataset", "planted", "--profile", "smoke", "--rounds", "1", "--users", "12", "--epsilon", "8"]
    assert main(given) == 0
    folder = tmp_path / "results" / "audit"
    (path,) = folder.glob("*.json")
    audit = read_audit(path)
    assert {line.noise for line in audit.members} == {"none", "paper", "ε 8"}
    assert {line.sight for line in audit.sights} == {
        observations.UPLOAD, observations.NOISY, observations.MASKED, observations.SUM, observations.OTHERS_KNOWN,
    }  # fmt: skip
    longest = max(len(part) for part in _lists(json.loads(path.read_text())))
    assert longest < 12, "no list in the file is as long as there are clients"
    assert "history AUC" in capsys.readouterr().out and len(list(folder.glob("*.csv"))) == 2
    path.write_text(path.read_text()[: len(path.read_text()) // 2])
    with pytest.raises(ResultsError, match="not an audit"):
        read_audit(path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--row", "VBPR"], "not federated"),
        (["--rounds", "0"], "at least 1"),
        (["--adaptive-quantile", "0.5"], "fixed bound"),
        (["--dataset", "kuu"], "unknown data set"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(given, message, tmp_path):
    refused = CliRunner().invoke(app, ["privacy", "audit", "--results", str(tmp_path), *given])
    assert refused.exit_code == 2 and message in refused.output and refused.output.count("\n") == 1


def _lists(value):
    if isinstance(value, dict):
        value = list(value.values())
        return [found for part in value for found in _lists(part)]
    return [value, *(found for part in value for found in _lists(part))] if isinstance(value, list) else []
