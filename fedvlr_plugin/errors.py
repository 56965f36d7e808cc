"""Errors that a user can act on.

Every error of this package says what was wrong, what was got, what is allowed and what to do next.
`FedVLRError` is the one type that scripts catch to print a single line instead of a traceback;
anything else that escapes is a defect of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FedVLRError(Exception):
    """Base of every error that a user can cause and mend."""


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
    """The asked-for device is not there."""


class MissingExtraError(FedVLRError, ImportError):
    """An optional package is needed; the message names the extra to install."""


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Returns `" Did you mean 'x'?"` for the nearest allowed name, or an empty string."""
    by_fold = {a.casefold(): a for a in allowed}
    close = difflib.get_close_matches(name.casefold(), list(by_fold), n=1, cutoff=0.5)
    return f" Did you mean '{by_fold[close[0]]}'?" if close else ""


def unknown_name(kind: str, name: str, allowed: Iterable[str], hint: str = "") -> UnknownNameError:
    """Builds the error for a name that is in no registry (raise what this returns)."""
    names = list(allowed)
    known = ", ".join(names) if names else "none"
    tail = f" {hint}" if hint else ""
    return UnknownNameError(f"unknown {kind} '{name}'.{did_you_mean(name, names)} Known: {known}.{tail}")


def missing_extra(package: str, extra: str, why: str) -> MissingExtraError:
    """Builds the error for an optional package that is not installed (raise what this returns)."""
    return MissingExtraError(
        f"{why} needs the package '{package}', which is not installed. "
        f'Install it with: pip install "fedvlr-plugin[{extra}]"'
    )
