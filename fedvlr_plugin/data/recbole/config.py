"""RecBole's Config without its side effects: own argv, checked keys, no rounding, no environment variables.

RecBole's Config reads the host process's `sys.argv` with top precedence, takes any key in silence, sets
`CUDA_VISIBLE_DEVICES`, and rounds metrics before early stopping. `FedVLRConfig` is that class with those four
mended, and with defaults for leave-one-out evaluation (algorithm.md section 6).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import torch

from fedvlr_plugin.compat import prepare_recbole
from fedvlr_plugin.config import ExecutionConfig, ModelConfig, Protocol, TrainingConfig
from fedvlr_plugin.errors import ConfigError, DataError, did_you_mean

prepare_recbole()

from recbole.config import Config  # noqa: E402

DEFAULTS: Mapping[str, object] = {
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
    "metrics": ["Hit", "NDCG"],
    "topk": [50],
    "valid_metric": "NDCG@50",
    "metric_decimal_place": 12,
    "repeatable": False,
    "eval_batch_size": 2**22,
    "train_neg_sample_args": None,
    "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
    "show_progress": False,
    "save_dataset": False,
    "reproducibility": False,
    "data_root": None,
    "keep_duplicates": False,
}
OWN_KEYS = frozenset(
    {"data_root", "keep_duplicates", "row", "protocol", "encoding"}
    | set(TrainingConfig.model_fields)
    | set(ModelConfig.model_fields)
    | set(Protocol.model_fields)
    | set(ExecutionConfig.model_fields)
)


HOSTS_KEYS = frozenset({"model", "dataset", "nproc", "world_size", "ip", "port", "offset", "local_rank", "device"})


def given_keys(config: Config) -> Mapping[str, object]:
    """What the user gave, by key: `config_dict`, configuration files, RecBole's command line; no defaults."""
    given: Mapping[str, object] = config.external_config_dict
    return given


def known_keys(config: Config) -> frozenset[str]:
    """The keys that RecBole knows for the model and data set of a configuration, with those of its start."""
    groups = {key for group in config.parameters.values() for key in group}
    return frozenset(groups | set(config.internal_config_dict)) | HOSTS_KEYS


def given_root(given: Mapping[str, object]) -> Path | None:
    """The data root that the user gave, as `data_root` or as RecBole's `data_path`.

    Raises:
        ConfigError: both, and they differ.
        DataError: `data_path` is no folder.
    """
    named = {key: Path(str(given[key])) for key in ("data_root", "data_path") if given.get(key) is not None}
    if len(named) == 2 and named["data_root"].resolve() != named["data_path"].resolve():
        raise ConfigError(
            f"data_root is '{named['data_root']}' and data_path '{named['data_path']}', but they are one setting; give one"
        )
    if "data_path" in named and not named["data_path"].is_dir():
        raise DataError(f"data_path: '{named['data_path']}' is not a folder; name the folder that holds ku/, ml/, ...")
    return next(iter(named.values()), None)


class FedVLRConfig(Config):
    """Config of a RecBole model of this package, or of RecBole's own under this package's protocol.

    Args:
        model: name or class. dataset: name, see the catalogue.
        config_file_list, config_dict: as RecBole's.
        known_keys: further keys that the model reads.

    Raises:
        ConfigError: a key that neither RecBole nor this package nor the model knows, with the nearest name.
    """

    extra_keys: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        model: str | type | None = None,
        dataset: str | None = None,
        config_file_list: list[str] | None = None,
        config_dict: Mapping[str, object] | None = None,
        known_keys: Iterable[str] = (),
    ) -> None:
        self._known_keys = frozenset(known_keys) | self.extra_keys
        super().__init__(model, dataset, config_file_list, dict(config_dict or {}))

    def _load_cmd_line(self) -> dict[str, object]:
        """Ignore the command line: it belongs to the program, not to a library."""
        return {}

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        super()._load_internal_config_dict(model, model_class, dataset)
        known = known_keys(self) | OWN_KEYS | self._known_keys | {"embedding_size"}
        for key in self.external_config_dict:
            if key not in known:
                raise ConfigError(
                    f"unknown configuration key '{key}' for model {model}.{did_you_mean(str(key), sorted(known))} "
                    "Keys are RecBole's, this package's and the model's own; see recbole_configs/."
                )
        self.internal_config_dict.update(DEFAULTS)

    def _init_device(self) -> None:
        """Set the device from `use_gpu`, `gpu_id` or `device`, without changes to the environment."""
        named = self.final_config_dict.get("device")
        if named is None:
            wanted = bool(self.final_config_dict.get("use_gpu")) and torch.cuda.is_available()
            named = "cuda" if wanted else "cpu"
        self.final_config_dict["device"] = torch.device(named)
        self.final_config_dict["single_spec"] = True
        self.final_config_dict["local_rank"] = 0
