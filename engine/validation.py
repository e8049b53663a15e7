"""torch's distributions look whether their parameters are valid, and a trace has no values to look at."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from torch.distributions import Distribution

if TYPE_CHECKING:
    from collections.abc import Generator


@contextlib.contextmanager
def without_validation() -> Generator[None]:
    """While it lasts, only a distribution that is told to does, as under `python -O`."""
    before = bool(vars(Distribution)["_validate_args"])
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)
