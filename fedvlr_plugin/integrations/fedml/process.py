"""Run one process of a cross-silo run, like the main.py of a FedML user: `python -m ...process --cf F --rank K --role R`.

The rank is FedML's: 0 is the server. FedML runs the whole training inside `FedMLRunner(...)`.
"""

from __future__ import annotations

import sys

from fedvlr_plugin.errors import FedVLRError
from fedvlr_plugin.integrations.fedml.options import text
from fedvlr_plugin.integrations.fedml.runtime import init_offline, kept_process_state, need_fedml
from fedvlr_plugin.integrations.fedml.subprocesses import follow_parent
from fedvlr_plugin.integrations.fedml.task import load_data, load_model


def main() -> int:
    """Run one server or client to its end, and return the exit status."""
    follow_parent()
    fedml = need_fedml()
    args = init_offline()
    from fedvlr_plugin.integrations.fedml.aggregator import FedVLRServerAggregator
    from fedvlr_plugin.integrations.fedml.trainer import FedVLRClientTrainer

    dataset, _ = load_data(args)
    model, device = load_model(args), fedml.device.get_device(args)
    trainer = aggregator = None
    if text(args, "role", "client") == "server":
        aggregator = FedVLRServerAggregator(model, args)
        aggregator.tell = _say
        if text(args, "backend") == "GRPC":
            from fedvlr_plugin.integrations.fedml.watchdog import watch_clients

            watch_clients(args, aggregator)
    else:
        trainer = FedVLRClientTrainer(model, args)
    with kept_process_state():
        fedml.FedMLRunner(args, device, dataset, model, trainer, aggregator).run()
    if aggregator is not None:
        _say(f"rounds {aggregator.round - 1}, left out {dict(aggregator.left_out)}")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    try:
        code = main()
    except FedVLRError as problem:
        print(f"error: {problem}", file=sys.stderr)
        code = 2
    raise SystemExit(code)
