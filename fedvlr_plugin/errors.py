"""Errors that a user can act on.

Every error of this package says what was wrong, what was got, what is allowed and what to do next.
Scripts catch `FedVLRError` to print one line instead of a traceback; any other exception is a defect of this package.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FedVLRError(Exception):
    """Base of all errors that a user can cause and correct."""


class ConfigError(FedVLRError, ValueError):
    """A setting is unknown, of the wrong type, or out of its range."""


class DataError(FedVLRError, ValueError):
    """A data set or a feature file cannot be used as it is."""


class UnknownNameError(FedVLRError, KeyError):
    """A name (row, data set, view operator, ...) is in no registry."""

    def __str__(self) -> str:  # KeyError would print the message in quotes
        return str(self.args[0]) if self.args else ""


class ResultsError(FedVLRError, OSError):
    """The results folder cannot be read or written, or holds a damaged file."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class DeviceError(FedVLRError, RuntimeError):
    """The requested device is not available."""


class MissingExtraError(FedVLRError, ImportError):
    """An optional package is needed; the message names the extra to install."""


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` with the allowed name nearest to `name`; empty if none is near."""
    by_fold = {a.casefold(): a for a in allowed}
    close = difflib.get_close_matches(name.casefold(), list(by_fold), n=1, cutoff=0.5)
    return f" Did you mean '{by_fold[close[0]]}'?" if close else ""


def unknown_name(kind: str, name: str, allowed: Iterable[str], hint: str = "") -> UnknownNameError:
    """Create the error for an unknown name; the caller raises it.

    Args:
        kind: what the name stands for, e.g. `"backbone"`.
        name: the unknown name.
        allowed: the known names.
        hint: a sentence for the end of the message.
    """
    names = list(allowed)
    known = ", ".join(names) if names else "none"
    tail = f" {hint}" if hint else ""
    return UnknownNameError(f"unknown {kind} '{name}'.{did_you_mean(name, names)} Known: {known}.{tail}")


def missing_extra(package: str, extra: str, why: str) -> MissingExtraError:
    """Create the error for an optional package that is not installed; the caller raises it.

    Args:
        package: that is missing.
        extra: of this package, which installs it.
        why: what needs it, the subject of the message.
    """
    return MissingExtraError(
        f"{why} needs the package '{package}', which is not installed. "
        f'Install it with: pip install "fedvlr-plugin[{extra}]"'
    )
