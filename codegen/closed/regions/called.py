# pyright: basic
"""What a part of a definition is called: after the tensor that it is something of, where it is something that has a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp

from engine.indexed import Indexed
from engine.notation import Sigma, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.regions.cells import Cell


def addition_name(e: Any, owner: str, cells: Mapping[str, Cell]) -> str:
    """Of a sum of terms: `x_centred` is x less its mean, `x_var_eps` the variance of x and a number, else it is the owner's."""
    tensors = [t for t in sp.Add.make_args(e) if accesses(t)]
    numbers = [t for t in sp.Add.make_args(e) if not accesses(t)]
    whole = next((t for t in tensors if isinstance(t, Indexed)), None)
    if whole is None:
        return f"{owner}_add"
    if len(tensors) == 2 and not numbers:
        (other,) = [t for t in tensors if t is not whole]
        mean: Any = -other
        if isinstance(mean, Indexed) and averaged(mean, cells) == name_of(whole):
            return f"{name_of(whole)}_centred"
        if isinstance(mean, Indexed) and isinstance(other, sp.Mul):
            return f"{owner}_sub"
    if len(tensors) == 1 and all(n.is_number for n in numbers):
        squared = averaged(whole, cells, 2)
        if squared is not None:
            return f"{squared.removesuffix('_centred')}_{'var' if squared.endswith('_centred') else 'meansq'}_eps"
    return f"{owner}_add"


def averaged(access: Indexed, cells: Mapping[str, Cell], power: int = 1) -> str | None:
    """The tensor that a cell is the mean of, or of whose squares it is; None for other cells."""
    cell = cells.get(name_of(access))
    if cell is None or not isinstance(cell.expr, sp.Mul):
        return None
    sums = [f for f in cell.expr.args if isinstance(f, Sigma)]
    if len(sums) != 1 or sp.cancel(cell.expr / sums[0] * sp.Mul(*[n for _, n in sums[0].limits])) != 1:
        return None
    inner, exponent = sums[0].body.as_base_exp()
    return name_of(inner) if isinstance(inner, Indexed) and exponent == power else None


def share_name(body: Any, cells: Mapping[str, Cell], total: str) -> str:
    """Of exponentials over their sum: `z_softmax`, where they are of a tensor z."""
    if isinstance(body, Indexed) and name_of(body) in cells:
        body = cells[name_of(body)].expr
    argument = body.args[0] if isinstance(body, sp.exp) else None
    return f"{name_of(argument)}_softmax" if isinstance(argument, Indexed) else f"{total}_share"


__all__ = ["addition_name", "averaged", "share_name"]
