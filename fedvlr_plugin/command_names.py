"""A group of commands that answers a misspelt command with the nearest name, as it does for options.

Imports `errors` and typer.
"""

from __future__ import annotations

import click
from typer.core import TyperGroup

from fedvlr_plugin.errors import did_you_mean


class NearestNames(TyperGroup):
    """Give it to `typer.Typer(cls=...)` or `add_typer(..., cls=...)`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` begin with; click's usage error names the nearest one and all of them."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            known = self.list_commands(ctx)
            error.message = f"{error.message}{did_you_mean(args[0], known)} There are: {', '.join(known)}."
            raise
