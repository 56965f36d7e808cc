"""A data source: purchases in a shop of 30 products by 40 customers, made from a formula, with text features."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd

from fedvlr_plugin.data.item_features import TokenFeatures
from fedvlr_plugin.data.source import ITEM, RATING, TIME, USER, Source

CUSTOMERS, PRODUCTS, PURCHASES = 40, 30, 9


class CornerShop(Source):
    """Customer u buys the products (u * u + 7 * k) mod 30, k = 0..8, one a day; products have a text vector of width 6."""

    kind: ClassVar[str] = "example package"

    def __init__(self) -> None:
        super().__init__("corner-shop")

    def interactions(self) -> pd.DataFrame:
        rows = [
            (f"customer{user}", f"product{(user * user + 7 * day) % PRODUCTS}", float(day), 1.0)
            for user in range(CUSTOMERS)
            for day in range(PURCHASES)
        ]
        return pd.DataFrame(rows, columns=[USER, ITEM, TIME, RATING])

    def features(self) -> list[TokenFeatures]:
        angles = np.outer(np.arange(PRODUCTS), np.arange(1, 7)) / PRODUCTS
        tokens = tuple(f"product{item}" for item in range(PRODUCTS))
        return [TokenFeatures("text", tokens, np.sin(2 * np.pi * angles).astype(np.float32), "corner-shop")]
