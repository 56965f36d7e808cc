"""Versions of this package and of what it runs in, read from the installed packages' own records: nothing is imported."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fedvlr_plugin import __version__

HOSTS = ("torch", "recbole", "fedml")


def installed(name: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def version_lines() -> list[str]:
    """`fedvlr-plugin 0.1.0` first, then a line for each of the packages it builds on."""
    return [f"fedvlr-plugin {__version__}", *(f"{name} {installed(name) or 'not installed'}" for name in HOSTS)]
