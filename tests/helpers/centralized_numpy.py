"""A batch of the toy, and the steps of the centralized models in plain numpy."""

import numpy as np
import torch

USERS, POSITIVES, NEGATIVES = torch.tensor([0, 2, 3, 0]), torch.tensor([1, 3, 4, 0]), torch.tensor([2, 5, 0, 5])
BATCH = (USERS, POSITIVES, NEGATIVES)


def arrays(model):
    return {name: value.detach().double().numpy() for name, value in model.named_parameters()}


def linear(p, name, x):
    return x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def nce(a, b, tau):
    logits = (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T / tau
    return -np.mean(np.diag(logits) - np.log(np.exp(logits).sum(axis=1)))


def nearest(x, k):
    unit = x / np.linalg.norm(x, axis=1)[:, None]
    cosines = unit @ unit.T
    return cosines, np.argsort(-cosines, axis=1)[:, :k]


def ranking(u, i, j):
    return -np.mean(np.log(sigmoid((u * i).sum(1) - (u * j).sum(1))))
