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
from sympy import Expr, Indexed, IndexedBase, Mul

from codegen.ownoutput import by_output
from codegen.ranges import extreme, nonnegative, simplified
from engine.notation import (
    Amax,
    Delta,
    Index,
    Quo,
    Rem,
    Sigma,
    accesses,
    bound,
    element,
    fresh,
    name_of,
    ordered,
    sigma,
)
from engine.table import Definition, indices_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COT, OUT = "_cot", "_out"
"""In a template: the cotangent of the node's output, and the output itself. Operands are `_0`, `_1`, ..."""


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

    Sums are differentiated under the sign; what stands outside of a sum multiplies from outside, so its indices are free.
    """
    hidden: dict[Expr, sp.Dummy] = {}

    def hide(x: Any) -> Any:
        if isinstance(x, (Sigma, Amax)):
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
        if isinstance(s, Amax) or not any(a.base == base for a in accesses(s)):
            continue
        outer = sp.diff(flat, name).xreplace(back)
        if outer == 0:
            continue
        body = s
        copy = {i: fresh() for i, _ in body.limits}
        limits = tuple((copy[i], n) for i, n in body.limits)
        for inner, access, deeper in partials(body.body.xreplace(dict(copy)), base):
            yield outer * inner, access, (*limits, *deeper)


class Solver:
    """Sums deltas out: solves index equations `e = k` for indices that are summed over."""

    def __init__(self, limits: Mapping[Index, Expr], ranges: Mapping[Index, Expr]) -> None:
        self.limits = dict(limits)
        self.ranges = dict(ranges)
        self.substitution: dict[Index, Expr] = {}

    @property
    def known(self) -> dict[Index, Expr]:
        return {**self.ranges, **self.limits}

    def put(self, index: Index, value: Expr) -> None:
        """Replace a summed index by its value."""
        del self.limits[index]
        self.substitution = {i: v.xreplace({index: value}) for i, v in self.substitution.items()}
        self.substitution[index] = value

    def solve(self, equations: list[tuple[Expr, Expr, Expr]]) -> list[tuple[Expr, Expr]]:
        """Equations (e, k, size of k); what could not be summed out comes back as (e, k)."""
        left = [(e, k, n) for e, k, n in equations if not (e == 0 and n == 1)]
        changed = True
        while changed:
            changed = False
            left = [(simplified(e.xreplace(self.substitution), self.known), k, n) for e, k, n in left]
            for number, (e, k, n) in enumerate(left):
                if self._linear(e, k, n) or self._mixed(e, k, n):
                    del left[number]
                    changed = True
                    break
            else:
                used = self._digits(left)
                if used:
                    left = [x for m, x in enumerate(left) if m not in used]
                    changed = True
        return [(e, k) for e, k, _ in left]

    def _linear(self, e: Expr, k: Expr, n: Expr) -> bool:
        """e = +-j + c: j = +-(k - c), if that lies in j's range for every k."""
        for j in ordered(e.atoms(Index) & set(self.limits)):
            slope = sp.diff(e, j) if not e.has(Quo, Rem, Indexed) else None
            if slope not in (1, -1):
                continue
            offset = sp.expand(e - slope * j)
            if offset.atoms(Index) & set(self.limits):
                continue
            value = sp.expand(slope * (k - offset))
            ranges = {**self.known, k: n} if isinstance(k, Index) else self.known
            low, high = extreme(value, ranges, False), extreme(value, ranges, True)
            if low is None or high is None or not nonnegative(low) or not nonnegative(self.limits[j] - 1 - high):
                continue
            self.put(j, value)
            return True
        return False

    def _mixed(self, e: Expr, k: Expr, n: Expr) -> bool:
        """e = a*B + b with b < B, a*B + b covering all of k: the digits of k."""
        terms = sp.Add.make_args(sp.expand(e))
        if len(terms) < 2 or e.has(Quo, Rem, Indexed):
            return False
        strides: list[tuple[Expr, Index]] = []
        for term in terms:
            inside = ordered(term.atoms(Index) & set(self.limits))
            if len(inside) != 1 or (term.atoms(Index) - set(inside)):
                return False
            strides.append((sp.cancel(term / inside[0]), inside[0]))
        by_index = {j: s for s, j in strides}
        if len(by_index) != len(strides):
            return False
        order: list[Index] = []
        expected: Expr = sp.S.One
        rest = dict(by_index)
        while rest:
            j = next((j for j, s in rest.items() if sp.expand(s - expected) == 0), None)
            if j is None:
                return False
            order.append(j)
            expected = sp.expand(expected * self.limits[j])
            del rest[j]
        if sp.expand(expected - n) != 0:
            return False
        for j in order:
            size, stride = self.limits[j], by_index[j]
            digit: Expr = Quo(k, stride)
            self.put(j, digit if j is order[-1] else Rem(digit, size))
        return True

    def _digits(self, left: list[tuple[Expr, Expr, Expr]]) -> set[int]:
        """Digits of one position: Quo(P, s) = a, Rem(Quo(P, t), n) = b, ... give P = a*s + b*t + ..., missing digits are summed."""
        found: dict[Expr, list[tuple[int, Expr, Expr | None, Expr]]] = {}
        for number, (e, k, _) in enumerate(left):
            parsed = digit_of(e)
            if parsed is not None:
                position, stride, modulus = parsed
                found.setdefault(position, []).append((number, stride, modulus, k))
        for position, parts in found.items():
            mine = ordered(position.atoms(Index) & set(self.limits))
            if position.has(Indexed) or not mine or position.atoms(Index) - set(mine):
                continue
            total = self._extent(position)
            if total is None:
                continue
            value = self._compose(parts, total)
            if value is None:
                continue
            composed, extra = value
            self.limits.update(extra)
            if isinstance(position, Index):
                self.put(position, composed)
                return {p[0] for p in parts}
            size_of_position = total
            marker = fresh()
            self.limits[marker] = size_of_position
            if self._mixed(position, marker, size_of_position):
                self.put(marker, composed)
                return {p[0] for p in parts}
            del self.limits[marker]
        return set()

    def _extent(self, position: Expr) -> Expr | None:
        top = extreme(position, self.known, True)
        return None if top is None else sp.expand(top + 1)

    def _compose(
        self, parts: list[tuple[int, Expr, Expr | None, Expr]], total: Expr
    ) -> tuple[Expr, dict[Index, Expr]] | None:
        """The position whose digits are `parts`; digits that no equation fixes become new summed indices."""
        expected: Expr = sp.S.One
        value: Expr = sp.S.Zero
        extra: dict[Index, Expr] = {}
        rest = list(parts)
        while rest:
            here = next((p for p in rest if sp.expand(p[1] - expected) == 0), None)
            if here is None:
                strides = [p[1] for p in rest]
                ratio = next(
                    (sp.cancel(s / expected) for s in strides if sp.fraction(sp.cancel(s / expected))[1] == 1), None
                )
                if ratio is None or not ratio.is_integer:
                    return None
                q = fresh()
                extra[q] = ratio
                value, expected = value + q * expected, sp.expand(expected * ratio)
                continue
            rest.remove(here)
            _, stride, modulus, k = here
            value = value + k * stride
            size = modulus if modulus is not None else sp.cancel(total / stride)
            expected = sp.expand(expected * size)
        if sp.expand(expected - total) != 0:
            ratio = sp.cancel(total / expected)
            if not ratio.is_integer or sp.fraction(ratio)[1] != 1:
                return None
            q = fresh()
            extra[q] = ratio
            value = value + q * expected
        return value, extra


def digit_of(e: Expr) -> tuple[Expr, Expr, Expr | None] | None:
    """(position, stride, modulus) of a digit `Rem(Quo(P, s), n)`, `Quo(P, s)` or `Rem(P, n)`; None for anything else."""
    if isinstance(e, Quo):
        return e.args[0], e.args[1], None
    if isinstance(e, Rem):
        inner, modulus = e.args
        if isinstance(inner, Quo):
            return inner.args[0], inner.args[1], modulus
        return inner, sp.S.One, modulus
    return None


def finish(term: Term, ranges: Mapping[Index, Expr], sizes_of: Mapping[Expr, Expr]) -> tuple[Expr, bool]:
    """A term with its deltas summed out as far as they go, and whether any stayed."""
    solver = Solver(dict(term.limits), ranges)
    rest = solver.solve([(e, k, sizes_of.get(k, sp.S.One)) for e, k in term.deltas])
    known = solver.known
    body = simplified(term.body.xreplace(solver.substitution), known)
    left = [simplified(Delta(k, e.xreplace(solver.substitution)), known) for e, k in rest]
    body = Mul(body, *left)
    inside: list[tuple[Index, Expr]] = []
    symbols = body.free_symbols
    for j, n in solver.limits.items():
        if j in symbols:
            inside.append((j, n))
        else:
            body = body * n
    return distribute(body, inside), bool(left)


def distribute(body: Expr, limits: list[tuple[Index, Expr]]) -> Expr:
    """Sum(body) with the factors that do not depend on the summed indices in front."""
    if not limits or body == 0:
        return body
    indices = {i for i, _ in limits}
    inside, outside = [], []
    for f in Mul.make_args(body):
        (inside if f.free_symbols & indices else outside).append(f)
    return Mul(*outside) * sigma(Mul(*inside), *limits)


@cache
def vjp(template: Definition, position: int, shape: tuple[Expr, ...]) -> Contribution:
    """The cotangent of operand `position` (of this shape) that one op's output passes back, over placeholders."""
    return pulled_back(template, f"_{position}", shape)


def pulled_back(template: Definition, operand: str, shape: tuple[Expr, ...]) -> Contribution:
    """The cotangent of the tensor `operand` (of this shape) that a definition passes back.

    The output's cotangent is called `COT` and the output `OUT`. Source of the formula: the chain rule for index notation;
    nothing is specific to an op.
    """
    base = next((a.base for a in accesses(template.expr, operand)), None)
    at = indices_of(shape)
    sizes_of = {i: n for i, n in zip(at, shape, strict=True) if i != 0}
    ranges = {i: n for i, n in sizes_of.items()}
    if base is None:
        return Contribution(at, shape, sp.S.Zero, ("the output does not depend on this operand",))
    cot = IndexedBase(sp.Symbol(COT, real=True))
    total: Expr = sp.S.Zero
    rules: list[str] = []
    outer = [(i, n) for i, n in zip(template.indices, template.shape, strict=True) if i != 0]
    for coefficient, access, limits in partials(template.expr, base):
        local = by_output(coefficient, template) if not limits else coefficient
        rename: dict[Any, Any] = {i: fresh() for i, _ in outer}
        rename.update({i: fresh() for i in ordered(bound(local))})
        seed = element(cot, template.indices)
        body = cast("Expr", (seed * local).xreplace(rename))
        where = [
            (cast("Expr", sp.sympify(e)).xreplace(rename), k)
            for e, k in zip(access.indices[: len(at)], at, strict=True)
        ]
        every = tuple((rename.get(i, i), n) for i, n in (*outer, *limits))
        finished, scattered = finish(Term(every, body, tuple((cast("Expr", e), k) for e, k in where)), ranges, sizes_of)
        total = total + finished
        rules.append(f"d/d{name_of(access)}: {local}" + ("; scattered back along its index" if scattered else ""))
    return Contribution(at, shape, total, tuple(rules))
