"""Read feature files as numpy arrays without unpickling; the error for another kind of file names that kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tokenize import TokenError

import numpy as np
import numpy.typing as npt

from fedvlr_plugin.data.reading.encodings import read_text, what_it_is
from fedvlr_plugin.data.reading.names import visible
from fedvlr_plugin.errors import DataError

SUFFIX = "_features.npy"


def feature_files(folder: Path, modality_of: Callable[[str], str]) -> list[Path]:
    """List the files `<stem>_features.npy` of a folder by name, without hidden files.

    Args:
        folder: of a data set.
        modality_of: stem to modality.

    Raises:
        DataError: two files for one modality.
    """
    files = visible(folder.glob(f"*{SUFFIX}"))
    owner: dict[str, Path] = {}
    for file in files:
        modality = modality_of(file.name.removesuffix(SUFFIX))
        if owner.setdefault(modality, file) != file:
            raise DataError(
                f"{folder.name}: {owner[modality].name} and {file.name} are both the modality '{modality}'; keep one of them"
            )
    return files


def load_array(file: Path, where: str) -> npt.NDArray[np.generic]:
    """Read a `.npy` file; raise `DataError` for a pointer, a page, an archive, a damaged file or pickled objects."""
    try:
        with file.open("rb") as stream:
            start = stream.read(512)
        if not start.startswith(b"\x93NUMPY"):
            packed = "a zip archive (.npz?); save one matrix with numpy.save" if start.startswith(b"PK") else None
            meaning = packed or what_it_is(start) or ("empty" if not start else "no file of numpy's (.npy)")
            raise DataError(f"{where} cannot be read as a numpy array: it is {meaning}")
        array: npt.NDArray[np.generic] = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, TokenError, MemoryError) as error:  # a damaged header
        if isinstance(error, DataError):
            raise
        why = "it holds Python objects, not numbers" if "pickle" in str(error) else str(error)
        raise DataError(f"{where} cannot be read as a numpy array: {why}") from None
    return array


def read_tokens(file: Path, where: str) -> tuple[str, ...]:
    """Read a `.tokens` file: one raw item token in a line, in the order of the matrix.

    Raises:
        DataError: not UTF-8, or a line without a token (names it).
    """
    lines = read_text(file, where).split("\n")
    if lines and not lines[-1]:
        lines.pop()
    if "" in lines:
        raise DataError(f"{where}, line {lines.index('') + 1}: no token; one raw item token a line is needed")
    return tuple(lines)
