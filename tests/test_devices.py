"""The fixed order of sums on a GPU: asked for, and put back, whatever happens; nothing is touched for a CPU."""

import os

import pytest
import torch

from fedvlr_plugin.devices import fixed_order


def asked():
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.fixture(autouse=True)
def variable(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")


@pytest.mark.parametrize("before", [(False, False), (True, False), (True, True)])
def test_it_is_asked_for_and_put_back(before):
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    try:
        with fixed_order(torch.device("cuda:0")):
            assert asked() == (True, True)
            with fixed_order(torch.device("cuda")):
                assert asked() == (True, True)
            assert asked() == (True, True)
        assert asked() == before
        with pytest.raises(KeyError), fixed_order(torch.device("cuda")):
            raise KeyError
        assert asked() == before
        with fixed_order(torch.device("cpu")):
            assert asked() == before
    finally:
        torch.use_deterministic_algorithms(False)


def test_what_the_user_set_for_cublas_stays(monkeypatch):
    with fixed_order(torch.device("cuda")):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    with fixed_order(torch.device("cpu")):
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with fixed_order(torch.device("cuda")):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
