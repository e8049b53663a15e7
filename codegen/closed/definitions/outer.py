# pyright: basic
"""Outer differences `u_ijd = x_id - c_jd`: a sum of them with weights that are smaller than u is two smaller sums.

`Sum_j g_ij u_ijd` is `x_id Sum_j g_ij - Sum_j g_ij c_jd`, a matrix product, without a tensor over all three indices. What x and
c have in common would cancel between the two, so that both are read less one mean, which changes no difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.matching import determined
from codegen.closed.algebra.sums import rebuilt, summed_term
from codegen.closed.algebra.terms import expanded, indices_of
from codegen.closed.regions.cells import Cell, at, substituted
from codegen.lowering.distances import is_distance
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Delta, Index, Sigma, Where, accesses, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RULE = "a sum of outer differences is a difference of smaller sums"
ORIGINS = "an outer difference stays what it is when both its tensors are read less one mean"
CENTRED, ORIGIN = "centred", "origin"
"""What the names of a tensor less a mean, and of that mean, end with."""


@dataclass(frozen=True)
class Outer:
    """An outer difference, and what is added up in its place: tensors less one mean, at the cell's own indices."""

    cell: Cell
    parts: tuple[Expr, ...]

    def at(self, indices: Iterable[Expr]) -> list[Expr]:
        """The parts at other indices."""
        there = {i: j for i, j in zip(self.cell.indices, indices, strict=True) if i != 0}
        return [p.xreplace(there) for p in self.parts]


def operands(c: Cell) -> tuple[Indexed, Indexed] | None:
    """x and c of a cell that is x - c, of which each lacks an index that the other has; None for any other cell."""
    terms = difference(c)
    if terms is None:
        return None
    left, right = (indices_of(a) for a in terms)
    return terms if left - right and right - left and left | right == {i for i in c.indices if i != 0} else None


def difference(c: Cell) -> tuple[Indexed, Indexed] | None:
    """x and m of a cell that is x - m for elements x and m of tensors; None for any other cell."""
    if not isinstance(c.expr, sp.Add) or c.kind != "float" or c.call or len(c.expr.args) != 2:
        return None
    parts = [cast("Any", t).as_coeff_Mul() for t in c.expr.args]
    found = {number: a for number, a in parts if isinstance(a, Indexed) and plain(a)}
    return (found[1], found[-1]) if found.keys() == {1, -1} else None


def plain(a: Indexed) -> bool:
    """Whether an element is at indices alone, and at the first where a tensor has one."""
    return all(i == 0 or isinstance(i, Index) for i in cast("Any", a).indices)


def with_origins(cells: list[Cell]) -> list[Cell]:
    """The cells, and before every outer difference of x and c the mean of c, and x and c less that mean.

    Differences among the rows of x do not mind which mean that is: where there are some of x and c too, it is that one.
    """
    known = {c.name: c for c in cells}
    pairs = [(c, p) for c in cells for p in [operands(c)] if p is not None]
    out: list[Cell] = []
    done: set[str] = set()
    for c in cells:
        pair = operands(c)
        if pair is not None:
            wider = [
                (u, p) for u, p in pairs if is_among_rows(*pair) and not is_among_rows(*p) and read_by(p, pair, done)
            ]
            u, (x, other) = wider[0] if wider else (c, pair)
            new = origin_of(u, x, other, known) if shared(u, x, other, known.values()) is None else []
            known |= {n.name: n for n in new}
            out += new
        out.append(c)
        done.add(c.name)
    return out


def is_among_rows(x: Indexed, c: Indexed) -> bool:
    """Whether x and c are elements of one tensor."""
    return name_of(x) == name_of(c)


def read_by(pair: tuple[Indexed, Indexed], rows: tuple[Indexed, Indexed], done: set[str]) -> bool:
    """Whether two tensors are there before the differences among the rows of one of them."""
    names = {name_of(a) for a in pair}
    return name_of(rows[0]) in names and names <= done


def origin_of(u: Cell, x: Indexed, c: Indexed, known: Mapping[str, Cell]) -> list[Cell]:
    """The mean of c over what x has not, and both less that mean."""
    sizes = u.ranges
    own = [cast("Index", i) for i in c.indices if i in indices_of(c) - indices_of(x)]
    common = [cast("Index", i) for i in c.indices if i in indices_of(c) & indices_of(x)]
    summed = {i: fresh() for i in own}
    free = {i: fresh() for i in common}
    total = Sigma(c.xreplace({**summed, **free}), *[sp.Tuple(j, sizes[i]) for i, j in summed.items()])
    expr = cast("Expr", total) / Mul(*[sizes[i] for i in own])
    shape = tuple(sizes[i] for i in common)
    name = free_name(f"{name_of(c)}_{ORIGIN}", known)
    mean = Cell(name, tuple(free.values()), shape, expr, "float", False, known[name_of(c)].dtype)
    out, taken = [mean], {*known, name}
    for a in {name_of(a): a for a in (c, x)}.values():
        there = {i: fresh() for i in dict.fromkeys(i for i in a.indices if i != 0)}
        name = free_name(f"{name_of(a)}_{CENTRED}", taken)
        taken.add(name)
        here = [there[cast("Index", i)] for i in common]
        axes = tuple(there.get(cast("Index", i), i) for i in a.indices)
        less = a.xreplace(there) - mean.element(here)
        source = known[name_of(a)]
        out.append(Cell(name, axes, source.shape, cast("Expr", less), "float", False, source.dtype))
    return out


def shared(u: Cell, x: Indexed, c: Indexed, cells: Iterable[Cell]) -> tuple[Expr, Expr] | None:
    """The elements of two cells that are x and c less the same; None where there are no such cells."""
    found: list[dict[Expr, Indexed]] = []
    every = list(cells)
    for a in (x, c):
        mine: dict[Expr, Indexed] = {}
        for p in every:
            pair = difference(p) if p.name != u.name else None
            where = determined(pair[0], a, p.indices) if pair is not None and name_of(pair[0]) == name_of(a) else None
            if pair is not None and where is not None and len(indices_of(pair[1])) < len(indices_of(pair[0])):
                mine[pair[1].xreplace(where)] = p.element([i.xreplace(where) for i in p.indices])
        found.append(mine)
    both = [m for m in found[0] if m in found[1]]
    return (found[0][both[0]], found[1][both[0]]) if both else None


def outer_differences(cells: Mapping[str, Cell], masked: bool = False) -> dict[str, Outer]:
    """The outer differences among cells, of which there are cells less one mean.

    Where they are `masked`, what is added up for those among the rows of one tensor is zero on the diagonal, as they are: a weight
    may be largest there, and `x_i - x_i` would leave an error of its size.
    """
    found: dict[str, Outer] = {}
    for c in cells.values():
        pair = operands(c)
        parts = shared(c, *pair, cells.values()) if pair is not None else None
        if pair is not None and parts is not None:
            apart = unequal(*pair) if masked else sp.S.One
            found[c.name] = Outer(c, (apart * parts[0], -(apart * parts[1])))
    return found


def among_rows(outer: Mapping[str, Outer]) -> bool:
    """Whether any of the outer differences are among the rows of one tensor."""
    pairs = [p for u in outer.values() for p in [operands(u.cell)] if p is not None]
    return any(is_among_rows(*p) for p in pairs)


def unequal(x: Indexed, c: Indexed) -> Expr:
    """One where x and c are different elements of one tensor, zero where they are the same; one for elements of two tensors."""
    if not is_among_rows(x, c):
        return sp.S.One
    places = [Delta(i, j) for i, j in zip(x.indices, c.indices, strict=True) if i != j]
    return cast("Expr", Where(Mul(*places), 0, 1))


def taken_apart(term: Expr, summed: Iterable[Index], outer: Mapping[str, Outer]) -> list[Expr] | None:
    """The products that a summed product with an outer difference is; None where some other factor is as large, or there is none."""
    factors = list(Mul.make_args(term))
    for f in factors:
        own = outer.get(name_of(f)) if isinstance(f, Indexed) else None
        if own is None or not indices_of(f) & {*summed}:
            continue
        rest = [g for g in factors if g is not f]
        if not any(indices_of(g) >= indices_of(f) for g in rest):
            return [Mul(*rest, p) for p in own.at(cast("Indexed", f).indices)]
    return None


def as_distances(e: Any, cells: Mapping[str, Cell]) -> Any:
    """An expression with every sum of squared outer differences as that of what they are made of, which torch has a kernel for."""
    if isinstance(e, Sigma):
        number, square = e.body.as_coeff_Mul()
        u = cells.get(name_of(square.base)) if isinstance(square, sp.Pow) and isinstance(square.base, Indexed) else None
        if u is not None and square.exp == 2 and operands(u) is not None:
            whole = cast("Sigma", e.func(at(u, square.base.indices) ** 2, *e.args[1:]))
            return number * whole if is_distance(whole) else e
        return e
    return e if isinstance(e, Indexed) or not e.args else rebuilt(e, lambda a: as_distances(a, cells))


def apart(e: Any, outer: Mapping[str, Outer]) -> Any:
    """An expression with every such sum taken apart."""
    if not outer or isinstance(e, Indexed) or not e.args:
        return e
    if isinstance(e, Sigma):
        terms = sp.Add.make_args(expanded(apart(e.body, outer)))
        parts = [taken_apart(cast("Expr", t), [i for i, _ in e.limits], outer) for t in terms]
        if any(p is not None for p in parts):
            every = [p for t, found in zip(terms, parts, strict=True) for p in found or [t]]
            limits = list(e.limits)
            return sp.Add(*[summed_term(cast("Expr", p), limits, dict(limits)) for p in every])
        return e
    return rebuilt(e, lambda a: apart(a, outer))


def without_outer(e: Any, cells: Mapping[str, Cell], outer: Mapping[str, Outer]) -> Any:
    """A definition whose sums do without outer differences, also where a product of one is a cell; unchanged where one stays."""
    if e is None or not e.has(Sigma):
        return e
    products = {n: c for n, c in cells.items() if is_product(c, cells)}
    whole = as_distances(apart(substituted(e, products), outer), cells)
    left = {name_of(a) for a in accesses(whole)}
    return e if any(n in products or is_outer(cells.get(n)) for n in left) else whole


def is_product(c: Cell, cells: Mapping[str, Cell]) -> bool:
    """A product or a power of an outer difference, element by element."""
    plain = isinstance(c.expr, (Mul, sp.Pow)) and not c.expr.has(Sigma) and not isinstance(c.expr, sp.exp)
    return plain and any(is_outer(cells.get(r)) for r in c.reads)


def is_outer(c: Cell | None) -> bool:
    """Whether a cell is an outer difference."""
    return c is not None and operands(c) is not None


def taken_in(reader: Cell, u: Cell, readers: Iterable[Cell]) -> bool:
    """Whether all that a cell makes of an outer difference, or its readers make of its product, are sums without the tensor."""
    cells = {u.name: u, reader.name: reader}
    outer = {u.name: Outer(u, sp.Add.make_args(cast("Expr", u.expr)))}
    sums = list(readers) if is_product(reader, cells) else [reader]
    return bool(sums) and all(c.expr is not None and without_outer(c.expr, cells, outer) != c.expr for c in sums)


__all__ = [
    "ORIGINS",
    "RULE",
    "among_rows",
    "outer_differences",
    "taken_apart",
    "taken_in",
    "with_origins",
    "without_outer",
]
