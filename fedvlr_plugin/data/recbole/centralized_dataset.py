"""The data set class of VBPR, BM3, MGCN and PGL under RecBole's quick start: ours, or RecBole's own where it splits."""

from __future__ import annotations

from logging import getLogger
from typing import Any

from fedvlr_plugin.data.recbole.config import given_keys
from fedvlr_plugin.data.recbole.dataset import LEAVE_ONE_OUT, FedVLRDataset
from fedvlr_plugin.errors import ConfigError

from recbole.config import Config  # isort: skip
from recbole.data.dataset import Dataset  # isort: skip


class CentralizedDataset(FedVLRDataset):
    """A `FedVLRDataset`; of ratio splits and `benchmark_filename` RecBole's own Dataset, which does them.

    RecBole's Dataset reads `data_path/<name>/<name>.inter`; item features come from `preload_weight`.

    Raises:
        ConfigError: `data_root` or `keep_duplicates` with a split that is RecBole's.
    """

    def __new__(cls, config: Config | None = None) -> Any:
        """Without a configuration (copies, pickles) an instance of this class."""
        if config is None or not _split_is_theirs(config):
            return super().__new__(cls)
        given = given_keys(config)
        for key, instead in (("data_root", "give data_path"), ("keep_duplicates", "give rm_dup_inter")):
            if given.get(key) is not None and given[key] is not False:
                raise ConfigError(
                    f"{key} is read by our data set, which splits leave-one-out in time; this split is done by RecBole's own "
                    f"Dataset: {instead}"
                )
        getLogger().info("the split is RecBole's, so its own Dataset is used; item features come from preload_weight")
        return Dataset(config)


def _split_is_theirs(config: Config) -> bool:
    given = given_keys(config)
    if given.get("benchmark_filename") is not None:
        return True
    args = config["eval_args"]
    return "eval_args" in given and (args["split"] != LEAVE_ONE_OUT or args["order"] != "TO")
