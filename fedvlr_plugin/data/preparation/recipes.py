"""The seven recipes of Table 1 by name: which publisher's files, and where to fetch them.

A source without an address must be fetched by hand (its host hands it out through a page only).
"""

from __future__ import annotations

from dataclasses import dataclass

from fedvlr_plugin.data.preparation.publishers import Amazon, MovieLens, NineRec, Publisher
from fedvlr_plugin.errors import unknown_name

VERSION = 1
AMAZON = "https://huggingface.co/datasets/McAuley-Lab/Amazon-Reviews-2023/resolve/main"
MOVIELENS = "https://files.grouplens.org/datasets/movielens/ml-latest-small.zip"


@dataclass(frozen=True)
class Download:
    """One file at its publisher: address, name to store it under, and sha256 where it is known."""

    url: str
    filename: str
    sha256: str | None = None


@dataclass(frozen=True)
class Recipe:
    """How one data set is made.

    Attributes:
        name: as in Table 1, lower case. publisher: reads and filters. downloads: files to fetch; empty = by hand.
    """

    name: str
    publisher: Publisher
    downloads: tuple[Download, ...]


def _amazon(name: str, category: str, sha256: str) -> Recipe:
    downloads = (
        Download(f"{AMAZON}/benchmark/5core/rating_only/{category}.csv", f"{category}.csv", sha256),
        Download(f"{AMAZON}/raw/meta_categories/meta_{category}.jsonl", f"meta_{category}.jsonl"),
    )
    return Recipe(name, Amazon(category), downloads)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        _amazon("beauty", "All_Beauty", "502c64beaf441afa39f2897b0e7af3f5f361d9e77021011e365a154f0e5afb3a"),
        _amazon("cards", "Gift_Cards", "7058a1488f6120bdeacc7be8fd4e8588f390db5dc2d6532567f30d1c0601c11b"),
        Recipe("ml", MovieLens(), (Download(MOVIELENS, "ml-latest-small.zip"),)),
        Recipe("ku", NineRec("KU"), ()),
        Recipe("dance", NineRec("Bili_Dance"), ()),
        Recipe("food", NineRec("Bili_Food"), ()),
        Recipe("movie", NineRec("Bili_Movie"), ()),
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name, in any capitalisation; raises `UnknownNameError` with the nearest."""
    recipe = RECIPES.get(name.casefold())
    if recipe is None:
        raise unknown_name("recipe", name, RECIPES)
    return recipe
