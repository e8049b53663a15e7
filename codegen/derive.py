"""Cotangents from index notation, by sympy: `dx[k] = Sum_i do[i] * (d o[i] / d x[k])`.

The derivative of an access x[g] with respect to x[k] is a product of Kronecker deltas; deltas are summed out by solving
their index equation for a bound index wherever that covers its whole range, and stay (as a scatter) where it does not.
Everything here works on templates, so equal nodes are derived once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.lowering.deltas import Solver
from codegen.lowering.ranges import simplified
from codegen.ownoutput import with_output
from engine.indexed import Indexed, IndexedBase
from engine.notation import (
    BINDERS,
    Amax,
    Delta,
    Index,
    Largest,
    Less,
    LessEqual,
    Product,
    Sigma,
    Where,
    accesses,
    bound,
    element,
    fresh,
    instantiate,
    name_of,
    ordered,
    sigma,
)
from engine.table import Definition, indices_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COT = "_cot"
"""In a template: the cotangent of the node's output, as `OUT` is the output itself. Operands are `_0`, `_1`, ..."""


@dataclass(frozen=True)
class Term:
    """`Sum over limits of body * deltas`: one path from an output's cotangent to one access of an operand."""

    limits: tuple[tuple[Index, Expr], ...]
    body: Expr
    deltas: tuple[tuple[Expr, Expr], ...]


@dataclass(frozen=True)
class Contribution:
    """What one consumer adds to an operand's cotangent at `indices` (0 for a dimension of size one)."""

    indices: tuple[Expr, ...]
    shape: tuple[Expr, ...]
    expr: Expr
    rules: tuple[str, ...]


def partials(e: Expr, base: IndexedBase) -> Iterator[tuple[Expr, Indexed, tuple[tuple[Index, Expr], ...]]]:
    """d e / d base[...]: (coefficient, access, limits of the sums it stands under), one for each access.

    Sums are differentiated under the sign; what stands outside of a sum multiplies from outside: its indices are free.
    A product is differentiated factor by factor, each derivative times the product of all other factors.
    """
    hidden: dict[Sigma | Amax | Product, sp.Dummy] = {}

    def hide(x: Any) -> Any:
        if isinstance(x, BINDERS):
            return hidden.setdefault(x, sp.Dummy(f"S{len(hidden)}", real=True, positive=x.is_positive))
        if isinstance(x, Indexed) or not x.args:
            return x
        args = [hide(a) for a in x.args]
        return x.func(*args) if any(p is not q for p, q in zip(args, x.args, strict=True)) else x

    flat = hide(e)
    back = {d: s for s, d in hidden.items()}
    for access in [a for a in accesses(flat) if a.base == base]:
        slot = sp.Dummy("x", real=True, positive=access.is_positive)
        local = sp.diff(flat.xreplace({access: slot}), slot).xreplace({slot: access}).xreplace(back)
        if local != 0:
            yield local, access, ()
    for s, name in hidden.items():
        if (isinstance(s, Amax) and not isinstance(s, Largest)) or not any(a.base == base for a in accesses(s)):
            continue
        outer = sp.diff(flat, name).xreplace(back)
        if outer == 0:
            continue
        copy = {i: fresh() for i, _ in s.limits}
        limits = tuple((copy[i], n) for i, n in s.limits)
        body = s.body.xreplace(copy)
        if isinstance(s, Largest):
            outer = outer * s.shares(body)
        if isinstance(s, Product):
            outer = outer * without_factor(s, copy)
        for inner, access, deeper in partials(body, base):
            yield outer * inner, access, (*limits, *deeper)


def without_factor(e: Product, at: Mapping[Index, Index]) -> Expr:
    """A product without the factor at one place."""
    same = Mul(*[Delta(i, k) for i, k in at.items()])
    return instantiate(Product(Where(same, sp.S.One, e.body), *e.args[1:]), {})


def finish(term: Term, ranges: Mapping[Index, Expr], sizes_of: Mapping[Expr, Expr]) -> tuple[Expr, bool]:
    """A term with its deltas summed out as far as they go, and whether any stayed."""
    solver = Solver(dict(term.limits), ranges)
    rest = solver.solve([(e, k, sizes_of.get(k, sp.S.One)) for e, k in term.deltas])
    known = solver.known
    body = simplified(term.body.xreplace(solver.substitution), known)
    left = [simplified(Delta(k, e.xreplace(solver.substitution)), known) for e, k in rest]
    body = simplified(gathered(Mul(body, *left), solver.limits, ranges), {**known, **solver.limits})
    body, places = only_places(body, solver.limits)
    inside: list[tuple[Index, Expr]] = []
    symbols = body.free_symbols
    for j, n in solver.limits.items():
        if j in places:
            continue
        if j in symbols:
            inside.append((j, n))
        else:
            body = body * n
    return distribute(body, inside), bool(left)


def gathered(body: Expr, limits: dict[Index, Expr], ranges: Mapping[Index, Expr]) -> Expr:
    """A product with each summed index put in that a delta says to be the value of an integer tensor, or an index of the same range.

    `Sum_k f_k [k = c_i]` is `f_{c_i}`: a value that torch takes as an index is one. The index is a summed one no more.
    """
    for f in Mul.make_args(body):
        if not isinstance(f, Delta):
            continue
        for j, e in (f.args, f.args[::-1]):
            if j not in limits or e.free_symbols & {*limits}:
                continue
            if isinstance(e, Indexed) or (isinstance(e, Index) and ranges.get(e) == limits[cast("Index", j)]):
                del limits[cast("Index", j)]
                return gathered((body / f).xreplace({j: e}), limits, ranges)
    return body


FEW = 16
"""How many places of a dimension are looked at one by one."""


def only_places(body: Expr, limits: Mapping[Index, Expr]) -> tuple[Expr, set[Index]]:
    """A product to be summed over `limits`, with the indices put in that have one place where its brackets hold, and those.

    `Sum_j [j < 1] f_j` is f_0, and with three places `Sum_j (1 - [j < 2]) f_j` is f_2; with n, `Sum_j (1 - [j < n - 1]) f_j` is
    f_(n - 1).
    """
    found = set[Index]()
    for j, n in limits.items():
        if not n.is_Integer or n > FEW:
            told = [f for f in Mul.make_args(body) if f.free_symbols & {j} and (1 - f if f.is_Add else f).has(Less)]
            end = end_of(told[0], j, n) if len(told) == 1 else None
            if end is not None:
                body = (body / told[0]).xreplace({j: end})
                found.add(j)
            continue
        told = Mul(*[f for f in Mul.make_args(body) if f.free_symbols == {j} and f.has(Less) and not f.has(Indexed)])
        held = [(k, told.xreplace({j: sp.Integer(k)})) for k in range(int(n))] if told != 1 else []
        kept = [(k, value) for k, value in held if value != 0]
        if len(kept) == 1 and kept[0][1].is_number:
            at, value = kept[0]
            body = value * (body / told).xreplace({j: sp.Integer(at)})
            found.add(j)
    return body, found


def end_of(bracket: Expr, j: Index, n: Expr) -> Expr | None:
    """0 of `[j < 1]`, and n - 1 of `1 - [j < n - 1]`, for an index below n; None of any other bracket."""
    after = 1 - bracket if bracket.is_Add else bracket
    if not isinstance(after, Less) or after.args[0] != j:
        return None
    first = sp.expand(after.args[1] + (1 if isinstance(after, LessEqual) else 0))
    if bracket.is_Add:
        return first if sp.expand(n - first) == 1 else None
    return sp.S.Zero if first == 1 else None


def distribute(body: Expr, limits: list[tuple[Index, Expr]]) -> Expr:
    """Sum(body) with the factors that do not depend on the summed indices in front."""
    if not limits or body == 0:
        return body
    indices = {i for i, _ in limits}
    factors = Mul.make_args(body)
    outside = [f for f in factors if not f.free_symbols & indices]
    inside = [f for f in factors if f.free_symbols & indices]
    return Mul(*outside) * sigma(Mul(*inside), *limits)


@cache
def vjp(template: Definition, position: int, shape: tuple[Expr, ...]) -> Contribution:
    """The cotangent of operand `position` (of this shape) that one op's output passes back, over placeholders."""
    return pulled_back(template, f"_{position}", shape)


def pulled_back(template: Definition, operand: str, shape: tuple[Expr, ...], own: bool = True) -> Contribution:
    """The cotangent of the tensor `operand` (of this shape) that a definition passes back.

    The output's cotangent is called `COT` and the output `OUT`, which is read where that is shorter and `own`. Source of the formula: the chain rule for index
    notation; nothing is specific to an op.
    """
    base = cast("IndexedBase | None", next((a.base for a in accesses(template.expr, operand)), None))
    at = indices_of(shape)
    sizes_of = {i: n for i, n in zip(at, shape, strict=True) if i != 0}
    ranges = {cast("Index", i): n for i, n in sizes_of.items()}
    if base is None:
        return Contribution(at, shape, sp.S.Zero, ("the output does not depend on this operand",))
    cot = IndexedBase(sp.Symbol(COT, real=True))
    total: Expr = sp.S.Zero
    rules: list[str] = []
    outer = [(cast("Index", i), n) for i, n in zip(template.indices, template.shape, strict=True) if i != 0]
    for coefficient, access, limits in partials(template.expr, base):
        there: dict[Expr, Expr] | None = None
        if limits and shape == template.shape and all(isinstance(i, Index) for i in access.indices):
            there = dict(zip(template.indices, access.indices, strict=True))
        local = with_output(coefficient, template, there) if own else coefficient
        rename = {i: fresh() for i, _ in outer}
        rename.update({i: fresh() for i in ordered(bound(local))})
        body = (element(cot, template.indices) * local).xreplace(rename)
        places = [sp.sympify(e).xreplace(rename) for e in access.indices[: len(at)]]
        every = tuple((rename.get(i, i), n) for i, n in (*outer, *limits))
        finished, scattered = finish(Term(every, body, tuple(zip(places, at, strict=True))), ranges, sizes_of)
        total = total + finished
        rules.append(f"d/d{name_of(access)}: {local}" + ("; scattered back along its index" if scattered else ""))
    return Contribution(at, shape, total, tuple(rules))
