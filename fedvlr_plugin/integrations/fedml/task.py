"""Make the specification, the data and the clients of a run from a FedML configuration.

In one process, each FedML client is one user. Across silos, a client process holds several users and sends their
weighted mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from fedvlr_plugin.backbones.base import make_backbone
from fedvlr_plugin.config import PROTOCOLS, RunSpec
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.data.synthetic import generated
from fedvlr_plugin.engines.base import LocalProblem, local_problem
from fedvlr_plugin.errors import ConfigError, unknown_name
from fedvlr_plugin.federation.cohort import draw_cohort
from fedvlr_plugin.federation.server import Server
from fedvlr_plugin.fusion.views import Fusion, make_fusion
from fedvlr_plugin.integrations.fedml.options import check_options, is_cross_silo, option, text, whole

TASK = "_fedvlr_task"
SAME = {
    "epochs": "local_epochs",
    "batch_size": "batch_size",
    "learning_rate": "client_lr",
    "client_optimizer": "client_optimizer",
}


@dataclass(frozen=True)
class ClientData:
    """The data of one FedML client, which FedML passes to `train`.

    FedML's plain single-process simulator ignores trainer and aggregator and iterates over this object: it raises then.

    Attributes:
        client: number of the FedML client, from 0.
        users: ids of its users.
        samples: number of their training items.
    """

    client: int
    users: tuple[int, ...]
    samples: int

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Iterator[object]:
        raise ConfigError(
            "FedML's plain simulator (backend sp) ignores the FedVLR trainer and aggregator and trains a model of its "
            "own; give FedMLRunner(..., algorithm_flow=Driver(args, dataset, trainer, aggregator)), or use cross_silo"
        )


@dataclass(repr=False)
class Task:
    """A run: specification, data and clients.

    Attributes:
        spec: the specification.
        backbone: name.
        fusion: kind of fusion.
        data: the prepared data set.
        clients: data of the FedML clients.
    """

    spec: RunSpec
    backbone: str
    fusion: Fusion
    data: PreparedData
    clients: list[ClientData] = field(default_factory=list)

    @property
    def run(self) -> str:
        """Hash of the specification without the number of rounds; it identifies the files of the run."""
        one = self.spec.training.model_copy(update={"rounds": 1})
        return self.spec.model_copy(update={"training": one}).spec_hash

    def server(self, device: torch.device) -> Server:
        """Create the server with the shared model and its optimiser."""
        settings = make_fusion(self.fusion, self.spec.model)
        backbone = make_backbone(self.backbone, settings, self.spec.model)
        modalities = self.spec.model.modalities
        features = self.data.features if modalities is None else self.data.features.select(modalities)
        training, problem = self.spec.training, self.problem(device, self.clients[0].users)
        n_items = self.data.interactions.n_items
        return Server(n_items, features, settings, backbone, training, self.spec.seed, problem.dtype, device)

    def problem(self, device: torch.device, users: tuple[int, ...] | None) -> LocalProblem:
        """Create the local problem of some users; None for all."""
        settings = make_fusion(self.fusion, self.spec.model)
        backbone = make_backbone(self.backbone, settings, self.spec.model)
        chosen = None if users is None else torch.tensor(users, dtype=torch.int64)
        return local_problem(self.spec, backbone, settings, self.data.interactions, device, chosen)

    def cohort(self, round: int) -> set[int]:
        """Draw the user ids of a round; every process draws the same ones."""
        n_users = self.data.interactions.n_users
        return set(draw_cohort(self.spec.seed, round, n_users, self.spec.training.participation).tolist())


def task_of(args: object) -> Task:
    """Return the task of a FedML configuration; it is built once for each arguments object."""
    task = getattr(args, TASK, None)
    if not isinstance(task, Task):
        task = _make(args)
        setattr(args, TASK, task)
    return task


def use_data(args: object, data: PreparedData) -> Task:
    """Build the task of a FedML configuration with given data, in place of the data set that `dataset` names."""
    task = _make(args, data)
    setattr(args, TASK, task)
    return task


def load_data(args: object) -> tuple[list[object], int]:
    """Return FedML's dataset list of eight, and the number of classes (items).

    Raises:
        ConfigError: an option that FedML ignores, an unknown setting, or a number of clients that does not fit.
    """
    task = task_of(args)
    silos = {silo.client: silo for silo in task.clients}
    sizes = {silo.client: silo.samples for silo in task.clients}
    total = sum(sizes.values())
    n_items = task.data.interactions.n_items
    return [total, total, None, None, sizes, silos, dict(silos), n_items], n_items


def load_model(args: object) -> torch.nn.Module:
    """Return an empty torch module, which FedML requires; the weights are in the aggregator and the clients."""
    task_of(args)
    return torch.nn.Module()


def _make(args: object, data: PreparedData | None = None) -> Task:
    from fedvlr_plugin.experiment.rows import parse_row

    check_options(args)
    row = parse_row(text(args, "fedvlr_row", "FedAvg+ours"))
    if row.backbone is None or row.fusion is None:
        raise ConfigError(f"fedvlr_row: '{row.name}' is not federated; try FedAvg+ours")
    data = data or _open(args)
    spec = _spec(args, row.name, data)
    return Task(spec, row.backbone, row.fusion, data, _clients(args, data))


def _same(one: object, other: object) -> bool:
    """Whether two options say the same; YAML reads `1e-3` as text, which is the number all the same."""
    try:
        return float(str(one)) == float(str(other))
    except ValueError:
        return one == other


def _spec(args: object, row: str, data: PreparedData) -> RunSpec:
    from fedvlr_plugin.config import build_config
    from fedvlr_plugin.experiment.profiles import split_settings

    given = option(args, "fedvlr_settings", {})
    if not isinstance(given, Mapping):
        raise ConfigError(f"fedvlr_settings: names with values are needed, got {given!r}")
    settings: dict[str, object] = dict(given)
    fedml_values = {ours: option(args, name) for name, ours in SAME.items()}
    fedml_values["rounds"] = option(args, "fedvlr_rounds", option(args, "comm_round"))
    if not is_cross_silo(args) and option(args, "client_num_per_round") is not None:
        fedml_values["participation"] = whole(args, "client_num_per_round", 1) / data.interactions.n_users
    for name, value in fedml_values.items():
        if value is not None and not _same(settings.setdefault(name, value), value):
            raise ConfigError(f"'{name}' is {settings[name]!r} in fedvlr_settings and {value!r} in FedML's own options")
    training, model = split_settings(settings)
    protocol = text(args, "fedvlr_protocol", "corrected")
    if protocol not in PROTOCOLS:
        raise unknown_name("fedvlr_protocol", protocol, PROTOCOLS)
    seed, dtype = whole(args, "random_seed", 0), text(args, "fedvlr_dtype", "float32")
    values = {"dataset": data.name, "row": row, "seed": seed, "dtype": dtype, "protocol": PROTOCOLS[protocol]}
    return build_config(RunSpec, {**values, "training": training, "model": model})


def _open(args: object) -> PreparedData:
    """Open the option `dataset`: a name of the catalogue, or `generated:USERSxITEMSxINTERACTIONS`."""
    name = text(args, "dataset", "ml-100k")
    if name.startswith("generated:"):
        numbers = name.removeprefix("generated:").split("x")
        if len(numbers) != 3 or not all(number.isdigit() for number in numbers):
            raise ConfigError(f"dataset '{name}': generated:USERSxITEMSxINTERACTIONS is needed, e.g. generated:6x40x90")
        return generated(int(numbers[0]), int(numbers[1]), int(numbers[2]), width=32)
    from fedvlr_plugin.data.recbole.loader import prepare

    root = option(args, "fedvlr_data_root")
    return prepare(name, None if root is None else Path(str(root)))


def _clients(args: object, data: PreparedData) -> list[ClientData]:
    """Make one client for each user, or, across silos, `worker_num` ranges of users of nearly equal length."""
    n_users, sizes = data.interactions.n_users, data.interactions.train_sizes
    parts = n_users
    if is_cross_silo(args):
        parts = whole(args, "worker_num", 0)
        if not 1 <= parts <= n_users:
            raise ConfigError(f"worker_num: 1 to {n_users} (the users of '{data.name}') is needed, got {parts}")
    elif whole(args, "client_num_in_total", n_users) != n_users:
        raise ConfigError(
            f"client_num_in_total is {option(args, 'client_num_in_total')} and '{data.name}' has {n_users} users; "
            f"leave it empty or write {n_users}"
        )
    ranges = np.array_split(np.arange(n_users), parts)
    return [ClientData(k, tuple(users.tolist()), int(sizes[users].sum())) for k, users in enumerate(ranges)]
