"""The one place for the numbers of the profiles: rounds, participation, learning rates, per data set and row.

A rule is `(data set pattern, row pattern, settings)`; patterns are those of a shell (`*`, `FedAvg*`, `*+ours`). For
a run all matching rules are applied from top to bottom, the later over the earlier. Settings are fields of
`TrainingConfig` or `ModelConfig`; `params` holds the row's own parameters. Floors take no settings.
Imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Mapping

Rule = tuple[str, str, Mapping[str, object]]

COMMON: tuple[Rule, ...] = (
    ("*", "*", {"client_lr": 0.01, "server_lr": 0.003, "server_lr_id": 0.03}),
)  # fmt: skip

SMOKE: tuple[Rule, ...] = (
    *COMMON,
    ("*", "*", {"rounds": 5, "local_epochs": 2}),
)  # fmt: skip

# Quick has to show every row on ml-100k, twice, within five minutes on two cores: rows whose local step has a closed
# form train all clients each round; FedNCF, which has none, one in twelve.
QUICK: tuple[Rule, ...] = (
    ("*", "*", {"client_lr": 0.02, "server_lr": 0.005, "server_lr_id": 0.05, "rounds": 24, "eval_every": 3}),
    ("*", "*+ours", {"rounds": 18}),
    ("*", "FedNCF*", {"participation": 0.08, "rounds": 16, "eval_every": 8}),
    ("*", "FedNCF+ours", {"rounds": 12, "eval_every": 6}),
    *(
        ("*", row, {"rounds": 8, "eval_every": 2, "params": {"learning_rate": 0.005, "train_batch_size": 4096}})
        for row in ("VBPR", "BM3", "PGL")
    ),
    ("*", "MGCN", {"rounds": 4, "eval_every": 1, "params": {"learning_rate": 0.005, "train_batch_size": 1024}}),
    *(("ml", f"{backbone}*", {"rounds": 30}) for backbone in ("FedAvg", "FCF", "FedNCF", "PFedRec", "FedRAP")),
    *(
        (small, "*", {"rounds": 60, "eval_every": 2, "participation": 1.0, "client_lr": 0.01, "server_lr_id": 0.03})
        for small in ("ku", "beauty", "planted")
    ),
)

# Federated runs may stay at the level of popularity for more than 20 rounds before they learn; with a patience of 20 up
# to four of five seeds of a cell on KU stopped there. So they are not stopped early.
PAPER: tuple[Rule, ...] = (
    *COMMON,
    ("*", "*", {"rounds": 200, "patience": 20}),
    *(("*", f"{backbone}*", {"patience": 200}) for backbone in ("FedAvg", "FCF", "FedNCF", "PFedRec", "FedRAP")),
)  # fmt: skip

# How the paper profile searches: `method` grid or tpe, `trials` (of tpe), `seeds` of the chosen point, `priority`
# (0 first). The cells that decide the paper's claims come first, with the full grid and five seeds.
PAPER_SEARCH: tuple[Rule, ...] = (
    ("*", "*", {"method": "tpe", "trials": 8, "seeds": 3, "priority": 1}),
    *(
        ("*", row, {"method": "grid", "seeds": 5, "priority": 0})
        for backbone in ("FedAvg", "FCF", "FedRAP")
        for row in (backbone, f"{backbone}+MLP", f"{backbone}+ours")
    ),
    *(("*", row, {"method": "grid", "seeds": 5, "priority": 0}) for row in ("VBPR", "BM3", "MGCN", "PGL")),
)
