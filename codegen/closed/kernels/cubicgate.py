# pyright: basic
"""gelu in its form by tanh, `x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2` or by the sigmoid of twice the cubic, and its slope.

Both are told from the cells that they are made of, however these are cut, and read x alone.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy.core.numbers import Pi

from codegen.closed.algebra.matching import holding
from codegen.closed.definitions.logistic import DEPTH, elementwise_cells, gate_argument
from codegen.closed.regions.cells import substituted
from codegen.lowering.kernels import cubic
from engine.indexed import Indexed
from engine.notation import Sigma, accesses, holds, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from codegen.closed.regions.cells import Cell

AT, GATE = sp.Dummy("x", real=True), sp.Dummy("t")


def gelu_tanh(cell: Cell, known: Mapping[str, Cell]) -> Any:
    """A cell's definition as a number times x (1 + tanh(cubic(x))); None for any other."""
    for x, plain in by_gates(cell.expr, known) if isinstance(cell.expr, sp.Mul) else ():
        number = sp.cancel(plain.coeff(GATE) / x)
        if isinstance(x, Indexed) and number.is_number and sp.expand(plain - number * x * (1 + GATE)) == 0:
            return number * x * (1 + sp.tanh(cubic(x)))
    return None


def held(x: Any, cells: Mapping[str, Cell]) -> Iterator[Indexed]:
    """The elements of cells that hold an expression."""
    made = (c for c in cells.values() if isinstance(c.expr, sp.Mul) and not isinstance(x, Indexed))
    yield from (own for c in made for own in [holding(c, cast("Any", c.expr), x)] if own is not None)


def gelu_tanh_of(e: Any, cells: Mapping[str, Cell]) -> tuple[Any, Any] | None:
    """x and c of c times the slope of gelu by tanh at x."""
    for x, plain in by_gates(e, cells) if isinstance(e, sp.Add) else ():
        number = 2 * plain.xreplace({**dict.fromkeys(accesses(x), sp.S.Zero), GATE: sp.S.Zero})
        if number.is_number and sp.expand(plain - number * slope_by_gate().xreplace({AT: x})) == 0:
            return next((own for own in held(x, cells)), x), number
    return None


def slope_of_gelu_tanh(x: Any) -> Any:
    """The derivative of x (1 + tanh(cubic(x))) / 2."""
    return slope_by_gate().xreplace({AT: x, GATE: sp.tanh(cubic(x))})


@cache
def slope_by_gate() -> Any:
    """That derivative at AT, with GATE for the tanh."""
    return sp.diff(AT * (1 + sp.tanh(cubic(AT))) / 2, AT).xreplace({sp.tanh(cubic(AT)): GATE})


def by_gates(e: Any, cells: Mapping[str, Cell]) -> Iterator[tuple[Any, Any]]:
    """Every x whose cubic an expression has the tanh of, with the expression as a polynomial in x and that tanh, GATE.

    In that cubic is the square root of 2/pi: where there is none, nothing is written out.
    """
    if not any(holds(own, Pi) for own in (e, *(c.expr for c in cells.values() if c.expr is not None))):
        return
    usable = {n: c for n, c in elementwise_cells(cells).items() if c.expr is not None and not c.expr.has(Sigma)}
    for argument in gates_of(e, usable):
        for a, k in roots_of(argument, usable):
            whole = written(e, {n: c for n, c in usable.items() if n != name_of(a)})
            if {*accesses(whole)} != {a}:
                continue
            gates = {f: value(f) for f in whole.atoms(sp.tanh, sp.Pow) if is_gate_of(f, k * a)}
            yield k * a, sp.expand(whole.xreplace(gates))


def is_gate_of(f: Any, x: Any) -> bool:
    """Whether it is a tanh of the cubic of x, or a sigmoid of twice that."""
    argument = tanh_argument(f)
    return argument is not None and bool(sp.expand(argument - cubic(x)) == 0)


def value(f: Any) -> Any:
    """A tanh or a sigmoid by the tanh that it has."""
    return GATE if isinstance(f, sp.tanh) else (1 + GATE) / 2


def tanh_argument(f: Any) -> Any:
    """What a tanh is of, or half of what a sigmoid is of; None for any other."""
    if isinstance(f, sp.tanh):
        return f.args[0]
    g = gate_argument(f)
    return None if g is None else g / 2


def gates_of(e: Any, usable: Mapping[str, Cell]) -> list[Any]:
    """What the gates are of that an expression has, or that what it reads is a number and a multiple of."""
    found = [tanh_argument(f) for f in sorted(e.atoms(sp.tanh, sp.Pow), key=str)]
    for inner in sorted(accesses(e), key=str):
        for _ in range(DEPTH):
            inner = moving(opened(inner, usable))
            if not isinstance(inner, Indexed) or name_of(inner) not in usable:
                break
        found.append(tanh_argument(inner))
    return [a for a in found if a is not None]


def moving(e: Any) -> Any:
    """What an expression is a number and a multiple of."""
    _, rest = e.as_coeff_Add()
    return rest.as_coeff_Mul()[1]


def opened(e: Any, usable: Mapping[str, Cell]) -> Any:
    """What a cell says of an element of it; anything else as it is."""
    name = name_of(e) if isinstance(e, Indexed) else ""
    return substituted(e, {name: usable[name]}) if name in usable else e


def roots_of(argument: Any, usable: Mapping[str, Cell]) -> Iterator[tuple[Indexed, Any]]:
    """Every tensor, with a number, that the argument is the cubic of a multiple of, as cells are written out."""
    inner = argument
    for _ in range(DEPTH + 1):
        for a in sorted(accesses(inner), key=str):
            whole = written(argument, {n: c for n, c in usable.items() if n != name_of(a)})
            if {*accesses(whole)} != {a}:  # what else is read is no part of a cubic of this
                continue
            plain = sp.expand(whole)
            k = sp.cancel(plain.coeff(a) / sp.sqrt(2 / sp.pi))
            if k.is_number and k != 0 and sp.expand(plain - cubic(k * a)) == 0:
                yield a, k
        step = substituted(inner, usable)
        if step == inner:
            return
        inner = step


def written(e: Any, usable: Mapping[str, Cell]) -> Any:
    """An expression with cells written out as far as they go."""
    for _ in range(2 * DEPTH):
        step = substituted(e, usable)
        if step == e:
            break
        e = step
    return e
