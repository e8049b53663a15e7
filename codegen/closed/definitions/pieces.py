# pyright: basic
"""A function of one number written by choices, signs and clamps as its pieces: what it is between the places where one changes.

`sign(x) relu(|x| - d)` is `x + d` below -d, `x - d` above d and 0 between them: pieces that are equal are one, and two or three
of them are one choice, whose slope is one too. At a place between two pieces the slope is what the forward's own rule says,
so that the place belongs to the piece with that slope, or to both where it is their mean, as of the larger of two; where it is
none of these, as of two clamps that both pass, nothing is changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.regions.cells import Cell, is_contraction, substituted
from codegen.lowering.kernels import clamp_between, stable
from engine.indexed import Indexed
from engine.notation import BINDERS, BRACKETS, Delta, Equal, Head, Less, LessEqual, Sign, Where, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RULE = "a function of one number is written by its pieces between the places where it changes"
PLACES = 4
"""At how many places a function may change at most."""
LONGEST = 80
"""Operations of a function at most: what is longer is not written out."""
DEEPEST = 10
"""Through how many cells a function is written out at most."""
CLAMPS = ("relu", "clamp", "hardtanh")
"""Kernels of which one is taken for several, one of the other."""
INVERSES = {sp.log: sp.exp, sp.tanh: sp.atanh}


@dataclass(frozen=True)
class Pieces:
    """Where a function changes, what it is between these places, and whether each belongs to the piece on its left; None for both."""

    places: tuple[Any, ...]
    values: tuple[Any, ...]
    lefts: tuple[bool | None, ...]


def by_pieces(cells: list[Cell]) -> list[Cell]:
    """Cells that are functions of one number as choices between their pieces, where that is shorter or a kernel."""
    if not any(heads(c.expr) for c in cells if c.expr is not None):
        return cells
    known: dict[str, Cell] = {}
    out: list[Cell] = []
    for cell in cells:
        expr = shorter(cell, known) if cell.expr is not None and cell.kind == "float" and not cell.call else None
        known[cell.name] = cell if expr is None else replace(cell, expr=expr)
        out.append(known[cell.name])
    return out


def shorter(cell: Cell, known: Mapping[str, Cell]) -> Expr | None:
    """A cell's definition by its pieces; None where it is no function of one number, or as short as it is."""
    own, found = cast("Expr", cell.expr), list[tuple[int, Expr]]()
    kernel = stable(own)
    if kernel is not None and kernel[0] not in CLAMPS:
        return None
    for e in written(own, known):
        if kernel is not None and e == own:
            continue
        read = {a for h in heads(e) for a in accesses(cast("Expr", h))}
        if len(read) != 1:
            continue
        (x,) = read
        t = sp.Dummy("t", real=True)
        parts = pieces(e.xreplace({x: t}), t)
        new = None if parts is None else choice(parts, t)
        new = None if new is None else cast("Expr", new.xreplace({t: x}))
        if new is not None and (is_kernel(new) or (kernel is None and calls(new) < calls(e))):
            found.append((calls(new), new))
    return min(found, key=lambda c: c[0])[1] if found else None


def is_kernel(e: Expr) -> bool:
    """Whether torch has an expression as a kernel."""
    return stable(e) is not None


def calls(e: Expr) -> int:
    """How many calls compute an expression, equal parts once and what is a kernel in one."""
    parts: set[Any] = set()
    more = 0
    stack: list[Any] = [e]
    while stack:
        part = stack.pop()
        if part in parts or isinstance(part, Indexed) or not part.has(Indexed):
            continue
        parts.add(part)
        kernel = stable(part)
        stack.extend(part.args if kernel is None else [a for a in kernel[1] if isinstance(a, Expr)])
        more += max(0, len(part.args) - 2) if kernel is None and isinstance(part, sp.Add) else 0
    return len(parts) + more


def written(e: Expr, known: Mapping[str, Cell]) -> Iterator[Any]:
    """An expression with more and more of its cells written out, the latest first, while it is short and chooses."""
    order = {n: k for k, n in enumerate(known)}
    for _ in range(DEEPEST):
        if e.has(*BINDERS, Delta) or sp.count_ops(e) > LONGEST:
            return
        if heads(e):
            yield e
        inner = {name_of(a) for a in accesses(e)}
        usable = {n for n in inner if n in known and elementwise(known[n])}
        if not usable:
            return
        last = max(usable, key=lambda n: order[n])
        e = cast("Expr", substituted(e, {last: known[last]}))


def elementwise(cell: Cell) -> bool:
    """Whether a cell is a function of what it reads, element by element."""
    e = cell.expr
    literal = cell.call or cell.expr is None or cell.kind != "float"
    return not literal and not cast("Expr", e).has(*BINDERS, Delta) and not is_contraction(cast("Expr", e))


def heads(e: Any) -> set[Any]:
    """The choices, signs and comparisons in an expression."""
    return e.atoms(Where, Sign, *BRACKETS)


class UndecidedError(Exception):
    """A comparison of what is no real number, as 1/0 is none."""


def pieces(e: Any, t: Any) -> Pieces | None:
    """A function of t by its pieces; None where it cannot be told, or its rule at a place is that of neither side."""
    try:
        return between_places(e, t)
    except UndecidedError:
        return None


def between_places(e: Any, t: Any) -> Pieces | None:
    """`pieces`, where every comparison is one of real numbers."""
    places = breaks(e, t)
    if places is None or not 1 <= len(places) <= PLACES:
        return None
    between = samples(places)
    values = [shortest(at(e, t, p)) for p in between]
    slopes = [sp.diff(v, t) for v in values]
    slope = sp.diff(e, t)  # by the forward's own rules: signs and comparisons have no derivative
    keep: list[Any] = []
    parts, lefts = [values[0]], list[bool | None]()
    last = slopes[0]
    for place, value, rise in zip(places, values[1:], slopes[1:], strict=True):
        told = at(e, t, place).xreplace({t: place}), at(slope, t, place).xreplace({t: place})
        sides = [(v.xreplace({t: place}), s.xreplace({t: place})) for v, s in ((parts[-1], last), (value, rise))]
        left, right = (same(side, told) for side in sides)
        both = not left and not right and same(tuple((a + b) / 2 for a, b in zip(*sides, strict=True)), told)
        if not left and not right and not both:
            return None
        if zero(parts[-1] - value) and left:
            continue
        keep.append(place)
        parts.append(value)
        lefts.append(None if both else left)
        last = rise
    return Pieces(tuple(keep), tuple(parts), tuple(lefts))


def shortest(e: Any) -> Any:
    """An expression as it is, or multiplied out where that is shorter."""
    return min((e, sp.expand(e)), key=lambda x: (int(cast("Any", sp.count_ops(x))), str(x)))


def same(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    """Whether two values and slopes are equal."""
    return zero(one[0] - other[0]) and zero(one[1] - other[1])


def zero(e: Any) -> bool:
    """Whether an expression is zero, as far as multiplying out shows it."""
    return bool(sp.expand(e) == 0)


def samples(places: list[Any]) -> list[Any]:
    """A number in each of the intervals that places make."""
    middle = [(a + b) / 2 for a, b in pairwise(places)]
    return [places[0] - 1, *middle, places[-1] + 1]


def breaks(e: Any, t: Any) -> list[Any] | None:
    """Where the truth of a comparison or a sign in e changes, in order; None where it cannot be told."""
    found: set[Any] = set()
    inner = sorted(heads(e), key=lambda h: (int(cast("Any", sp.count_ops(h))), str(h)))
    for d in dict.fromkeys(sided(h) for h in inner if not isinstance(h, Where)):
        intervals = samples(sorted(found)) if found else [sp.S.Zero]
        bounds = [-sp.oo, *sorted(found), sp.oo]
        for k, p in enumerate(intervals):
            plain = at(d, t, p)
            roots = zeros(plain, t)
            if roots is None:
                return None
            found |= {r for r in roots if bounds[k] < r < bounds[k + 1]}
            if len(found) > PLACES:
                return None
    return sorted(found)


def sided(head: Any) -> Any:
    """What a sign is the sign of, or the difference that a comparison is about."""
    return head.args[0] if isinstance(head, Sign) else head.args[1] - head.args[0]


def zeros(e: Any, t: Any) -> list[Any] | None:
    """Where a function of t without choices is zero: one that is affine, or made of one monotone function."""
    if not e.has(t):
        return [] if e.is_number else None
    if e.free_symbols - {t} or accesses(e):
        return None
    number, moving = sp.expand(e).as_independent(t, as_Add=True)
    scale, f = moving.as_independent(t, as_Add=False)
    if scale == 0 or not (number.is_number and scale.is_number):
        return None
    value = -number / scale
    if f == t:
        return [value] if value.is_Rational else None
    if isinstance(f, sp.exp):
        return zeros(f.args[0] - sp.log(value), t) if value.is_positive else []
    if f.func in INVERSES:
        return zeros(f.args[0] - INVERSES[f.func](value), t) if f.func is not sp.tanh or abs(value) < 1 else []
    return None


def at(e: Any, t: Any, p: Any) -> Any:
    """What an expression is around (or, where it changes there, at) a number p: every comparison and sign decided."""
    if isinstance(e, Where):
        return at(e.args[1] if at(e.args[0], t, p) == 1 else e.args[2], t, p)
    if isinstance(e, Sign):
        return sp.sign(valued(e.args[0], t, p))
    if isinstance(e, BRACKETS):
        d = valued(e.args[1] - e.args[0], t, p)
        if not d.is_extended_real:
            raise UndecidedError
        holds = d == 0 if isinstance(e, Equal) else d >= 0 if isinstance(e, LessEqual) else d > 0
        return sp.Integer(int(bool(holds)))
    if isinstance(e, (Indexed, Head)) or not e.args or not e.has(Head):
        return e
    return e.func(*[at(a, t, p) for a in e.args])


def valued(e: Any, t: Any, p: Any) -> Any:
    """The number that an expression is at p."""
    return sp.expand(at(e, t, p).xreplace({t: p}))


def choice(found: Pieces, t: Any) -> Any:
    """Up to three pieces as choices; None for more."""
    if not found.places:
        return found.values[0]
    if None in found.lefts:
        return shared(found, t)
    values = [sp.factor_terms(v) if v.is_Add and not v.has(sp.exp) else v for v in found.values]
    first, first_left = found.places[0], found.lefts[0]
    if len(found.places) == 1:
        low, high = values
        if low.is_number and not high.is_number:
            return Where(LessEqual(t, first), low, high) if first_left else Where(LessEqual(first, t), high, low)
        if high.is_number and not low.is_number:
            return Where(LessEqual(t, first), low, high) if first_left else Where(LessEqual(first, t), high, low)
        return Where(Less(first, t), high, low) if first_left else Where(Less(t, first), low, high)
    if values[0].is_number and values[0] == values[-1] and values[1] != 0:
        return None  # constant beyond bounds: what it is within them, of a clamp
    if len(found.places) == 2:
        below, above = beyond(found, t)
        if affine_between(found, t) is not None:
            return bounded(found, t)
        for zero_side, there, place, sign in ((0, above, first, 1), (2, below, found.places[1], -1)):
            root = rooted(found.values[1], sign * (t - place), t) if values[zero_side] == 0 else None
            if root is not None:
                return Where(there, values[2 - zero_side], root)
        return Where(below, values[0], Where(above, values[2], values[1]))
    return None


def shared(found: Pieces, t: Any) -> Any:
    """What `affine_between` tells of a function both of whose places belong to both sides, by such a clamp; None of any other."""
    line = affine_between(found, t) if found.lefts == (None, None) else None
    return None if line is None else line[0] * clamp_between(t, *found.places) + line[1]


def rooted(value: Any, u: Any, t: Any) -> Any:
    """`c relu(u)^k` of a function that is `c u^k` where u is positive, for a k above 1, None of any other."""
    k = sp.degree(value, t) if sp.sympify(value).is_polynomial(t) else 0
    if k < 2:
        return None
    c = sp.cancel(value / u**k)
    return c * Where(LessEqual(u, 0), 0, u) ** k if c.is_number else None


def beyond(found: Pieces, t: Any) -> tuple[Any, Any]:
    """Of a function with two places: whether t is below the first, and whether it is above the second."""
    (first, last), (first_left, last_left) = found.places, found.lefts
    return LessEqual(t, first) if first_left else Less(t, first), Less(last, t) if last_left else LessEqual(last, t)


def bounded(found: Pieces, t: Any) -> Any:
    """A function that `affine_between` tells of, by the clamp that it is made of: of t, or of t and a number where that ends at 0."""
    slope, rest = cast("Any", affine_between(found, t))
    below, above = beyond(found, t)
    return slope * Where(below, found.places[0], Where(above, found.places[1], t)) + rest


def affine_between(found: Pieces, t: Any) -> tuple[Any, Any] | None:
    """a and b, where a function is a t + b between two places and constant beyond, without a jump; None for any other."""
    low, within, high = found.values
    slope = sp.expand(within).coeff(t)
    rest = sp.expand(within - slope * t)
    if not (slope.is_number and slope != 0 and rest.is_number and low.is_number and high.is_number):
        return None
    return (
        (slope, rest)
        if all(zero(slope * p + rest - v) for p, v in zip(found.places, (low, high), strict=True))
        else None
    )


__all__ = ["RULE", "by_pieces"]
