# pyright: basic
"""A region's plan: which cotangents are statements, by which cells things are named, what is shared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra import Algebra, powers
from codegen.closed.backward import Backward, Statement, settled
from codegen.closed.branches import branched
from codegen.closed.sums import rebuilt
from engine.indexed import Indexed
from engine.notation import Delta, Index, Sigma, accesses, base, bound, canonical, element, fresh, name_of

if TYPE_CHECKING:
    from codegen.closed.cells import Cell
    from codegen.closed.region import Region


ROUNDS = 2
"""How often each family of cells is chosen anew, given the choice in the others."""
OVERFLOWS = 1e9
"""What it costs to keep what overflows, in elements: more than anything that avoids it."""


@dataclass(frozen=True)
class Planned:
    """Statements in order with shared sums as statements of their own; for every wanted cell the name of its gradient."""

    statements: tuple[Statement, ...]
    gradients: tuple[tuple[str, str], ...]
    cost: float
    simplified: bool = True
    unshared: tuple[Statement, ...] = ()
    """The statements before what they share became statements of its own."""


def unsimplified(region: Region) -> Planned:
    """The chain of local derivatives as it is: what is left when nothing simpler passes the gates."""
    backward = Backward(list(region.cells), region.seeds, region.wanted, Algebra({}, {}))
    statements = backward.chain()
    return Planned(
        tuple(statements), tuple((s.cell, s.name) for s in statements if s.cell in region.wanted), 0.0, simplified=False
    )


def knowledge(region: Region, values: dict[Any, int], folds: bool = True) -> Algebra:
    """What is known of a region's cells at the sizes of the example; without `folds` no sum is exchanged for another."""
    relations = region.relations if folds else ()
    return Algebra({c.name: c for c in region.cells}, values, relations, folds)


def planned(region: Region, algebra: Algebra, simplify: bool = True) -> Planned:
    """The cheapest backward found: cuts are dropped while that does not cost more, then the cells that name things are chosen.

    Without `simplify` every cut stays.
    """
    backward = Backward(list(region.cells), region.seeds, region.wanted, algebra)
    cuts = frozenset(backward.candidates())
    best = named(backward, cuts, algebra)
    changed = simplify
    while changed:  # a cut that paid may not pay any more once others are gone
        changed = False
        for name in [n for n in backward.candidates() if n in cuts]:
            trial = named(backward, cuts - {name}, algebra)
            if trial.cost <= best.cost:
                best, cuts, changed = trial, cuts - {name}, True
    return best


def families(algebra: Algebra) -> list[list[str]]:
    """Cells that are products of one another, in groups: the cells of one may stand in for each other."""
    large = [c for c in algebra.ups if c.shape and len(c.indices) == max_rank(algebra, c)]
    groups: list[tuple[set[str], list[str]]] = []
    for c in large:
        pattern = algebra.down.get(c.name)
        if pattern is None or pattern.expr is None:
            continue
        heads = {
            name_of(a)
            for a in accesses(pattern.expr)
            if len([i for i in a.indices if i != 0]) == len([i for i in c.indices if i != 0])
        }
        for known, members in groups:
            if known & heads:
                known |= heads
                members.append(c.name)
                break
        else:
            groups.append((set(heads), [c.name]))
    return [members for _, members in groups]


def max_rank(algebra: Algebra, cell: Cell) -> int:
    """The rank of a cell if something of the same rank stands in its definition, else more than it has."""
    pattern = algebra.down.get(cell.name)
    if pattern is None or pattern.expr is None:
        return 99
    own = len([i for i in cell.indices if i != 0])
    inside = max((len([i for i in a.indices if i != 0]) for a in accesses(pattern.expr)), default=0)
    return len(cell.indices) if inside == own and own > 0 else 99


def named(backward: Backward, cuts: frozenset[str], algebra: Algebra) -> Planned:
    """A plan with products named by the choice of cells that costs least over all statements."""
    plan = backward.assemble(cuts)
    large = {n for family in families(algebra) for n in family}
    small = {c.name for c in algebra.ups} - large
    chosen = set(small)
    raw = plan.statements
    best: tuple[float, list[Statement]] | None = None
    for family in [*families(algebra)] * ROUNDS:
        chosen -= set(family)
        left, price = list(family), priced(raw, chosen, algebra)
        while left:
            options = [(priced(raw, chosen | {option}, algebra), k) for k, option in enumerate(left)]
            least, k = min(options)
            if least >= price:
                break
            price = least
            chosen.add(left.pop(k))
    algebra.allowed = chosen
    statements = [refold(s, algebra) for s in raw]
    best = (cost(statements, algebra), statements)
    algebra.allowed = None
    shared = share(best[1], algebra)
    return Planned(tuple(shared), tuple(plan.gradients.items()), best[0], unshared=tuple(best[1]))


def priced(raw: list[Statement], allowed: set[str], algebra: Algebra) -> float:
    """What statements cost with products named by the allowed cells."""
    algebra.allowed = allowed
    return cost([refold(s, algebra) for s in raw], algebra)


def refold(s: Statement, algebra: Algebra) -> Statement:
    """A statement with products named and common factors in front; the rules it took are added."""
    key = (s.expr, frozenset(algebra.allowed or ()))
    if key not in algebra.refolded:
        algebra.rules = []
        expr = settled(branched(algebra.folded(at_gathers(s.expr, s.indices))))
        algebra.refolded[key] = expr, tuple(algebra.rules)
    expr, rules = algebra.refolded[key]
    return replace(s, expr=expr, rules=tuple(dict.fromkeys((*s.rules, *rules))))


def at_gathers(e: Expr, indices: tuple[Expr, ...]) -> Expr:
    """`[j = y[i]] p[i,j]` as `[j = y[i]] p[i,y[i]]`, which may have a name, in every term of an expression."""
    if not e.has(Delta):
        return e
    terms: list[Any] = []
    for t in sp.Add.make_args(e):
        for d in [f for f in Mul.make_args(t) if isinstance(f, Delta)]:
            where = {a: b for a, b in (d.args, d.args[::-1]) if a in indices and b.has(Indexed) and not b.has(a)}
            t = cast("Any", d) * (t / d).xreplace(where)
        terms.append(t)
    return cast("Expr", sp.Add(*terms))


@lru_cache(maxsize=2**12)
def sums_of(e: Expr) -> tuple[Sigma, ...]:
    """The sums of an expression, those inside of others too."""
    if isinstance(e, Sigma):
        return (e, *sums_of(e.body))
    if isinstance(e, Indexed) or not e.args:
        return ()
    return tuple(s for a in e.args for s in sums_of(a))


def cost(statements: list[Statement], algebra: Algebra) -> float:
    """Elements read and written: every term of every statement, every different sum once, every large tensor that is kept."""
    total = 0.0
    sums: dict[Any, Sigma] = {}
    kept: set[str] = set()
    for s in statements:
        if isinstance(s.expr, Indexed):
            continue
        total += expression_cost(s.expr, algebra)
        for x in sums_of(s.expr):
            sums.setdefault(generic(x)[0], x)
        kept |= {name_of(a) for a in accesses(s.expr) if name_of(a) in algebra.cells}
    for x in sums.values():
        total += expression_cost(x.body, algebra) + reach(x.body, algebra)
    for name in kept:
        if algebra.cells[name].expr is not None:
            total += size_of(algebra.cells[name].shape, algebra)
            total += OVERFLOWS if sums_exponentials(algebra.cells[name], algebra) else 0.0
    return total


def sums_exponentials(cell: Cell, algebra: Algebra) -> bool:
    """Whether a cell is a sum of exponentials, which overflows where its logarithm and its shares do not."""
    return isinstance(cell.expr, Sigma) and algebra.exponential(cell.expr.body)


def expression_cost(e: Expr, algebra: Algebra) -> float:
    """Elements that are read and written until an expression is a tensor, one operation on two operands after the other.

    A tensor that is there costs nothing, a sum is priced once for all that read it.
    """
    if e not in algebra.costs:
        algebra.costs[e] = _expression_cost(e, algebra)
    return algebra.costs[e]


def _expression_cost(e: Expr, algebra: Algebra) -> float:
    if isinstance(e, (Sigma, Indexed)) or not e.has(Indexed):
        return 0.0
    if isinstance(e, sp.Add):
        return sum(expression_cost(t, algebra) for t in e.args) + combined([reach(t, algebra) for t in e.args])
    if isinstance(e, sp.Mul):
        factors = [f for f in e.args if f.has(Indexed)]
        inner = sum(expression_cost(f, algebra) for f in factors)
        largest = reach(e, algebra)
        large = [x for f in factors for x in [reach(f, algebra)] if x >= largest / 4]
        small = [x for f in factors for x in [reach(f, algebra)] if x < largest / 4]
        if len(factors) == 1 and abs(cast("Any", e / factors[0])) != 1:
            return inner + 2 * largest
        return inner + combined(small) + combined([*large, *small[:1]])
    if isinstance(e, sp.Pow) and not isinstance(e, sp.exp):
        below = 0.0 if e.exp == -1 else 2.0 if e.exp.is_Integer else 4.0
        return expression_cost(e.base, algebra) + below * reach(e, algebra)
    return sum(expression_cost(a, algebra) for a in e.args) + 2.0 * reach(e, algebra)


def combined(sizes: list[float]) -> float:
    """What operations on two operands move, that make one tensor of several: every operand and what lies between is read."""
    largest = max(sizes, default=0.0)
    return sum(sizes) + largest * (2 * len(sizes) - 3) if len(sizes) > 1 else 0.0


def reach(e: Expr, algebra: Algebra) -> float:
    """How many elements an expression has: the largest of what it reads."""
    if e not in algebra.reaches:
        algebra.reaches[e] = _reach(e, algebra)
    return algebra.reaches[e]


def _reach(e: Expr, algebra: Algebra) -> float:
    if isinstance(e, Sigma):
        free = {i for i in e.free_symbols if isinstance(i, Index)} - bound(e)
        return (
            float(max((size_of_access(a, algebra) for a in accesses(e) if set(a.indices) & free), default=1)) ** 0.5
            if free
            else 1.0
        )
    if isinstance(e, Indexed):
        return float(size_of_access(e, algebra))
    return max((reach(a, algebra) for a in e.args if isinstance(a, Expr)), default=1.0)


def size_of_access(a: Indexed, algebra: Algebra) -> int:
    """The number of elements of an accessed tensor; an unknown one (a cotangent) is as large as its indices say."""
    cell = algebra.cells.get(name_of(a).removeprefix("d_").removesuffix("_out"))
    return size_of(cell.shape, algebra) if cell is not None else 1


def size_of(shape: tuple[Expr, ...], algebra: Algebra) -> int:
    """The number of elements of a shape at the example's sizes."""
    count = 1
    for s in shape:
        count *= max(1, int(cast("Any", s.xreplace({k: sp.Integer(v) for k, v in algebra.values.items()}))))
    return count


def share(statements: list[Statement], algebra: Algebra) -> list[Statement]:
    """Sums that occur more than once become statements; one that is a whole gradient already lends its name."""
    whole: dict[Any, tuple[str, Sigma, tuple[Expr, ...]]] = {}
    for s in statements:
        if isinstance(s.expr, Sigma) and {i for i in s.indices if i != 0} == {
            i for i in s.expr.free_symbols if isinstance(i, Index)
        } - bound(s.expr):
            whole.setdefault(generic(s.expr)[0], (s.name, s.expr, s.indices))
    out: list[Statement] = []
    shared: dict[Any, tuple[str, tuple[Any, ...], tuple[Expr, ...]]] = {}
    numbers: dict[Any, int] = {}
    for s in statements:
        for x in sums_of(s.expr):
            numbers[generic(x)[0]] = numbers.get(generic(x)[0], 0) + 1
    pulled: list[Statement] = []
    for s in statements:

        def replaced(e: Any, s: Statement = s) -> Any:
            if isinstance(e, Sigma):
                key, free = generic(e)
                if key in whole and whole[key][0] != s.name:
                    name, original, indices = whole[key]
                    order = generic(original)[1]
                    mapping = dict(zip(order, free, strict=True))
                    return element(base(name), [mapping.get(i, i) for i in indices])  # pyright: ignore[reportArgumentType, reportCallIssue]
                if key in whole or numbers[key] < 2:
                    return rebuilt(e, replaced)
                if key not in shared:
                    copy = {i: fresh() for i in free}
                    ranges = ranges_of(e, s, algebra)
                    name = f"sum_{len(shared)}"
                    indices = tuple(copy[i] for i in free)
                    shape = tuple(ranges[i] for i in free)
                    pulled.append(
                        Statement(
                            name,
                            indices,
                            shape,
                            e.xreplace(copy),
                            "",
                            e.xreplace(copy),
                            ("shared sum",),
                        )
                    )
                    out.append(pulled[-1])
                    shared[key] = (name, free, shape)
                return element(base(shared[key][0]), list(free))
            return e if isinstance(e, Indexed) or not e.args else rebuilt(e, replaced)

        out.append(replace(s, expr=replaced(s.expr)))
    return ordered_statements(alike_by_name(out))


def alike_by_name(statements: list[Statement]) -> list[Statement]:
    """Statements of which those that are equal to an earlier one are that one."""
    known: dict[Any, Statement] = {}
    out: list[Statement] = []
    for s in statements:
        key = canonical(s.expr, {i: Index(f"_a{k}") for k, i in enumerate(s.indices) if i != 0}), s.shape
        first = known.setdefault(key, s) if s.shape and not isinstance(s.expr, Indexed) and s.expr != 0 else s
        out.append(s if first is s else replace(s, expr=element(base(first.name), s.indices)))
    return out


def generic(s: Sigma) -> tuple[Any, tuple[Index, ...]]:
    """A sum with its free indices by position, and those."""
    from codegen.closed.algebra import fact_key

    return fact_key(s)


def ranges_of(e: Expr, s: Statement, algebra: Algebra) -> dict[Any, Expr]:
    """Sizes of the indices of an expression inside of a statement, from the tensors it reads."""
    ranges: dict[Any, Expr] = {i: n for i, n in zip(s.indices, s.shape, strict=True) if i != 0}
    for a in accesses(e):
        cell = algebra.cells.get(name_of(a).removeprefix("d_").removesuffix("_out"))
        if cell is not None:
            ranges.update({i: n for i, n in zip(a.indices, cell.shape, strict=False) if isinstance(i, Index)})
    return ranges


def ordered_statements(statements: list[Statement]) -> list[Statement]:
    """Statements so that each comes after what it reads, otherwise as they were."""
    names = {s.name for s in statements}
    left = list(statements)
    done: set[str] = set()
    out: list[Statement] = []
    while left:
        for k, s in enumerate(left):
            if all(name_of(a) in done or name_of(a) not in names for a in accesses(s.expr)):
                out.append(s)
                done.add(s.name)
                del left[k]
                break
        else:
            raise RuntimeError("statements read one another")
    return out


__all__ = ["Mul", "Planned", "planned", "powers"]
