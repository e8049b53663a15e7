"""Quotients of linear functions of one exponential: they overflow, and are sigmoid and tanh, which do not.

(a E + b) / (c E + c) with E = exp(f) is b/c + (a - b)/c * sigmoid(f); with b = -a it is a/c * tanh(f/2). (u^2 - 1) / (u^2 + 1) with
u = 1 + E is tanh(log u), and log u does not overflow either.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.matching import holding
from codegen.closed.algebra.terms import gathered
from codegen.closed.regions.cells import Cell, is_contraction, substituted
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Index, Sigma, base, element

if TYPE_CHECKING:
    from collections.abc import Mapping

DEPTH = 4
QUOTIENT = "a quotient of linear functions of exp(f) is sigmoid or tanh, which do not overflow"
UNIFIED = (
    "log(1 + exp(-f)) is log(1 + exp(f)) - f, and log(exp(f) + exp(g)) is log(1 + exp(g - f)) + f, whichever is shorter"
)


def elementwise_cells(cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """Cells that may be written out inside of another: local, with a definition, no contraction.

    What is less the logarithm of a number is none: in an exponential that would be a factor again.
    """
    return {
        n: c
        for n, c in cells.items()
        if c.expr is not None
        and not c.call
        and c.kind == "float"
        and not is_contraction(c.expr)
        and not any(t.is_number and t.has(sp.log) for t in sp.Add.make_args(c.expr))
    }


def quotients(cells: list[Cell]) -> list[Cell]:
    """Every cell that has such a quotient as a factor rewritten; beside other factors the quotient becomes a cell of its own.

    What is a cell already is read there.
    """
    known: dict[str, Cell] = {}
    names = {c.name for c in cells}
    made: set[str] = set()
    out: list[Cell] = []
    for cell in cells:
        found = quotient_of(cell, {n: c for n, c in known.items() if n not in made})
        if found is not None:
            value, rest = found
            there = None if rest == 1 else written_before(value, cell, known)
            if there is not None:
                value = rest * there
            elif rest != 1:
                name = free_name(f"{cell.name}_sigmoid", names)
                names.add(name)
                gate = replace(cell, name=name, expr=value, node=None, positive=bool(value.is_positive), named=False)
                known[name] = gate
                made.add(name)
                out.append(gate)
                value = rest * element(base(name, gate.positive), cell.indices)
            cell = replace(cell, expr=value)
        known[cell.name] = cell
        out.append(cell)
    return out


def written_before(value: Expr, cell: Cell, known: Mapping[str, Cell]) -> Indexed | None:
    """The element of a cell whose definition is this value of another one's indices; None where there is none."""
    own = {i for i in cell.indices if i != 0}
    for c in known.values():
        if c.expr is None or c.call or not c.expr.has(sp.exp):
            continue
        place = holding(c, c.expr, value)
        if place is not None and {i for i in place.indices if i != 0} <= own:
            return place
    return None


def quotient_of(cell: Cell, known: Mapping[str, Cell]) -> tuple[Expr, Expr] | None:
    """A cell's definition as (sigmoid or tanh, other factors); None where it is no such product."""
    e = cell.expr
    if (
        e is None
        or cell.call
        or cell.kind != "float"
        or not any(x.is_negative for _, x in map(as_power, sp.Mul.make_args(e)))
    ):
        return None
    usable = {n: c for n, c in elementwise_cells(known).items() if not cast("Expr", c.expr).has(Sigma)}
    return quotient_in(e, of_exponentials(usable)) or quotient_in(e, usable)


def of_exponentials(cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """Cells, in their order, that are made of exponentials; what stands in an exponent alone is not."""
    out: dict[str, Cell] = {}
    for n, c in cells.items():
        if cast("Expr", c.expr).has(sp.exp) or any(r in out for r in c.reads):
            out[n] = c
    return out


def quotient_in(e: Expr, usable: Mapping[str, Cell]) -> tuple[Expr, Expr] | None:
    """(sigmoid or tanh, other factors) of a product, with as many of these cells written out as it takes."""
    inner: Any = e
    for _ in range(DEPTH + 2):
        factors = sp.Mul.make_args(inner)
        moving = [f for f in factors if f.has(sp.exp)]
        value = (
            moebius(cast("Expr", sp.Mul(*moving)))
            if moving and any(as_power(f)[1].is_negative for f in moving)
            else None
        )
        if value is not None:
            return value, cast("Expr", sp.Mul(*[f for f in factors if not f.has(sp.exp)]))
        step = substituted(inner, usable)
        if step == inner:
            return None
        inner = step
    return None


def as_power(f: Any) -> tuple[Any, Any]:
    """Base and exponent; an exponential is its own base."""
    return (f, sp.S.One) if isinstance(f, sp.exp) else f.as_base_exp()


def moebius(e: Expr) -> Expr | None:
    """sigmoid or tanh for (a E + b) / (c E + c); None for anything else."""
    arguments = [x.args[0] for x in sorted(e.atoms(sp.exp), key=str)]
    f = arguments[0]
    ratios = [sp.cancel(a / f) for a in arguments]
    if not all(r.is_Rational and r for r in ratios):
        return by_difference(e, arguments)
    step = sp.gcd_list(ratios) if len(ratios) > 1 else abs(ratios[0])
    step = step if step.is_positive else -step
    unit = sp.Dummy("E", positive=True)
    plain = e.xreplace({sp.exp(a): unit ** (r / step) for a, r in zip(arguments, ratios, strict=True)})
    if plain.has(Indexed) or plain.atoms(Index):
        return None
    top, bottom = sp.fraction(sp.cancel(sp.together(plain)))
    if not (top.is_polynomial(unit) and bottom.is_polynomial(unit)):
        return None
    n = sp.degree(bottom, unit)
    f = cast("Expr", step * f)
    if by_tanh(top, bottom, unit):
        return cast("Expr", sp.tanh(sp.log(1 + sp.exp(f))))
    if n < 1 or not {m for (m,) in (*sp.Poly(top, unit).monoms(), *sp.Poly(bottom, unit).monoms())} <= {0, n}:
        return None
    a, b = top.coeff(unit, n), top.coeff(unit, 0)
    c, d = bottom.coeff(unit, n), bottom.coeff(unit, 0)
    if c != d or not all(x.is_number for x in (a, b, c)):
        return None
    g = cast("Expr", n * f)
    if sp.expand(a + b) == 0:
        half = g / 2
        return cast("Expr", -a / c * sp.tanh(-half) if half.could_extract_minus_sign() else a / c * sp.tanh(half))
    if a == 0:
        return cast("Expr", b / c / (1 + sp.exp(g)))
    return cast("Expr", b / c + (a - b) / c / (1 + sp.exp(-g)))


def by_difference(e: Expr, arguments: list[Any]) -> Expr | None:
    """tanh((f - g) / 2) for (exp(f) - exp(g)) / (exp(f) + exp(g)), times a number, which exp(g) is taken out of; None for anything else."""
    if len(arguments) != 2:
        return None
    f, g = arguments
    if (g - f).could_extract_minus_sign():
        f, g = g, f
    one, scale = sp.Dummy("E", positive=True), sp.Dummy("s", positive=True)
    plain: Any = e.xreplace({sp.exp(f): scale * one, sp.exp(g): scale})
    plain = sp.cancel(plain)
    if plain.has(scale) or plain.has(Indexed):
        return None
    value: Any = moebius(plain.xreplace({one: sp.exp(g - f) ** -1}))
    return value if value is not None and value.has(sp.tanh) else None


def by_tanh(top: Any, bottom: Any, unit: Any) -> bool:
    """Whether a quotient of polynomials in E is (u^2 - 1) / (u^2 + 1) for u = 1 + E."""
    return bool(sp.expand(top * ((1 + unit) ** 2 + 1) - bottom * ((1 + unit) ** 2 - 1)) == 0)


def gate_argument(e: Any) -> Expr | None:
    """g of the sigmoid 1 / (1 + exp(-g)); None for anything else."""
    g = softplus_argument(e.base) if isinstance(e, sp.Pow) and e.exp == -1 else None
    return None if g is None else (-g)


def softplus_argument(e: Any) -> Expr | None:
    """g of 1 + exp(g); None for anything else."""
    if isinstance(e, sp.Add) and len(e.args) == 2 and sp.S.One in e.args:
        (other,) = [a for a in e.args if a != 1]
        return other.args[0] if isinstance(other, sp.exp) else None
    return None


def softplus_arguments(e: Any) -> list[Expr]:
    """g of every log(1 + exp(g)) inside of an expression, in a fixed order."""
    found = [softplus_argument(x.args[0]) for x in sorted(e.atoms(sp.log), key=sp.default_sort_key)]
    return [g for g in found if g is not None]


def unified(e: Any) -> Any:
    """log(1 + exp(-g)) as log(1 + exp(g)) - g, or the other way round, where that makes the expression shorter.

    So is log(exp(f) + exp(g)) - f as log(1 + exp(g - f)), which keeps its digits where f is much the larger one.
    """
    if isinstance(e, Sigma):
        body = unified(e.body)
        return e if body is e.body else e.func(body, *e.args[1:])
    if e.has(Sigma):
        args = [unified(a) if a.has(sp.log) else a for a in e.args]
        return e if all(x is y for x, y in zip(args, e.args, strict=True)) else e.func(*args)
    best = e
    for g in softplus_arguments(e):
        turned = added_up(e.xreplace({sp.log(1 + sp.exp(g)): sp.log(1 + sp.exp(-g)) + g}))
        whole = added_up(e)
        best = min((best, whole, turned, taken_once(whole), taken_once(turned)), key=length)
    for total, (f, g) in sums_of_two(best):
        turned = added_up(best.xreplace({total: sp.log(1 + sp.exp(g - f)) + f}))
        best = min((best, turned), key=lambda x: length(x)[:2])
    return best


def taken_once(e: Any) -> Any:
    """A sum with each logarithm in it taken once, times all that it is multiplied by, and what all terms have in front."""
    rests: dict[Any, Any] = {}
    for t in sp.Add.make_args(e):
        taken = [f for f in sp.Mul.make_args(t) if isinstance(f, sp.log)]
        key = taken[0] if len(taken) == 1 else sp.S.One
        rests[key] = rests.get(key, 0) + t / key
    if len(rests) < 2:
        return e
    terms = [f * gathered(r) for f, r in rests.items() if f != 1] + [*sp.Add.make_args(rests.get(sp.S.One, sp.S.Zero))]
    return gathered(sp.Add(*terms))


def added_up(e: Any) -> Any:
    """An expression multiplied out; exp(f - g) stays what it is, as a product of exp(f) and exp(-g) overflows."""
    return sp.expand(e, power_exp=False)


def sums_of_two(e: Any) -> list[tuple[Any, tuple[Any, Any]]]:
    """Every log(exp(f) + exp(g)) inside of an expression with f and g, and with g and f, in a fixed order."""
    found: list[tuple[Any, tuple[Any, Any]]] = []
    for total in sorted(e.atoms(sp.log), key=sp.default_sort_key):
        parts = sp.Add.make_args(total.args[0])
        if len(parts) == 2 and all(isinstance(t, sp.exp) for t in parts):
            f, g = (cast("Any", t).args[0] for t in parts)
            found += [(total, (f, g)), (total, (g, f))]
    return found


def length(e: Any) -> tuple[int, int, int, str]:
    """Logarithms, tensors read, operations."""
    seen = list(sp.preorder_traversal(e))
    reads = sum(isinstance(x, Indexed) for x in seen)
    return sum(isinstance(x, sp.log) for x in seen), reads, int(cast("Any", sp.count_ops(e))), str(e)


__all__ = [
    "DEPTH",
    "QUOTIENT",
    "UNIFIED",
    "elementwise_cells",
    "gate_argument",
    "moebius",
    "quotients",
    "softplus_argument",
    "softplus_arguments",
    "unified",
]
