"""Suites that a package outside inherits to test what it adds; needs pytest.

    from fedvlr_plugin.testing import BackboneTests

    class TestMine(BackboneTests):
        backbone = "Mine"

`BackboneTests`, `ViewTests`, `RuleTests` and `SourceTests` look their subject up by name, as a run does, so that the
package's entry points are tested, too.
"""

from fedvlr_plugin.testing.backbones import BackboneTests
from fedvlr_plugin.testing.rules import RuleTests
from fedvlr_plugin.testing.sources import SourceTests
from fedvlr_plugin.testing.toy import make_toy, make_uploads, toy_federation, toy_spec
from fedvlr_plugin.testing.views import ViewTests

__all__ = [
    "BackboneTests",
    "RuleTests",
    "SourceTests",
    "ViewTests",
    "make_toy",
    "make_uploads",
    "toy_federation",
    "toy_spec",
]
