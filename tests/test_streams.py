"""Output to terminals and files of any encoding."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
from fedvlr_plugin.streams import replace_unwritable_characters
replace_unwritable_characters()
print("41.4 ± 1.4 (▼)")
"""


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "41.4 ? 1.4 (?)"), ("latin-1", "41.4 ± 1.4 (?)"), ("utf-8", "41.4 ± 1.4 (▼)")])  # fmt: skip
def test_what_an_encoding_lacks_is_replaced(encoding: str, shown: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, env=environment, check=True)
    assert done.stdout.decode(encoding).strip() == shown
