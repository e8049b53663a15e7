"""Where the user's forward is now, and the message for an op outside of the table."""

from __future__ import annotations

import difflib
import linecache
from functools import lru_cache
from pathlib import Path

from engine.graph import Source
from engine.naming import user_frame
from engine.ops import TABLE

DEVICES = frozenset(("cuda", "xpu", "mps", "ipu", "pin_memory"))
"""Methods that move a tensor elsewhere."""


def here() -> Source | None:
    """Where the user's forward is now."""
    frame = user_frame()
    if frame is None:
        return None
    file, line = frame.f_code.co_filename, frame.f_lineno
    return Source(_shown(file, Path.cwd()), line, linecache.getline(file, line).strip())


@lru_cache(maxsize=64)
def _shown(file: str, folder: Path) -> str:
    """A path as messages name it: relative to the working folder where it is inside."""
    path = Path(file)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name


def located() -> str:
    """` at file:line` for messages."""
    source = here()
    return str(source) if source else "the forward"


def unknown_op(name: str) -> str:
    """The message for an op outside the table: op, place, nearest supported op, remedy."""
    names = sorted({r.name for r in TABLE.values()})
    close = difflib.get_close_matches(name.strip("_").removeprefix("special_"), names, n=1, cutoff=0.6)
    nearest = f" The nearest supported op is {close[0]!r}." if close else ""
    source = here()
    text = f"\n  {source.text}" if source and source.text else ""
    if name in DEVICES:
        return f".{name}() at {located()}: leave devices out. Emitted code runs on the device that its inputs are on.{text}"
    return (
        f"op {name!r} is not in the op table, at {located()}.{nearest} "
        f"Write it with supported ops, or add a row with engine.op(...) / engine.elementwise(...).{text}"
    )
