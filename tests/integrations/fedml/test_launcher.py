"""How `fedvlr fedml up` ends, with processes that stand in for FedML's: nobody is left behind, nothing waits in vain."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from helpers.paths import FEDML_CONFIGS, HELPERS, ROOT
from helpers.signals import heeds_signals

from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.integrations.fedml import launcher, subprocesses

CONFIG = FEDML_CONFIGS / "cross_silo_grpc.yaml"
UP = """
import sys
from fedvlr_plugin.cli.main import main
from fedvlr_plugin.integrations.fedml import subprocesses
subprocesses.PROCESS = "fake_rank"
main()
"""


@pytest.fixture
def faked(monkeypatch):
    """Puts `fake_rank` in FedML's place; returns a function that says what its clients do."""
    path = os.pathsep.join([str(HELPERS), str(ROOT), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setattr(subprocesses, "PROCESS", "fake_rank")
    return lambda what: monkeypatch.setenv("FAKE", what)


@pytest.mark.parametrize(
    "what, message", [("dies", "client 1 failed before training"), ("dies starts", "every client")]
)
def test_clients_that_fail_end_the_run_with_their_last_line(faked, tmp_path, what, message):
    faked(what)
    told = []
    with pytest.raises(subprocesses.RunFailedError, match=f"{message}.*no such luck"):
        launcher.up(CONFIG, tmp_path / "run", 2, 60.0, tell=told.append)
    assert told == (["round 1: 2 uploads"] if "starts" in what else [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_nobody_outlives_up(faked, tmp_path, number):
    """SIGKILL too, which `up` cannot answer; Ctrl-C says how to go on, and the folder is free again."""
    faked("starts")
    words = ["fedml", "up", "--clients", "2", "--folder", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-c", UP, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heeds_signals
    )
    try:
        assert process.stdout.readline() == b"round 1: 2 uploads\n"
        started = psutil.Process(process.pid).children()
        while len(started) < 3 or not (tmp_path / "run" / "client_2.log").exists():
            time.sleep(0.05)
            started = psutil.Process(process.pid).children()
        with pytest.raises(ConfigError, match="another run is going on"):
            launcher.up(CONFIG, tmp_path / "run", 2, 60.0)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        _, alive = psutil.wait_procs(started, timeout=10)
    finally:
        process.kill()
    assert len(started) == 3 and not alive and process.returncode != 0
    assert (b"the same command goes on" in said) == (number == signal.SIGINT)
    with subprocesses.alone_in(tmp_path / "run"):
        pass


def test_a_misspelt_option_is_refused_by_the_nearest_name() -> None:
    sections: dict[str, dict[str, object]] = {"train_args": {"comm_round": 10}}
    with pytest.raises(ConfigError, match="Did you mean 'comm_round'"):
        launcher.set_options(sections, {"comm_rond": 2})
    with pytest.raises(ConfigError, match="Did you mean 'fedvlr_engine'"):
        launcher.set_options(sections, {"fedvlr_engin": "batched"})
    launcher.set_options(sections, {"comm_round": 2, "enable_defense": True, "fedvlr_dtype": "float64"})
    assert sections["train_args"] == {"comm_round": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a:\n  note: gr\u00fcn\n".encode("cp1252"), "line 2: .*Windows-1252"),
        (b"a:\n\tx: 1\n", "is not YAML: .*tab|is not YAML: .*cannot start any token"),
        (b"- 1\n", "is no FedML configuration"),
        (b"a:\n  learning_rate: 0.1\nb:\n  learning_rate: 0.5\n", "'learning_rate' stands in the sections 'a' and 'b'"),
    ],
)
def test_configurations_that_are_none_are_one_line(tmp_path, content, message):
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as refused:
        launcher.read_sections(file)
    assert "\n" not in str(refused.value)


def test_a_value_that_is_not_yaml_is_one_line():
    with pytest.raises(ConfigError, match="--set fedvlr_settings.*is not YAML"):
        launcher.parse_yaml("{client_lr: 0.001", "--set fedvlr_settings={client_lr: 0.001: the value")
