#!/usr/bin/env python
"""Execute the notebooks, each in a clean kernel and an empty folder, and write their outputs back.

    python benchmarks/run_notebooks.py                      # all of benchmarks/notebooks
    python benchmarks/run_notebooks.py FILE.ipynb ...       # these
    python benchmarks/run_notebooks.py --check              # execute, write nothing; exit 1 if a cell fails

Needs the extra [dev] (nbclient, ipykernel).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fedvlr_plugin.files import write_atomic

if TYPE_CHECKING:
    from nbformat import NotebookNode

FOLDER = Path(__file__).parent / "notebooks"
LONGEST = 600  # seconds a cell may take on a slow machine


def execute(path: Path, folder: Path) -> NotebookNode:
    """Run all cells of a notebook in a new kernel whose working directory is `folder`.

    Args:
        path: the notebook. folder: an empty folder.

    Returns:
        The notebook with its outputs, without warnings (standard error), progress bars and times.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=LONGEST, resources=place, record_timing=False, coalesce_streams=True).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_passing(output)]
    notebook.metadata.pop("language_info", None)  # the version of Python that happened to run it
    return notebook


def _is_passing(output: NotebookNode) -> bool:
    """Whether an output is a warning or a progress bar, which say nothing afterwards."""
    bar = output.output_type == "display_data" and set(output.data) == {"text/html", "text/plain"}
    return bar or output.get("name") == "stderr"


def main(arguments: list[str]) -> int:
    """Execute the notebooks asked for; return 0, or 1 after the traceback of a cell that failed."""
    import nbformat
    from nbclient.exceptions import CellExecutionError

    parser = argparse.ArgumentParser(description="Execute the notebooks and write their outputs back.")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    for path in options.files or sorted(FOLDER.glob("*.ipynb")):
        print(f"{path.name} ...", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            try:
                notebook = execute(path, Path(folder))
            except CellExecutionError as error:
                print(error, file=sys.stderr)
                return 1
        if not options.check:
            write_atomic(path, (nbformat.writes(notebook) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
