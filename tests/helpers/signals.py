"""Signals of processes that tests start."""

from __future__ import annotations

import signal


def heeds_signals() -> None:
    """Give to `Popen(preexec_fn=...)`: what starts the tests may ignore signals (nohup, a shell's background job), and
    children inherit that."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
