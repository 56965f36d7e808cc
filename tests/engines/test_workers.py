"""Blocks side by side: who gets which, what threads do to torch's settings, and sums that come out the same each time."""

import itertools
import threading

import pytest
import torch
from helpers.federation_toy import build
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_plugin.engines.workers import BlockThreads, share_out

COSTS = st.lists(st.floats(0.1, 100.0), max_size=9)


@pytest.fixture
def two_threads():
    """torch with two threads, however many it had."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@given(COSTS, st.integers(1, 4))
def test_every_block_goes_to_one_worker_and_nobody_is_idle(costs, workers):
    teams = share_out(costs, workers)
    assert sorted(itertools.chain(*teams)) == list(range(len(costs)))
    assert len(teams) == min(workers, len(costs)) and all(teams)
    assert all(team == sorted(team) for team in teams)


@given(COSTS.filter(lambda costs: len(costs) >= 2))
def test_two_workers_get_about_the_best_shares_there_are(costs):
    """Against all ways of sharing."""
    best = min(
        max(
            sum(c for c, b in zip(costs, bits, strict=True) if b),
            sum(c for c, b in zip(costs, bits, strict=True) if not b),
        )
        for bits in itertools.product((0, 1), repeat=len(costs))
    )
    assert max(sum(costs[i] for i in team) for team in share_out(costs, 2)) <= best * (1 + 1e-6)


def test_sharing_anew_mends_what_the_dearest_first_gets_wrong():
    costs = [305.0, 106.0, 67.0, 77.0, 89.0, 119.0, 71.0]  # blocks of ML, in thousands of samples
    assert max(sum(costs[i] for i in team) for team in share_out(costs, 2)) == 423.0  # 449 by the dearest first alone


def test_tasks_run_in_threads_of_one_without_gradients(two_threads):
    meet = threading.Barrier(2, timeout=20)

    def task(number):
        meet.wait()  # passes only if both run at once
        return number, torch.get_num_threads(), torch.is_grad_enabled()

    threads = BlockThreads(torch.device("cpu"))
    assert threads.run([lambda: task(0), lambda: task(1)]) == [(0, 1, False), (1, 1, False)]
    assert torch.get_num_threads() == 2 and torch.is_grad_enabled()
    late: list[int] = []
    thread = threading.Thread(target=lambda: late.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert late == [2]


def test_an_error_in_a_worker_is_raised_and_the_threads_go_on(two_threads):
    def fail():
        raise ValueError("no")

    threads = BlockThreads(torch.device("cpu"))
    with pytest.raises(ValueError, match="no"):
        threads.run([fail, lambda: 1])
    assert torch.get_num_threads() == 2
    assert threads.run([lambda: 1, lambda: 2]) == [1, 2] and threads.run([]) == []


@pytest.mark.parametrize(
    "backbone, fusion",
    [("FedAvg", "blfm"), ("FCF", "none"), ("FedNCF", "blfm"), ("FedRAP", "mlp"), ("PFedRec", "none")],
)
def test_sums_are_the_same_bit_by_bit_at_equal_threads(two_threads, make_spec, backbone, fusion):
    """Float32, many small blocks, workers that overtake each other."""

    def single(*arguments, **changes):
        return make_spec(*arguments, **changes).model_copy(update={"dtype": "float32"})

    runs = []
    for _ in range(3):
        federation = build(single, backbone, fusion, block=2, participation=1.0)
        losses = [federation.round(number).loss for number in (1, 2, 3)]
        assert len(federation.engine.workers.busy) == 2
        runs.append((losses, federation.state(moments=True)))
    for losses, state in runs[1:]:
        assert losses == runs[0][0]
        assert all(torch.equal(value, runs[0][1][name]) for name, value in state.items())
