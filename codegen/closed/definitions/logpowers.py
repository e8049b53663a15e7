# pyright: basic
"""Logarithms of products with powers of tensors in them: `log(c (t / exp(f))^k)` is `log c + k (log |t| - f)`.

The power is 0 or infinite long before its logarithm is. Where base and exponent are 0 it is one. A power of a tensor that is no function of
exponentials stays, with torch's choices at 0, which are as many for the logarithm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Mul

from codegen.closed.algebra.sums import rebuilt
from codegen.closed.definitions.completed import without
from codegen.closed.regions.cells import Cell, at
from engine.indexed import Indexed
from engine.notation import Equal, LessEqual, Sigma, Sign, Where, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

RULE = "the logarithm of a power is the exponent times a logarithm"
DEEPEST = 6
"""Through how many cells a product is written out at most."""


Parts = Callable[[Any, "Mapping[str, Cell]"], Any]
"""What writes a logarithm as others, of what is positive as a function of exponentials."""


def with_log_powers(cells: list[Cell], kept: tuple[str, ...], parts: Parts) -> list[Cell]:
    """The cells with such logarithms as sums, without the powers that only they have read."""
    known = {c.name: c for c in cells}
    if not any(c.expr is not None and not c.call and power_of(c.expr) is not None for c in cells):
        return cells
    out = list(cells)
    for n, c in enumerate(cells):
        if c.expr is not None and not c.call and c.kind == "float" and c.expr.has(sp.log):
            new = apart(c.expr, known, parts)
            if new != c.expr:
                out[n] = replace(c, expr=new, text=None)
    return without(out, cells, kept)


def apart(e: Any, known: Mapping[str, Cell], parts: Parts) -> Any:
    """An expression with these logarithms as sums."""
    if isinstance(e, Indexed) or not e.args:
        return e
    if isinstance(e, sp.log):
        factors = Factors(known, parts)
        factors.add(e.args[0], sp.S.One)
        return factors.total + sp.log(sp.Mul(*[b**x for b, x in factors.others])) if factors.gained else e
    return rebuilt(e, lambda a: apart(a, known, parts))


@dataclass
class Factors:
    """The logarithm of a product, factor by factor: of what is positive, and of powers of tensors; and the other factors."""

    known: Mapping[str, Cell]
    parts: Parts
    total: Any = sp.S.Zero
    others: list[tuple[Any, Any]] = field(default_factory=list[tuple[Any, Any]])
    gained: bool = False
    """Whether a power is one of exponentials, or of what is positive as a function of them."""

    def add(self, e: Any, times: Any, depth: int = 0) -> None:
        """The factors of a product that is taken to a power, through the cells that they are."""
        for f in Mul.make_args(e):
            b, x = (f, sp.S.One) if isinstance(f, sp.exp) else f.as_base_exp()
            number = times * x
            cell = self.known.get(name_of(b)) if isinstance(b, Indexed) else None
            inner: Any = at(cell, b.indices) if cell is not None and cell.expr is not None and not cell.call else b
            power = power_of(inner)
            if isinstance(inner, sp.exp):
                self.total += number * inner.args[0]
            elif power is not None and number.is_number:
                self.total += number * self.of_power(*power)
            elif isinstance(inner, (Mul, sp.Pow)) and not inner.has(Sigma) and number.is_number and depth < DEEPEST:
                self.add(inner, number, depth + 1)
            elif b.is_positive:
                self.total += number * sp.log(b)
            else:
                self.others.append((b, number))

    def of_power(self, base: Any, exponent: Any) -> Any:
        """`y log |x|`, and 0 where both are 0 unless x is known to be positive."""
        factors = Factors(self.known, self.parts)
        factors.add(base, sp.S.One)
        written = [(b, x, self.parts(sp.log(b), self.known)) for b, x in factors.others]
        unknown = [b for b, _, new in written if new == sp.log(b)]
        self.gained = self.gained or factors.total.has(Indexed) or len(unknown) < len(written)
        size = factors.total + sum(x * (sp.log(Sign(b) * b) if b in unknown else new) for b, x, new in written)
        whole = size * exponent
        return Where(Equal(base, 0) * Equal(exponent, 0), 0, whole) if unknown else whole


def power_of(e: Any) -> tuple[Any, Any] | None:
    """(x, y) of x^y for tensors, with what it is at 0 said beside; None for anything else."""
    if not isinstance(e, Where) or not isinstance(e.args[2], sp.Pow) or isinstance(e.args[2], sp.exp):
        return None
    x, y = e.args[2].args
    return (x, y) if y.has(Indexed) and e.args[0] == Equal(x, 0) * LessEqual(0, y) else None


__all__ = ["RULE", "with_log_powers"]
