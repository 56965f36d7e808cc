"""What a data set's folder says of its items: `<name>.item` (atomic) and `items.csv` (released layout).

Where both give a title to one item, the titles must be the same.
"""

from __future__ import annotations

from pathlib import Path

from fedvlr_plugin.data.reading import columns
from fedvlr_plugin.data.reading.names import file_in
from fedvlr_plugin.data.reading.tables import Table, read_table
from fedvlr_plugin.data.reading.titles import clean_title
from fedvlr_plugin.errors import DataError

TITLES = ("title", "movie_title", "item_title", "name")
PUBLISHERS_IDS = ("movieId", "parent_asin", "item")
ITEMS_FILE = "items.csv"


def read_titles(folder: Path) -> dict[str, str]:
    """Item token to title from `<name>.item` or `items.csv`; missing titles are left out; empty without a file.

    Args:
        folder: of a data set in either layout.

    Raises:
        DataError: a file that is no table, or two files that give different titles to one item.
    """
    found: dict[str, str] = {}
    for table, key in (_atomic_items(folder), _released_items(folder)):
        title = None if table is None else next((name for name in TITLES if name in table), None)
        if table is None or title is None or key not in table:
            continue
        here: dict[str, str] = {}
        for token, text in zip(_item_tokens(table, key, folder), table[title], strict=True):
            if cleaned := clean_title(text):
                here.setdefault(token, cleaned)
        for token, text in here.items():
            if found.setdefault(token, text) != text:
                raise DataError(
                    f"{table.where}: item '{token}' is called {text!r}, and {found[token]!r} in '{folder.name}.item'; "
                    "delete one of the two files"
                )
    return found


def publishers_ids(folder: Path) -> dict[str, str]:
    """Item token to the publisher's id, by which images may be named, from `items.csv`; empty where it gives none."""
    table, key = _released_items(folder)
    own = None if table is None else next((name for name in PUBLISHERS_IDS if name in table), None)
    if table is None or own is None or key not in table:
        return {}
    return dict(zip(_item_tokens(table, key, folder), table[own], strict=True))


def items_table(folder: Path) -> Table | None:
    """`items.csv` as a table, None where there is none. Raises `DataError` for one that is no table."""
    return _released_items(folder)[0]


def _atomic_items(folder: Path) -> tuple[Table | None, str]:
    name = f"{folder.name}.item"
    file = file_in(folder, name)
    if file is None:
        return None, "item_id"
    table = read_table(file, f"'{folder.name}/{file.name}'", separators=("\t",), needed=("item_id",))
    return table.renamed(lambda column: column.partition(":")[0]), "item_id"


def _released_items(folder: Path) -> tuple[Table | None, str]:
    file = folder / ITEMS_FILE
    if not file.is_file():
        return None, "itemID"
    return read_table(file, f"'{folder.name}/{file.name}'", needed=("itemID",)), "itemID"


def _item_tokens(table: Table, key: str, folder: Path) -> list[str]:
    """The tokens of a table of items: whole numbers where the data set's own are, else as they stand."""
    if key == "itemID" and (folder / "inter.csv").is_file():
        return columns.whole_ids(table, key)
    return columns.tokens(table, key)
