"""RecBole as a host: `FedVLRConfig`, `FedVLRDataset`, `open_dataset`, `prepare`, `config_path`.

Names are imported on first use: importing RecBole takes seconds. `register` and `model` are modules of this package.
"""

from __future__ import annotations

from importlib import import_module

_WHERE = {
    "FedVLRConfig": "fedvlr_plugin.data.recbole.config",
    "FedVLRDataset": "fedvlr_plugin.data.recbole.dataset",
    "open_dataset": "fedvlr_plugin.data.recbole.loader",
    "prepare": "fedvlr_plugin.data.recbole.loader",
    "config_path": "fedvlr_plugin.config_files",
}
__all__ = ["FedVLRConfig", "FedVLRDataset", "config_path", "open_dataset", "prepare"]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(_WHERE[name]), name)
