"""The FedML pair in one process on the toy data, and the same run by the engine beside it."""

import torch
from helpers.toy import make_toy

from fedvlr_plugin.config import ExecutionConfig
from fedvlr_plugin.federation.simulation import Federation
from fedvlr_plugin.integrations.fedml.task import load_data, load_model, use_data


def start(host, args, data=None):
    use_data(args, data or make_toy())
    dataset, _ = load_data(args)
    model = load_model(args)
    trainer, aggregator = host.Trainer(model, args), host.Aggregator(model, args)
    return host.Driver(args, dataset, trainer, aggregator)


def reference(driver, engine="sequential"):
    task = driver.aggregator.task
    federation = Federation(task.spec, task.backbone, task.fusion, task.data, ExecutionConfig(engine=engine))
    for number in range(1, task.spec.training.rounds + 1):
        federation.round(number)
    return federation


def assert_same_model(driver, federation, tolerance=1e-9):
    other = federation.server.snapshot()
    for name, value in driver.aggregator.server.snapshot().items():
        assert torch.allclose(value, other[name], atol=tolerance, rtol=0), name
    assert driver.aggregator.round == federation.spec.training.rounds + 1
