"""Fewer passes of Python's cycle collector where many objects are made that stay."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

THRESHOLD = 200_000
"""New containers between two passes. By default it is 700: a derivation makes millions, of which few are ever in a cycle."""


@contextlib.contextmanager
def few_collections() -> Generator[None]:
    """While this is entered, collect only after many new objects. A third of the time of a derivation goes into it else."""
    before = gc.get_threshold()
    if before[0]:
        gc.set_threshold(max(before[0], THRESHOLD), *before[1:])
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # what is there now counts as old: else all of it is gone through right here
            gc.freeze()
            gc.unfreeze()
        gc.set_threshold(*before)
