"""Filters of a preparation: each takes rows and gives rows, and says what it dropped.

Rows have the columns of `source`: user, item, rating, timestamp. Order of rows is kept everywhere. Imports `source`.
"""

from __future__ import annotations

import pandas as pd

from fedvlr_plugin.data.source import ITEM, USER


def first_of_pair(rows: pd.DataFrame) -> pd.DataFrame:
    """Duplicate (user, item) rows counted once, the first (algorithm.md section 6)."""
    return rows[~rows.duplicated([USER, ITEM], keep="first")]


def at_least(rows: pd.DataFrame, column: str, least: int) -> pd.DataFrame:
    """Rows whose user (or item) occurs in `least` rows or more; one pass."""
    sizes = rows.groupby(column, sort=False)[column].transform("size")
    return rows[sizes >= least]


def k_core(rows: pd.DataFrame, k: int) -> pd.DataFrame:
    """The largest part in which every user and every item has `k` rows or more: both filters until nothing changes."""
    while True:
        kept = at_least(at_least(rows, USER, k), ITEM, k)
        if len(kept) == len(rows):
            return kept
        rows = kept


def counts(rows: pd.DataFrame) -> dict[str, int]:
    """Users, items and rows, for manifests."""
    return {"users": int(rows[USER].nunique()), "items": int(rows[ITEM].nunique()), "interactions": len(rows)}
