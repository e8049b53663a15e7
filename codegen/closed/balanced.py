# pyright: basic
"""Tensors that sum to zero over an axis by what they are made of, and cotangents that do: a mean of them need not be taken.

The gradient of `c = xᵀ y` for x is `y dcᵀ`, whose columns sum to zero where those of y do, as for rows that are centred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.called import averaged
from codegen.closed.cells import Cell, is_contraction
from codegen.closed.regroup.products import product_terms
from engine.indexed import Indexed
from engine.notation import Sigma, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def balanced(c: Cell, axis: int, by_name: Mapping[str, Cell]) -> bool:
    """Whether a tensor sums to zero over an axis: it is less its mean over that, or a product with such a tensor."""
    i, e = c.indices[axis] if c.indices else 0, c.expr
    if e is None or i == 0:
        return False
    if isinstance(e, sp.Add):
        return centred(e, i, by_name)
    products = product_terms(e)
    if products is None or len(products) != 1 or i in products[0].summed:
        return False
    moving = [f for f in products[0].factors if i in f.free_symbols]
    return len(moving) == 1 and read_balanced(moving[0], i, by_name)


def read_balanced(f: Any, i: Any, by_name: Mapping[str, Cell]) -> bool:
    """Whether a factor is a tensor, read so that it sums to zero over an index."""
    return (
        isinstance(f, Indexed) and name_of(f) in by_name and balanced(by_name[name_of(f)], f.indices.index(i), by_name)
    )


def centred(e: Any, i: Any, by_name: Mapping[str, Cell]) -> bool:
    """Whether a sum is a tensor less its mean over an index."""
    whole = next((t for t in e.args if isinstance(t, Indexed)), None)
    if whole is None or len(e.args) != 2:
        return False
    mean = -next(t for t in e.args if t is not whole)
    if not isinstance(mean, Indexed) or averaged(mean, by_name) != name_of(whole):
        return False
    (total,) = [f for f in sp.Mul.make_args(by_name[name_of(mean)].expr) if isinstance(f, Sigma)]
    over = [k for k, x in enumerate(cast("Any", accesses(total.body)[0]).indices) if x in dict(total.limits)]
    place = whole.indices.index(i) if i in whole.indices else -1
    return over == [place] and i not in mean.free_symbols


def balanced_cotangent(p: Cell, readers: Iterable[Cell], by_name: Mapping[str, Cell]) -> list[int]:
    """The axes over which the part of a cotangent is zero that products pass back, which are all that read a tensor."""
    found: set[int] | None = None
    for o in readers:
        if o.expr is None or not is_contraction(o.expr):
            return []
        products = product_terms(o.expr)
        if products is None or len(products) != 1:
            return []
        for k in products[0].reads({p.name}):
            others = [f for j, f in enumerate(products[0].factors) if j != k]
            axes: set[int] = set()
            for axis, i in enumerate(cast("Any", products[0].factors[k]).indices):
                moving = [f for f in others if i in f.free_symbols]
                if i in products[0].summed and len(moving) == 1 and read_balanced(moving[0], i, by_name):
                    axes.add(axis)
            found = axes if found is None else found & axes
    return sorted(found or ())


__all__ = ["balanced", "balanced_cotangent"]
