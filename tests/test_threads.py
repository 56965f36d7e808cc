"""Threads sleep unless the user says otherwise, and only where torch has not been loaded before."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import os, sys
{before}
from fedvlr_plugin.threads import let_threads_sleep
print(let_threads_sleep(), os.environ.get("OMP_WAIT_POLICY"), "torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("os.environ.pop('OMP_WAIT_POLICY', None)", "True PASSIVE False"),
        ("os.environ['OMP_WAIT_POLICY'] = 'ACTIVE'", "False ACTIVE False"),
        ("os.environ.pop('OMP_WAIT_POLICY', None); sys.modules['torch'] = object()", "False None True"),
    ],
)
def test_threads_sleep_where_that_can_still_be_chosen(before: str, expected: str) -> None:
    command = [sys.executable, "-c", CODE.format(before=before)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == expected
