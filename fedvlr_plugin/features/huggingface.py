"""Find weights in the Hugging Face cache, and test whether the hub can be reached.

Without a network, the hub's own client retries for most of a minute and prints a long line each time. Callers here look
into the cache first, and then test the connection once.
"""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

TIMEOUT_S = 10.0


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings, and log lines below the level of errors, while packages are imported or models created."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def cached(repository: str, names: Sequence[str]) -> Path | None:
    """Find a file of a hub repository in the local cache.

    Args:
        repository: as `owner/name`.
        names: of the files, in order of preference.

    Returns:
        The first file that is cached; None if there is none.
    """
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        path = try_to_load_from_cache(repository, name)
        if isinstance(path, str):
            return Path(path)
    return None


def no_way_there() -> str | None:
    """Test the connection to the hub; return the reason why it cannot be reached, or None if it answers."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        urllib.request.urlopen(urllib.request.Request(ENDPOINT, method="HEAD"), timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return None
    except (urllib.error.URLError, OSError, ValueError) as error:
        why = " ".join(str(getattr(error, "reason", error)).split())[:160]
        return f"{ENDPOINT} cannot be reached: {why}"
    return None
