"""The registry of things chosen by name: backbones, views, rules, encoders, data sources.

A registry refuses a name that is taken and suggests the nearest name for an unknown one. It reads an entry-point group,
so that installed packages can add members. A broken entry point does not stop a program that does not use it: a warning
names it with its package, and looking up its name raises an error.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Generic, TypeVar

from fedvlr_plugin.errors import ConfigError, unknown_name

Member = TypeVar("Member")
BUILT_IN = "fedvlr-plugin"


class Registry(Generic[Member]):
    """Members by name, in the order of registration; look-ups ignore capitalisation.

    Args:
        kind: name of a member in messages, e.g. `"backbone"`.
        entry_point_group: group of entry points, read on the first look-up; None for none. An entry point names a member, which
            is registered under the entry point's name, or a module that registers members when it is imported.

    Example:
        >>> colours: Registry[str] = Registry("colour")
        >>> colours.add("red", "#f00")
        >>> colours.get("RED")
        '#f00'
        >>> colours.get("read")
        Traceback (most recent call last):
        fedvlr_plugin.errors.UnknownNameError: unknown colour 'read'. Did you mean 'red'? Known: red.
    """

    def __init__(self, kind: str, entry_point_group: str | None = None) -> None:
        self.kind = kind
        self.entry_point_group = entry_point_group
        self._members: dict[str, Member] = {}
        self._origins: dict[str, str] = {}
        self._broken: dict[str, str] = {}
        self._loaded = entry_point_group is None
        self._origin = BUILT_IN

    def register(self, name: str) -> Callable[[Member], Member]:
        """Return a decorator that adds its object under `name`.

        Raises:
            ConfigError: the name is taken by something else.
        """

        def add(member: Member) -> Member:
            self.add(name, member)
            return member

        return add

    def add(self, name: str, member: Member) -> None:
        """Add a member.

        Args:
            name: the name in any capitalisation; look-ups ignore it, listings keep it.
            member: what the name stands for. Adding the same object again changes nothing.

        Raises:
            ConfigError: the name is taken by something else.
        """
        taken = self._find(name)
        if taken is None:
            self._members[name] = member
            self._origins[name] = self._origin
        elif self._members[taken] is not member:
            raise ConfigError(
                f"the {self.kind} name '{name}' is taken by {self._members[taken]!r} of {self._origins[taken]}; "
                "choose another"
            )

    def get(self, name: str) -> Member:
        """Return the member called `name`.

        Raises:
            UnknownNameError: no member has the name; the message suggests the nearest.
            ConfigError: an installed package declares the name but cannot be loaded.
        """
        return self._members[self.canonical(name)]

    def canonical(self, name: str) -> str:
        """Return `name` in its registered capitalisation; raise the errors of `get`."""
        self._load()
        registered = self._find(name)
        if registered is not None:
            return registered
        for declared, problem in self._broken.items():
            if declared.casefold() == name.casefold():
                raise ConfigError(problem)
        raise unknown_name(self.kind, name, self._members)

    def names(self) -> list[str]:
        """List all names, in the order of registration."""
        self._load()
        return list(self._members)

    def origin(self, name: str) -> str:
        """Return the package of a member, with its version if it is from an entry point."""
        return self._origins[self.canonical(name)]

    def problems(self) -> list[str]:
        """List the problems of the group's entry points, one line each, with the package."""
        self._load()
        return list(self._broken.values())

    def __contains__(self, name: str) -> bool:
        self._load()
        return self._find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _find(self, name: str) -> str | None:
        if name in self._members:
            return name
        lower = name.casefold()
        return next((known for known in self._members if known.casefold() == lower), None)

    def _load(self) -> None:
        """Read the entry points once; a name that two packages declare is left out."""
        if self._loaded or self.entry_point_group is None:
            return
        self._loaded = True
        points = sorted(entry_points(group=self.entry_point_group), key=lambda point: (point.name, _package(point)))
        by_name: dict[str, list[EntryPoint]] = {}
        for point in dict.fromkeys(points):
            by_name.setdefault(point.name.casefold(), []).append(point)
        for same_name in by_name.values():
            packages = [_package(point) for point in same_name]
            if len(set(packages)) > 1:
                self._report(
                    same_name[0].name,
                    f"{self.kind} '{same_name[0].name}' is declared by {' and '.join(packages)}; uninstall all but one",
                )
                continue
            self._load_one(same_name[0], packages[0])

    def _load_one(self, point: EntryPoint, package: str) -> None:
        self._origin = package
        try:
            member = point.load()
            if not isinstance(member, ModuleType):
                self.add(point.name, member)
        except Exception as error:  # a foreign package may raise anything when it is imported
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self._report(
                point.name,
                f"{self.kind} '{point.name}' of {package} (entry point '{point.value}') cannot be used: {reason}",
            )
        finally:
            self._origin = BUILT_IN

    def _report(self, name: str, problem: str) -> None:
        self._broken[name] = problem
        warnings.warn(f"{problem}. It is left out.", RuntimeWarning, stacklevel=2)


def _package(point: EntryPoint) -> str:
    """Return name and version of the package that declares an entry point."""
    return "an unknown package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
