# pyright: basic
"""Logarithms of what exponentials are added, subtracted, multiplied and divided to, factor by factor.

sigmoid(a) - sigmoid(b) is exp(a) (1 - exp(b - a)) / ((1 + exp(a)) (1 + exp(b))): it is 0 where both round to one, and its logarithm,
a sum of softplus and of log(1 - exp(b - a)), is finite wherever a is larger than b. So is 1 - (g + (1 - g) s) for sigmoids g and s the
product of two of them. A factor is one exponential, a sum of them, or the larger one less the smaller one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.algebra.sums import rebuilt
from codegen.closed.definitions.completed import without
from codegen.closed.definitions.exponents import total_in
from codegen.closed.definitions.logistic import (
    added_up,
    elementwise_cells,
    gate_argument,
    of_exponentials,
    softplus_arguments,
)
from codegen.closed.regions.cells import Cell, at, substituted
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Index, Less, Where, accesses, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from codegen.closed.regions.region import Region

RULE = "the logarithm of a quotient of exponentials is that of its factors, of which 1 - exp(g) keeps its digits"
MOST = 4
"""How many exponentials there may be: polynomials in them are factored."""
LIMITS: dict[Any, Any] = {sp.S.Zero: -sp.oo, sp.S.One: sp.oo}
"""Where a sigmoid is what."""
BOUNDS = (-40, 7)
"""Where exp(f) is so small that it is exp(exp(f)) - 1 to the last digit of a double, and so large that exp(exp(f)) is not finite."""
LEVELS, SHORT = 10, 12
"""How far definitions are written out, and how many terms there may be then; operations are at most its square."""


def in_factors(region: Region, kept: tuple[str, ...]) -> Region | None:
    """The region with such logarithms as sums of logarithms, without what only they have read; None where there is none."""
    before = list(region.cells)
    known: dict[str, Cell] = {}
    out: list[Cell] = []
    chosen = by_chosen_exponents(before)
    taken = {c.name for c in chosen}
    changed = False
    for c in chosen:
        if c.expr is not None and not c.call and c.kind == "float" and c.expr.has(sp.log):
            new = apart(c.expr, known)
            if new != c.expr:
                for cell, log, made in odds(new, c, known, taken):
                    known[cell.name] = cell
                    out.append(cell)
                    new = new.xreplace({log: made})
                c, changed = replace(c, expr=new, text=None), True
        known[c.name] = c
        out.append(c)
    return region.by(RULE, lambda _: without(out, before, kept)) if changed else None


def by_chosen_exponents(cells: list[Cell]) -> list[Cell]:
    """The cells with every choice between a sigmoid and the 0 or 1 that it tends to as the sigmoid of a choice with -oo or oo."""
    known: dict[str, Cell] = {}
    taken = {c.name for c in cells}
    out: list[Cell] = []
    for c in cells:
        exponent = chosen_exponent(c.expr, known) if isinstance(c.expr, Where) and not c.call else None
        if exponent is not None:
            inner = replace(part_of(c, exponent, free_name(f"{c.name}_exponent", taken)), positive=False)
            taken.add(inner.name)
            back = [i for i in c.indices if i != 0 and i in exponent.free_symbols]
            out.append(inner)
            c = replace(c, expr=1 / (1 + sp.exp(-cast("Any", inner.element(back)))), text=None, positive=True)
        known[c.name] = c
        out.append(c)
    return out


def chosen_exponent(e: Where, known: Mapping[str, Cell]) -> Any:
    """The choice between exponents whose sigmoid a choice between a sigmoid and 0 or 1 is; None for any other."""
    condition, *branches = cast("Any", e.args)
    known = {
        n: d for n, d in known.items() if d.expr is not None and (d.expr.has(sp.exp) or isinstance(d.expr, sp.Pow))
    }
    found: list[Any] = [LIMITS.get(b) if b.is_number else gate_argument(written_out(b, known)) for b in branches]
    return None if None in found or all(f.is_infinite for f in found) else Where(condition, *found)


def part_of(c: Cell, e: Any, name: str) -> Cell:
    """A part of a cell as one of its own."""
    free = [cast("Index", i) for i in c.indices if i != 0 and i in e.free_symbols]
    own = {i: fresh() for i in free}
    shape, indices = tuple(c.ranges[i] for i in free), tuple(own.values())
    plain = replace(c, name=name, indices=indices, shape=shape, expr=e.xreplace(own), node=None, text=None)
    return replace(plain, named=False, positive=True)


def odds(e: Any, c: Cell, known: Mapping[str, Cell], taken: set[str]) -> Iterator[tuple[Cell, Any, Any]]:
    """Cells q = 1 / (exp(-g) - 1) for every log(1 - exp(g)) of a cell, which is -log(1 + q) and whose slope is -q.

    Each comes with that logarithm and what it is by them. Of g = -exp(f) the f is bounded: below the lower bound the logarithm is f to the
    last digit, and above the upper one it is 0. Where g may be -oo, q is exp(g) / (1 - exp(g)), whose own slope is a number there.
    """

    def cell(expr: Any, label: str) -> tuple[Cell, Any]:
        made = replace(part_of(c, expr, free_name(f"{c.name}_{label}", taken)), positive=label == "odds")
        taken.add(made.name)
        return made, made.element([i for i in c.indices if i != 0 and i in expr.free_symbols])

    for log in sorted((x for x in e.atoms(sp.log) if is_difference(x.args[0])), key=str):
        g: Any = fewest(cast("Any", 1 - log.args[0]).args[0], known)
        f = size_of(g, known)
        beyond: Any = sp.S.Zero
        if f is not None:
            low, high = BOUNDS
            if isinstance(f, (sp.Add, sp.log)):  # compared and bounded, it is computed once
                larger, f = cell(f, "size")
                yield larger, log, log
            inner, f_within = cell(Where(Less(f, low), low, Where(Less(high, f), high, f)), "within")
            yield inner, log, log
            beyond, g = Where(Less(f, low), f - low, 0), -sp.exp(f_within)
        whole: Any = 1 / (sp.exp(-g) - 1)
        if beyond != 0 or any(is_infinite(known.get(name_of(a))) for a in accesses(g)):
            gap, g = cell(g, "gap")
            yield gap, log, log
            whole = -sp.exp(g) / (sp.exp(g) - 1)
        made, q = cell(whole, "odds")
        yield made, log, beyond - sp.log(1 + q)


def size_of(g: Any, known: Mapping[str, Cell]) -> Any:
    """log(-g) of minus a multiple of exponentials and sums of such, which may overflow; None for anything else."""
    exponent, others = sp.S.Zero, list[Any]()
    left = list(sp.Mul.make_args(g))
    while left:
        f = left.pop()
        cell = known.get(name_of(f)) if isinstance(f, Indexed) else None
        if isinstance(f, sp.exp):
            exponent += f.args[0]
        elif cell is None or not of_exponentials_alone(f, known):
            others.append(f)
        elif total_in(cell, known) is not None:
            exponent += sp.log(f)
        else:
            left.extend(sp.Mul.make_args(at(cell, cast("Indexed", f).indices)))
    number = -sp.Mul(*others)  # what else is a tensor makes nothing overflow, and its logarithm costs more than is lost
    return exponent + sp.log(number) if exponent != 0 and number.is_number and number.is_positive else None


def of_exponentials_alone(e: Any, known: Mapping[str, Cell]) -> bool:
    """Whether a product has an exponential, or a sum of such, among its factors, which may be cells."""
    for f in sp.Mul.make_args(e):
        cell = known.get(name_of(f)) if isinstance(f, Indexed) else None
        own = cell is not None and cell.expr is not None and not cell.call and cell.kind == "float"
        if isinstance(f, sp.exp):
            return True
        if cell is not None and own and (total_in(cell, known) is not None or of_exponentials_alone(cell.expr, known)):
            return True
    return False


def is_infinite(c: Cell | None) -> bool:
    """Whether a cell chooses oo or -oo somewhere."""
    return c is not None and c.expr is not None and c.expr.has(sp.oo, -sp.oo)


def fewest(e: Any, known: Mapping[str, Cell]) -> Any:
    """A difference with the sums, and products of such, that it reads written out, where what both have cancels: (h - x) r - (l - x) r is (h - l) r."""
    sums = {n: d for n, d in known.items() if isinstance(d.expr, sp.Add) and d.kind == "float" and not d.call}
    products = {n: d for n, d in known.items() if isinstance(d.expr, sp.Mul) and d.kind == "float" and not d.call}
    if not isinstance(e, sp.Add):  # one product, which reads no sum, is nothing that cancels
        products = {n: d for n, d in products.items() if any(r in sums for r in d.reads)}
    whole = sp.expand(substituted(substituted(e, {**products, **sums}), sums))
    new = sp.factor_terms(whole)
    apart = len(sp.Add.make_args(whole)) <= len(sp.Add.make_args(sp.expand(e)))
    return new if apart and len(new.atoms(Indexed)) <= len(e.atoms(Indexed)) + 1 else e


def is_difference(e: Any) -> bool:
    """Whether an expression is one minus an exponential."""
    return isinstance(e, sp.Add) and isinstance(1 - e, sp.exp)


def apart(e: Any, known: Mapping[str, Cell]) -> Any:
    """An expression with such logarithms in it as sums of logarithms."""
    if isinstance(e, Indexed) or not e.args or isinstance(e, Where):
        return e
    if isinstance(e, sp.log):
        new = logarithm(written_out(e.args[0], of_exponentials(elementwise_cells(known))))
        return e if new is None else new
    return rebuilt(e, lambda a: apart(a, known))


def written_out(e: Any, usable: Mapping[str, Cell]) -> Any:
    """An expression with the definitions of these cells in it, and in them, as far as it stays short; exponents are left as they are."""
    for _ in range(LEVELS):
        exponentials = {x: sp.Dummy(positive=True) for x in e.atoms(sp.exp)}
        step = substituted(e.xreplace(exponentials), usable).xreplace({d: x for x, d in exponentials.items()})
        if step == e or len(step.args) > SHORT or sp.count_ops(step) > SHORT**2:
            break
        e = step
    return e


def logarithm(e: Any) -> Any:
    """The logarithm of a quotient of polynomials in exponentials, factor by factor; None for anything else, or where that is all there is."""
    units: dict[Any, Any] = {}
    there: dict[Any, Any] = {}
    for x in sorted(e.atoms(sp.exp), key=str):
        f = x.args[0]
        g = -f if f.could_extract_minus_sign() else f
        units.setdefault(g, sp.Dummy(f"E{len(units)}", positive=True))
        there[x] = units[g] if g == f else 1 / units[g]
    plain = e.xreplace(there)
    if not isinstance(plain, sp.Add) or not len(units) <= MOST or not {*plain.free_symbols} <= {*units.values()}:
        return None
    top, bottom = sp.fraction(sp.cancel(plain))
    (number, found), (below, others) = (sp.factor_list(f) if f.free_symbols else (f, []) for f in (top, bottom))
    exponents = {u: g for g, u in units.items()}
    number, total, differences = number / below, sp.S.Zero, 0
    for f, x in (*found, *[(g, -y) for g, y in others]):
        parts = [t.as_coeff_Mul() for t in sp.Add.make_args(f)]
        if len(parts) < 3 and all(k.is_positive for k, _ in parts):
            logs = [(k, power(t, exponents)) for k, t in parts]
            total += x * (logs[0][1] if len(logs) == 1 else sp.log(sp.Add(*[k * sp.exp(g) for k, g in logs])))
        elif len(parts) == 2 and x == 1 and parts[0][0] == -parts[1][0]:
            differences += 1
            (k, u), (_, v) = parts if (number * parts[0][0]).is_positive else parts[::-1]
            u, v = power(u, exponents), power(v, exponents)
            number *= k
            total += u + sp.log(1 - sp.exp(sp.expand(v - u)))
        else:
            return None
    if not number.is_positive or differences > 1 or (not differences and bottom == 1):
        return None
    return shortest(total) + sp.log(number)


def shortest(e: Any) -> Any:
    """A sum with log(1 + exp(f)) as log(1 + exp(-f)) + f where less is left beside the logarithms then."""
    e = added_up(e)
    for f in softplus_arguments(e):
        turned = added_up(e.xreplace({sp.log(1 + sp.exp(f)): sp.log(1 + sp.exp(-f)) + f}))
        e = min((e, turned), key=lambda x: len(sp.Add.make_args(x)))
    return e


def power(t: Any, exponents: Mapping[Any, Any]) -> Any:
    """The logarithm of a product of powers of exponentials."""
    return sp.Add(*[x * exponents[u] for u, x in t.as_powers_dict().items() if u in exponents])


__all__ = ["RULE", "in_factors"]
