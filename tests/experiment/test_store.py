"""The results store: round trip, completeness, damage, versions, privacy of the machine."""

from __future__ import annotations

import getpass
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fedvlr_plugin.config import RunSpec, TrainingConfig
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.engines.compiled.available import compiled_on
from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.experiment import store as store_module
from fedvlr_plugin.experiment.result import RunResult
from fedvlr_plugin.experiment.store import ResultsStore, read_record

SPEC = RunSpec(dataset="tiny", row="FedAvg+ours", seed=3, training=TrainingConfig(rounds=2))
Fake = Callable[..., RunResult]


@pytest.fixture
def stored(tmp_path: Path, tiny: PreparedData, fake: Fake) -> tuple[ResultsStore, RunResult, Path]:
    store = ResultsStore(tmp_path / "results")
    result = fake(SPEC, data=tiny, outputs=("router_weights",))
    store.append(result, tiny, profile="quick")
    (path,) = store.runs.glob("*.json")
    return store, result, path


def test_round_trip(stored: tuple[ResultsStore, RunResult, Path], tiny: PreparedData) -> None:
    store, result, _ = stored
    record = store.load(SPEC, tiny.fingerprint)
    assert store.records() == [record] == store.records([SPEC.spec_hash])
    assert store.records(["another"]) == []
    assert record.spec == SPEC and record.spec_hash == SPEC.spec_hash == record.spec.spec_hash
    assert record.profile == "quick" and record.protocol == "corrected" and record.rounds == 2
    assert record.data.fingerprint == tiny.fingerprint and record.data.modalities == {"text": 4}
    assert (record.data.users, record.data.items, record.data.interactions) == (30, 120, 180)
    assert record.test == summary(result.test) and record.valid == summary(result.valid)
    assert [r.valid for r in record.curve] == [dict(r.valid or {}) for r in result.curve]
    assert record.cost.client_updates_per_s == pytest.approx(20 / 0.02)
    for phase, ranks in (("valid", result.valid), ("test", result.test)):
        again = store.ranks(record, phase)
        for name in ("users", "items", "above", "tied", "cold"):
            np.testing.assert_array_equal(getattr(again, name), getattr(ranks, name))
    np.testing.assert_array_equal(store.histories(record), tiny.interactions.train_sizes[result.test.users])
    np.testing.assert_array_equal(store.outputs(record)["router_weights"], result.outputs["router_weights"])


def test_the_key_is_the_specification_and_the_data(stored, tiny: PreparedData) -> None:
    store = stored[0]
    assert store.has(SPEC, tiny.fingerprint)
    assert not store.has(SPEC, "0" * 64)
    assert not store.has(SPEC.model_copy(update={"seed": 4}), tiny.fingerprint)


def test_appending_again_replaces(stored, tiny: PreparedData, fake: Fake) -> None:
    store = stored[0]
    store.append(fake(SPEC, data=tiny), tiny)
    assert len(store.records()) == 1 and len(list(store.runs.iterdir())) == 3


def test_a_run_on_other_data_is_refused(stored, tiny: PreparedData) -> None:
    with pytest.raises(ResultsError, match="not computed on the data"):
        stored[0].append(stored[1], PreparedData("tiny", tiny.interactions))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from (key, *_strings(member))
    elif isinstance(value, list):
        for member in value:
            yield from _strings(member)


def test_neither_host_name_nor_user_nor_absolute_path_is_stored(stored) -> None:
    store, _, path = stored
    for text in _strings(json.loads(path.read_text())):
        assert not re.match(r"(/|[A-Za-z]:\\|~)", text), text
        assert text not in {socket.gethostname(), getpass.getuser()}
        assert str(store.root) not in text and str(Path.cwd()) not in text


def test_a_run_without_its_json_does_not_exist(
    tmp_path: Path, tiny: PreparedData, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    store = ResultsStore(tmp_path)
    monkeypatch.setattr(store_module, "make_record", killed)
    with pytest.raises(KeyboardInterrupt):
        store.append(fake(SPEC, data=tiny), tiny)
    assert list(store.runs.glob("*.parquet")) and not store.has(SPEC, tiny.fingerprint) and store.records() == []


def test_a_failed_write_leaves_no_temporary_file(stored, monkeypatch: pytest.MonkeyPatch, tiny, fake: Fake) -> None:
    store, _, path = stored
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedvlr_plugin.files.os.replace", full)
    with pytest.raises(ResultsError, match="No space left"):
        store.append(fake(SPEC, data=tiny), tiny)
    assert path.read_bytes() == before and not list(store.runs.glob(".tmp-*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v | {"schema_version": 99}, "newer version"),
        (lambda v: {"a": 1}, "not a run of this package"),
        (lambda v: [1], "not a run of this package"),
        (lambda v: {k: v[k] for k in v if k != "test"}, "damaged: test: Field required"),
        (lambda v: v | {"extra": 1}, "damaged: extra"),
        (lambda v: v | {"test": v["test"] | {"hr@50": None}}, "damaged: test.hr@50"),
        (lambda v: v | {"seed": 4}, "seed or protocol differ"),
        (lambda v: v | {"spec_hash": "0" * 16}, "key does not follow"),
    ],
)
def test_damaged_and_foreign_files_are_named(stored, change, message: str) -> None:
    store, _, path = stored
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ResultsError, match=re.escape(message)) as raised:
        store.records()
    assert path.name in str(raised.value) and "\n" not in str(raised.value)


def test_a_cut_file_is_named(stored) -> None:
    store, _, path = stored
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ResultsError, match="not JSON"):
        store.records()


def test_a_renamed_file_is_named(stored) -> None:
    path = stored[2]
    other = path.with_name(path.name.replace(SPEC.spec_hash, "0" * 16))
    path.rename(other)
    with pytest.raises(ResultsError, match="not what its name says"):
        read_record(other)


def test_changed_ranks_are_noticed(stored, tiny: PreparedData) -> None:
    store, _, path = stored
    ranks = path.with_suffix(".parquet")
    ranks.write_bytes(ranks.read_bytes() + b"x")
    with pytest.raises(ResultsError, match="sha256 differs"):
        store.ranks(store.load(SPEC, tiny.fingerprint), "test")


def test_a_results_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResultsError, match=r"cannot write .*Not a directory.*--results"):
        ResultsStore(tmp_path / "file" / "results").check_writable()
    ResultsStore(tmp_path / "new").check_writable()
    assert list((tmp_path / "new" / "runs").iterdir()) == []


def test_the_machine_is_described(stored, tiny: PreparedData) -> None:
    found = stored[0].load(SPEC, tiny.fingerprint).environment
    assert found.cores >= 1 and found.cpu_model and found.packages["torch"] and found.gpu_model is None
    assert found.compiled is compiled_on(torch.device("cpu"))
    assert found.git_commit is None or re.fullmatch(r"[0-9a-f]{40}", found.git_commit)
