"""Runs an encoder over a data set's titles or images: batched, resumable, in the order of the tokens, with a manifest.

    <folder>/<stem>_features.npy      fp16, one row per item that has one (released layout: one per itemID)
    <folder>/<stem>_features.tokens   raw item tokens in row order (not in the released layout)
    <folder>/<stem>_features.json     encoder, hashes, versions, what was missing or odd

Rows that are done lie in `<stem>_features.<key>.part`, where the key is a hash of everything they depend on, with an
account of them and their sha256 in `.part.json`. The same command goes on after an interruption at any moment and ends in
the same bytes; another encoder or other inputs start anew. One process at a time writes the features of a modality.
Missing titles are encoded as "The
title is missing." and missing images get the mean (algorithm.md section 6 of the paper: mean at load, or here where
row = itemID).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

import fedvlr_plugin
from fedvlr_plugin.data.images import Decoded, tensors
from fedvlr_plugin.errors import ConfigError, DataError
from fedvlr_plugin.features.encoder import TEXT, VISION, Encoder
from fedvlr_plugin.files import remove_leftovers, write_data_file, write_json, write_lines, write_matrix
from fedvlr_plugin.locks import only_writer

STEMS = {VISION: "image", TEXT: "text"}
PROMPT = "The title of this item is: {}."
MISSING_TITLE = "The title is missing."
HalfMatrix = npt.NDArray[np.float16]


@dataclass
class Extraction:
    """What was made, for the manifest and the command line.

    Attributes:
        rows: items that have a vector, of `items`. problems, notes: token to what was wrong, or unusual.
        resumed: items that an earlier run had done. encoded: rows that this run made. total_s, encoder_s, input_s: seconds in all, inside the encoder, and
            waiting for decoded inputs (decoding runs in threads beside the encoder; only the wait costs time).
    """

    modality: str
    items: int
    rows: int = 0
    width: int = 0
    resumed: int = 0
    encoded: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    total_s: float = 0.0
    encoder_s: float = 0.0
    input_s: float = 0.0
    label: str = ""


def prompts(tokens: Sequence[str], titles: Mapping[str, str], prompt: str = PROMPT) -> list[str]:
    """The text of each item: its title in the paper's prompt, or the paper's sentence for a missing one."""
    if "{}" not in prompt:
        raise ConfigError(f"the prompt '{prompt}' has no {{}} for the title")
    return [prompt.replace("{}", titles[token]) if titles.get(token, "").strip() else MISSING_TITLE for token in tokens]


def extract_texts(
    encoder: Encoder,
    tokens: Sequence[str],
    titles: Mapping[str, str],
    folder: Path,
    *,
    prompt: str = PROMPT,
    by_row: bool = False,
    batch_size: int | None = None,
    on_rows: Callable[[int], None] | None = None,
    request: str = "",
) -> Extraction:
    """Make text features of every item; an item without a title is listed under `problems` and has a row all the same.

    `request` names the command (`request_of`) and is kept in the manifest, so that the same command knows its own work.
    """
    texts = prompts(tokens, titles, prompt)
    inputs = {"texts": _hash(texts), "prompt": prompt}
    with _Job(encoder, TEXT, tokens, folder, inputs, by_row, on_rows, request) as job:
        return _extract_texts(job, encoder, texts, prompt, batch_size)


def _extract_texts(
    job: _Job, encoder: Encoder, texts: Sequence[str], prompt: str, batch_size: int | None
) -> Extraction:
    tokens = job.tokens
    job.found.problems = {t: "no title" for t, text in zip(tokens, texts, strict=True) if text == MISSING_TITLE}
    size = len(tokens) if encoder.needs_all else batch_size or encoder.default_batch
    while job.done < len(tokens):
        chunk = texts[job.done : job.done + size]
        job.add([True] * len(chunk), job.timed(lambda chunk=chunk: encoder.encode_texts(chunk)))  # type: ignore[misc]
    return job.finish({"prompt": prompt, "missing_title": MISSING_TITLE})


def extract_images(
    encoder: Encoder,
    tokens: Sequence[str],
    paths: Sequence[Path | None],
    folder: Path,
    *,
    by_row: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
    on_rows: Callable[[int], None] | None = None,
    request: str = "",
) -> Extraction:
    """Make image features of the items that have a readable image; the others are listed under `problems`.

    `request`: as in `extract_texts`.

    Raises:
        DataError: not one image can be read, or another process makes these features.
    """
    with _Job(encoder, VISION, tokens, folder, {"images": images_hash(paths)}, by_row, on_rows, request) as job:
        return _extract_images(job, encoder, paths, batch_size, workers)


def images_hash(paths: Sequence[Path | None]) -> str:
    """A hash of the names, sizes and times of image files, in order; missing ones count too."""
    return _hash(
        f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}" if p is not None and p.is_file() else "-" for p in paths
    )


def request_of(
    encoder: str, settings: Mapping[str, object], tokens: Sequence[str], inputs: Sequence[str], by_row: bool
) -> str:
    """A hash of a command before its encoder is loaded: encoder and settings by name, items, inputs."""
    return _hash([encoder, json.dumps(dict(settings), sort_keys=True, default=str), str(by_row), *inputs, "", *tokens])


def made_by(folder: Path, modality: str, request: str) -> str:
    """What this command has made in the folder so far: `nothing`, `part` (it was interrupted), or `all`."""
    base = folder / f"{STEMS[modality]}_features"
    if any(_json(state).get("request") == request for state in folder.glob(f"{base.name}.*.part.json")):
        return "part"
    return "all" if _json(base.with_suffix(".json")).get("request") == request else "nothing"


def remove_parts(folder: Path, modality: str) -> None:
    """Remove what a command that was stopped after its last file has left of a modality's part files."""
    base = folder / f"{STEMS[modality]}_features"
    with only_writer(base, f"'{base.name}' of '{folder.name}'"):
        _remove_parts(base)


def _remove_parts(base: Path) -> None:
    """Remove the part files of a modality, other commands' unfinished ones too; accounts first."""
    for pattern in (f"{base.name}.*.part.json", f"{base.name}.*.part"):
        for path in base.parent.glob(pattern):
            path.unlink(missing_ok=True)


def _json(path: Path) -> dict[str, object]:
    """A JSON object on disk; empty where there is none, or it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _extract_images(
    job: _Job, encoder: Encoder, paths: Sequence[Path | None], batch_size: int | None, workers: int | None
) -> Extraction:
    import torch

    tokens = job.tokens
    size = batch_size or encoder.default_batch
    threads = workers if workers is not None else min(16, os.cpu_count() or 1)
    source = tensors(paths[job.done :], encoder.preprocess, threads, ahead=max(2 * size, 2 * threads))
    while job.done < len(tokens):
        chunk: list[tuple[torch.Tensor | None, Decoded]] = []
        start = time.perf_counter()
        for token in tokens[job.done : job.done + size]:
            tensor, decoded = next(source)
            chunk.append((tensor, decoded))
            if decoded.problem:
                job.found.problems[token] = decoded.problem
            if decoded.note:
                job.found.notes[token] = decoded.note
        job.found.input_s += time.perf_counter() - start
        ready = [tensor for tensor, _ in chunk if tensor is not None]
        rows = job.timed(lambda ready=ready: encoder.encode_images(torch.stack(ready))) if ready else None  # type: ignore[misc]
        job.add([tensor is not None for tensor, _ in chunk], rows)
    return job.finish({"missing_image": "mean of the rows that are there"})


class _Job:
    """The part file of one modality: opens or resumes it, appends batches, turns it into the final files.

    A context: within it this process is the only one that writes these features.
    """

    def __init__(
        self,
        encoder: Encoder,
        modality: str,
        tokens: Sequence[str],
        folder: Path,
        inputs: Mapping[str, str],
        by_row: bool,
        on_rows: Callable[[int], None] | None,
        request: str,
    ) -> None:
        if not tokens:
            raise DataError(f"'{folder.name}' has no items to make {modality} features of")
        self.encoder, self.tokens, self.by_row, self.on_rows = encoder, tuple(tokens), by_row, on_rows
        self.request = request
        self.base = folder / f"{STEMS[modality]}_features"
        self.found = Extraction(modality, len(tokens), label=encoder.label)
        self.key = _hash([json.dumps(encoder.facts(), sort_keys=True), *inputs.values(), str(by_row), *tokens])
        self.part = self.base.with_name(f"{self.base.name}.{self.key[:12]}.part")
        self.state = self.part.with_name(f"{self.part.name}.json")
        self.present: list[bool] = []
        self._sha256 = hashlib.sha256()
        self._begin = time.perf_counter()
        self._lock = only_writer(self.base, f"'{self.base.name}' of '{folder.name}'")

    def __enter__(self) -> _Job:
        self._lock.__enter__()
        try:
            self._resume()
        except BaseException:
            self._lock.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, trace)

    @property
    def done(self) -> int:
        return len(self.present)

    def _resume(self) -> None:
        """Take up what the same command has done, if its bytes are those that it wrote down; else begin anew."""
        remove_leftovers(self.base.parent)
        state = _json(self.state)
        try:
            if state.get("key") != self.key:
                raise ValueError("another command's")
            length = sum(state["present"]) * state["width"] * 2  # type: ignore[call-overload]
            content = self.part.read_bytes()[:length]
            if len(content) < length or hashlib.sha256(content).hexdigest() != state.get("sha256"):
                raise ValueError("not what was written")
            present, width = state["present"], state["width"]
            problems, notes = state["problems"], state["notes"]
        except (OSError, ValueError, KeyError, TypeError):
            write_data_file(self.part, b"")
            return
        self.present, self.found.width = list(present), int(width)  # type: ignore[call-overload]
        self.found.problems, self.found.notes = dict(problems), dict(notes)  # type: ignore[call-overload]
        self._sha256.update(content)
        os.truncate(self.part, length)
        self.found.resumed = self.done
        if self.on_rows is not None and self.done:
            self.on_rows(self.done)

    def timed(self, encode: Callable[[], npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        start = time.perf_counter()
        rows = encode()
        self.found.encoder_s += time.perf_counter() - start
        return rows

    def add(self, present: list[bool], rows: npt.NDArray[np.float32] | None) -> None:
        """Appends a batch: `rows` has one row for each true in `present`. Rows first, then the account of them."""
        if rows is not None:
            if not np.isfinite(rows).all():
                raise DataError(f"the encoder {self.encoder.label} gave NaN or infinite values; nothing was written")
            self.found.width = int(rows.shape[1])
            self.found.encoded += len(rows)
            content = rows.astype("<f2").tobytes()
            self._sha256.update(content)
            with self.part.open("ab") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
        self.present.extend(present)
        state = {
            "key": self.key,
            "request": self.request,
            "sha256": self._sha256.hexdigest(),
            "present": self.present,
            "width": self.found.width,
            "problems": self.found.problems,
            "notes": self.found.notes,
        }
        write_data_file(self.state, json.dumps(state).encode())
        if self.on_rows is not None:
            self.on_rows(len(present))

    def finish(self, rules: Mapping[str, str]) -> Extraction:
        found = self.found
        found.rows = sum(self.present)
        if not found.rows:
            first = next(iter(found.problems.items()), ("?", "?"))
            _remove_parts(self.base)
            raise DataError(
                f"none of the {found.items:,} items has a readable image (item '{first[0]}': {first[1]}); images are looked "
                "for as <item token>.jpg (or .png, .webp, .gif, .bmp, .tif) in the folder of --images"
            )
        matrix: HalfMatrix = np.frombuffer(self.part.read_bytes(), dtype="<f2").reshape(found.rows, found.width)
        here = np.array(self.present)
        if self.by_row:
            whole = np.empty((found.items, found.width), dtype=np.float16)
            whole[here], whole[~here] = matrix, matrix.mean(axis=0, dtype=np.float64).astype(np.float16)
            matrix = whole
        else:
            kept = tuple(token for token, is_there in zip(self.tokens, self.present, strict=True) if is_there)
            write_lines(self.base.with_suffix(".tokens"), kept)
        write_matrix(self.base.with_suffix(".npy"), matrix)
        found.total_s = time.perf_counter() - self._begin
        write_json(self.base.with_suffix(".json"), self._manifest(rules, matrix))
        _remove_parts(self.base)
        return found

    def _manifest(self, rules: Mapping[str, str], matrix: HalfMatrix) -> dict[str, object]:
        found = self.found
        return {
            "schema": 1,
            "request": self.request,
            "made_by": f"fedvlr-plugin {fedvlr_plugin.__version__}",
            "modality": found.modality,
            "label": found.label,
            **self.encoder.facts(),
            "rules": dict(rules),
            "items": found.items,
            "rows_of_their_own": found.rows,
            "imputed": found.items - found.rows,
            "width": found.width,
            "dtype": "float16",
            "normalised": "rows of length 1 before rounding to float16",
            "sha256_of_values": hashlib.sha256(np.ascontiguousarray(matrix, dtype="<f2").tobytes()).hexdigest(),
            "sha256_of_tokens": _hash(self.tokens),
            "problems": found.problems,
            "converted": found.notes,
        }


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\x1f".join(lines).encode()).hexdigest()
