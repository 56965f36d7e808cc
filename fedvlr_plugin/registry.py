"""One registry type for everything that is chosen by name: backbones, views, rules, encoders, data sources.

A registry refuses a name that is taken, answers an unknown name with the nearest known one, and reads an entry-point
group, so that an installed package adds members without a change here. A broken entry point does not stop a program that
does not use it: it is named in a warning, with its package, and raised when its name is asked for.
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
    """Members by name, case-insensitive on look-up, in the order of registration.

    Args:
        kind: what a member is called in messages, e.g. `"backbone"`.
        entry_point_group: group of entry points that is read on the first look-up; None for none. An entry point names a
            member, registered under the entry point's name, or a module that registers when it is imported.

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
            UnknownNameError: no member has the name; the message has the nearest one.
            ConfigError: an installed package promises the name and cannot be loaded.
        """
        return self._members[self.canonical(name)]

    def canonical(self, name: str) -> str:
        """Return `name` in the capitalisation it was registered in; raises what `get` raises."""
        self._load()
        registered = self._find(name)
        if registered is not None:
            return registered
        for promised, problem in self._broken.items():
            if promised.casefold() == name.casefold():
                raise ConfigError(problem)
        raise unknown_name(self.kind, name, self._members)

    def names(self) -> list[str]:
        """List all names, in the order of registration."""
        self._load()
        return list(self._members)

    def origin(self, name: str) -> str:
        """Return the package that a member is from, with its version where it came by an entry point."""
        return self._origins[self.canonical(name)]

    def problems(self) -> list[str]:
        """List what is wrong with entry points of the group, one line each, the package named."""
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
        folded = name.casefold()
        return next((known for known in self._members if known.casefold() == folded), None)

    def _load(self) -> None:
        """Read the entry points once. Members of two packages under one name are both left out."""
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
    """Name and version of the package that declares an entry point."""
    return "an unknown package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
