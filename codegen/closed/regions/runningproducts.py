"""Running products: what stands one place further on is the product of all before, and factors are told by what has a bounded
logarithmic slope.

A product passes `out / f_k` back to its factor f_k, which says nothing where f_k is zero. With f = 1 - sigmoid(z) = 1 / (1 + exp(z)) the
slope to z is `-out sigmoid(z_k)`, and with f = e + c for c > 0 one divides by no less than c: nothing is lost at any place.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.algebra.sums import rebuilt
from codegen.closed.definitions.logistic import DEPTH, elementwise_cells, gate_argument, moebius
from codegen.closed.regions.cells import Cell, at, substituted
from codegen.derive import distribute
from codegen.lowering.runningproducts import running_factor
from engine.indexed import Indexed
from engine.notation import BINDERS, Index, Less, LessEqual, Product, Sigma, Where, accesses, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sympy import Expr

RULE = "a running product is one of factors whose logarithms have a slope everywhere, and one place further on one of those before"


def by_slopes(cells: list[Cell], kept: Collection[str]) -> list[Cell]:
    """The cells with every such running product in that form. What only the others have read is left out, but for `kept`."""
    if not any(c.expr is not None and c.expr.has(Product) for c in cells):
        return cells
    known: dict[str, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        found = product_of(c, known)
        if found is not None:
            c = replace(c, expr=found, node=None, call=False, text=None)
        known[c.name] = c
        out.append(c)
    return without(out, cells, kept)


def without(out: list[Cell], before: list[Cell], kept: Collection[str]) -> list[Cell]:
    """Cells without those that are read no more: what is put together of running products, and these themselves."""
    was = {r for c in before for r in reads(c)}
    while True:
        read = {*kept, *(r for c in out for r in reads(c))}
        gone = {
            c.name
            for c in out
            if c.name in was and c.name not in read and c.expr is not None and (c.call or c.expr.has(Product))
        }
        if not gone:
            return out
        out = [c for c in out if c.name not in gone]


def reads(c: Cell) -> tuple[str, ...]:
    """What a cell is computed from."""
    return tuple(dict.fromkeys((*c.node.operands, *c.reads))) if c.node is not None and c.call else c.reads


def product_of(c: Cell, known: Mapping[str, Cell]) -> Any:
    """A cell's definition as a running product of factors with bounded slopes; None where it is none, or has other factors."""
    found = factors_of(c, known) if c.kind == "float" and c.expr is not None else None
    if found is None:
        return None
    factor, j, i, whole = found
    size = c.ranges[i]
    for a in accesses(factor):
        cell = known[name_of(a)]
        if cell.dtype != c.dtype or (j in a.indices and sp.expand(cell.shape[a.indices.index(j)] - size) != 0):
            return None
    body = with_bounded_slope(factor, known)
    if body is None:
        return None
    return Product(Where((LessEqual if whole else Less)(j, i), body, sp.S.One), sp.Tuple(j, size))


def factors_of(c: Cell, known: Mapping[str, Cell]) -> tuple[Any, Index, Index, bool] | None:
    """(f_j, j, i, whether f_i is among them) of a cell that at each place i is the product of all f_j up to it, or before it."""
    before = before_each(c, known)
    if before is not None:
        return (*before, False)
    own = running_factor(c.expr)
    return None if own is None else (own[0], cast("Any", c.expr).limits[0][0], *own[1:])


def before_each(c: Cell, known: Mapping[str, Cell]) -> tuple[Any, Index, Index] | None:
    """(f_j, j, i) of a cell that at each place i is the product of all f_j before it; None for any other."""
    start = name_of(whole_of(c.element(c.indices), {**known, c.name: c}))
    cell = c if start == c.name else known[start]
    shifted = one_further(cell.element(c.indices), {**known, c.name: c})
    if shifted is not None:  # of the products up to each place
        source, i = shifted
        own = known.get(name_of(source))
        found = running_factor(own.expr) if own is not None else None
        if own is None or found is None or not found[2] or found[1] != own.indices[source.indices.index(i)]:
            return None
        there = {a: b for a, b in zip(own.indices, source.indices, strict=True) if a != 0}
        k = fresh()
        return found[0].xreplace({**there, cast("Any", own.expr).limits[0][0]: k}), k, i
    e: Any = at(cell, c.indices) if isinstance(cell.expr, Product) else None  # of what stands one place further on
    found = running_factor(e)
    if found is None:
        return None
    factor, i, whole = found
    inner = one_further(factor, known) if isinstance(factor, Indexed) and whole else None
    j = e.limits[0][0]
    return None if inner is None or inner[1] != j else (inner[0], j, i)


def is_start(c: Cell) -> bool:
    """Whether a cell is the start of another one along its dimensions, or all of it."""
    return all(a == b for a, b in zip(cast("Any", c.expr).indices, c.indices, strict=True))


def one_further(access: Any, known: Mapping[str, Cell]) -> tuple[Indexed, Any] | None:
    """(entry, index) of an element that is one at the first place of the index, and a tensor's entry one place before at all others.

    The entry is said at the index itself.
    """
    cell = known.get(name_of(access))
    if cell is None or not isinstance(cell.expr, Where):
        return None
    condition, a, b = cell.expr.args
    for i in (i for i in cell.indices if i != 0):
        first, later = (condition.xreplace({i: sp.Integer(k)}) for k in (0, 1))
        if (first, later) not in ((1, 0), (0, 1)) or condition.free_symbols != {i}:
            continue
        one, entry = (a, b) if first == 1 else (b, a)
        number = known.get(name_of(one)) if isinstance(one, Indexed) else None
        if (number.expr if number is not None else one) != 1 or not isinstance(entry, Indexed):
            return None
        plain = entry.xreplace({i - 1: i})
        if i not in plain.indices or tuple(plain.indices) != tuple(cell.indices):
            return None
        source = whole_of(plain, known)
        there = {p: q for p, q in zip(cell.indices, access.indices, strict=True) if p != 0}
        return source.xreplace(there), there[i]
    return None


def whole_of(access: Any, known: Mapping[str, Cell]) -> Any:
    """An element of what a tensor is the start of."""
    cell = known.get(name_of(access))
    while (
        cell is not None
        and isinstance(cell.expr, Indexed)
        and len(cell.expr.indices) == len(cell.indices)
        and is_start(cell)
    ):
        if name_of(cell.expr) not in known:
            break
        access = known[name_of(cell.expr)].element(access.indices)
        cell = known[name_of(cell.expr)]
    return access


# -- slopes -----------------------------------------------------------------------------------------------------------


def with_bounded_slope(factor: Any, known: Mapping[str, Cell]) -> Any:
    """A factor by the tensors in which its logarithm has a slope that is bounded, by exponentials if it can be; None where there are none."""
    usable = {n: c for n, c in elementwise_cells(known).items() if not cast("Expr", c.expr).has(*BINDERS)}
    inner, found = factor, None
    for _ in range(DEPTH + 2):
        single = sigmoid_of(inner)
        form = inner if single is None else single
        if has_bounded_slopes(form, known):
            if single is not None or isinstance(form, sp.exp):
                return form
            found = form if found is None else found
        step = substituted(inner, usable)
        if step == inner:
            break
        inner = sp.expand(step) if isinstance(step, sp.Add) else step
    return found


def sigmoid_of(e: Any) -> Any:
    """A quotient of exponentials as the exponential or the sigmoid that it is; None for anything else."""
    if not e.has(sp.exp) or isinstance(e, sp.exp):
        return None
    single = moebius(sp.together(e))
    return single if gate_argument(single) is not None else None


def has_bounded_slopes(e: Any, known: Mapping[str, Cell]) -> bool:
    """Whether the logarithm of an expression has bounded slopes."""
    slots = {a: sp.Dummy(f"x{k}", real=True, positive=a.is_positive) for k, a in enumerate(accesses(e))}
    plain, back = e.xreplace(slots), {x: a for a, x in slots.items()}
    return bool(slots) and all(is_bounded((sp.diff(plain, x) / plain).xreplace(back), known) for x in back)


def by_quotients(e: Any, known: Mapping[str, Cell]) -> Any:
    """What a product passes back to one of its factors by the product over the factor, where nothing that may be zero is divided by.

    Of the sum over all later places it is the one over all that come no earlier, less what stands at the place itself.
    """
    if isinstance(e, Indexed) or not e.args:
        return e
    if isinstance(e, Sigma):
        body = by_quotients(e.body, known)
        return e if body == e.body else with_own_place(body, list(e.limits))
    if not isinstance(e, sp.Mul):
        return rebuilt(e, lambda a: by_quotients(a, known))
    for f in e.args:
        if isinstance(f, Where) and isinstance(f.args[1], Product):
            slope = sp.Mul(*[masked(g) for g in e.args if g is not f], f.args[2])
            if is_bounded(slope, known):
                return slope
    return rebuilt(e, lambda a: by_quotients(a, known))


def with_own_place(body: Any, limits: list[Any]) -> Any:
    """`Sum_i [k < i] f_i` as `Sum_i [k <= i] f_i - f_k`; the plain sum where there is no such bracket."""
    indices = [i for i, _ in limits]
    for f in sp.Mul.make_args(body):
        if (
            isinstance(f, Less)
            and not isinstance(f, LessEqual)
            and f.args[1] in indices
            and isinstance(f.args[0], Index)
        ):
            k, i = f.args
            others = [x for x in limits if x[0] != i]
            own = distribute(body.xreplace({f: sp.S.One}).xreplace({i: k}), others)
            return distribute(body.xreplace({f: LessEqual(k, i)}), limits) - own
    return distribute(body, limits)


def masked(f: Any) -> Any:
    """What is chosen under a condition on places, and zero elsewhere, as its product with the condition."""
    if isinstance(f, Where) and f.args[2] == 0 and isinstance(f.args[0], Less) and not accesses(f.args[0]):
        return f.args[0] * f.args[1]
    return f


def is_bounded(e: Any, known: Mapping[str, Cell]) -> bool:
    """Whether all that an expression divides by is bounded away from zero."""
    below = (p.base for p in e.atoms(sp.Pow) if p.exp.is_negative and p.base.free_symbols)
    return all(floor_of(b, known) > 0 for b in below)


def floor_of(e: Any, known: Mapping[str, Cell]) -> Any:
    """A number that an expression is never below; minus infinity where none is known."""
    floor: Any = -sp.oo
    for _ in range(DEPTH):
        floor = bounds_of(sp.expand(e) if isinstance(e, sp.Add) else e)[0]
        read = elementwise_cells({n: known[n] for n in map(name_of, accesses(e)) if n in known})
        step = substituted(e, read) if floor <= 0 else e
        if step == e:
            break
        e = step
    return floor


def bounds_of(e: Any) -> tuple[Any, Any]:
    """Two numbers that an expression is between."""
    if e.is_number and e.is_extended_real:
        return e, e
    if isinstance(e, sp.Add):
        pairs = [bounds_of(t) for t in e.args]
        return sp.Add(*[a for a, _ in pairs]), sp.Add(*[b for _, b in pairs])
    if isinstance(e, sp.Mul):
        number, rest = e.as_coeff_Mul()
        if number != 1:
            a, b = bounds_of(rest)
            return (number * a, number * b) if number > 0 else (number * b, number * a)
    if isinstance(e, Where):
        condition, *branches = e.args
        pairs = [branch_bounds(x, condition, held) for x, held in zip(branches, (True, False), strict=True)]
        return sp.Min(*[a for a, _ in pairs]), sp.Max(*[b for _, b in pairs])
    return (sp.S.Zero if e.is_nonnegative else -sp.oo), (sp.S.Zero if e.is_nonpositive else sp.oo)


def branch_bounds(e: Any, condition: Any, held: bool) -> tuple[Any, Any]:
    """The same of what is chosen where a condition holds, or where it does not: what is compared with a number is bounded by it."""
    a, b = bounds_of(e)
    if isinstance(condition, Less):
        x, y = condition.args
        if x == e and y.is_number:
            a, b = (a, sp.Min(b, y)) if held else (sp.Max(a, y), b)
        elif y == e and x.is_number:
            a, b = (sp.Max(a, x), b) if held else (a, sp.Min(b, x))
    return a, b


__all__ = ["RULE", "by_quotients", "by_slopes"]
