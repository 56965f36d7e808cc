"""Write and read files of tensors and facts as safetensors, without pickle; damaged files are refused.

The facts are JSON text in the file's header, with a sha256 of them and of all tensors.
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
    """Write a file atomically, with mode 0600, as it may hold private state of clients.

    Args:
        path: of the file.
        tensors: by name.
        facts: values that can be written as JSON, by name.
        hint: what to do next, for the message.

    Raises:
        ResultsError: the file cannot be written.
    """
    from safetensors.torch import save

    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    text = json.dumps(facts, sort_keys=True)
    write_atomic(path, save(plain, {"facts": text, "sha256": _digest(plain, text)}), private=True, hint=hint)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Read the tensors and the facts of a file; raise `ResultsError` if it is truncated, changed, or of another kind."""
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
