# pyright: basic
"""A softmax whose logarithm is needed too: log_softmax is computed once, and the shares are its exponential."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.matching import determined
from codegen.closed.algebra.sums import rebuilt
from codegen.lowering.kernels import log_share, stable
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Index, Sigma, base, canonical, element, instantiate, name_of

if TYPE_CHECKING:
    from codegen.closed.regions.cells import Cell

RULE = "the logarithm of shares is computed once, and they are its exponential"

Written = tuple["Cell", Expr]


def with_log_shares(lines: list[Written]) -> list[Written]:
    """Every `p = exp(f) / Sum exp(f)` of which another line has the logarithm, as `exp(log p)` after a line for `log p`."""
    taken = {c.name for c, _ in lines}
    for cell, e in lines:
        exponent = softmax_of(e)
        if exponent is None:
            continue
        name = free_name(f"{cell.name}_log", taken)
        log = element(base(name), cell.indices)
        changed = [(c, read_as(x, exponent, cell, log) if c is not cell else x) for c, x in lines]
        moved = [k for k, (_, x) in enumerate(changed) if x is not lines[k][1]]
        if not moved:
            continue
        there = next((k for k in moved if whole(changed[k], name)), None)
        if there is None:
            taken.add(name)
            inner, limits = exponent
            total = instantiate(sp.log(Sigma(sp.exp(inner.xreplace(dict(limits[0]))), *limits[1])), {})
            new = replace(
                cell, name=name, expr=inner - total, node=None, call=False, positive=False, named=False, text=None
            )
            line = new, cast("Expr", new.expr)
        else:  # some tensor of the forward is that already
            line = lines[there]
            log = element(base(line[0].name), cell.indices)
            changed = [(c, read_as(x, exponent, cell, log) if c is not cell else x) for c, x in lines]
        first = min(*moved, next(k for k, (c, _) in enumerate(lines) if c is cell))
        shares = [(c, cast("Expr", sp.exp(log)) if c is cell else x) for c, x in changed]
        lines = [*shares[:first], line, *[x for k, x in enumerate(shares) if k >= first and k != there]]
    return lines


def whole(line: Written, name: str) -> bool:
    """Whether a line is nothing but a tensor, index by index."""
    cell, e = line
    return isinstance(e, Indexed) and name_of(e) == name and tuple(e.indices) == tuple(cell.indices)


def softmax_of(e: Expr) -> tuple[Expr, tuple[tuple[tuple[Any, Any], ...], list[Any]]] | None:
    """(f, (f's indices by those that are summed, limits of the sum)) of exp(f) / Sum exp(f); None for anything else."""
    known = stable(e) if isinstance(e, sp.Mul) else None
    if known is None or known[0] != "scaled" or known[1][0][0] != "softmax" or known[1][1] != 1:
        return None
    inner, limits = known[1][0][1]
    if len(limits) != 1:
        return None
    names = tuple((i, Index(f"_l{k}")) for k, (i, _) in enumerate(limits))
    return inner, (names, [sp.Tuple(j, n) for (_, j), (_, n) in zip(names, limits, strict=True)])


def read_as(e: Any, exponent: Any, cell: Cell, log: Expr) -> Any:
    """An expression with every `f - log(Sum exp f)` of these exponents read from the tensor that holds it."""
    if isinstance(e, Indexed) or not e.args:
        return e
    found = log_share(e) if isinstance(e, sp.Add) else None
    if found is not None:
        share, total, c, _ = found
        mapping = determined(exponent[0], share / c, cell.indices)
        if mapping is not None and sums_the_same(-total / c, exponent, mapping):
            return read_as(e - share - total, exponent, cell, log) + c * log.xreplace(mapping)
    return rebuilt(e, lambda a: read_as(a, exponent, cell, log))


def sums_the_same(total: Any, exponent: Any, mapping: dict[Any, Any]) -> bool:
    """Whether the logarithm's sum runs over the axes that the shares are divided over: x may be shared out along several."""
    inner, (names, limits) = exponent
    own = Sigma(sp.exp(inner.xreplace(dict(names))), *limits)
    return canonical(own.xreplace(mapping)) == canonical(total.args[0])


__all__ = ["RULE", "with_log_shares"]
