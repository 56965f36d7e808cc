"""Commands killed at every file event: the same command goes on, ends in the same bytes, and leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

# Reads lines of JSON (kill at this event or 0, folder that counts, arguments); runs each in a fork of a process that has
# everything imported, which dies as if by kill -9 at the n-th change of a file; answers with the exit status.
DRIVER = """
import json, os, sys, traceback
import fedvlr_plugin.features.encode, fedvlr_plugin.data.tfidf, fedvlr_plugin.data.preparation.prepare
import sklearn.feature_extraction.text, sklearn.decomposition
from fedvlr_plugin.cli.main import app

WATCHED = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")

def kill_at(event_number, below):
    left = [event_number]
    def hook(event, arguments):
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not (writes or event in WATCHED) or below not in os.path.abspath(str(arguments[0])):
            return
        left[0] -= 1
        if left[0] == 0:
            os._exit(137)
    sys.addaudithook(hook)

def attempt(arguments):
    try:
        app(arguments, standalone_mode=False)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    event_number, below, arguments = json.loads(line)
    if event_number == 0:  # in this process, so that what is imported stays
        print(attempt(arguments), file=answers, flush=True)
        continue
    child = os.fork()
    if child == 0:
        kill_at(event_number, below)
        os._exit(attempt(arguments))
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
"""


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[..., int]]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DRIVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as driver:
        assert driver.stdin is not None and driver.stdout is not None

        def call(arguments: Sequence[str], below: Path, kill_at: int = 0) -> int:
            driver.stdin.write(json.dumps([kill_at, str(below), list(arguments)]) + "\n")
            driver.stdin.flush()
            return int(driver.stdout.readline())

        yield call
        driver.stdin.close()


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def make_atomic(folder: Path) -> None:
    folder.mkdir(parents=True)
    lines = [f"u{user}\ti{(user * 3 + k) % 9}\t{100 + k}" for user in range(6) for k in range(5)]
    heading = "user_id:token\titem_id:token\ttimestamp:float"
    (folder / "made.inter").write_text("\n".join([heading, *lines]) + "\n")
    titles = [f"i{item}\tA tale of {item} words" for item in range(9)]
    (folder / "made.item").write_text("\n".join(["item_id:token\ttitle:token_seq", *titles]) + "\n")


def make_raw(folder: Path) -> None:
    folder.mkdir(parents=True)
    ratings = [f"{user},{item},4.0,{1000 + item}" for user in range(8) for item in range(7)]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *ratings]) + "\n")
    movies = [f"{item},Film {item} (1999),Drama" for item in range(7)]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *movies]) + "\n")


def every_kill(run, tmp_path: Path, make_inputs, arguments, most: int = 80) -> int:
    """Kills the command at each file event in turn; returns the number of events of an undisturbed run."""
    quiet = tmp_path / "quiet"
    make_inputs(quiet)
    assert run(arguments(quiet), quiet) == 0
    expected = content(quiet)
    for event in range(1, most + 1):
        folder = tmp_path / f"killed{event}"
        make_inputs(folder)
        status = run(arguments(folder), folder, event)
        if status == 0:
            return event - 1
        assert status == 137
        assert run(arguments(folder), folder) == 0, f"event {event}"
        assert content(folder) == expected, f"event {event}"
    pytest.fail(f"more than {most} file events")


def test_features_go_on_after_a_kill_at_every_file_event(run, tmp_path: Path) -> None:
    def arguments(root: Path) -> list[str]:
        return ["data", "features", "made", "--modality", "text", "--encoder", "tfidf", "--data-root", str(root)]

    assert every_kill(run, tmp_path, lambda root: make_atomic(root / "made"), arguments) > 8


def test_a_preparation_goes_on_after_a_kill_at_every_file_event(run, tmp_path: Path) -> None:
    def arguments(root: Path) -> list[str]:
        return ["data", "prepare", "ml", "--raw", str(root / "raw"), "--out", str(root / "out")]

    assert every_kill(run, tmp_path, lambda root: make_raw(root / "raw"), arguments) > 5


def test_a_replacement_goes_on_after_a_kill_at_every_file_event(run, tmp_path: Path) -> None:
    def arguments(root: Path) -> list[str]:
        return ["data", "prepare", "ml", "--raw", str(root / "raw"), "--out", str(root / "out"), "--overwrite"]

    def make_inputs(root: Path) -> None:
        make_raw(root / "raw")
        assert run(arguments(root), root) == 0
        (root / "out" / "ml" / "text_features.npy").write_bytes(b"keyed by token; stays")

    assert every_kill(run, tmp_path, make_inputs, arguments) > 5
