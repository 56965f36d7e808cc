"""A FedML main.py with FedVLR's trainer and aggregator:  python main.py --cf single_process.yaml

With a cross-silo configuration start one process per rank:  python main.py --cf F --rank 0 --role server  (first), then
--rank 1 --role client, and so on. `fedml.init()` works in place of `init_offline()`, but sends a request to FedML.
FedML writes into HOME and the temporary folder; `files_in` puts both into a folder of the run.
"""

from fedvlr_plugin.integrations.fedml import (
    Driver,
    FedVLRClientTrainer,
    FedVLRServerAggregator,
    Selection,
    files_in,
    init_offline,
    load_data,
    load_model,
)


def main() -> None:
    """One process: all users, or one rank."""
    args = init_offline()
    import fedml

    device = fedml.device.get_device(args)
    dataset, n_items = load_data(args)
    model = load_model(args)
    trainer, aggregator = FedVLRClientTrainer(model, args), FedVLRServerAggregator(model, args)
    one_process = args.training_type == "simulation"  # FedML's own simulator would drop trainer and aggregator
    selection = Selection(trainer, aggregator, print) if one_process else None  # across silos nobody sees all scores
    flow = Driver(args, dataset, trainer, aggregator, selection) if one_process else None
    fedml.FedMLRunner(args, device, dataset, model, trainer, aggregator, algorithm_flow=flow).run()
    if selection is not None:
        print(selection.line())


if __name__ == "__main__":
    with files_in("fedml_run"):
        main()
