# pyright: basic
"""What a softmax passes back, `p_j (g_j - Sum_k g_k p_k)`, as torch's kernel for it, which reads g and p once each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp

from codegen.closed.algebra.sums import rebuilt
from codegen.closed.kernels.slopes import running
from codegen.derive import distribute
from engine.indexed import Indexed
from engine.notation import BRACKETS, Delta, Sigma, canonical, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.regions.cells import Cell


class SoftmaxBackward(sp.Function):
    """`SoftmaxBackward(g, p, j, n)` is `p_j (g_j - Sum_k g_k p_k)`, summed over the index j, which has n values."""

    nargs = 4


def with_softmax_slopes(e: Any, cells: Mapping[str, Cell]) -> Any:
    """An expression with every `p_j (g_j - Sum_k g_k p_k)` in it as the kernel, where g is no smaller than p."""
    if isinstance(e, Indexed) or not e.args or not e.has(Sigma):
        return e
    e = rebuilt(e, lambda a: with_softmax_slopes(a, cells)) if not isinstance(e, Sigma) else e
    if not isinstance(e, sp.Mul):
        return e
    for p in e.args:
        cell = cells.get(name_of(p)) if isinstance(p, Indexed) else None
        if cell is None or cell.kind != "float":
            continue
        for f in e.args:
            kernel = slope(f, p, cell) if isinstance(f, sp.Add) else None
            if kernel is not None:
                return kernel * e / f / p
    return e


def slope(f: sp.Add, p: Any, cell: Cell) -> Any:
    """The kernel that is a tensor p times a sum f, where it is one."""
    sums = [t for t in f.args if t.has(Sigma)]
    g: Any = sp.Add(*[t for t in f.args if t not in sums])
    if not sums or running(g) != running(p) or g.has(*BRACKETS, Delta):
        return None
    total = canonical_terms(sp.Add(*sums))
    for j, n in zip(p.indices, cell.shape, strict=False):
        if n == 1 or any(j in running(t) for t in sums):
            continue
        if canonical_terms(distribute(-summand(g, p, j, k := fresh()), [(k, n)])) == total:
            return SoftmaxBackward(g, p, j, n)
    return None


def summand(g: Any, p: Any, j: Any, k: Any) -> Any:
    """The product of g and p at k in the place of j."""
    return sp.expand(g * p).xreplace({j: k})


def canonical_terms(e: Any) -> set[Any]:
    """The terms of a sum, whatever their bound indices are called."""
    return {canonical(t) for t in sp.Add.make_args(sp.expand(e))}


def without_kernels(e: Any) -> Any:
    """An expression as the formula that the kernel computes."""

    def formula(g: Any, p: Any, j: Any, n: Any) -> Any:
        return p * (g - distribute(summand(g, p, j, k := fresh()), [(k, n)]))

    return e.replace(SoftmaxBackward, formula)


__all__ = ["SoftmaxBackward", "with_softmax_slopes", "without_kernels"]
