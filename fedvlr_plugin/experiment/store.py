"""The results store: one JSON and one parquet of per-user ranks per run, and nothing half-written.

    <results>/runs/<dataset>--<row>--<protocol>--s<seed>--<spec_hash>-<data>.json      the record (`record.RunRecord`)
    <results>/runs/<the same>.parquet       phase, user, item, above, tied, cold, history: a line per user and phase
    <results>/runs/<the same>.npz           arrays asked for by name, where there are any (router weights)

and beside them `studies/`, `tables/`, `figures/`, `audit/`, `checkpoints/`, `site/`, `studies.db`, `report.html`.

The JSON is written last, so a run exists only when it is complete. A run's key is the hash of its specification and
of its data; how it was executed (engine, device) is recorded but is not part of the key.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.parquet
from pydantic import ValidationError

from fedvlr_plugin.config import RunSpec
from fedvlr_plugin.data.interactions import IntArray
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.data.reading.names import visible
from fedvlr_plugin.errors import ResultsError
from fedvlr_plugin.evaluation.ranks import Phase, Ranks
from fedvlr_plugin.experiment.environment import environment
from fedvlr_plugin.experiment.record import SCHEMA_VERSION, FilePart, RunRecord, make_record, run_key
from fedvlr_plugin.experiment.result import RunResult
from fedvlr_plugin.files import check_writable, read_bytes, remove_leftovers, write_atomic


class ResultsStore:
    """Reads and writes the runs below one results folder, and knows where everything else below it lies.

    The folder is made when first written to. No other file spells the name of a folder below it.

    Args:
        root: the results folder.

    Attributes:
        runs: records and per-user ranks of runs.
        studies: selections of finished searches.
        tables: tables as files.
        figures: figures as files.
        audit: results of privacy audits.
        checkpoints: unfinished runs, with the clients' private state.
        site: pages for a browser.
        study_database: the searches' own database, unless another is named.
        report: the page about the whole folder.

    >>> import tempfile
    >>> from fedvlr_plugin.config import PROTOCOLS
    >>> from fedvlr_plugin.data.recbole.loader import prepare
    >>> from fedvlr_plugin.experiment.run import run
    >>> data = prepare("planted")
    >>> spec = RunSpec(dataset=data.name, row="popularity", protocol=PROTOCOLS["corrected"])
    >>> store = ResultsStore(Path(tempfile.mkdtemp()))
    >>> record = store.append(run(spec, data=data), data)
    >>> store.has(spec, data.fingerprint), [record.row for record in store.records()]
    (True, ['popularity'])
    >>> len(store.ranks(record, "test")) == data.interactions.n_users
    True
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = root / "runs"
        self.studies = root / "studies"
        self.tables = root / "tables"
        self.figures = root / "figures"
        self.audit = root / "audit"
        self.checkpoints = root / "checkpoints"
        self.site = root / "site"
        self.study_database = root / "studies.db"
        self.report = root / "report.html"

    def below(self, folder: str) -> ResultsStore:
        """Return the store in a folder of this one, such as that of the runs of Table 4."""
        return ResultsStore(self.root / folder)

    def checkpoint_path(self, spec: RunSpec, data_fingerprint: str) -> Path:
        """Return where the checkpoint of an unfinished run lies."""
        return self.checkpoints / f"{run_key(spec.spec_hash, data_fingerprint)}.safetensors"

    def selection_path(self, study: str) -> Path:
        """Return where the selection of a study lies; characters that a file name may not have become `_`."""
        return self.studies / (re.sub(r"[^\w+.-]+", "_", study).strip("_") + ".json")

    def audit_path(self, dataset: str, row: str, profile: str) -> Path:
        """Return where the JSON file of a privacy audit lies; its tables lie beside it."""
        return self.audit / f"{dataset}-{row}-{profile}.json"

    def check_writable(self) -> None:
        """Raise `ResultsError` unless runs can be written here; remove what killed processes left anywhere below.

        Asked before any work is done.
        """
        check_writable(self.runs)
        remove_leftovers(self.root)

    def has(self, spec: RunSpec, data_fingerprint: str) -> bool:
        """Whether the run is stored, complete."""
        return self._path(spec, run_key(spec.spec_hash, data_fingerprint)).is_file()

    def append(self, result: RunResult, data: PreparedData, profile: str | None = None) -> RunRecord:
        """Store a finished run on `data`, in place of an equal one if there is one, and return its record."""
        path = self._path(result.spec, run_key(result.spec.spec_hash, result.data_fingerprint))
        ranks = _write(path.with_suffix(".parquet"), _parquet(result, data))
        outputs = _write(path.with_suffix(".npz"), _npz(result)) if result.outputs else None
        record = make_record(result, data, environment(result.execution.device), ranks, outputs, profile)
        write_atomic(path, (record.model_dump_json(indent=1) + "\n").encode())
        return record

    def load(self, spec: RunSpec, data_fingerprint: str) -> RunRecord:
        """The record of a stored run; raises `ResultsError` if it is missing or damaged."""
        return read_record(self._path(spec, run_key(spec.spec_hash, data_fingerprint)))

    def records(self, spec_hashes: Collection[str] | None = None) -> list[RunRecord]:
        """All records, or those with one of the specifications, in the order of their file names.

        Raises `ResultsError` for a file that is damaged, foreign or of a newer version: none is passed over.
        """
        return [read_record(path) for path in self._paths(spec_hashes)]

    def ranks(self, record: RunRecord, phase: Phase) -> Ranks:
        """Per-user ranks of a stored run; raises `ResultsError` if the file is not the one the record names."""
        table = pyarrow.parquet.read_table(io.BytesIO(self._beside(record, record.ranks)))
        mine = np.array(table["phase"].to_pylist()) == phase
        columns = {name: table[name].to_numpy()[mine] for name in ("user", "item", "above", "tied")}
        users, items, above, tied = (column.astype(np.int64) for column in columns.values())
        return Ranks(users, items, above, tied, table["cold"].to_numpy()[mine].astype(np.bool_))

    def histories(self, record: RunRecord) -> IntArray:
        """Number of training items of each user of the test phase, parallel to `ranks(record, "test")`."""
        table = pyarrow.parquet.read_table(io.BytesIO(self._beside(record, record.ranks)))
        mine = np.array(table["phase"].to_pylist()) == "test"
        sizes: IntArray = table["history"].to_numpy()[mine].astype(np.int64)
        return sizes

    def outputs(self, record: RunRecord) -> dict[str, npt.NDArray[np.float64]]:
        """Arrays kept with a run by name; empty where none were asked for."""
        if record.outputs is None:
            return {}
        with np.load(io.BytesIO(self._beside(record, record.outputs)), allow_pickle=False) as arrays:
            return {name: arrays[name].astype(np.float64) for name in arrays.files}

    def _paths(self, spec_hashes: Collection[str] | None) -> Iterator[Path]:
        for path in visible(self.runs.glob("*.json")) if self.runs.is_dir() else ():
            spec_hash = path.stem.rpartition("--")[2].partition("-")[0]
            if spec_hashes is None or spec_hash in spec_hashes:
                yield path

    def _path(self, spec: RunSpec, key: str) -> Path:
        parts = (spec.dataset, spec.row, spec.protocol.name, f"s{spec.seed}", key)
        return self.runs / ("--".join(re.sub(r"[^\w+.-]", "_", part) for part in parts) + ".json")

    def _beside(self, record: RunRecord, file: FilePart) -> bytes:
        path = self._path(record.spec, record.key).with_name(file.name)
        content = read_bytes(path)
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise ResultsError(f"'{path}' is not the file its record names (sha256 differs); {_MEND}")
        return content


_MEND = "delete the run's files to have it computed again, or restore them from a copy"


def read_record(path: Path) -> RunRecord:
    """Read and validate one record; every complaint names the file and what to do."""
    try:
        values = json.loads(read_bytes(path))
    except ValueError:
        raise ResultsError(f"'{path}' is not JSON, perhaps cut short by a copy; {_MEND}") from None
    found = values.get("schema_version") if isinstance(values, dict) else None
    if not isinstance(found, int):
        raise ResultsError(f"'{path}' is not a run of this package (no schema_version); move it out of the folder")
    if found > SCHEMA_VERSION:
        raise ResultsError(
            f"'{path}' was written by a newer version (schema {found}, this one reads up to {SCHEMA_VERSION}); "
            "upgrade fedvlr-plugin or use another results folder"
        )
    try:
        record = RunRecord.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "record"
        raise ResultsError(f"'{path}' is damaged: {where}: {first['msg']}; {_MEND}") from None
    if not path.stem.endswith(f"--{record.key}"):
        raise ResultsError(f"'{path}' holds the run {record.key}, which is not what its name says; {_MEND}")
    return record


def _write(path: Path, content: bytes) -> FilePart:
    return FilePart(name=path.name, sha256=write_atomic(path, content))


def _parquet(result: RunResult, data: PreparedData) -> bytes:
    phases: tuple[tuple[str, Ranks], ...] = (("valid", result.valid), ("test", result.test))
    columns: dict[str, object] = {"phase": [name for name, ranks in phases for _ in range(len(ranks))]}
    for column, attribute in (("user", "users"), ("item", "items"), ("above", "above"), ("tied", "tied")):
        values = np.concatenate([getattr(ranks, attribute) for _, ranks in phases])
        columns[column] = values.astype(np.int32)
    columns["cold"] = np.concatenate([ranks.cold for _, ranks in phases])
    users = np.concatenate([ranks.users for _, ranks in phases])
    columns["history"] = data.interactions.train_sizes[users].astype(np.int32)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer, compression="zstd")
    return buffer.getvalue()


def _npz(result: RunResult) -> bytes:
    """The arrays as an .npz whose bytes depend on their content only (no time stamps)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(result.outputs):
            array = io.BytesIO()
            np.save(array, np.asarray(result.outputs[name]), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), array.getvalue())
    return buffer.getvalue()
