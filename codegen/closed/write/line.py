"""One emitted statement of a region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sympy import Expr

    from codegen.lowering.lower import Lowered


LIKE = "_like"  # in a line's value: a tensor that has its precision, for lines that read no floats


@dataclass(frozen=True)
class Line:
    """`name = value` in torch, and the formula it computes."""

    name: str
    indices: tuple[Expr, ...]
    shape: tuple[Expr, ...]
    expr: Expr
    value: Lowered
