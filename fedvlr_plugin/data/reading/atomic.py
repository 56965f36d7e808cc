"""RecBole's atomic files: a table whose heading gives a type to each column, `user_id:token`.

The same values reach RecBole, the export and the encoders: all of them read with `read_atomic`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedvlr_plugin.data.reading.tables import SEPARATORS, Table, read_table, shown
from fedvlr_plugin.errors import DataError

TYPES = ("token", "float", "token_seq", "float_seq")
FORM = "user_id:token<TAB>item_id:token<TAB>timestamp:float"
ADVICE = "name them with USER_ID_FIELD, ITEM_ID_FIELD and TIME_FIELD if they are called otherwise"


@dataclass(frozen=True)
class AtomicTable:
    """A table by names without types, and the type of each column (one of `TYPES`)."""

    table: Table
    types: Mapping[str, str]


def read_atomic(
    path: Path,
    where: str,
    needed: Sequence[str] = (),
    *,
    separator: str = "\t",
    encoding: str = "utf-8",
    advice: str = ADVICE,
) -> AtomicTable:
    """Read an atomic file.

    Args:
        path: the file.
        where: how messages name it, e.g. `"shop/shop.inter"`.
        needed: names of columns that must be there.
        separator: RecBole's `field_separator`.
        encoding: RecBole's `encoding`.
        advice: what to do when a needed column is missing.

    Raises:
        DataError: see `read_table`; a column without a type; a needed column missing; no rows.
    """
    try:
        empty = not path.read_bytes().strip()
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror or error}") from None
    if empty:
        raise DataError(f"{where} is empty; its first line must be like {FORM}")
    table = read_table(path, where, separators=(separator,), needed=needed, encoding=encoding)
    if untyped := [name for name in table.names if name.rpartition(":")[2] not in TYPES]:
        raise DataError(
            f"{where}: the column {_quoted(untyped[0])} has no type; the first line must be like {FORM}, "
            f"with types from {', '.join(TYPES)}, its fields separated by {SEPARATORS.get(separator, repr(separator))}"
        )
    types = {name.rpartition(":")[0]: name.rpartition(":")[2] for name in table.names}
    table = table.renamed(lambda name: name.rpartition(":")[0])
    table.require(needed, advice)
    return AtomicTable(table, types)


def _quoted(name: str) -> str:
    spelled = shown(name)
    return spelled if spelled.startswith("'") else f"'{spelled}'"
