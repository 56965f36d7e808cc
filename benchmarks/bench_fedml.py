"""What the FedML pair costs: bytes of its messages beside Table 3's count, and its round beside the engine's own.

    python benchmarks/bench_fedml.py                     # all 16 rows of Table 3 and the time of two rows, KU-sized
    python benchmarks/bench_fedml.py --rows FedAvg+ours --time --rounds 5

Bytes are those of one client and one round: tensors alone, and the pickle that FedML's GRPC sends. Uploads of
`touched` rows differ by client; mean and largest over all. Times: rounds of engine and pair in turn, in one process,
on the same data and seed, after a first one of each that is not counted; median and range.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from types import SimpleNamespace

from tabulate import tabulate

from fedvlr_plugin.config import ExecutionConfig
from fedvlr_plugin.data.synthetic import SIZES, generated
from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.experiment.rows import federated_rows, parse_row
from fedvlr_plugin.experiment.run import build_federation
from fedvlr_plugin.integrations.fedml.messages import on_the_wire, tensor_bytes
from fedvlr_plugin.integrations.fedml.runtime import need_fedml
from fedvlr_plugin.integrations.fedml.task import load_data, load_model, use_data
from fedvlr_plugin.paper.tables import published
from fedvlr_plugin.reporting.table3 import held

USERS, ITEMS, INTERACTIONS = SIZES["ku"]
SIZES_HEAD = ["row", "table 3 down", "tensors", "pickled", "table 3 up", "tensors", "pickled", "touched", "largest"]
TIME_HEAD = ["row", "engine", "engine s/round", "range", "pair s/round", "range", "pair / engine"]


def pair(row: str, **options: object) -> tuple[object, object, object]:
    """Driver, trainer and aggregator of a row on KU-sized data."""
    from fedvlr_plugin.integrations.fedml.aggregator import FedVLRServerAggregator
    from fedvlr_plugin.integrations.fedml.driver import Driver
    from fedvlr_plugin.integrations.fedml.trainer import FedVLRClientTrainer

    values = {"training_type": "simulation", "backend": "sp", "federated_optimizer": "FedAvg", "comm_round": 1000}
    args = SimpleNamespace(**(values | {"fedvlr_row": row} | options))
    use_data(args, generated(USERS, ITEMS, INTERACTIONS))
    dataset, _ = load_data(args)
    model = load_model(args)
    trainer, aggregator = FedVLRClientTrainer(model, args), FedVLRServerAggregator(model, args)
    return Driver(args, dataset, trainer, aggregator), trainer, aggregator


def sizes(row: str) -> list[str]:
    """One line of the first table, in thousands of bytes."""
    counted = held(row, ITEMS)
    driver, trainer, aggregator = pair(row, fedvlr_engine="batched")
    down = aggregator.get_model_params()
    clients = list(driver.clients.values())
    _, up = driver.train_one(clients[0], down)
    trainer.touched = True
    touched = [tensor_bytes(driver.train_one(client, down)[1]) for client in clients]
    numbers = [
        counted.received_bytes, tensor_bytes(down), on_the_wire(down, None),
        counted.sent_bytes, tensor_bytes(up), on_the_wire(up, clients[0].samples),
        statistics.mean(touched), max(touched),
    ]  # fmt: skip
    return [row, *(f"{number / 1000:,.1f}" for number in numbers)]


def times(row: str, engine: str, rounds: int) -> list[str]:
    """One line of the second table."""
    driver, _, aggregator = pair(row, fedvlr_engine=engine)
    spec, data = aggregator.task.spec, aggregator.task.data
    federation = build_federation(parse_row(row), spec, ExecutionConfig(engine=engine), data)
    alone, hosted = [], []
    for number in range(1, rounds + 2):
        alone.append(_seconds(lambda number=number: federation.round(number)))
        hosted.append(_seconds(driver.one_round))
    alone, hosted = alone[1:], hosted[1:]
    middle = [statistics.median(alone), statistics.median(hosted)]
    ranges = [f"{min(part):.2f}..{max(part):.2f}" for part in (alone, hosted)]
    return [
        row, engine, f"{middle[0]:.2f}", ranges[0], f"{middle[1]:.2f}", ranges[1], f"{middle[1] / middle[0]:.1f}"
    ]  # fmt: skip


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main(argv: list[str] | None = None) -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", nargs="+", help="default: the 16 of Table 3 for bytes, FedAvg and FedAvg+ours for time"
    )
    parser.add_argument("--bytes", action="store_true", help="bytes only")
    parser.add_argument("--time", action="store_true", help="time only")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to time")
    options = parser.parse_args(argv)
    both = options.bytes == options.time
    paper = {line["model"] + ("" if line["variant"] == "-" else f"+{line['variant']}") for line in published(3)}
    with tempfile.TemporaryDirectory() as home:
        os.environ["HOME"] = os.environ["TMPDIR"] = home
        tempfile.tempdir = home  # wandb, which FedML imports, leaves folders there
        try:
            need_fedml()
            if both or options.bytes:
                rows = options.rows or [row for row in federated_rows() if row in paper]
                print(f"Thousands of bytes per client and round, {ITEMS} items:\n")
                print(tabulate([sizes(row) for row in rows], headers=SIZES_HEAD, disable_numparse=True), flush=True)
            if both or options.time:
                rows = options.rows or ["FedAvg", "FedAvg+ours"]
                lines = [times(row, engine, options.rounds) for row in rows for engine in ("batched", "sequential")]
                print(f"\nSeconds per round, {USERS} clients, {ITEMS} items, {options.rounds} rounds:\n")
                print(tabulate(lines, headers=TIME_HEAD, disable_numparse=True))
        except FedVLRError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        finally:
            tempfile.tempdir = None
    return 0


if __name__ == "__main__":
    sys.exit(main())
