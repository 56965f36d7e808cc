"""`fedvlr fedml run`: the one-process way from a configuration file. Imports the pair late."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

from fedvlr_plugin.integrations.fedml.launch import read_sections, set_options
from fedvlr_plugin.integrations.fedml.task import load_data, load_model


def run_single(config: Path, folder: Path, overrides: Mapping[str, object], tell: Callable[[str], None]) -> None:
    """All users in this process, one line per round.

    Raises:
        ConfigError: the configuration cannot be read, or asks for something that FedML ignores.
    """
    from fedvlr_plugin.integrations.fedml.cli import keep_home
    from fedvlr_plugin.integrations.fedml.host import init_offline, kept_random_state, need_fedml

    sections = read_sections(config)
    set_options(sections, overrides)
    keep_home(folder)
    fedml = need_fedml()
    flat = {name: value for section in sections.values() for name, value in section.items()}
    flat = {"rank": 0, "role": "server", "run_id": "fedvlr"} | flat
    args = init_offline(SimpleNamespace(**flat))
    from fedvlr_plugin.integrations.fedml.aggregator import FedVLRServerAggregator
    from fedvlr_plugin.integrations.fedml.driver import Driver, RoundLine
    from fedvlr_plugin.integrations.fedml.trainer import FedVLRClientTrainer

    dataset, _ = load_data(args)
    model = load_model(args)
    trainer, aggregator = FedVLRClientTrainer(model, args), FedVLRServerAggregator(model, args)

    def show(line: RoundLine) -> None:
        left_out = f", left out {line.left_out}" if line.left_out else ""
        tell(f"round {line.round}: loss {line.loss:.4f}, {line.clients} clients, {line.seconds:.2f} s{left_out}")

    driver = Driver(args, dataset, trainer, aggregator, show)
    with kept_random_state():
        fedml.FedMLRunner(args, None, dataset, model, trainer, aggregator, algorithm_flow=driver).run()
