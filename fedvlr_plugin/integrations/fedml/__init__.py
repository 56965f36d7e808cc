"""FedML as a host: `FedVLRClientTrainer`, `FedVLRServerAggregator`, `load_data`, `Driver`, `Selection`.

Names are imported on first use: importing FedML takes seconds, and it is an optional extra.
"""

from __future__ import annotations

from importlib import import_module

_WHERE = {
    "FedVLRClientTrainer": "trainer",
    "FedVLRServerAggregator": "aggregator",
    "Driver": "driver",
    "Selection": "model_selection",
    "load_data": "task",
    "load_model": "task",
    "init_offline": "runtime",
    "files_in": "runtime",
}
__all__ = [
    "Driver",
    "FedVLRClientTrainer",
    "FedVLRServerAggregator",
    "Selection",
    "files_in",
    "init_offline",
    "load_data",
    "load_model",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    if _WHERE[name] in ("trainer", "aggregator", "driver"):  # these subclass FedML's classes
        from fedvlr_plugin.integrations.fedml.runtime import need_fedml

        need_fedml()
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
