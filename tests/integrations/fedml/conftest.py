"""The pair under a stand-in of FedML (always) and under FedML itself (where it is installed)."""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from helpers.fedml_processes import SMALL, Watched, up, watched

ROOM = "fedvlr_plugin.integrations.fedml"
BOUND = ("trainer", "aggregator", "driver")


def _pair():
    names = [import_module(f"{ROOM}.{name}") for name in BOUND]
    trainer, aggregator, driver = names
    return SimpleNamespace(
        Trainer=trainer.FedVLRClientTrainer, Aggregator=aggregator.FedVLRServerAggregator, Driver=driver.Driver
    )


@pytest.fixture(params=["stand-in", "fedml"])
def host(request, monkeypatch, tmp_path):
    """Trainer, Aggregator and Driver on top of the stand-in or of FedML itself."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [n for n in sys.modules if n in {f"{ROOM}.{b}" for b in BOUND}]:
        monkeypatch.delitem(sys.modules, name)
    if request.param == "stand-in":
        from helpers.fedml_stand_in import modules

        for name in [n for n in sys.modules if n == "fedml" or n.startswith("fedml.")]:
            monkeypatch.delitem(sys.modules, name)
        for name, module in modules().items():
            monkeypatch.setitem(sys.modules, name, module)
    else:
        spec = find_spec("fedml")
        if spec is None or spec.origin is None:
            pytest.skip("fedml is not installed; the stand-in ran")
        from fedvlr_plugin.integrations.fedml.runtime import need_fedml

        need_fedml()
    yield _pair()
    for name in BOUND:
        sys.modules.pop(f"{ROOM}.{name}", None)


@pytest.fixture
def make_args():
    """FedML's flat arguments for a small float64 run in one process."""

    def build(**changes):
        settings = {"dim": 8, "router_hidden": 6, "local_epochs": 2, "batch_size": 16, "participation": 0.7}
        values = {
            "training_type": "simulation",
            "backend": "sp",
            "federated_optimizer": "FedAvg",
            "dataset": "toy",
            "comm_round": 3,
            "random_seed": 1,
            "fedvlr_row": "FedAvg+ours",
            "fedvlr_dtype": "float64",
            "fedvlr_settings": settings | changes.pop("settings", {}),
        }
        return SimpleNamespace(**(values | changes))

    return build


@pytest.fixture(scope="session")
def grpc_run(tmp_path_factory) -> Watched:
    """Two rounds of `fedml up` with two clients over gRPC, watched; nobody writes into its folder afterwards."""
    place = tmp_path_factory.mktemp("grpc")
    return watched(up(place / "cwd" / "run", 2), place)


@pytest.fixture(scope="session")
def single_run(tmp_path_factory) -> Watched:
    """Two rounds of `fedml run`, all in one process, watched; nobody writes into its folder afterwards."""
    place = tmp_path_factory.mktemp("single")
    folder = place / "cwd" / "run"
    command = [sys.executable, "-m", "fedvlr_plugin.cli", "fedml", "run", "--folder", str(folder)]
    for value in (*SMALL, "comm_round=2", f"fedvlr_checkpoint={folder}"):
        command += ["--set", value]
    return watched(command, place)
