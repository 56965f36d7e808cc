"""Kill a run and go on: the same to the last bit, or a clear refusal."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.federation_toy import ALL, build, cases
from helpers.paths import HELPERS

from fedvlr_plugin.config import Conditions, Faults, Privacy
from fedvlr_plugin.errors import ConfigError, ResultsError
from fedvlr_plugin.federation.checkpoint import Checkpoints
from fedvlr_plugin.federation.training import fit
from fedvlr_plugin.tensor_files import read_tensors, write_tensors

WORKER = HELPERS / "checkpoint_worker.py"


def valid_of(federation):
    """A made-up validation that moves up and down, so that the best round is in the middle."""
    return lambda: {"ndcg@50": -abs(float(federation.score(ALL).mean()) - 0.1)}


def states_equal(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value.cpu(), b[name].cpu()), name


@cases
@pytest.mark.parametrize("engine", ["batched", "sequential"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_going_on_is_the_same_to_the_last_bit(make_spec, backbone, fusion, engine, optimizer, tmp_path):
    def federation():
        return build(make_spec, backbone, fusion, engine, client_optimizer=optimizer, rounds=5, eval_every=1)

    whole = federation()
    fitted = fit(whole, valid_of(whole))

    class Killed(Exception):
        pass

    def kill(report):
        if report.round == 4:
            raise Killed

    broken = federation()
    with pytest.raises(Killed):
        fit(broken, valid_of(broken), kill, Checkpoints(tmp_path / "c", 2))
    again = federation()
    seen = []
    continued = fit(again, valid_of(again), lambda report: seen.append(report.round), Checkpoints(tmp_path / "c", 2))
    assert seen == [1, 2, 3, 4, 5], "rounds 1 and 2 from the file, the rest anew"
    assert continued.best_round == fitted.best_round
    assert [r.train_loss for r in continued.records] == [r.train_loss for r in fitted.records]
    assert [r.valid for r in continued.records] == [r.valid for r in fitted.records]
    assert torch.equal(whole.score(ALL), again.score(ALL))
    states_equal(whole.server.state(moments=True), again.server.state(moments=True))


@cases
@pytest.mark.parametrize("engine", ["batched", "sequential"])
def test_the_state_holds_all_that_the_next_rounds_depend_on(make_spec, backbone, fusion, engine):
    first, second = build(make_spec, backbone, fusion, engine), build(make_spec, backbone, fusion, engine)
    for number in (1, 2):
        first.round(number)
    second.load(first.state(moments=True), moments=True)
    for number in (3, 4):
        first.round(number), second.round(number)
    states_equal(first.state(moments=True), second.state(moments=True))


def test_the_accountant_goes_on_and_another_mechanism_is_refused(make_spec, tmp_path):
    pytest.importorskip("dp_accounting")
    private = Conditions(privacy=Privacy(noise_multiplier=1.0, clip=0.5), faults=Faults(dropout=0.2))
    spec = make_spec("FedAvg", rounds=4, eval_every=1, participation=0.6).model_copy(update={"conditions": private})

    def federation(used=spec):
        return build(lambda *a, **k: used, "FedAvg", "blfm")

    whole, part = federation(), federation()
    for number in (1, 2, 3):
        whole.round(number)
    part.round(1)
    again = federation()
    again.load(part.state(moments=True), moments=True)
    again.round(2)
    last = again.round(3)
    states_equal(whole.state(moments=True), again.state(moments=True))
    assert last.accounts["epsilon"] == whole.rule.counts()["epsilon"]
    other = Conditions(privacy=Privacy(noise_multiplier=2.0, clip=0.5), faults=Faults(dropout=0.2))
    with pytest.raises(ConfigError):
        federation(spec.model_copy(update={"conditions": other})).load(part.state(moments=True), moments=True)


@pytest.fixture
def stored(make_spec, tmp_path):
    path = tmp_path / "folder" / "c.safetensors"
    federation = build(make_spec, "FedRAP", "blfm", rounds=2)
    fit(federation, valid_of(federation), checkpoints=Checkpoints(path, 1))
    return path, lambda **changes: build(make_spec, "FedRAP", "blfm", **({"rounds": 2} | changes))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_named_and_not_used(stored, share):
    path, federation = stored
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ResultsError, match="damaged"):
        Checkpoints(path, 1).load(federation())


def test_a_changed_byte_is_found_wherever_it_is(stored):
    path, federation = stored
    content = path.read_bytes()
    for place in random.Random(0).sample(range(len(content)), 40):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        with pytest.raises(ResultsError, match="damaged"):
            Checkpoints(path, 1).load(federation())


def test_another_runs_checkpoint_is_refused(stored):
    path, federation = stored
    with pytest.raises(ConfigError, match="of another run: spec"):
        Checkpoints(path, 1).load(federation(client_lr=0.5))


def test_a_full_disk_is_named_and_the_old_checkpoint_stays(stored, monkeypatch):
    path, federation = stored
    before = path.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultsError, match="No space left"):
        write_tensors(path, {"a": torch.zeros(3)}, {})
    monkeypatch.undo()
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]


def test_tensors_of_all_kinds_come_back(tmp_path):
    tensors = {"a": torch.randn(3, 4, dtype=torch.float64).t(), "b": torch.arange(5), "c": torch.zeros(0, 3)}
    write_tensors(tmp_path / "t", tensors | {"d": torch.tensor(2.5)}, {"x": [1, None]})
    back, facts = read_tensors(tmp_path / "t")
    assert facts == {"x": [1, None]} and float(back["d"]) == 2.5
    states_equal(tensors, {name: back[name] for name in tensors})


@pytest.mark.parametrize("row", ["FedAvg+ours", "FedRAP+MLP"])
def test_processes_killed_at_random_moments_end_in_the_same_model(row, tmp_path):
    def start(folder: Path, pause: float) -> subprocess.Popen[str]:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, str(WORKER), row, str(folder), str(pause)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    whole = start(tmp_path / "whole", 0.0)
    output, complaint = whole.communicate(timeout=120)
    assert whole.returncode == 0, complaint
    folder, draw, kills = tmp_path / "killed", random.Random(3), 0
    while kills < 3:
        worker = start(folder, 0.1)
        assert worker.stdout is not None and worker.stdout.readline().strip() == "begun"
        time.sleep(draw.uniform(0.0, 1.0))
        worker.send_signal(signal.SIGKILL)
        worker.communicate(timeout=60)
        kills += worker.returncode == -signal.SIGKILL
    last = start(folder, 0.0)
    again, complaint = last.communicate(timeout=120)
    assert last.returncode == 0, complaint
    assert again == output
    states_equal(read_tensors(tmp_path / "whole" / "c")[0], read_tensors(folder / "c")[0])
