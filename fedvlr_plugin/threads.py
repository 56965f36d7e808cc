"""How the threads of OpenMP wait for each other: asleep instead of spinning, on a machine that others use too.

Spinning threads keep the cores from the threads that they wait for, as soon as another process wants a core. The setting
is read once, when torch loads its library, so it must come before; processes that are started inherit it.
"""

from __future__ import annotations

import os
import sys

WAIT_POLICY = "OMP_WAIT_POLICY"


def let_threads_sleep() -> bool:
    """Ask OpenMP for sleeping threads, unless the user's environment says otherwise.

    Returns:
        Whether sleeping threads are in force: False where torch is loaded already without them, or the user has chosen
        another policy.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault(WAIT_POLICY, "PASSIVE")
    return os.environ.get(WAIT_POLICY, "").upper() == "PASSIVE"
