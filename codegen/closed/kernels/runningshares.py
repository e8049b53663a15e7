# pyright: basic
"""What the logarithm of a running sum of exponentials passes back, `Sum_i [j <= i] g_i exp(x_j - l_i)`, by running sums of exponentials.

Their shares exp(x_j - l_i) are a triangle; their sums are as many as there are x. Where g is one number they are one running sum more,
and where it is positive, as `g exp(-l)` is exp(log g - l); else one of what is positive in g, and one of what is negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul

from codegen.closed.algebra.sums import rebuilt
from codegen.closed.definitions.scaled import indicates
from codegen.closed.definitions.several import logarithm_of
from codegen.closed.regions.cells import at
from codegen.derive import distribute
from codegen.lowering.stable import running_mask
from engine.indexed import Indexed
from engine.notation import Index, LessEqual, Sigma, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.regions.cells import Cell


class LogcumsumexpBackward(sp.Function):
    """`LogcumsumexpBackward(g, x, l, j, n, s)` is `Sum_k [j <= k] g_k exp(x_j - l_k)` over the n values of the index j.

    For s = -1 it is that of running sums from the end, over k up to j.
    """

    nargs = 6


def with_running_shares(e: Any, cells: Mapping[str, Cell]) -> Any:
    """An expression with every sum of shares of running sums by running sums, where the logarithm of these is a cell."""
    if isinstance(e, Indexed) or not e.args or not e.has(Sigma):
        return e
    if isinstance(e, Sigma):
        new = passed_back(e, cells)
        body = with_running_shares(e.body, cells) if new is None else None
        return new if body is None else e if body is e.body else e.func(body, *e.args[1:])
    return rebuilt(e, lambda a: with_running_shares(a, cells))


def passed_back(e: Sigma, cells: Mapping[str, Cell]) -> Any:
    """Such a sum by running sums, which other sums may be around; None for any other."""
    factors = Mul.make_args(e.body)
    for share, (i, n) in [(f, x) for f in factors if isinstance(f, Indexed) for x in e.limits if x[0] in f.indices]:
        found = share_of(share, i, cells)
        if found is None:
            continue
        x, out, j, mask = found
        inside = [f for f in factors if f is not share and i in f.free_symbols]
        if any(j in f.free_symbols for f in inside):
            continue
        sign = 1 if mask.args[0] == j else -1
        rest = Mul(*[f for f in factors if f is not share and f not in inside])
        g = Mul(*inside)
        if g != 1 and weighs(g, cells):
            g, out = sp.S.One, out - sp.log(g)
        whole = rest * LogcumsumexpBackward(*(y.xreplace({i: j}) for y in (g, x, out)), j, n, sign)
        others = [y for y in e.limits if y[0] != i]
        return e.func(whole, *others) if others else whole
    return None


def weighs(g: Any, cells: Mapping[str, Cell]) -> bool:
    """Whether weights are positive, or zeros and ones: the logarithm of any others need not have a derivative."""
    return bool(g.is_positive) or indicates(g, cells)


def share_of(share: Indexed, i: Index, cells: Mapping[str, Cell]) -> tuple[Any, Any, Index, Any] | None:
    """(x at j, the logarithm at i, j, [j <= i] or [i <= j]) of an element exp(x - l) of such shares; None for any other."""
    cell = cells.get(name_of(share))
    e: Any = at(cell, share.indices) if cell is not None and isinstance(cell.expr, Mul) and not cell.call else sp.S.One
    tops = [f for f in Mul.make_args(e) if isinstance(f, sp.exp)]
    bottoms = [
        f.base for f in Mul.make_args(e) if isinstance(f, sp.Pow) and f.exp == -1 and isinstance(f.base, Indexed)
    ]
    if len(tops) != 1 or len(bottoms) != 1 or tops[0] / bottoms[0] != e:
        return None
    j = next((k for k in share.indices if isinstance(k, Index) and k not in bottoms[0].free_symbols), None)
    mask = None if j is None else running_mask(tops[0].args[0], ((j, sp.S.One),))
    logarithm = logarithm_of(bottoms[0], cells) if isinstance(mask, LessEqual) and {*mask.args} == {i, j} else None
    return None if logarithm is None else (tops[0].args[0].args[1], logarithm, cast("Index", j), mask)


def without_running_kernels(e: Any) -> Any:
    """An expression as the formula that the kernel computes."""

    def formula(g: Any, x: Any, logarithm: Any, j: Any, n: Any, sign: Any) -> Any:
        k = fresh()
        there = {j: k}
        mask = LessEqual(j, k) if sign == 1 else LessEqual(k, j)
        return distribute(mask * g.xreplace(there) * sp.exp(x - logarithm.xreplace(there)), [(k, n)])

    return e.replace(LogcumsumexpBackward, formula)


__all__ = ["LogcumsumexpBackward", "with_running_shares", "without_running_kernels"]
