"""`fedvlr privacy`: the three questions, and one line for a request that makes no sense."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from fedvlr_plugin.cli.main import app

pytest.importorskip("dp_accounting", reason="accounting needs the extra [dp]")


def ask(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["privacy", *words])
    return done.exit_code, done.output


def test_any_two_give_the_third() -> None:
    known = ("--rounds", "100", "--delta", "5e-4", "--sampling", "0.1")
    status, text = ask("epsilon", "--noise-multiplier", "4", *known)
    assert status == 0 and text.startswith("epsilon 0.6825 at delta 0.0005 (by RDP: 0.7884)")
    status, text = ask("noise", "--epsilon", "8", "--rounds", "60", "--users", "204")
    assert status == 0 and text.startswith("noise multiplier 3.876 ") and "delta 0.00049" in text
    status, text = ask("rounds", "--epsilon", "8", "--noise-multiplier", "3.876", "--users", "204")
    assert status == 0 and text.startswith("60 rounds")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("epsilon", "--noise-multiplier", "4", "--rounds", "10"), "give one of --delta and --users"),
        (("noise", "--epsilon", "1", "--rounds", "10", "--users", "5", "--delta", "0.1"), "give one of"),
        (("epsilon", "--noise-multiplier", "0", "--rounds", "10", "--users", "5"), "must be above 0, got 0"),
        (("epsilon", "--noise-multiplier", "1", "--rounds", "10", "--delta", "2"), "delta must be in (0, 1), got 2"),
    ],
)
def test_a_request_that_makes_no_sense_is_one_line(words: tuple[str, ...], complaint: str) -> None:
    status, text = ask(*words)
    assert status == 2 and complaint in text and len(text.strip().splitlines()) == 1
