"""Real FedML processes: GRPC and MPI on loopback, equal to the engine, resumed, and with a client that dies."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from types import SimpleNamespace

import psutil
import pytest
import torch
from helpers.fedml_processes import LIMIT, MPIRUN, SMALL, environment, finish, parsed, real_fedml, up
from helpers.paths import FEDML_CONFIGS, HELPERS

from fedvlr_plugin.config import ExecutionConfig, ModelConfig, RunSpec, TrainingConfig
from fedvlr_plugin.data.synthetic import generated
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.integrations.fedml.messages import ROUND
from fedvlr_plugin.tensor_files import read_tensors


def reference(rounds):
    data = generated(6, 40, 90, width=32)
    training = TrainingConfig(rounds=rounds, local_epochs=2, batch_size=16)
    spec = RunSpec(
        dataset=data.name,
        row="FedRAP+ours",
        dtype="float64",
        training=training,
        model=ModelConfig(dim=8, router_hidden=6),
    )
    federation = Federation(spec, "FedRAP", "blfm", data, ExecutionConfig(engine="sequential"))
    for number in range(1, rounds + 1):
        federation.round(number)
    return federation.server.snapshot()


def assert_equal_to_engine(checkpoint, rounds):
    tensors, facts = read_tensors(checkpoint)
    assert facts["round"] == rounds + 1
    for name, value in reference(rounds).items():
        assert torch.allclose(value, tensors[f"model.{name}"], atol=1e-9, rtol=0), name


@real_fedml
@pytest.mark.slow
def test_grpc_with_two_clients_of_three_users_is_the_engine_and_goes_on_after_a_restart(grpc_run, tmp_path):
    """Two rounds, everything stopped, a third round by new processes: private moments come from the store."""
    assert "rounds 2, left out {}" in grpc_run.out
    assert_equal_to_engine(grpc_run.folder / "server.safetensors", 2)
    folder = tmp_path / "run"
    shutil.copytree(grpc_run.folder, folder)
    assert "rounds 3, left out {}" in finish(up(folder, 3), tmp_path)
    assert_equal_to_engine(folder / "server.safetensors", 3)
    assert sorted(p.name for p in (folder / "private").iterdir()) == [f"user_{u}.safetensors" for u in range(6)]
    assert [p.name for p in tmp_path.iterdir()] == ["run"], "something was written outside of the run's folder"


@real_fedml
@pytest.mark.slow
def test_grpc_goes_on_without_a_client_that_dies(tmp_path):
    folder, rounds = tmp_path / "run", 30
    process = subprocess.Popen(up(folder, rounds), env=environment(), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not (folder / "server.safetensors").exists():  # written when the first round has everybody's upload
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        (second,) = [p for p in psutil.Process(process.pid).children() if "2" in _rank(p)]
        second.kill()
        out, _ = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert process.returncode == 0
    assert f"rounds {rounds}" in out and "clients that died: [2]" in out
    lost = read_tensors(folder / "server.safetensors")[1]["left_out"]["lost"]
    assert 0 < lost < rounds


@real_fedml
def test_a_stale_upload_is_counted_and_the_client_is_still_waited_for():
    """The late answer to round 2 must not stand for the answer to round 3, which comes behind it."""
    from fedvlr_plugin.integrations.fedml.runtime import need_fedml

    need_fedml()
    from fedvlr_plugin.integrations.fedml.watchdog import Lifeline

    aggregator = SimpleNamespace(round=3, left_out=Counter())
    lifeline = Lifeline({}, aggregator, float("inf"))
    lifeline.sent(None, 2)
    assert not lifeline.wanted(2, {ROUND: torch.tensor(2)}) and aggregator.left_out == {"stale": 1}
    assert lifeline.waiting.keys() == {2}
    assert lifeline.wanted(2, {ROUND: torch.tensor(3)}) and not lifeline.waiting
    assert not lifeline.wanted(2, {ROUND: torch.tensor(3)}) and aggregator.left_out == {"stale": 2}
    lifeline.sent(None, 1)
    assert lifeline.wanted(1, None), "rubbish goes on to the aggregator, which says what it is"


@real_fedml
def test_a_client_that_dies_after_the_last_round_is_said_to_have_finished_once():
    """FedML's server waits for "finished" of each client, and for ever."""
    from queue import Queue

    from fedvlr_plugin.integrations.fedml.runtime import need_fedml

    need_fedml()
    from fedvlr_plugin.integrations.fedml.watchdog import Lifeline

    queue = Queue()
    manager = SimpleNamespace(grpc_servicer=SimpleNamespace(message_q=queue))
    lifeline = Lifeline({}, SimpleNamespace(round=4, left_out=Counter()), float("inf"))
    lifeline.sent(manager, 1, last=True)
    lifeline.sent(manager, 2, last=True)
    assert lifeline.left(1), "client 1 says itself that it has finished"
    for client in (1, 2, 2):
        lifeline.let_go(client)
    assert queue.qsize() == 1 and not lifeline.waiting and not lifeline.left(2)


@real_fedml
@pytest.mark.slow
def test_grpc_goes_on_when_a_client_answers_too_late(tmp_path, monkeypatch):
    """Round 2 is closed without it, its upload is refused in round 3, and rounds 3 and 4 have its answers again."""
    from fedvlr_plugin.integrations.fedml import launcher, subprocesses

    here = os.pathsep.join([str(HELPERS), environment()["PYTHONPATH"]])
    for name, value in (environment() | {"PYTHONPATH": here}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(subprocesses, "PROCESS", "slow_client")
    config, settings = (
        FEDML_CONFIGS / "cross_silo_grpc.yaml",
        [*SMALL, "comm_round=4", "fedvlr_round_timeout=8"],
    )
    ended = launcher.up(config, tmp_path / "run", 2, LIMIT - 20, parsed(settings))
    assert ended.summary.startswith("rounds 4") and not ended.died
    assert read_tensors(tmp_path / "run" / "server.safetensors")[1]["left_out"] == {"lost": 1, "stale": 1}


def _rank(process):
    words = process.cmdline()
    return words[words.index("--rank") + 1] if "--rank" in words else ""


@real_fedml
@pytest.mark.slow
def test_up_stops_everything_when_the_server_fails(tmp_path):
    command = up(tmp_path / "run", 2, "enable_fhe=true")
    done = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 2 and "enable_fhe" in done.stderr


@real_fedml
@pytest.mark.slow
def test_a_users_own_main_py_is_the_engine(tmp_path):
    import yaml

    from fedvlr_plugin.integrations.fedml.launcher import read_sections, set_options

    sections = read_sections(FEDML_CONFIGS / "single_process.yaml")
    set_options(sections, parsed([*SMALL, "comm_round=2", f"fedvlr_checkpoint={tmp_path}"]))
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(sections))
    command = [sys.executable, str(FEDML_CONFIGS / "main.py"), "--cf", str(tmp_path / "one.yaml")]
    run = {"env": environment() | {"HOME": str(tmp_path)}, "cwd": tmp_path, "capture_output": True, "text": True}
    done = subprocess.run(command, timeout=LIMIT, **run)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1].startswith("selected round ")
    assert_equal_to_engine(tmp_path / "server.safetensors", 2)


@real_fedml
@pytest.mark.slow
def test_the_command_run_is_the_engine(single_run):
    *_, line, last = single_run.out.splitlines()
    assert line.startswith("round 2: loss") and re.match(r"selected round [12] of 1 to 2 by validation NDCG@50: ", last)
    assert_equal_to_engine(single_run.folder / "server.safetensors", 2)
    assert [p.name for p in single_run.folder.parent.iterdir()] == ["run"], "written outside of the run's folder"


@real_fedml
@pytest.mark.slow
@pytest.mark.skipif(MPIRUN is None, reason="no mpirun; the extra openmpi, which `make test` installs, brings one")
def test_mpi_with_two_clients_is_the_engine(tmp_path):
    import yaml

    from fedvlr_plugin.integrations.fedml.launcher import read_sections, set_options

    sections = read_sections(FEDML_CONFIGS / "cross_silo_mpi.yaml")
    set_options(sections, parsed([*SMALL, "comm_round=2", f"fedvlr_checkpoint={tmp_path}"]))
    (tmp_path / "mpi.yaml").write_text(yaml.safe_dump(sections))
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "HOME": str(tmp_path)}
    command = [MPIRUN, "--oversubscribe", "-n", "3"]
    command += [sys.executable, "-m", "fedvlr_plugin.integrations.fedml.mpi", "--cf", str(tmp_path / "mpi.yaml")]
    done = subprocess.run(
        command, env=environment() | root, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert_equal_to_engine(tmp_path / "server.safetensors", 2)
