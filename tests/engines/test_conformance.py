"""The suites that the package ships, for every backbone, view, rule and data source that is registered.

What an installed package adds is picked up by name, as the project's own is.
"""

from __future__ import annotations

import re

import numpy as np

from fedvlr_plugin.aggregation.robust import RULES
from fedvlr_plugin.backbones import BACKBONES
from fedvlr_plugin.data.catalogue import SOURCES
from fedvlr_plugin.engines.sequential import SequentialEngine
from fedvlr_plugin.fusion.operators import VIEWS
from fedvlr_plugin.testing import BackboneTests, RuleTests, SourceTests, ViewTests, toy_federation
from fedvlr_plugin.testing.toy import train

SUITES = (
    (BackboneTests, "backbone", BACKBONES.names()),
    (ViewTests, "view", [*VIEWS.names()]),
    (RuleTests, "rule", RULES.names()),
    (
        SourceTests,
        "source",
        [name for name in SOURCES if name != "ml-100k"],
    ),  # RecBole reads the rows of ml-100k itself
)
for suite, attribute, names in SUITES:
    for name in names:
        label = f"Test{attribute.title()}{re.sub('[^0-9A-Za-z]', '_', name)}"
        globals()[label] = type(label, (suite,), {attribute: name, "__module__": __name__})


def test_router_weights_are_a_distribution_and_agree() -> None:
    changes = {"router_lr": 0.05}
    slow = toy_federation("FCF", "blfm", "sequential", changes=changes)
    fast = toy_federation("FCF", "blfm", changes=changes)
    train(slow), train(fast)
    weights = fast.router_weights()
    assert weights.shape == (9, 3) and np.allclose(weights.sum(1), 1.0)
    assert np.allclose(slow.router_weights(), weights, atol=1e-9)
    assert isinstance(slow.engine, SequentialEngine)
