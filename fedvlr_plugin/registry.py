"""One registry type for everything that is chosen by name: backbones, view operators, data sets, rows.

A registry refuses a name that is taken, answers an unknown name with the nearest known one, and can
look into an entry-point group so that packages outside this one add to it without touching our files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from fedvlr_plugin.errors import ConfigError, unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to things, case-insensitive on look-up, in the order of registration.

    Args:
        kind: what a member is called in messages, e.g. `"backbone"`.
        entry_point_group: installed packages that declare this group are loaded on the first look-up
            (each entry point is either a member, registered under its entry-point name, or a module
            that registers when imported).
    """

    def __init__(self, kind: str, entry_point_group: str | None = None) -> None:
        self.kind = kind
        self._group = entry_point_group
        self._members: dict[str, T] = {}
        self._loaded = entry_point_group is None

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds its object under `name`.

        Raises:
            ConfigError: the name is taken.
        """

        def add(member: T) -> T:
            self.add(name, member)
            return member

        return add

    def add(self, name: str, member: T) -> None:
        """Adds `member` under `name`; raises `ConfigError` if the name is taken by something else."""
        taken = self._find(name)
        if taken is not None and self._members[taken] is not member:
            raise ConfigError(f"the {self.kind} name '{name}' is taken by {self._members[taken]!r}; choose another")
        self._members[taken or name] = member

    def get(self, name: str) -> T:
        """Returns the member called `name`; raises `UnknownNameError` with the nearest name."""
        return self._members[self.canonical(name)]

    def canonical(self, name: str) -> str:
        """Returns `name` as it was registered (look-up ignores case)."""
        self._load()
        found = self._find(name)
        if found is None:
            raise unknown_name(self.kind, name, self._members)
        return found

    def names(self) -> list[str]:
        """All names, in the order of registration."""
        self._load()
        return list(self._members)

    def __contains__(self, name: str) -> bool:
        self._load()
        return self._find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _find(self, name: str) -> str | None:
        if name in self._members:
            return name
        folded = name.casefold()
        return next((n for n in self._members if n.casefold() == folded), None)

    def _load(self) -> None:
        if self._loaded or self._group is None:
            return
        self._loaded = True
        for point in entry_points(group=self._group):
            member = point.load()
            if not hasattr(member, "__path__") and not hasattr(member, "__file__"):
                self.add(point.name, member)
