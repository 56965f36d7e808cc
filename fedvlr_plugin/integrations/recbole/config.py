"""The former place of `FedVLRConfig`, for one release: RecBole's checkpoints pickle their configuration by this path."""

from fedvlr_plugin.data.recbole.config import FedVLRConfig

__all__ = ["FedVLRConfig"]
