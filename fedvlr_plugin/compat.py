"""Workarounds for outdated code in the hosts, each with its reason and the version that makes it unnecessary.

The module that imports a host applies its workaround, once; nothing here runs at import. `applied()` lists what was
applied in this process, for `fedvlr doctor`.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_APPLIED: list[str] = []
_KEPT: list[object] = []


def applied() -> tuple[str, ...]:
    """List the workarounds applied in this process, in order."""
    return tuple(_APPLIED)


def prepare_recbole() -> None:
    """Make `recbole.config` and `recbole.data` usable with present numpy, scipy, pandas and torch.

    * numpy >= 2 removed `float_`, `complex_` and `unicode_`, which RecBole 1.2.1's Config reads: aliases are set.
      Unnecessary with a RecBole release that supports numpy 2 (none as of 1.2.1).
    * RecBole 1.2.1 imports `torch.cuda.amp.GradScaler`, deprecated since torch 2.4: the FutureWarning is silenced.
      Unnecessary when RecBole uses `torch.amp`.
    * RecBole 1.2.1 calls `DataFrame[...].fillna(inplace=True)`, which pandas >= 2.2 deprecates: the FutureWarning
      is silenced; this package's loader leaves no gaps to fill. Unnecessary when RecBole assigns instead.
    * scipy >= 1.13 removed `dok_matrix._update`, with which RecBole 1.2.1's graph models (LightGCN, NGCF, SpectralCF,
      GCMC, NCL) fill their adjacency: it is set to update the entries. Unnecessary when RecBole builds COO matrices.
    """
    import numpy
    from scipy.sparse import dok_matrix

    for alias, target in (("float_", "float64"), ("complex_", "complex128"), ("unicode_", "str_")):
        if alias not in numpy.__dict__ and int(numpy.__version__.split(".")[0]) >= 2:
            setattr(numpy, alias, getattr(numpy, target))
            _note(f"numpy.{alias} = numpy.{target} (RecBole 1.2.1 on numpy {numpy.__version__})")
    if not hasattr(dok_matrix, "_update"):
        setattr(dok_matrix, "_update", _update_entries)  # noqa: B010 (typed stubs do not know the attribute)
        _note("scipy.sparse.dok_matrix._update (RecBole 1.2.1's graph models)")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\..*")
    _note("FutureWarnings of recbole silenced")


def _update_entries(matrix: Any, entries: Mapping[tuple[int, int], float]) -> None:
    """Add entries without checks, as `dok_matrix._update` did."""
    matrix._dict.update(entries)


def prepare_torchvision() -> None:
    """Make `import torchvision` work with a torch build that its compiled library does not fit.

    With a CPU build of torch and a CUDA build of torchvision the library does not load, and importing it fails with
    `operator torchvision::nms does not exist`: the two schemas are declared beforehand. The operators themselves stay
    unavailable; open_clip does not call them. Unnecessary where torch and torchvision come from the same index.

    Does nothing if torchvision is not installed, or can be imported without this.
    """
    try:
        version("torchvision")
    except PackageNotFoundError:
        return
    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    import sys

    import torch

    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)
    importlib.import_module("torchvision")
    _note("schemas of torchvision::nms and qnms declared (its compiled library does not fit this torch)")


def _note(what: str) -> None:
    if what not in _APPLIED:
        _APPLIED.append(what)
