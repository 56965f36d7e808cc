"""The last line of a one-process run: the table runner's round and metrics, and nothing about any user."""

import re

import pytest
import torch
from helpers.toy import make_toy

from fedvlr_plugin.config import ExecutionConfig
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.evaluation.ranks import rank_positives
from fedvlr_plugin.experiment.run import run
from fedvlr_plugin.integrations.fedml.model_selection import Selection
from fedvlr_plugin.integrations.fedml.task import load_data, load_model, use_data

NUMBERS = r"HR@50 (\d+\.\d\d), NDCG@50 (\d+\.\d\d)"
LINE = re.compile(
    rf"selected round (\d+) of (\d+) to (\d+) by validation NDCG@50: validation {NUMBERS}; test {NUMBERS} "
    r"\(percent, protocol (corrected|as_released)\)"
)


def start(host, args, then=None):
    """Nine users with 110 items, so that not everything is a hit."""
    use_data(args, make_toy(n_items=110, seed=3))
    dataset, _ = load_data(args)
    model = load_model(args)
    trainer, aggregator = host.Trainer(model, args), host.Aggregator(model, args)
    selection = Selection(trainer, aggregator, then)
    return host.Driver(args, dataset, trainer, aggregator, selection), selection


def told(line):
    """The numbers of the line, which holds nothing else."""
    found = LINE.fullmatch(line)
    assert found is not None, line
    return found.groups()


def expected(driver, engine):
    task = driver.aggregator.task
    result = run(task.spec, ExecutionConfig(engine=engine), data=task.data)
    metrics = [summary(ranks)[name] for ranks in (result.valid, result.test) for name in ("hr@50", "ndcg@50")]
    return result, tuple(f"{value:.2f}" for value in metrics)


@pytest.mark.parametrize("engine", ["sequential", "batched"])
@pytest.mark.parametrize("row", ["FedAvg+ours", "FedRAP"])
@pytest.mark.parametrize("protocol", ["corrected", "as_released"])
def test_the_line_is_what_the_table_runner_would_name(host, make_args, engine, row, protocol):
    args = {"fedvlr_row": row, "fedvlr_engine": engine, "fedvlr_protocol": protocol, "comm_round": 8}
    rounds = []
    driver, selection = start(host, make_args(**args, learning_rate=0.3), lambda line: rounds.append(line.round))
    driver.run()
    result, metrics = expected(driver, engine)
    assert told(selection.line()) == (str(result.best_round), "1", "8", *metrics, protocol)
    assert result.best_round < 8, "the last round would be selected without looking"
    assert rounds == list(range(1, 9)), "what was asked to be told of rounds still is"


def test_only_rounds_count_that_the_table_runner_would_have_run(host, make_args):
    settings = {"settings": {"patience": 1, "eval_every": 2}}
    driver, selection = start(host, make_args(comm_round=12, learning_rate=0.3, **settings))
    driver.run()
    result, metrics = expected(driver, "sequential")
    assert len(result.curve) < 12 and driver.records[-1].round == 12
    assert told(selection.line())[:3] == (str(result.best_round), "1", str(len(result.curve)))
    assert told(selection.line())[3:7] == metrics


def test_looking_changes_nothing(host, make_args):
    """The same model and private state with and without, and after the line is asked for."""
    plain, _ = start(host, make_args())
    plain.on_round = None
    plain.run()
    driver, selection = start(host, make_args())
    driver.run()
    before = driver.trainer.engine_for(driver.clients[0]).state(moments=True)
    selection.line()
    after = driver.trainer.engine_for(driver.clients[0]).state(moments=True)
    bare = plain.trainer.engine_for(plain.clients[0]).state(moments=True)
    assert before.keys() == after.keys() == bare.keys()
    assert all(torch.equal(value, after[name]) and torch.equal(value, bare[name]) for name, value in before.items())
    theirs = plain.aggregator.server.snapshot()
    assert all(torch.equal(value, theirs[name]) for name, value in driver.aggregator.server.snapshot().items())


def test_a_run_that_goes_on_scores_users_it_has_not_met(host, make_args, tmp_path):
    folders = {"fedvlr_checkpoint": str(tmp_path), "fedvlr_private_state_dir": str(tmp_path / "private")}
    settings = {"settings": {"participation": 0.4}, "learning_rate": 0.3}
    start(host, make_args(**folders, **settings, comm_round=5))[0].run()
    driver, selection = start(host, make_args(**folders, **settings, comm_round=6))
    driver.run()
    whole, _ = start(host, make_args(**settings, comm_round=6))
    whole.run()
    first, last, *metrics = told(selection.line())[1:7]
    assert (first, last) == ("6", "6")
    broadcast = whole.aggregator.server.broadcast()
    engine, task = whole.trainer.engine_for(whole.clients[0]), whole.aggregator.task

    def score(users):
        return engine.score(broadcast, users)

    ranks = [rank_positives(score, task.data.interactions, phase, mask_validation=True) for phase in ("valid", "test")]
    right = [summary(found)[name] for found in ranks for name in ("hr@50", "ndcg@50")]
    assert metrics == [f"{value:.2f}" for value in right]


def test_a_model_that_cannot_be_ranked_stops_nothing_and_is_named(host, make_args, monkeypatch):
    driver, selection = start(host, make_args())
    assert selection.line() == "no metrics: no round was run"
    monkeypatch.setattr(selection.engine, "score", lambda broadcast, users: torch.full((len(users), 110), torch.nan))
    driver.run()
    assert driver.records[-1].round == 3 and selection.line().startswith("no metrics: ")
    assert "NaN" in selection.line() or "nan" in selection.line()
