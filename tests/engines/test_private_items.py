"""Private item rows: only touched rows exist, the budget decides where they live, and nothing else changes."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.toy import make_toy

from fedvlr_plugin.config import ExecutionConfig
from fedvlr_plugin.engines.private_items import RowStorage
from fedvlr_plugin.errors import ConfigError
from fedvlr_plugin.federation.simulation import Federation

ALL = torch.arange(9)
LEAST = 2 * 23 * 3 * 8 * 8  # twice one client's rows: items x (values and two moments) x d x bytes


def build(make_spec, backbone, budget, rounds=3):
    execution = ExecutionConfig(memory_budget=budget, block_clients=2)
    federation = Federation(make_spec(backbone), backbone, "mlp", make_toy(), execution)
    for number in range(1, rounds + 1):
        federation.round(number)
    return federation


@pytest.mark.parametrize("backbone", ["PFedRec", "FedRAP"])
def test_spilling_to_a_file_changes_no_bit(make_spec, backbone):
    roomy, tight = build(make_spec, backbone, 2**30), build(make_spec, backbone, LEAST)
    assert roomy.engine.own.values.spilled_rows == 0
    assert tight.engine.own.values.spilled_rows > 0
    assert torch.equal(roomy.score(ALL), tight.score(ALL))
    best = tight.state(moments=False)
    scores = tight.score(ALL)
    tight.round(4)
    tight.load(best, moments=False)
    assert torch.equal(scores, tight.score(ALL))


def test_only_touched_rows_take_room(make_spec):
    federation = build(make_spec, "FedRAP", 2**30, rounds=1)
    own = federation.engine.own
    touched = set()
    sampler = federation.problem.sampler
    cohort = [slot for slot, rows in enumerate(own.rows) if len(rows)]
    for slot in cohort:
        block = sampler.block(torch.tensor([slot]))
        for epoch in range(2):
            for step in block.epoch(1, epoch):
                touched |= {(slot, item) for item in step.items.tolist()}
    assert {(slot, i) for slot in cohort for i in own.items[slot].tolist()} == touched
    assert own.values.used == len(touched) < 9 * 23


def test_fresh_rows_reuse_their_places(make_spec):
    """PFedRec's rows start anew each round; the storage does not grow past one round's need by much."""
    once, often = build(make_spec, "PFedRec", 2**30, 1), build(make_spec, "PFedRec", 2**30, 8)
    assert once.engine.own.values.used <= often.engine.own.values.used <= 9 * 23


def test_too_small_a_budget_is_refused_before_any_work(make_spec):
    with pytest.raises(ConfigError, match=f"at least {LEAST} bytes"):
        build(make_spec, "FedRAP", LEAST - 1)


def test_storage_round_trip_across_the_border():
    storage = RowStorage(100, 4, np.dtype(np.float64), budget=10 * 4 * 8)
    first, second = storage.allocate(8), storage.allocate(30)
    assert storage.in_memory == 10 and storage.spilled_rows == 28
    values = np.random.default_rng(0).normal(size=(38, 4))
    rows = np.concatenate([first, second])
    storage.write(rows, values)
    mixed = np.random.default_rng(1).permutation(38)
    assert np.array_equal(storage.read(rows[mixed]), values[mixed])
    assert np.array_equal(storage.read(rows[mixed], 2), values[mixed][:, :2])
    assert not storage.read(storage.allocate(3)).any()


def resident() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from Linux's /proc")
def test_the_budget_is_kept():
    """150 MB of rows under a budget of 16 MB: the process grows by the budget and a little, not by the rows."""
    storage = RowStorage(200_000, 192, np.dtype(np.float32), budget=16 * 2**20)
    chunk = np.ones((4096, 192), dtype=np.float32)
    before, peak = resident(), 0
    for _ in range(48):
        rows = storage.allocate(4096)
        storage.write(rows, chunk)
        storage.read(rows)
        peak = max(peak, resident())
    assert storage.used * 192 * 4 > 140 * 2**20
    assert peak - before < 40 * 2**20
    assert (storage.read(np.arange(0, storage.used, 999)) == 1.0).all()
