"""On the planted set the learned router weights follow the planted ones, and +ours beats +MLP.

Views are one modality each, so a router weight means what the planted weight means. At d = 8 one mixed view cannot
carry all twelve latent directions, three views can: this is where routing should pay.
"""

import numpy as np
import pytest
from scipy.stats import spearmanr

from fedvlr_plugin.config import ModelConfig, RunSpec, TrainingConfig
from fedvlr_plugin.data.recbole.loader import prepare
from fedvlr_plugin.data.synthetic import SIGNALS, PlantedSource
from fedvlr_plugin.evaluation.metrics import summary
from fedvlr_plugin.experiment.run import run

VIEWS = ("only:vision", "only:text", "only:id")


def trained(row, views=VIEWS):
    training = TrainingConfig(rounds=60, client_lr=0.03, router_lr=0.001)
    spec = RunSpec(dataset="planted", row=row, training=training, model=ModelConfig(dim=8, views=views))
    return run(spec, data=prepare("planted"), outputs=("router_weights",) if "ours" in row else ())


@pytest.fixture(scope="module")
def ours():
    return trained("FedAvg+ours")


def test_router_weights_follow_the_planted_ones(ours):
    planted = PlantedSource().weights_of(prepare("planted").interactions.user_tokens)
    learned = ours.outputs["router_weights"]
    found = [spearmanr(learned[:, k], planted[:, k]).statistic for k in range(3)]
    print("Spearman of learned and planted weights:", dict(zip(SIGNALS, np.round(found, 2), strict=True)))
    assert min(found) >= 0.5
    shuffled = np.random.default_rng(0).permutation(planted)
    assert max(abs(spearmanr(learned[:, k], shuffled[:, k]).statistic) for k in range(3)) < 0.3


@pytest.mark.parametrize("views", [VIEWS, ("sum", "mlp", "gate")])
def test_ours_beats_mlp(ours, views):
    mlp = summary(trained("FedAvg+MLP").test)["ndcg@50"]
    routed = summary((ours if views == VIEWS else trained("FedAvg+ours", views)).test)["ndcg@50"]
    print(f"planted, d = 8, test NDCG@50: +MLP {mlp:.1f}, +ours with {', '.join(views)} {routed:.1f}")
    assert routed > mlp + 2.0
