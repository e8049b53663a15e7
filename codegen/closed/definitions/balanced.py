# pyright: basic
"""Tensors that sum to zero over an axis by what they are made of, and cotangents that do: a mean of them need not be taken.

The gradient of `c = xᵀ y` for x is `y dcᵀ`, whose columns sum to zero where those of y do, as for rows that are centred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import mpmath
import numpy as np
import sympy as sp

from codegen.closed.gates.points import DIGITS, TOLERANCE, given_at_random, given_to, rewritten
from codegen.closed.regions.called import averaged
from codegen.closed.regions.cells import Cell, is_contraction
from codegen.closed.regroup.products import product_terms
from engine.indexed import Indexed
from engine.notation import Sigma, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def balanced(c: Cell, axis: int, by_name: Mapping[str, Cell]) -> tuple[Cell, ...]:
    """The cells by whose definitions a tensor sums to zero over an axis, itself last; none where it does not.

    It is a tensor less its mean over that axis, or a product with one that sums to zero.
    """
    i, e = c.indices[axis] if c.indices else 0, c.expr
    if e is None or i == 0:
        return ()
    if isinstance(e, sp.Add):
        mean = mean_taken(e, i, by_name)
        return () if mean is None else (mean, c)
    products = product_terms(e)
    if products is None or len(products) != 1 or i in products[0].summed:
        return ()
    moving = [f for f in products[0].factors if i in f.free_symbols]
    inner = factor_balanced(moving[0], i, by_name) if len(moving) == 1 else ()
    return (*inner, c) if inner else ()


def factor_balanced(f: Any, i: Any, by_name: Mapping[str, Cell]) -> tuple[Cell, ...]:
    """The same of a factor over an index."""
    read = isinstance(f, Indexed) and name_of(f) in by_name
    return balanced(by_name[name_of(f)], f.indices.index(i), by_name) if read else ()


def mean_taken(e: Any, i: Any, by_name: Mapping[str, Cell]) -> Cell | None:
    """The mean over an index that is subtracted from the tensor that it is of; None where it is something else."""
    whole = next((t for t in e.args if isinstance(t, Indexed)), None)
    if whole is None or len(e.args) != 2 or i not in whole.indices:
        return None
    mean = -next(t for t in e.args if t is not whole)
    if not isinstance(mean, Indexed) or averaged(mean, by_name) != name_of(whole) or i in mean.free_symbols:
        return None
    cell = by_name[name_of(mean)]
    (total,) = [f for f in sp.Mul.make_args(cell.expr) if isinstance(f, Sigma)]
    summed = dict(total.limits)
    over = [k for k, x in enumerate(cast("Any", accesses(total.body)[0]).indices) if x in summed]
    return cell if over == [whole.indices.index(i)] else None


def proven(reasons: tuple[Cell, ...], axis: int, by_name: Mapping[str, Cell]) -> bool:
    """Whether the last of these cells sums to zero over an axis at a random point of the others in 50-digit arithmetic."""
    with mpmath.workdps(DIGITS):
        tensors, sizes = given_at_random(given_to(reasons, by_name), reasons)
        rewritten(reasons, tensors, sizes)
        return all(abs(x) <= TOLERANCE for x in np.ravel(tensors[reasons[-1].name].sum(axis)))


def balanced_cotangent(p: Cell, readers: Iterable[Cell], by_name: Mapping[str, Cell]) -> list[int]:
    """The axes over which the part of a cotangent is zero that products pass back, which are all that read a tensor."""
    found: set[int] | None = None
    for o in readers:
        products = product_terms(o.expr) if o.expr is not None and is_contraction(o.expr) else None
        if products is None or len(products) != 1:
            return []
        for k in products[0].reads({p.name}):
            others = [f for j, f in enumerate(products[0].factors) if j != k]
            axes: set[int] = set()
            for axis, i in enumerate(cast("Any", products[0].factors[k]).indices):
                moving = [f for f in others if i in f.free_symbols]
                if i not in products[0].summed or len(moving) != 1:
                    continue
                reasons = factor_balanced(moving[0], i, by_name)
                if reasons and proven(reasons, cast("Any", moving[0]).indices.index(i), by_name):
                    axes.add(axis)
            found = axes if found is None else found & axes
    return sorted(found or ())


__all__ = ["balanced", "balanced_cotangent", "proven"]
