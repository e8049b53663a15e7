# pyright: basic
"""A region's plan: which cotangents are statements, by which cells things are named, what is shared."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Mul

from codegen.closed.algebra.algebra import Algebra
from codegen.closed.algebra.guarded import chosen_first
from codegen.closed.algebra.matching import fact_key
from codegen.closed.algebra.sums import rebuilt
from codegen.closed.definitions.shares import exponential, reduction
from codegen.closed.plan.apart import without_diagonals
from codegen.closed.plan.backward import Backward, Plan, Statement
from codegen.closed.plan.byproducts import by_products
from codegen.closed.plan.byresult import by_results
from codegen.closed.plan.bysums import by_sums, by_sums_of_products
from codegen.closed.plan.naming import Naming
from codegen.closed.plan.negatives import by_negatives, turned_round
from codegen.closed.plan.prices import Prices, sums_of
from codegen.closed.plan.productsonce import with_products_once
from codegen.closed.plan.rowsonce import with_rows_once
from codegen.closed.plan.scatters import with_scatters_apart
from codegen.closed.plan.sharedsigns import with_signs_once
from codegen.closed.plan.sumsofwholes import by_wholes
from codegen.closed.regions.constants import sums_of_cells
from codegen.derive import distribute
from codegen.lowering.lower import places_in
from engine.indexed import Indexed
from engine.notation import Delta, Index, Sigma, accesses, base, bound, canonical, element, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sympy import Expr

    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.constants import Sums
    from codegen.closed.regions.region import Region


EARLIER = 3
"""How many choices before the cheapest are tried."""
ROUNDING = 1e-9
"""Costs that differ by no more of them are one: they are sums of the same numbers in another order."""


@dataclass(frozen=True)
class Planned:
    """Statements in order with shared sums as statements of their own; for every wanted cell the name of its gradient."""

    statements: tuple[Statement, ...]
    gradients: tuple[tuple[str, str], ...]
    cost: float
    simplified: bool = True
    unshared: tuple[Statement, ...] = ()
    """The statements before what they share became statements of its own."""
    sums: Sums = ()
    """What cells that are read from elsewhere sum to over an axis, where that is a number."""


def unsimplified(region: Region) -> Planned:
    """The chain of local derivatives as it is: what is left when nothing simpler passes the gates."""
    backward = Backward(list(region.cells), region.seeds, region.wanted, Algebra({}, {}))
    statements = read_in(backward.chain(), region.wanted)
    return Planned(
        tuple(statements), tuple((s.cell, s.name) for s in statements if s.cell in region.wanted), 0.0, simplified=False
    )


def read_in(statements: Sequence[Statement], wanted: Collection[str]) -> list[Statement]:
    """The statements that the gradients of some cells are computed from: not what is zero, and passes nothing back."""
    return unread_left_out(statements, {s.name for s in statements if s.cell in wanted})


def unread_left_out(statements: Sequence[Statement], wanted: Collection[str]) -> list[Statement]:
    """The statements that some of them are computed from, and these."""
    live = {*wanted}
    for s in reversed(statements):
        if s.name in live:
            live.update(name_of(a) for a in accesses(s.expr))
    return [s for s in statements if s.name in live]


def knowledge(
    region: Region,
    values: dict[Any, int],
    folds: bool = True,
    apart: bool = True,
    masked: bool = False,
    signs: bool = True,
) -> Algebra:
    """What is known of a region's cells at the sizes of the example; without `folds` no sum is exchanged for another."""
    relations, kept = region.relations if folds else (), {*region.needed, *region.seeds}
    return Algebra({c.name: c for c in region.cells}, values, relations, folds, apart, region.sums, kept, masked, signs)


@dataclass(frozen=True)
class Choice:
    """A choice of cuts, and what comes of it: the plan, what it costs, and the cells that name things in it."""

    cuts: frozenset[str]
    plan: Plan
    cost: float
    allowed: frozenset[str]

    def cheaper(self, other: Choice) -> bool:
        """Whether it costs less than another by more than the rounding of sums."""
        return self.cost < other.cost * (1 - ROUNDING)


def plans(region: Region, algebra: Algebra, simplify: bool = True, before: bool = False) -> Iterator[Planned]:
    """The cheapest backward found, and where it sums what cancels in a gradient, the one that does not, which costs more.

    With `before` it is those that were the cheapest before more cuts were dropped, the last one first: a cotangent that was put
    into its readers is a statement again, which gradients that would lose their digits without it read.

    Of cuts it is the cheapest choice: cuts are dropped while that does not cost more, then the cells that name things are chosen.

    What cancels between several cuts shows only where all of them are gone: where that costs less, cuts are added to none
    while that pays. A cut is moved to a choice that its tensor is made of where that pays. Without `simplify` every cut stays.
    """
    backward, naming = Backward(list(region.cells), region.seeds, region.wanted, algebra), Naming(algebra)
    candidates = backward.candidates()

    def tried(cuts: frozenset[str]) -> Choice:
        plan = backward.assemble(cuts)
        return Choice(cuts, plan, *naming.chosen(plan.statements))

    best = tried(frozenset(candidates))
    dropped: list[Choice] = []
    changed = simplify
    while changed:  # a cut that paid may not pay any more once others are gone
        changed = False
        for name in [n for n in candidates if n in best.cuts]:
            trial = tried(best.cuts - {name})
            if not best.cheaper(trial):
                best, changed = trial, True
                dropped.append(best)
    if before:
        yield from (finished(choice, naming, region) for choice in dropped[-2 : -2 - EARLIER : -1])
        return
    for name in [n for n in candidates if simplify and n in best.cuts]:  # what a kernel's mask hides closes before it
        for other in backward.choosing_before(name):
            trial = tried(best.cuts - {name} | {other})
            best = trial if trial.cheaper(best) else best
    none = tried(frozenset()) if simplify and len(best.cuts) > 1 else best
    if none.cheaper(best):
        best = none
        for name in candidates:
            trial = tried(best.cuts | {name})
            best = trial if trial.cheaper(best) else best
    yield finished(best, naming, region)
    apart = backward.beyond_sums(best.plan)
    if apart is not None:
        cost, allowed = naming.chosen(apart.statements)
        yield finished(Choice(best.cuts, apart, cost, allowed), naming, region)


def finished(best: Choice, naming: Naming, region: Region) -> Planned:
    """A choice with its products named by cells and its sums shared."""
    algebra = naming.algebra
    best = with_sums_read(best, naming, region)
    named = [naming.refolded(s, best.allowed) for s in best.plan.statements]
    named = without_aliases(named, {*best.plan.gradients.values()})
    statements = by_results([replace(s, expr=chosen_first(s.expr)) for s in named], region)
    statements = by_sums(statements, region)
    gradients = tuple(best.plan.gradients.items())
    wanted = {name for _, name in gradients}
    statements = without_diagonals(statements, wanted, lambda e, s: ranges_of(e, s, algebra))
    statements = turned_round(by_negatives(statements), wanted)
    sums = sums_of_cells(region.needed, algebra)
    shared = unread_left_out(share(statements, algebra), wanted)
    return Planned(tuple(shared), gradients, best.cost, unshared=tuple(statements), sums=sums)


def with_sums_read(best: Choice, naming: Naming, region: Region) -> Choice:
    """A choice whose statements read the sums of products that are there anyway, where that does not cost more."""
    read = by_sums_of_products(best.plan.statements, region, naming.algebra)
    if all(s is t for s, t in zip(read, best.plan.statements, strict=True)):
        return best
    cost, allowed = naming.chosen(read)
    other = Choice(best.cuts, replace(best.plan, statements=read), cost, allowed)
    return other if other.cheaper(best) else best


def without_aliases(statements: list[Statement], wanted: Collection[str]) -> list[Statement]:
    """Statements without the single numbers that are another one as it is, which is read in their place."""
    known: dict[Any, Any] = {}
    out: list[Statement] = []
    for s in statements:
        s = replace(s, expr=s.expr.xreplace(known)) if known else s
        if isinstance(s.expr, Indexed) and not s.shape and s.name not in wanted:
            known[element(base(s.name), [])] = s.expr
        else:
            out.append(s)
    return out


def share(statements: list[Statement], algebra: Algebra) -> list[Statement]:
    """Sums that occur more than once become statements; one that is a whole gradient already lends its name."""
    statements = by_wholes(statements)
    there = {fact_key(x)[0] for s in statements for x in sums_of(s.expr)}
    statements = [replace(s, expr=nested(s.expr, there)) for s in statements]
    statements = joined_sums(statements)
    whole: dict[Any, tuple[str, Sigma, tuple[Expr, ...]]] = {}
    for s in statements:
        if isinstance(s.expr, Sigma) and {i for i in s.indices if i != 0} == {
            i for i in s.expr.free_symbols if isinstance(i, Index)
        } - bound(s.expr):
            whole.setdefault(fact_key(s.expr)[0], (s.name, s.expr, s.indices))
    out: list[Statement] = []
    shared: dict[Any, tuple[str, tuple[Any, ...], tuple[Expr, ...]]] = {}
    numbers: dict[Any, int] = {}
    for s in statements:
        several = {x for t in sp.Add.make_args(s.expr) if places_in(t) is not None for x in sums_of(t)}
        for x in sums_of(s.expr):
            numbers[fact_key(x)[0]] = numbers.get(fact_key(x)[0], 0) + (2 if x in several else 1)
    pulled: list[Statement] = []
    held = sums_held(algebra)
    for s in statements:

        def replaced(e: Any, s: Statement = s) -> Any:
            if isinstance(e, Sigma):
                key, free = fact_key(e)
                if key in held:
                    cell, own, coefficient = held[key]
                    there = dict(zip(own, free, strict=True))
                    return cell.element([there.get(i, i) for i in cell.indices]) / coefficient
                if key in whole and whole[key][0] != s.name:
                    name, original, indices = whole[key]
                    order = fact_key(original)[1]
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
    out = with_scatters_apart(out, lambda e, s: ranges_of(e, s, algebra), Prices(algebra).size)
    out = with_products_once(out, lambda e, s: ranges_of(e, s, algebra))
    out = with_rows_once(out, lambda e, s: ranges_of(e, s, algebra))
    out = with_signs_once(out, lambda e, s: ranges_of(e, s, algebra))
    return ordered_statements(by_products(alike_by_name(out), Prices(algebra)))


def joined_sums(statements: list[Statement]) -> list[Statement]:
    """Statements in which `Sum_j a_j x_ij - Sum_j b_j x_ij` is `Sum_j (a_j - b_j) x_ij`, where no other reads either sum.

    The larger tensor is read once, and what cancels does so before it is multiplied.
    """
    numbers = Counter(fact_key(x)[0] for s in statements for x in sums_of(s.expr))
    single = {key for key, number in numbers.items() if number == 1}
    return [replace(s, expr=joined(s.expr, single)) for s in statements]


def joined(e: Any, single: set[Any]) -> Any:
    """An expression with the sums of its additions joined that are among `single` and have their largest tensor in common."""
    if isinstance(e, Indexed) or not e.args:
        return e
    if not isinstance(e, sp.Add):
        return rebuilt(e, lambda a: joined(a, single))
    groups: dict[Any, list[tuple[Any, Any, Any]]] = {}
    out: list[Any] = []
    for t in e.args:
        parts = halves(t, single)
        if parts is None:
            out.append(joined(t, single))
        else:
            whole, limits, small, large = parts
            number, front = whole.as_coeff_Mul()
            groups.setdefault((front, limits, large), []).append((number, small, t))
    for (front, limits, large), terms in groups.items():
        if len(terms) == 1:
            out.append(terms[0][2])
        else:
            inside = sp.Add(*[number * small for number, small, _ in terms])
            out.append(front * Sigma(inside * large, *limits))
    return sp.Add(*out)


def halves(t: Any, single: set[Any]) -> tuple[Any, tuple[Any, ...], Any, Any] | None:
    """(c, limits, a, x) of a term c Sum_j a_j x_ij, where x has more indices than a; the summed index has a name of its own."""
    sums = [f for f in Mul.make_args(t) if isinstance(f, Sigma)]
    if len(sums) != 1 or len(sums[0].limits) != 1 or sums[0].has(Delta) or fact_key(sums[0])[0] not in single:
        return None
    ((j, n),) = sums[0].limits
    if bound(sums[0].body):
        return None
    own = Index("_joined")
    factors = Mul.make_args(sums[0].body)
    small = [f for f in factors if f.atoms(Index) <= {j}]
    large = [f for f in factors if f not in small]
    if len(large) != 1 or not isinstance(large[0], Indexed):
        return None
    there = {j: own}
    return t / sums[0], (sp.Tuple(own, n),), Mul(*small).xreplace(there), large[0].xreplace(there)


def nested(e: Any, there: set[Any]) -> Any:
    """A sum over several axes as the sum of one over some of them that is `there` already: `Sum_{i,j} f_i g_{ij}` as `Sum_i f_i Sum_j g_{ij}`."""
    if isinstance(e, Indexed) or not e.args:
        return e
    if not isinstance(e, Sigma) or len(e.limits) < 2:
        return rebuilt(e, lambda a: nested(a, there))
    for count in range(len(e.limits) - 1, 0, -1):
        for inner in combinations(e.limits, count):
            own = {i for i, _ in inner}
            mine = [f for f in Mul.make_args(e.body) if f.free_symbols & own]
            part = Sigma(Mul(*mine), *inner)
            if fact_key(part)[0] in there:
                rest = Mul(*[f for f in Mul.make_args(e.body) if f not in mine])
                return distribute(rest * part, [(i, n) for i, n in e.limits if i not in own])
    return e


def sums_held(algebra: Algebra) -> dict[Any, tuple[Cell, tuple[Any, ...], Expr]]:
    """The cells that are a sum, by that sum: (cell, the sum's free indices in order, what it is multiplied with)."""
    found: dict[Any, tuple[Cell, tuple[Any, ...], Expr]] = {}
    for cell in algebra.cells.values():
        coefficient, total = reduction(sp.S.Zero if cell.expr is None else cell.expr)
        if total is not None and not exponential(total.body, algebra.cells):
            key, own = fact_key(total)
            found.setdefault(key, (cell, own, coefficient))
    return found


def alike_by_name(statements: list[Statement]) -> list[Statement]:
    """Statements of which those that are equal to an earlier one are that one."""
    known: dict[Any, Statement] = {}
    out: list[Statement] = []
    for s in statements:
        key = canonical(s.expr, {i: Index(f"_a{k}") for k, i in enumerate(s.indices) if i != 0}), s.shape
        first = known.setdefault(key, s) if s.shape and not isinstance(s.expr, Indexed) and s.expr != 0 else s
        out.append(s if first is s else replace(s, expr=element(base(first.name), s.indices)))
    return out


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


__all__ = ["Planned", "knowledge", "plans", "share", "unsimplified"]
