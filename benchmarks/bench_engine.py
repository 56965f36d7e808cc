"""Speed and memory of the federated engines, on this machine, in one run. Prints a table and writes JSON.

python benchmarks/bench_engine.py                                  # ML- and Movie-sized, FedAvg and FedAvg+ours
python benchmarks/bench_engine.py --compare                        # batched against sequential, same run
python benchmarks/bench_engine.py --scale                          # clients 100..100000, items 1000..100000
python benchmarks/bench_engine.py --rows FedRAP+ours --sizes ku 500x2000x20000 --device cuda
torchrun --nproc-per-node 2 benchmarks/bench_engine.py             # two processes of one thread each
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tabulate import tabulate

from fedvlr_plugin.config import ExecutionConfig, RunSpec, TrainingConfig
from fedvlr_plugin.data.synthetic import SIZES, generated
from fedvlr_plugin.errors import ConfigError, FedVLRError
from fedvlr_plugin.federation.distributed import announced_rank
from fedvlr_plugin.profiling.engine import PHASES, Speed, measure

SCALE = ["100x1000x10000", "1000x1000x20000", "10000x1000x100000", "100000x1000x700000",
         "1000x10000x20000", "1000x100000x20000"]  # fmt: skip


def parse_size(text: str) -> tuple[int, int, int]:
    """`ml` or `USERSxITEMSxINTERACTIONS`."""
    if text in SIZES:
        return SIZES[text]
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(p.isdigit() for p in parts):
        raise ConfigError(f"size '{text}' is neither one of {', '.join(SIZES)} nor USERSxITEMSxINTERACTIONS")
    users, items, interactions = map(int, parts)
    return users, items, interactions


def show(results: list[Speed]) -> str:
    """The table of all measurements."""
    head = [
        "row",
        "users x items",
        "engine",
        "cores",
        "s/round",
        "floor s",
        "x floor",
        *PHASES,
        "clients/s",
        "samples/s",
        "MB",
    ]
    body = []
    for r in results:
        floor = ["", ""] if r.floor_s is None else [f"{r.floor_s:.3f}", f"{r.round_s / r.floor_s:.1f}"]
        phases = [f"{r.phases[p]:.3f}" for p in PHASES]
        rates = [f"{r.clients_per_s:,.0f}", f"{r.samples_per_s:,.0f}", f"{r.peak_mb:,.0f}"]
        cores = f"{r.processes} x {r.threads // r.processes}" if r.device == "cpu" else r.device
        body.append([r.row, f"{r.users} x {r.items}", r.engine, cores, f"{r.round_s:.3f}", *floor, *phases, *rates])
    return tabulate(body, headers=head, disable_numparse=True)


def main(argv: list[str] | None = None) -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=["FedAvg", "FedAvg+ours"])
    parser.add_argument("--sizes", nargs="+", default=["ml", "movie"], help=f"{', '.join(SIZES)} or UxIxN")
    parser.add_argument("--scale", action="store_true", help="sweep clients 10^2..10^5 and items 10^3..10^5")
    parser.add_argument("--compare", action="store_true", help="also run the sequential engine (one round)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory-budget-gb", type=float, default=4.0)
    parser.add_argument("--json", type=Path, help="write the measurements here")
    options = parser.parse_args(argv)
    results = []
    is_main = announced_rank() == 0
    try:
        for size in SCALE if options.scale else options.sizes:
            data = generated(*parse_size(size))
            for row in options.rows:
                training = TrainingConfig(local_epochs=options.epochs)
                spec = RunSpec(dataset=data.name, row=row, training=training)
                for engine in ["batched", "sequential"] if options.compare else ["batched"]:
                    execution = ExecutionConfig(
                        engine=engine,
                        device=options.device,
                        memory_budget=int(options.memory_budget_gb * 2**30),
                    )
                    rounds = options.rounds if engine == "batched" else 0
                    results.append(measure(spec, data, execution, rounds, floor=engine == "batched"))
                    if is_main:
                        print(f"measured {row} on {size} ({engine}): {results[-1].round_s:.3f} s a round", flush=True)
                if options.compare and is_main:
                    print(f"batched is {results[-1].round_s / results[-2].round_s:.0f} times as fast as sequential")
    except FedVLRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not is_main:
        return 0
    print(show(results))
    print("cores: processes x threads. s/round and floor of all of them together; phases of the first process.")
    if options.json is not None:
        options.json.write_text(json.dumps([r.as_dict() for r in results], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
