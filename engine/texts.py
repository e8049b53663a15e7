"""What a forward does with the text of a size: whether it is only said, as by `print` and where something is refused."""

from __future__ import annotations

import ast
import inspect
import linecache
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from engine.naming import is_library, is_users

if TYPE_CHECKING:
    from types import FrameType

Place = tuple[int, int]


def is_only_said() -> bool:
    """Whether the text of a size that is made by the caller's caller is dropped by the forward's own statement, or made by a library.

    An expression that stands alone, an `assert` and a `raise` compute nothing with it. Any other statement may compare it.
    """
    frame = inspect.currentframe()
    for _ in range(2):  # this one, and the method of the size
        frame = frame and frame.f_back
    while frame is not None and not is_users(frame):
        if is_library(frame):
            return True
        frame = frame.f_back
    return frame is not None and is_dropped(frame)


def is_dropped(frame: FrameType) -> bool:
    """Whether the statement that a frame is at uses no value of what it computes; False where its text is not known."""
    code = frame.f_code
    line, end, column, end_column = next(islice(code.co_positions(), frame.f_lasti // 2, None), (None,) * 4)
    lines = linecache.getlines(code.co_filename, frame.f_globals)
    if line is None or end is None or column is None or end_column is None or not lines:
        return False
    own = (line, column), (end, end_column)
    around = [p for p in parts("".join(lines)) if p.first <= own[0] and own[1] <= p.last]
    around = [p for p in around if not p.is_call or own != (p.first, p.last)]
    inner = max(around, key=lambda p: (p.first, -p.last[0], -p.last[1]), default=None)
    return inner is not None and inner.drops


@dataclass(frozen=True)
class Part:
    """A part of a file, and whether it drops the text that it makes or is given, as `print(...)` by itself does."""

    first: Place
    last: Place
    drops: bool
    is_call: bool


@lru_cache(maxsize=64)
def parts(text: str) -> tuple[Part, ...]:
    """The parts of a file that drop a text, and those inside of them and beside them that may use one; () for no Python."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return ()
    found: list[Part] = []
    dropping: set[ast.AST] = set()
    for n in ast.walk(tree):  # what is outside comes first
        if isinstance(n, ast.Expr):
            dropping |= {n, n.value}
        elif isinstance(n, (ast.Raise, ast.Assert)):
            said = [n.msg] if isinstance(n, ast.Assert) else [n, n.exc]
            dropping |= {part for part in said if part is not None}
        elif isinstance(n, ast.IfExp):
            found.append(part_of(n.test, False))
        if n in dropping or isinstance(n, (ast.stmt, ast.Lambda, ast.Compare, ast.Subscript, ast.BoolOp, ast.Call)):
            found.append(part_of(n, n in dropping))
    return tuple(found)


def part_of(n: Any, drops: bool) -> Part:
    """A node of a file's syntax as a part of it."""
    return Part((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset), drops, isinstance(n, ast.Call))
