"""A stand-in for `fedml.core` with the two base classes and FedML's weighted mean, for tests without FedML."""

import types


class ClientTrainer:
    def __init__(self, model, args):
        self.model, self.args, self.id = model, args, 0

    def set_id(self, trainer_id):
        self.id = trainer_id

    def update_dataset(self, local_train_dataset, local_test_dataset, local_sample_number):
        self.local_train_dataset = local_train_dataset

    def on_before_local_training(self, train_data, device, args):
        pass

    def on_after_local_training(self, train_data, device, args):
        pass


class ServerAggregator:
    def __init__(self, model, args):
        self.model, self.args = model, args

    def on_before_aggregation(self, raw):
        return raw, list(range(len(raw)))

    def aggregate(self, raw):
        total = sum(weight for weight, _ in raw)
        mean = raw[0][1]
        for name in mean:
            mean[name] = sum(upload[name] * (weight / total) for weight, upload in raw)
        return mean

    def on_after_aggregation(self, aggregated):
        return aggregated

    def test_all(self, train, test, device, args):
        pass


def modules():
    fedml, core = types.ModuleType("fedml"), types.ModuleType("fedml.core")
    core.ClientTrainer, core.ServerAggregator = ClientTrainer, ServerAggregator
    fedml.core = core
    return {"fedml": fedml, "fedml.core": core}
