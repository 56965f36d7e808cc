"""Measure the time of a round by phase, and compute a lower bound (floor) from the machine's measured rates.

The floor of a round (algorithm.md section 11) is the time of its arithmetic and its memory traffic:

    products   three matrix products a step, Q F, R F and R^T Q, at the rate measured on these very shapes; or, where
               the residual is sparse, three reads of the sampled rows at the measured bandwidth, whichever is less
    state      private parameters and moments: read p twice, m, v and g once, write p, m, v and g: 36 bytes each a step
    samples    some twenty passes over 8-byte numbers per drawn sample

The floor is for all threads of all processes (torchrun) and all clients.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from fedvlr_plugin.config import ExecutionConfig, RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.engines.base import LocalProblem, local_problem
from fedvlr_plugin.experiment.result import Meter
from fedvlr_plugin.experiment.rows import parse_row
from fedvlr_plugin.experiment.run import build_federation
from fedvlr_plugin.federation.ranking import rank_federation
from fedvlr_plugin.federation.simulation import Federation

PHASES = ("sampling", "local", "uplink", "server", "evaluation")


@dataclass(frozen=True)
class Speed:
    """One measurement; seconds are medians over the rounds after the first.

    With several processes, `phases` are those of the first one, and `threads` and `peak_mb` are sums over all.
    """

    row: str
    data: str
    engine: str
    device: str
    processes: int
    threads: int
    users: int
    items: int
    interactions: int
    round_s: float
    evaluation_s: float
    phases: dict[str, float]
    clients_per_s: float
    samples_per_s: float
    peak_mb: float
    floor_s: float | None

    def as_dict(self) -> dict[str, object]:
        """Return all values, for JSON."""
        return asdict(self)


def measure(spec: RunSpec, data: PreparedData, execution: ExecutionConfig, rounds: int, floor: bool = True) -> Speed:
    """Run a warm-up round and `rounds` more, with one evaluation each.

    Args:
        spec: the run.
        data: the prepared data set.
        execution: engine, device and speed settings.
        rounds: to measure; 0 measures the first round.
        floor: whether to compute the floor; it exists for linear backbones without private items only.
    """
    device = torch.device(execution.device)
    meter = Meter(device)
    federation = build_federation(parse_row(spec.row), spec, execution, data)
    walls, evaluations, parts = [], [], []
    clients = samples = 0
    processes = federation.processes
    for number in range(1, rounds + 2):
        _wait(device)
        processes.gather(None)
        begin = time.perf_counter()
        uplink = federation.round(number)
        _wait(device)
        trained = time.perf_counter()
        rank_federation(federation, "valid")
        _wait(device)
        if number > 1 or rounds == 0:
            walls.append(trained - begin)
            evaluations.append(time.perf_counter() - trained)
            parts.append(uplink.seconds)
            clients, samples = uplink.clients, uplink.samples
    phases = {p: _median([part.get(p, 0.0) for part in parts]) for p in PHASES[:-1]}
    wall, evaluation = _median(walls), _median(evaluations)
    used = meter.read()
    peak = used.peak_device_bytes if device.type == "cuda" else used.peak_rss_bytes
    interactions = data.interactions
    threads = sum(processes.gather(torch.get_num_threads()))
    return Speed(
        spec.row,
        data.name,
        execution.engine,
        execution.device,
        processes.size,
        threads,
        interactions.n_users,
        interactions.n_items,
        interactions.n_interactions,
        wall,
        evaluation,
        phases | {"evaluation": evaluation},
        clients / wall,
        samples / wall,
        sum(processes.gather(peak)) / 2**20,
        _floor(federation, threads) if floor and _has_floor(federation) else None,
    )


def _has_floor(federation: Federation) -> bool:
    return federation.backbone.linear and federation.backbone.own_rows == "none"


def _floor(federation: Federation, threads: int) -> float:
    """Compute `floor_seconds` of the whole federation; the first process measures while the others wait."""
    spec, processes = federation.spec, federation.processes
    seconds = [0.0]
    if processes.is_main:
        threads_before = torch.get_num_threads()
        torch.set_num_threads(threads)
        known = federation.problem
        whole = (
            known
            if processes.size == 1
            else local_problem(spec, known.backbone, known.fusion, federation.data.interactions, known.device)
        )
        seconds = [floor_seconds(whole)]
        torch.set_num_threads(threads_before)
    return processes.gather(seconds)[0][0]


def floor_seconds(problem: LocalProblem) -> float:
    """Measure the machine's rates and compute the floor of one round with every client, in seconds; linear backbones only."""
    training = problem.spec.training
    width = problem.fusion.n_views * problem.fusion.width
    n_items, dtype = problem.histories.n_items, problem.dtype
    steps = problem.sampler.steps_per_epoch()
    client_steps = float(steps.sum())
    samples = float(problem.sampler.samples_per_epoch().sum())
    clients = min(problem.histories.n_users, 1024)
    rate = _product_rate(clients, n_items, width, dtype, problem.device)
    bandwidth = _bandwidth(problem.device)
    size = torch.empty(0, dtype=dtype).element_size()
    dense = 6.0 * client_steps * n_items * width / rate
    sparse = 3.0 * samples * width * size / bandwidth
    private = width // problem.fusion.n_views + 1 + (problem.router.n_params if problem.router else 0)
    state = client_steps * private * 9 * size / bandwidth
    stream = samples * 20 * 8 / bandwidth
    return training.local_epochs * (min(dense, sparse) + state + stream)


def _product_rate(clients: int, n_items: int, width: int, dtype: torch.dtype, device: torch.device) -> float:
    """Measure the operations in a second of the three matrix products of a step, on their own shapes."""
    source = torch.Generator().manual_seed(0)
    q = torch.randn(clients, width, generator=source).to(device, dtype)
    table = torch.randn(n_items, width, generator=source).to(device, dtype)
    scores = q @ table.t()

    def products() -> None:
        torch.mm(q, table.t(), out=scores)
        torch.mm(scores, table)
        torch.mm(scores.t(), q)

    return 6.0 * clients * n_items * width / _best(products, device)


def _bandwidth(device: torch.device) -> float:
    """Measure the bytes in a second of a large copy, read and write counted."""
    values = torch.zeros(32 * 2**20, device=device)
    copy = torch.empty_like(values)
    return 2.0 * values.numel() * 4 / _best(lambda: copy.copy_(values), device)


def _best(work: Callable[[], object], device: torch.device, tries: int = 7) -> float:
    seconds = []
    for _ in range(tries):
        _wait(device)
        begin = time.perf_counter()
        work()
        _wait(device)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
