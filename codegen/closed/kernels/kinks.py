# pyright: basic
"""Choices on the size of a number as one polynomial in it and its clamp: Huber's `x^2/2 if |x| <= d else d|x| - d^2/2` is
`c (x - c/2)` for c = clamp(x, -d, d), and its slope, `x if |x| <= d else d sign(x)`, is c.

Where |x| exceeds d, the sign of x is c/d, and everywhere else c is x: if what stands for large x, with its signs written so,
is for c = x what stands for small x, it is right for both. So is what stands for small x, of c, if it is at d and -d what stands beyond.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.matching import holding
from codegen.closed.algebra.sums import rebuilt
from codegen.closed.algebra.terms import gathered
from codegen.closed.regions.cells import Cell, at, substituted
from codegen.lowering.kernels import huber
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Less, LessEqual, Sign, Where, accesses, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CLAMP = "a choice by the size of x is a polynomial in x and its clamp"
"""The rule of the forward, as its trail names it."""
HUBER = "Huber's loss of a difference is that of two tensors, which torch has a kernel for"
"""The rule of `with_huber`."""
DEEPEST = 8
"""Through how many cells a polynomial is written out at most."""
CONSTANTS = 3
"""Terms without a sign at most, each of which may or may not hold its square."""


def with_clamps(cells: list[Cell]) -> list[Cell]:
    """The cells, and `clamp(x, -d, d)` before every cell that chooses by |x| <= d between what a polynomial in both is."""
    known = {c.name: c for c in cells}
    out: list[Cell] = []
    for cell in cells:
        for choice in choices(cell.expr):
            found = split(choice, known)
            if found is None or clamp_of(found[0], found[1], known.values()) is not None:
                continue
            x, bound, small, large = found
            if polynomial(x, bound, small, large, sp.Dummy("c")) is None:
                continue
            source = known[name_of(x)]
            name = free_name(f"{source.name}_clamp", known)
            own = tuple(i if i == 0 else fresh() for i in source.indices) if source.expr is not None else _axes(source)
            read = source.element(own)
            expr = Where(Less(read, -bound), -bound, Where(Less(bound, read), bound, read))
            known[name] = Cell(name, own, source.shape, expr, "float", source.differentiable, source.dtype)
            out.append(known[name])
        out.append(cell)
    return out


def _axes(cell: Cell) -> tuple[Expr, ...]:
    return tuple(sp.S.Zero if n == 1 else fresh() for n in cell.shape)


def clamped(e: Any, cells: Mapping[str, Cell]) -> Any:
    """An expression with every such choice as the polynomial, where a cell holds the clamp."""
    if not e.has(Where):
        return e
    if isinstance(e, Mul):
        signs = [f for f in e.args if isinstance(f, Sign)]
        for choice in [f for f in e.args if isinstance(f, Where)] if signs else []:
            condition, one, other = choice.args
            mine = Mul(*signs)
            new = by_clamp(Where(condition, one * mine, other * mine), cells)
            if new is not None:
                return new * clamped(Mul(*[f for f in e.args if f is not choice and f not in signs]), cells)
    if isinstance(e, Where):
        new = by_clamp(e, cells)
        if new is not None:
            return new
    return e if isinstance(e, Indexed) or not e.args else rebuilt(e, lambda a: clamped(a, cells))


def with_huber(e: Any, cells: Mapping[str, Cell]) -> Any:
    """An expression with every multiple of Huber's loss of a difference of two tensors by these two, which torch has a kernel for.

    The difference need not be a tensor then; where it is one, the polynomial would read it and its clamp, and write twice.
    """
    if not e.has(Where):
        return e
    if isinstance(e, Where):
        loss = huber_of(e, cells)
        return e if loss is None else loss
    return e if isinstance(e, Indexed) or not e.args else rebuilt(e, lambda a: with_huber(a, cells))


def huber_of(e: Where, cells: Mapping[str, Cell]) -> Expr | None:
    """A choice as a number times Huber's loss of a - b; None where it is none, or no such difference is chosen by."""
    found = split(e, cells)
    if found is None:
        return None
    x, bound, small, large = found
    inside = by_sign(small, x)  # the square of a sign is one
    if inside is None or any(odd for _, odd in inside):
        return None
    front = sp.cancel(2 * sp.Add(*[t for t, _ in inside]) / x**2)
    if (
        not front.is_number
        or not front.is_positive
        or sp.expand(large - front * bound * (Sign(x) * x - bound / 2)) != 0
    ):
        return None
    cell = cells[name_of(x)]
    difference = None if cell.expr is None else at(cell, x.indices)
    if difference is None or not is_of_two(difference, cells, cell):
        return None
    return cast("Expr", front * huber(difference, bound))


def is_of_two(e: Expr, cells: Mapping[str, Cell], like: Cell) -> bool:
    """Whether an expression is a tensor less another one, of floats of one kind."""
    terms = [t.as_coeff_Mul() for t in sp.Add.make_args(e)]
    if sorted(number for number, _ in terms) != [-1, 1] or not all(isinstance(t, Indexed) for _, t in terms):
        return False
    sources = [cells.get(name_of(cast("Indexed", t))) for _, t in terms]
    return all(c is not None and c.kind == "float" and c.dtype == like.dtype for c in sources)


def unbounded(e: Any, cells: Mapping[str, Cell]) -> Any:
    """A product with `[|x| <= d]` and a polynomial in x that is 0 at d and -d as the polynomial in the clamp; else the same object."""
    for bracket in [f for f in e.args if isinstance(f, (Less, LessEqual))] if isinstance(e, Mul) else ():
        x = absolute(bracket.args[0], cells)
        inner = Mul(*[f for f in e.args if x is not None and f is not bracket and made_of(f, x, cells)])
        new = by_clamp(Where(bracket, inner, 0), cells) if inner != 1 else None
        if new is not None:
            return new * e / bracket / inner
    return e


def made_of(e: Any, x: Indexed, cells: Mapping[str, Cell]) -> bool:
    """Whether an expression is a polynomial in x, which it may read through cells that are."""
    plain = {n: c for n, c in cells.items() if is_polynomial(c.expr) and n != name_of(x)}
    return is_polynomial(e) and any(
        a == x or (name_of(a) in plain and reaches(name_of(a), x, plain)) for a in accesses(e)
    )


def by_clamp(e: Any, cells: Mapping[str, Cell]) -> Expr | None:
    """A choice as a polynomial; None where it is none, or no cell holds the clamp."""
    found = split(e, cells) if isinstance(e, Where) else None
    if found is None:
        return None
    x, bound, small, large = found
    clamp = clamp_of(x, bound, cells.values())
    whole = None if clamp is None else polynomial(x, bound, small, large, clamp)
    return None if whole is None else inside(gathered(whole))


def inside(e: Any) -> Expr:
    """`c (2 x - c) / 2` as `c (x - c/2)`: a number in front of a sum goes into it where fewer terms have one then."""
    number, rest = e.as_coeff_Mul()
    for f in Mul.make_args(rest) if number != 1 else ():
        terms = sp.Add.make_args(f)
        new = [number * t for t in terms]
        if len(terms) > 1 and scaled(new) < 1 + scaled(terms):
            return cast("Expr", rest / f * sp.Add(*new))
    return e


def scaled(terms: Iterable[Any]) -> int:
    """How many terms have a number in front that is not one or minus one."""
    return sum(abs(t.as_coeff_Mul()[0]) != 1 for t in terms)


def choices(e: Any) -> list[Where]:
    """The choices in an expression, in a fixed order."""
    if e is None or not e.has(Where):
        return []
    return [x for x in sp.preorder_traversal(e) if isinstance(x, Where)]


def split(e: Where, cells: Mapping[str, Cell]) -> tuple[Indexed, Expr, Expr, Expr] | None:
    """x, d, what stands for |x| up to d and what stands beyond, with signs written out; None for any other choice."""
    condition, one, other = e.args
    if not isinstance(condition, (Less, LessEqual)):
        return None
    a, b = condition.args
    sized, bound, small, large = (a, b, one, other) if b.is_number else (b, a, other, one)
    x = absolute(sized, cells)
    if x is None or not bound.is_positive or bound.is_infinite:
        return None
    plain = {n: c for n, c in cells.items() if is_polynomial(c.expr)}
    plain = {n: c for n, c in plain.items() if n != name_of(x) and reaches(n, x, plain)}
    return x, bound, written(small, plain), written(large, plain)


def absolute(e: Any, cells: Mapping[str, Cell]) -> Indexed | None:
    """x of |x|, written out or held by a cell."""
    if isinstance(e, Indexed):
        cell = cells.get(name_of(e))
        e = at(cell, e.indices) if cell is not None and cell.expr is not None and cell.expr.has(Sign) else e
    signs = [f for f in Mul.make_args(e) if isinstance(f, Sign)]
    x = signs[0].args[0] if len(signs) == 1 else None
    return x if isinstance(x, Indexed) and e == Sign(x) * x else None


def is_polynomial(e: Expr | None) -> bool:
    """Sums, products and whole powers of tensors, and the sizes of numbers."""
    if e is None or isinstance(e, Indexed) or e.is_number:
        return e is not None
    if isinstance(e, sp.Pow) and not isinstance(e, sp.exp):
        return bool(e.exp.is_Integer and e.exp > 0) and is_polynomial(e.base)
    return isinstance(e, (sp.Add, Mul, Sign)) and all(is_polynomial(cast("Expr", a)) for a in e.args)


def written(e: Any, plain: Mapping[str, Cell]) -> Any:
    """An expression with the polynomials that it reads written out."""
    for _ in range(DEEPEST):
        step = substituted(e, plain)
        if step == e:
            break
        e = step
    return e


def reaches(name: str, x: Indexed, plain: Mapping[str, Cell]) -> bool:
    """Whether a polynomial is made of x."""
    reads = plain[name].reads
    return name_of(x) in reads or any(r in plain and r != name_of(x) and reaches(r, x, plain) for r in reads)


def polynomial(x: Indexed, bound: Expr, small: Expr, large: Expr, clamp: Any) -> Expr | None:
    """The polynomial in x and its clamp that both branches are."""
    terms, inside = by_sign(large, x), by_sign(small, x)
    if terms is None or inside is None or any(odd for _, odd in inside):
        return None
    if large.is_number and all(sp.expand(small.xreplace({x: b}) - large) == 0 for b in (bound, -bound)):
        return cast("Expr", small.xreplace({x: clamp}))
    small = sp.Add(*[t for t, _ in inside])
    free = [k for k, (_, odd) in enumerate(terms) if not odd]
    if len(free) > CONSTANTS:
        return None
    for squares in product((2, 0), repeat=len(free)):
        orders = {**{k: 1 for k, (_, odd) in enumerate(terms) if odd}, **dict(zip(free, squares, strict=True))}
        whole = sp.Add(*[rest * (x / bound) ** orders[k] for k, (rest, _) in enumerate(terms)])
        if any(orders.values()) and sp.expand(whole - small) == 0:
            return cast("Expr", sp.Add(*[rest * (clamp / bound) ** orders[k] for k, (rest, _) in enumerate(terms)]))
    return None


def by_sign(e: Expr, x: Indexed) -> list[tuple[Any, bool]] | None:
    """The terms of an expression without the sign of x, and whether each had it as a factor; its square is one."""
    terms: list[tuple[Any, bool]] = []
    for t in sp.Add.make_args(sp.expand(e)):
        order = t.as_powers_dict().get(Sign(x), sp.S.Zero)
        rest = t / Sign(x) ** order
        if not order.is_Integer or order < 0 or rest.has(Sign(x)):
            return None
        terms.append((rest, bool(order % 2)))
    return terms


def clamp_of(x: Indexed, bound: Expr, cells: Iterable[Cell]) -> Indexed | None:
    """The element of a cell that is clamp(x, -d, d)."""
    for cell in cells:
        if not isinstance(cell.expr, Where):
            continue
        read = cell.expr.args[2].args[2] if isinstance(cell.expr.args[2], Where) else None
        if not isinstance(read, Indexed) or name_of(read) != name_of(x):
            continue
        pattern = Where(Less(read, -bound), -bound, Where(Less(bound, read), bound, read))
        own = holding(cell, read, x) if cell.expr == pattern else None
        if own is not None:
            return own
    return None


__all__ = ["CLAMP", "HUBER", "clamped", "unbounded", "with_clamps", "with_huber"]
