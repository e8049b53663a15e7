# pyright: basic
"""Powers of outer products as products of powers: `a[i,j] / sqrt(d[i] d[j])` is `a[i,j] d[i]^(-1/2) d[j]^(-1/2)`.

The powers are of vectors then, and what they scale may be the smaller of two tensors that are multiplied. Below a root a factor
of which it is not known that it is never negative is read as its absolute value: where the root is real, both are the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sympy as sp

from codegen.closed.algebra.terms import indices_of
from codegen.closed.regions.cells import Cell, substituted
from codegen.closed.regroup.among import Among, alive
from codegen.closed.regroup.parts import Parts
from codegen.lowering.kernels import stable
from engine.indexed import Indexed
from engine.notation import Delta, Less, Sigma, Sign, Where, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sympy import Expr

RULE = "a power of an outer product is the product of the powers"
NONNEGATIVE = frozenset(("relu", "abs", "softplus", "sigmoid", "softmax"))
"""Kernels whose results are never negative."""
MOST = 64
"""Cells whose definitions are looked at for a sign, at most."""


def with_powers_apart(
    cells: list[Cell], outputs: Collection[str], fixed: Collection[str], example: Mapping[Any, int]
) -> list[Cell]:
    """The cells with powers of outer products written out in the products that read them. `fixed` ones stay as they are.

    The roots of vectors are tensors of their own.
    """
    among = Among(cells, outputs, fixed, example)
    parts = Parts(among, ())
    apart: dict[str, Cell] = {}
    signs: dict[str, bool] = {}
    out: list[Cell] = []
    changed = False
    for c in cells:
        told = c.expr is not None and c.kind == "float" and c.name not in fixed and not c.after
        read = {n: apart[n] for n in c.reads if n in apart and told and divides(c.expr, apart[n])}
        if read:
            c, changed = replace(c, expr=substituted(c.expr, read), call=False, text=None), True
        before = len(parts.made)
        found = in_factors(c, parts, signs) if told and c.name not in outputs else None
        if found is not None:
            apart[c.name] = replace(c, expr=found)
        out += [*list(parts.made.values())[before:], c]
    return alive(out, outputs) if changed else cells


def divides(e: Any, c: Cell) -> bool:
    """Whether a power of a tensor is a factor of a product, and nothing else there reads it: of a root, the first power, too."""
    pairs = [f.as_base_exp() for f in sp.Mul.make_args(e)]
    own = [(b, p) for b, p in pairs if c.name in map(name_of, accesses(b)) or p.has(Indexed)]
    rooted = any(isinstance(f, sp.Pow) for f in sp.Mul.make_args(c.expr))
    return len(pairs) > 1 and len(own) == 1 and all(isinstance(b, Indexed) and (rooted or p != 1) for b, p in own)


def in_factors(c: Cell, parts: Parts, signs: dict[str, bool]) -> Expr | None:
    """An outer product, or a root of one, as a product of tensors that have indices of their own each; None for others."""
    base, power = sp.sympify(c.expr).as_base_exp()
    if power != 1 and not (power.is_Rational and power.q == 2):
        return None
    known = parts.among.known
    inner = known.get(name_of(base)) if isinstance(base, Indexed) else None
    if inner is not None and isinstance(inner.expr, sp.Mul) and inner.kind == "float" and not inner.named:
        base = substituted(base, {inner.name: inner})
    if not isinstance(base, sp.Mul) or base.has(Sigma):
        return None
    by: dict[frozenset[Any], Any] = {}
    for f in base.args:
        own = indices_of(f)
        by[own] = by.get(own, sp.S.One) * f
    whole = frozenset(c.ranges)
    if not all(own < whole for own in by) or sum(bool(own) for own in by) < 2:
        return None
    if power == 1:
        return base
    parts.belong(c, ())
    label = "sqrt" if power == sp.S.Half else "rsqrt" if power == -sp.S.Half else "power"
    roots = [(f if never_negative(f, known, signs) else Sign(f) * f) ** power for f in by.values()]
    return sp.Mul(*[parts.part(r, indices_of(r), label) if r.has(Indexed) else r for r in roots])


def never_negative(e: Any, known: Mapping[str, Cell], signs: dict[str, bool]) -> bool:
    """Whether an expression is not negative whatever its inputs hold, as its definitions tell."""
    if e.is_nonnegative or isinstance(e, (Less, Delta)):
        return True
    if isinstance(e, Indexed):
        name = name_of(e)
        if name not in signs and len(signs) < MOST:
            cell = known.get(name)
            signs[name] = False
            signs[name] = cell is not None and cell.expr is not None and never_negative(cell.expr, known, signs)
        return signs.get(name, False)
    if isinstance(e, Sigma):
        return never_negative(e.body, known, signs)
    if isinstance(e, (sp.Add, sp.Mul)):
        return all(never_negative(a, known, signs) for a in e.args)
    if isinstance(e, sp.Pow):
        return bool(e.exp.is_even) or (e.exp.is_Rational and e.exp.q == 2) or never_negative(e.base, known, signs)
    if isinstance(e, Where) and all(never_negative(a, known, signs) for a in e.args[1:]):
        return True
    kernel = stable(e)
    return kernel is not None and kernel[0] in NONNEGATIVE


__all__ = ["RULE", "with_powers_apart"]
