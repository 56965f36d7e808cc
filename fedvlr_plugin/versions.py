"""Find the versions of this package and its hosts from the metadata of installed packages, without importing them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fedvlr_plugin import __version__

HOSTS = ("torch", "recbole", "fedml")


def installed(name: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def version_lines() -> list[str]:
    """List this package and its version, e.g. `fedvlr-plugin 0.1.0`, and then each host."""
    return [f"fedvlr-plugin {__version__}", *(f"{name} {installed(name) or 'not installed'}" for name in HOSTS)]
