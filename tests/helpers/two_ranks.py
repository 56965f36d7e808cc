"""Run by torchrun from test_processes: trains three rounds and writes rank 0's view of the result."""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from helpers.toy import make_toy

from fedvlr_plugin.config import ExecutionConfig, ModelConfig, RunSpec, TrainingConfig
from fedvlr_plugin.federation.ranking import rank_federation
from fedvlr_plugin.federation.simulation import Federation


def result(row: str, backbone: str, fusion: str) -> dict[str, np.ndarray]:
    """Server weights, ranks, router weights and accounts after three rounds."""
    spec = RunSpec(
        dataset="toy",
        row=row,
        seed=1,
        dtype="float64",
        training=TrainingConfig(rounds=3, batch_size=16, local_epochs=2, participation=0.7),
        model=ModelConfig(dim=8, router_hidden=6),
    )
    federation = Federation(spec, backbone, fusion, make_toy(), ExecutionConfig())
    accounts = []
    for number in (1, 2, 3):
        uplink = federation.round(number)
        accounts.append([uplink.loss, uplink.clients, uplink.samples])
    ranks = rank_federation(federation, "test")
    out = {f"server.{name}": value.numpy() for name, value in federation.server.snapshot().items()}
    out |= {"users": ranks.users, "above": ranks.above, "tied": ranks.tied, "accounts": np.array(accounts)}
    weights = federation.router_weights()
    if weights is not None:
        out["router"] = weights
    out["held"] = np.array(federation.problem.histories.n_slots)
    return out


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for row, backbone, fusion in (
        ("FedAvg+ours", "FedAvg", "blfm"),
        ("FedRAP+MLP", "FedRAP", "mlp"),
        ("FedNCF", "FedNCF", "none"),
    ):
        values = result(row, backbone, fusion)
        rank = torch.distributed.get_rank()
        np.savez(folder / f"{row}-{rank}.npz", **values)
    torch.distributed.destroy_process_group()
