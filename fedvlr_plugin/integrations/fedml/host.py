"""FedML itself: imported late, and initialised without a network, without touching stdout, logging or random state.

`fedml.init()` sends an HTTPS request in all its settings; the one way out is to replace `fedml.core.mlops.fetch_config`
while it runs. Imports `compat`, `errors`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import torch

from fedvlr_plugin import compat
from fedvlr_plugin.errors import ConfigError, MissingExtraError, missing_extra


def need_fedml() -> ModuleType:
    """The module `fedml`; raises `MissingExtraError` that names the extra."""
    import sys

    if "fedml" not in sys.modules:
        spec = find_spec("fedml")
        if spec is None or spec.origin is None:  # a folder that is only called fedml has no origin
            raise missing_extra("fedml", "fedml", "running inside FedML")
        compat.prepare_torchvision()
    try:
        return import_module("fedml")
    except ModuleNotFoundError as error:
        if error.name != "pkg_resources":
            raise
        raise MissingExtraError(
            "FedML imports pkg_resources, which setuptools 82 dropped; pip install 'setuptools<81'"
        ) from None


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Puts the global random states and cuDNN's switch back afterwards; FedML seeds them."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    deterministic = torch.backends.cudnn.deterministic
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        torch.backends.cudnn.deterministic = deterministic


def init_offline(args: object | None = None) -> object:
    """`fedml.init()` that sends nothing; with None the arguments come from `--cf` of the command line.

    Raises:
        ConfigError: neither arguments nor `--cf` are given (FedML would take its own default, with tracking on).
    """
    import sys

    if args is None and not any(word == "--cf" or word.startswith("--cf=") for word in sys.argv):
        raise ConfigError(
            "no configuration: give --cf FILE.yaml, or arguments; FedML's built-in default has tracking on"
        )
    fedml = need_fedml()
    mlops = import_module("fedml.core.mlops")
    original = mlops.fetch_config
    mlops.fetch_config = lambda args, version="release": False  # type: ignore[attr-defined]
    try:
        with kept_random_state():
            out: object = fedml.init(args, check_env=False, should_init_logs=False)
    finally:
        mlops.fetch_config = original  # type: ignore[attr-defined]
    return out
