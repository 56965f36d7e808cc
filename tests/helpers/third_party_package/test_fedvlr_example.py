"""The suites that fedvlr-plugin ships, for what this package adds."""

from fedvlr_plugin.testing import BackboneTests, RuleTests, SourceTests, ViewTests


class TestMetricFed(BackboneTests):
    backbone = "MetricFed"


class TestSoftMaximum(ViewTests):
    view = "soft-maximum"


class TestInverseNorm(RuleTests):
    rule = "inverse_norm"


class TestInverseSquare(RuleTests):
    rule = "inverse_norm"
    settings = {"params": {"power": 2.0}}


class TestCornerShop(SourceTests):
    source = "corner-shop"
