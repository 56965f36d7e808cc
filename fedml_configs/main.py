"""A FedML main.py with FedVLR's trainer and aggregator:  python main.py --cf single_process.yaml

With a cross-silo configuration start one process per rank:  python main.py --cf F --rank 0 --role server  (first), then
--rank 1 --role client, and so on. `fedml.init()` works in place of `init_offline()`, but sends a request to FedML.
"""

from fedvlr_plugin.integrations.fedml import (
    Driver,
    FedVLRClientTrainer,
    FedVLRServerAggregator,
    init_offline,
    load_data,
    load_model,
)

if __name__ == "__main__":
    args = init_offline()
    import fedml

    device = fedml.device.get_device(args)
    dataset, n_items = load_data(args)
    model = load_model(args)
    trainer, aggregator = FedVLRClientTrainer(model, args), FedVLRServerAggregator(model, args)
    one_process = args.training_type == "simulation"  # FedML's own simulator would drop trainer and aggregator
    flow = Driver(args, dataset, trainer, aggregator, print) if one_process else None
    fedml.FedMLRunner(args, device, dataset, model, trainer, aggregator, algorithm_flow=flow).run()
