"""Import and initialise FedML without network access and without changes to stdout, logging or random state.

`fedml.init()` sends an HTTPS request with all its settings; `fedml.core.mlops.fetch_config` is replaced while it runs,
which is the only way to prevent this.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from fedvlr_plugin import compat
from fedvlr_plugin.errors import ConfigError, MissingExtraError, missing_extra


def need_fedml() -> ModuleType:
    """Import and return the module `fedml`.

    Raises:
        MissingExtraError: FedML, or a package that it needs, is not installed.
    """
    import sys

    if "fedml" not in sys.modules:
        spec = find_spec("fedml")
        if spec is None or spec.origin is None:  # a folder that is only called fedml has no origin
            raise missing_extra("fedml", "fedml", "running inside FedML")
        compat.prepare_torchvision()
    try:
        with kept_process_state():
            return import_module("fedml")
    except ModuleNotFoundError as error:
        if error.name != "pkg_resources":
            raise
        raise MissingExtraError(
            "FedML imports pkg_resources, which setuptools 82 dropped; pip install 'setuptools<81'"
        ) from None


@contextmanager
def files_in(folder: Path | str) -> Iterator[None]:
    """Set HOME and the temporary folder to folders inside `folder`, so that FedML writes there; restore both at the end.

    Use it before FedML is imported, since wandb creates a folder at import.
    """
    inside = Path(folder).resolve()
    places = {"HOME": inside / "home", "TMPDIR": inside / "tmp"}
    before, temporary = {name: os.environ.get(name) for name in places}, tempfile.tempdir
    for name, place in places.items():
        place.mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(place)
    tempfile.tempdir = str(places["TMPDIR"])
    try:
        yield
    finally:
        tempfile.tempdir = temporary
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def kept_process_state() -> Iterator[None]:
    """Restore at the end what FedML sets: random states, cuDNN's determinism, start method, root logger."""
    handlers, level = list(logging.root.handlers), logging.root.level
    method = multiprocessing.get_start_method(allow_none=True)
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    deterministic = torch.backends.cudnn.deterministic
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        torch.backends.cudnn.deterministic = deterministic
        multiprocessing.set_start_method(method, force=True)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


def init_offline(args: object | None = None) -> object:
    """Run `fedml.init()` without its network request, and return FedML's arguments.

    Args:
        args: FedML's arguments; None for those of `--cf` on the command line.

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
        with kept_process_state():
            out: object = fedml.init(args, check_env=False, should_init_logs=False)
    finally:
        mlops.fetch_config = original  # type: ignore[attr-defined]
    return out
