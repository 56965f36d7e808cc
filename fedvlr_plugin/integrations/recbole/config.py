"""An alias of `FedVLRConfig` for one release: checkpoints of RecBole pickle their configuration by this path."""

from fedvlr_plugin.data.recbole.config import FedVLRConfig

__all__ = ["FedVLRConfig"]
