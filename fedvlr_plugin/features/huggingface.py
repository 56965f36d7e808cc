"""Getting weights from the Hugging Face hub without its noise: what is cached is used, no way to the hub is said at once.

The hub's own client tries again for most of a minute, a long line each time, before it gives up. Here the cache is
looked at first, then whether the hub answers at all.
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
    """Neither warnings nor log lines below errors: what a model's packages say while they are imported or made."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def cached(repository: str, names: Sequence[str]) -> Path | None:
    """The first of `names` of a hub repository that lies in the local cache, None where there is none."""
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    return None


def no_way_there() -> str | None:
    """Why the hub cannot be reached, one line; None when it answers, whatever it answers."""
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
