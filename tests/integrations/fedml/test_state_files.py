"""Files of a run: a restart goes on from them; those of another run and damaged ones are refused."""

import pickle

import pytest
import torch
from helpers.fedml_pair import assert_same_model, reference, start

from fedvlr_plugin.errors import ConfigError, ResultsError


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
