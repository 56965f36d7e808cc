"""What is printed where a terminal, or the file that output goes to, cannot write every character."""

from __future__ import annotations

import io
import sys


def replace_unwritable_characters() -> None:
    """Let stdout and stderr write `?` for a character that their encoding does not have, instead of failing.

    A table must not be lost at the end of its runs because a terminal knows ASCII only.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
