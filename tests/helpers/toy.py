"""The toy data of the shipped suites, for the other tests."""

from fedvlr_plugin.testing.toy import SIZES, WIDTHS, make_toy

__all__ = ["SIZES", "WIDTHS", "make_toy"]
