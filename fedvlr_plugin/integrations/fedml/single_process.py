"""`fedvlr fedml run`: run all users of a FedML configuration in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

from fedvlr_plugin.evaluation.round_record import RoundRecord
from fedvlr_plugin.integrations.fedml.launcher import read_sections, set_options
from fedvlr_plugin.integrations.fedml.task import load_data, load_model


def run_single(config: Path, folder: Path, overrides: Mapping[str, object], tell: Callable[[str], None]) -> None:
    """Run all rounds of a configuration in this process.

    Args:
        config: the configuration file.
        folder: for FedML's files.
        overrides: values by option name.
        tell: called with one line for each round, and one with the metrics of the selected round.

    Raises:
        ConfigError: the configuration cannot be read, or has an option that FedML ignores.
    """
    from fedvlr_plugin.integrations.fedml.runtime import files_in, kept_process_state

    sections = read_sections(config)
    set_options(sections, overrides)
    flat = {name: value for section in sections.values() for name, value in section.items()}
    with files_in(folder), kept_process_state():
        _run(SimpleNamespace(**({"rank": 0, "role": "server", "run_id": "fedvlr"} | flat)), tell)


def _run(flat: object, tell: Callable[[str], None]) -> None:
    """Run all rounds with FedML's flat arguments."""
    from fedvlr_plugin.integrations.fedml.runtime import init_offline, need_fedml

    fedml = need_fedml()
    args = init_offline(flat)
    from fedvlr_plugin.integrations.fedml.aggregator import FedVLRServerAggregator
    from fedvlr_plugin.integrations.fedml.driver import Driver
    from fedvlr_plugin.integrations.fedml.model_selection import Selection
    from fedvlr_plugin.integrations.fedml.trainer import FedVLRClientTrainer

    dataset, _ = load_data(args)
    model = load_model(args)
    trainer, aggregator = FedVLRClientTrainer(model, args), FedVLRServerAggregator(model, args)

    def show(record: RoundRecord) -> None:
        left_out = f", left out {dict(aggregator.left_out)}" if aggregator.left_out else ""  # over all rounds
        seconds = sum(record.seconds.values())
        tell(f"round {record.round}: loss {record.train_loss:.4f}, {record.clients} clients, {seconds:.2f} s{left_out}")

    selection = Selection(trainer, aggregator, show)
    driver = Driver(args, dataset, trainer, aggregator, selection)
    fedml.FedMLRunner(args, None, dataset, model, trainer, aggregator, algorithm_flow=driver).run()
    tell(selection.line())
