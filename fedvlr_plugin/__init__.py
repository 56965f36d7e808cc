"""FedVLR: federated vision-language recommendation for RecBole and FedML users.

`fedvlr_plugin.run(...)` and `fedvlr_plugin.register()` are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedvlr_plugin.api import run
    from fedvlr_plugin.integrations.recbole.register import register

__version__ = "0.1.0"
__all__ = ["__version__", "register", "run"]
_LAZY = {"run": "fedvlr_plugin.api", "register": "fedvlr_plugin.integrations.recbole.register"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'fedvlr_plugin' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)
