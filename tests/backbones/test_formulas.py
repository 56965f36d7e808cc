"""Each backbone's score, penalty and declarations against the formulas of section 5, worked out with numpy."""

import math

import numpy as np
import pytest
import torch

from fedvlr_plugin.backbones import BACKBONES, BackboneParams, FedRAP
from fedvlr_plugin.backbones.fedrap import FedRAPParams
from fedvlr_plugin.errors import ConfigError

D, S = 8, 5
SOURCE = np.random.default_rng(0)
VALUES = {name: SOURCE.normal(size=(S, D)) for name in ("e", "own", "i_mlp", "i_mf")}
PRIVATE = {name: SOURCE.normal(size=D) for name in ("theta", "u_mlp", "u_mf")} | {"b": np.array([0.3])}


class View:
    """A `ClientView` of one client over plain numbers."""

    def __init__(self, layers=None, has_item=True):
        self.layers, self.has_item = layers or {}, has_item

    def private(self, name):
        return torch.from_numpy(PRIVATE[name])[None, None]

    def item(self):
        return torch.from_numpy(VALUES["e"])[None]

    def table(self, name):
        return torch.from_numpy(VALUES[name])[None]

    def own(self):
        return torch.from_numpy(VALUES["own"])[None]

    def linear(self, name, x):
        weight, bias = self.layers[name]
        return x @ torch.from_numpy(weight).T + torch.from_numpy(bias)

    def joined(self, name, user, table):
        rows = self.table(table) + (self.item() if self.has_item else 0)
        return self.linear(name, torch.cat([user.expand(1, S, -1), rows], dim=-1))

    def matched(self, name, hidden, user, rows):
        return self.linear(name, torch.cat([hidden, user * rows], dim=-1))[..., 0]

    def mean(self, values):
        return values.mean(dim=(1, 2))


def make(name, dim=D):
    kind = BACKBONES.get(name)
    return kind(kind.Params(), dim, dim)


@pytest.mark.parametrize("name", ["FedAvg", "FCF"])
def test_linear_heads(name):
    expected = VALUES["e"] @ PRIVATE["theta"] + 0.3
    assert np.allclose(make(name).logits(View())[0].numpy(), expected)


@pytest.mark.parametrize("name", ["PFedRec", "FedRAP"])
def test_private_item_rows_are_added(name):
    expected = (VALUES["e"] + VALUES["own"]) @ PRIVATE["theta"] + 0.3
    assert np.allclose(make(name).logits(View())[0].numpy(), expected)


@pytest.mark.parametrize("fused", [False, True])
def test_fedncf(fused):
    backbone = make("FedNCF")
    layers = {n: (SOURCE.normal(size=(o, i)), SOURCE.normal(size=o)) for n, (i, o) in backbone.shared_layers().items()}
    assert {n: w.shape for n, (w, _) in layers.items()} == {
        "tower1": (D, 2 * D),
        "tower2": (D // 2, D),
        "tower3": (D // 4, D // 2),
        "scorer": (1, D // 4 + D),
    }
    expected = []
    for s in range(S):
        i_mlp = VALUES["i_mlp"][s] + (VALUES["e"][s] if fused else 0)
        i_mf = VALUES["i_mf"][s] + (VALUES["e"][s] if fused else 0)
        hidden = np.concatenate([PRIVATE["u_mlp"], i_mlp])
        for name in ("tower1", "tower2", "tower3"):
            hidden = np.maximum(layers[name][0] @ hidden + layers[name][1], 0)
        weight, bias = layers["scorer"]
        expected.append((weight @ np.concatenate([hidden, PRIVATE["u_mf"] * i_mf]) + bias)[0])
    assert np.allclose(backbone.logits(View(layers, fused))[0].numpy(), expected)


def test_fedncf_has_the_papers_number_of_shared_weights():
    assert sum(i * o + o for i, o in make("FedNCF", 64).shared_layers().values()) == 10_945
    with pytest.raises(ConfigError, match="multiple of 4, got 10"):
        make("FedNCF", 10)


@pytest.mark.parametrize("round", [1, 7, 40])
def test_fedraps_penalty(round):
    backbone = FedRAP(FedRAPParams(lam=0.2, mu=0.5, cap=4.0), D, D)
    ramp = math.tanh(round / 10)
    apart = (VALUES["own"] - VALUES["e"]) ** 2
    expected = 0.5 * ramp * np.abs(VALUES["e"]).mean() - 0.2 * ramp * np.minimum(apart, 4.0).mean()
    assert apart.max() > 4.0, "the cap must act in this test"
    assert backbone.penalty(View(), round)[0].item() == pytest.approx(expected)


def test_declarations_follow_the_table_of_section_5():
    weights = {name: BACKBONES.get(name).client_weight for name in BACKBONES}
    assert weights == {"FedAvg": "samples", "FCF": "equal", "FedNCF": "equal", "PFedRec": "equal", "FedRAP": "equal"}
    rows = {name: BACKBONES.get(name).own_rows for name in BACKBONES}
    assert rows == {"FedAvg": "none", "FCF": "none", "FedNCF": "none", "PFedRec": "fresh", "FedRAP": "persistent"}
    forgotten = {name: sorted(BACKBONES.get(name).forgets) for name in BACKBONES}
    assert forgotten["FedNCF"] == [] and forgotten["FedAvg"] == ["router"]
    assert all(forgotten[name] == ["head", "own", "router"] for name in ("PFedRec", "FedRAP"))
    assert forgotten["FCF"] == ["head", "router"]


def test_parameters_are_frozen_and_checked():
    with pytest.raises(ValueError, match="frozen"):
        FedRAPParams().lam = 1.0
    with pytest.raises(ValueError):
        BackboneParams(depth=3)
