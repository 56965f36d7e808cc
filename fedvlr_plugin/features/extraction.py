"""Run an encoder over the titles or images of a data set, in batches, and write the features with a manifest.

    <folder>/<stem>_features.npy      float16, one vector for each item that has one (released layout: each itemID)
    <folder>/<stem>_features.tokens   raw item tokens in the same order (not in the released layout)
    <folder>/<stem>_features.json     encoder, hashes, versions, missing and unusual inputs

Finished batches are kept in `<stem>_features.<key>.part`, where the key is a hash of everything they depend on, and
described in `.part.json` with their sha256. After an interruption, the same command continues and produces the same
bytes; another encoder or other inputs start from the beginning. Only one process at a time writes the features of a
modality. A missing title is encoded as "The title is missing."; a missing image gets the mean vector (algorithm.md
section 6), when the features are read, or here in the released layout.
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
        modality: `vision` or `text`.
        items: number of items.
        rows: number of items with a vector of their own.
        width: of the vectors.
        resumed: number of items that an earlier run had finished.
        encoded: number of vectors that this run made.
        problems: item token to the reason why its input cannot be used.
        notes: item token to what was unusual about its input.
        total_s: seconds in total.
        encoder_s: seconds in the encoder.
        input_s: seconds of waiting for decoded images; decoding runs in threads beside the encoder.
        label: of the encoder.
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
    """Make the text of each item: its title in the prompt, or `MISSING_TITLE`.

    Args:
        tokens: of the items.
        titles: title by item token.
        prompt: text with `{}` for the title.

    Raises:
        ConfigError: the prompt has no `{}`.
    """
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
    """Make text features of every item; items without a title are listed under `problems` and have a vector too.

    Args:
        encoder: of the texts.
        tokens: of the items.
        titles: title by item token.
        folder: of the data set.
        prompt: text with `{}` for the title.
        by_row: write a vector for each itemID (released layout) and no token file.
        batch_size: items in a call of the encoder; None for the encoder's default.
        on_rows: called with the number of items after each batch.
        request: hash of the command (`request_of`), kept in the manifest to recognise features of the same command.

    Raises:
        DataError: there are no items, or another process makes these features.
    """
    texts = prompts(tokens, titles, prompt)
    inputs = {"texts": _hash(texts), "prompt": prompt}
    with _Job(encoder, TEXT, tokens, folder, inputs, by_row, on_rows, request) as job:
        return _extract_texts(job, encoder, texts, prompt, batch_size)


def _extract_texts(
    job: _Job, encoder: Encoder, texts: Sequence[str], prompt: str, batch_size: int | None
) -> Extraction:
    tokens = job.tokens
    job.result.problems = {t: "no title" for t, text in zip(tokens, texts, strict=True) if text == MISSING_TITLE}
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
    """Make image features of the items with a readable image; the other items are listed under `problems`.

    Args:
        encoder: of the images.
        tokens: of the items.
        paths: image file of each item, None if there is none.
        folder: of the data set.
        by_row: write a vector for each itemID (released layout) and no token file.
        batch_size: items in a call of the encoder; None for the encoder's default.
        workers: threads that decode images; None for one for each core, at most 16.
        on_rows: called with the number of items after each batch.
        request: as in `extract_texts`.

    Raises:
        DataError: no image can be read, or another process makes these features.
    """
    with _Job(encoder, VISION, tokens, folder, {"images": images_hash(paths)}, by_row, on_rows, request) as job:
        return _extract_images(job, encoder, paths, batch_size, workers)


def images_hash(paths: Sequence[Path | None]) -> str:
    """Compute a hash of the names, sizes and modification times of image files, in order, missing ones included."""
    return _hash(
        f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}" if p is not None and p.is_file() else "-" for p in paths
    )


def request_of(
    encoder: str, settings: Mapping[str, object], tokens: Sequence[str], inputs: Sequence[str], by_row: bool
) -> str:
    """Compute a hash of a command before its encoder is loaded.

    Args:
        encoder: name.
        settings: of the encoder.
        tokens: of the items.
        inputs: what the features are made of, as text.
        by_row: as in `extract_texts`.
    """
    return _hash([encoder, json.dumps(dict(settings), sort_keys=True, default=str), str(by_row), *inputs, "", *tokens])


def made_by(folder: Path, modality: str, request: str) -> str:
    """Return what a command (`request_of`) has made in a folder: `nothing`, `part` (it was interrupted), or `all`."""
    base = folder / f"{STEMS[modality]}_features"
    if any(_json(state).get("request") == request for state in folder.glob(f"{base.name}.*.part.json")):
        return "part"
    return "all" if _json(base.with_suffix(".json")).get("request") == request else "nothing"


def remove_parts(folder: Path, modality: str) -> None:
    """Remove the part files of a modality that a command left when it was stopped after its last file."""
    base = folder / f"{STEMS[modality]}_features"
    with only_writer(base, f"'{base.name}' of '{folder.name}'"):
        _remove_parts(base)


def _remove_parts(base: Path) -> None:
    """Remove the part files of a modality, of other commands too; their descriptions first."""
    for pattern in (f"{base.name}.*.part.json", f"{base.name}.*.part"):
        for path in base.parent.glob(pattern):
            path.unlink(missing_ok=True)


def _json(path: Path) -> dict[str, object]:
    """Read a JSON object; a missing or damaged file gives an empty one."""
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
                job.result.problems[token] = decoded.problem
            if decoded.note:
                job.result.notes[token] = decoded.note
        job.result.input_s += time.perf_counter() - start
        ready = [tensor for tensor, _ in chunk if tensor is not None]
        rows = job.timed(lambda ready=ready: encoder.encode_images(torch.stack(ready))) if ready else None  # type: ignore[misc]
        job.add([tensor is not None for tensor, _ in chunk], rows)
    return job.finish({"missing_image": "mean of the rows that are there"})


class _Job:
    """The part file of a modality: create or resume it, append batches, convert it to the final files.

    It is a context manager: within it, no other process writes these features.
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
        self.result = Extraction(modality, len(tokens), label=encoder.label)
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
        """Continue from the part file of the same command if its hash is right, or begin a new one."""
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
        self.present, self.result.width = list(present), int(width)  # type: ignore[call-overload]
        self.result.problems, self.result.notes = dict(problems), dict(notes)  # type: ignore[call-overload]
        self._sha256.update(content)
        os.truncate(self.part, length)
        self.result.resumed = self.done
        if self.on_rows is not None and self.done:
            self.on_rows(self.done)

    def timed(self, encode: Callable[[], npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        start = time.perf_counter()
        rows = encode()
        self.result.encoder_s += time.perf_counter() - start
        return rows

    def add(self, present: list[bool], rows: npt.NDArray[np.float32] | None) -> None:
        """Append a batch to the part file, and then to its description.

        Args:
            present: for each item of the batch, whether it has a vector.
            rows: vectors of the items that have one, `[sum(present), m]`; None if no item has one.

        Raises:
            DataError: a value is not finite.
        """
        if rows is not None:
            if not np.isfinite(rows).all():
                raise DataError(f"the encoder {self.encoder.label} gave NaN or infinite values; nothing was written")
            self.result.width = int(rows.shape[1])
            self.result.encoded += len(rows)
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
            "width": self.result.width,
            "problems": self.result.problems,
            "notes": self.result.notes,
        }
        write_data_file(self.state, json.dumps(state).encode())
        if self.on_rows is not None:
            self.on_rows(len(present))

    def finish(self, rules: Mapping[str, str]) -> Extraction:
        result = self.result
        result.rows = sum(self.present)
        if not result.rows:
            first = next(iter(result.problems.items()), ("?", "?"))
            _remove_parts(self.base)
            raise DataError(
                f"none of the {result.items:,} items has a readable image (item '{first[0]}': {first[1]}); images are looked "
                "for as <item token>.jpg (or .png, .webp, .gif, .bmp, .tif) in the folder of --images"
            )
        matrix: HalfMatrix = np.frombuffer(self.part.read_bytes(), dtype="<f2").reshape(result.rows, result.width)
        present = np.array(self.present)
        if self.by_row:
            whole = np.empty((result.items, result.width), dtype=np.float16)
            whole[present], whole[~present] = matrix, matrix.mean(axis=0, dtype=np.float64).astype(np.float16)
            matrix = whole
        else:
            kept = tuple(token for token, has_vector in zip(self.tokens, self.present, strict=True) if has_vector)
            write_lines(self.base.with_suffix(".tokens"), kept)
        write_matrix(self.base.with_suffix(".npy"), matrix)
        result.total_s = time.perf_counter() - self._begin
        write_json(self.base.with_suffix(".json"), self._manifest(rules, matrix))
        _remove_parts(self.base)
        return result

    def _manifest(self, rules: Mapping[str, str], matrix: HalfMatrix) -> dict[str, object]:
        result = self.result
        return {
            "schema": 1,
            "request": self.request,
            "made_by": f"fedvlr-plugin {fedvlr_plugin.__version__}",
            "modality": result.modality,
            "label": result.label,
            **self.encoder.facts(),
            "rules": dict(rules),
            "items": result.items,
            "rows_of_their_own": result.rows,
            "imputed": result.items - result.rows,
            "width": result.width,
            "dtype": "float16",
            "normalised": "rows of length 1 before rounding to float16",
            "sha256_of_values": hashlib.sha256(np.ascontiguousarray(matrix, dtype="<f2").tobytes()).hexdigest(),
            "sha256_of_tokens": _hash(self.tokens),
            "problems": result.problems,
            "converted": result.notes,
        }


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\x1f".join(lines).encode()).hexdigest()
