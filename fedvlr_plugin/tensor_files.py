"""Tensors and a few facts in one file that is either whole or refused: safetensors, no pickle.

The facts are JSON text in the file's header, with a sha256 over them and over every tensor.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.files import ANOTHER, read_bytes, write_atomic


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, object], *, hint: str = ANOTHER
) -> None:
    """Write a file in one step, with mode 0600: what it holds may be private state of clients.

    Raises:
        ResultsError: the disk refuses; `hint` says what to do.
    """
    from safetensors.torch import save

    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    text = json.dumps(facts, sort_keys=True)
    write_atomic(path, save(plain, {"facts": text, "sha256": _digest(plain, text)}), private=True, hint=hint)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """The tensors and the facts; raises `ResultsError` for a file that is cut off, changed, or of another kind."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = read_bytes(path)
    try:
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        text, digest = header["facts"], header["sha256"]
        facts = json.loads(text)
    except (SafetensorError, ValueError, KeyError, AttributeError) as error:
        raise ResultsError(f"'{path}' is damaged or no file of this package ({error}); remove it") from None
    if _digest(tensors, text) != digest or not isinstance(facts, dict):
        raise ResultsError(f"'{path}' is damaged: its content does not match its sha256; remove it")
    return tensors, facts


def _digest(tensors: Mapping[str, torch.Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
