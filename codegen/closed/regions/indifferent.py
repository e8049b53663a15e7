# pyright: basic
"""Tensors that the result does not change with: nothing is passed back to what only scales or shifts numbers on their way.

Running maxima are subtracted from exponents so that nothing overflows, and sums are divided out so that nothing underflows; what
was taken out is put back later, or cancels in a quotient. If every element of such a tensor grows by a small share of itself, or
by a small amount, what is computed from it grows by a share and by an amount too: products add shares, quotients subtract them,
exponentials turn amounts into shares and logarithms turn shares into amounts. Where nothing is left of them in the result, its
derivative is zero, through whatever products of matrices lie between.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Mul, Pow

from codegen.closed.regions.rewrites import Rewrite
from engine.indexed import Indexed
from engine.notation import BRACKETS, Floor, Sigma, Sign, Where, accesses, base, element, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sympy import Expr

    from codegen.closed.regions.cells import Cell

RULE = "the result does not change with it, so that nothing is passed back to it"
"""The rule, as the trail names it."""

Growth = tuple[Any, Any]
"""The share and the amount by which a tensor's element grows, in those by which the elements of another one do."""

STILL: Growth = (sp.S.Zero, sp.S.Zero)
GROWTH = "growth"
"""What stands for the growth of the tensor that is asked about, at its own indices."""


def without_indifferent(cells: list[Cell], outputs: Collection[str]) -> list[Cell]:
    """The cells, of which those have no gradient that no output changes with. The last ones are asked first."""
    at = {c.name: k for k, c in enumerate(cells)}
    readers: dict[str, list[int]] = {}
    for k, c in enumerate(cells):
        for r in dict.fromkeys((*c.reads, *(c.node.operands if c.node is not None and c.call else ()))):
            readers.setdefault(r, []).append(k)
    out = list(cells)
    passed = {*outputs}  # to these something may be passed back
    for k in reversed(range(len(cells))):
        c = out[k]
        mine = [out[r] for r in readers.get(c.name, []) if out[r].differentiable and out[r].name in passed]
        passed |= {c.name} if mine else set()
        if not mine or c.expr is None or not c.differentiable or c.kind != "float" or c.name in outputs:
            continue
        starts = [g for g, asked in ((0, divides), (1, subtracted)) if any(asked(c.name, r) for r in mine)]
        if any(is_still(c, g, out, at, readers, outputs) for g in starts):
            out[k] = replace(c, differentiable=False)
    return out


def told(before: Iterable[Cell], after: Iterable[Cell]) -> tuple[Rewrite, ...]:
    """A note for every cell that has no gradient any more. Its definition stays what it is."""
    pairs = zip(before, after, strict=True)
    return tuple(Rewrite(c.name, RULE, c.indices, c.expr, c.expr) for was, c in pairs if was is not c)


def divides(name: str, reader: Cell) -> bool:
    """Whether a cell divides something by a tensor."""
    powers = () if reader.expr is None else reader.expr.atoms(Pow)
    return any(p.exp.is_negative and isinstance(p.base, Indexed) and name_of(p.base) == name for p in powers)


def subtracted(name: str, reader: Cell) -> bool:
    """Whether a cell subtracts a tensor from something."""
    e = reader.expr
    whole = e.args[0] if isinstance(e, sp.exp) else e
    terms = (t.as_coeff_Mul() for t in sp.Add.make_args(whole)) if isinstance(whole, sp.Add) else ()
    return any(isinstance(t, Indexed) and name_of(t) == name and n.is_negative for n, t in terms)


def is_still(
    c: Cell,
    kind: int,
    cells: Sequence[Cell],
    at: Mapping[str, int],
    readers: Mapping[str, Sequence[int]],
    outputs: Collection[str],
) -> bool:
    """Whether no output grows where the elements of a cell grow by a share (kind 0) or by an amount (kind 1)."""
    own = element(base(GROWTH), [i for i in c.indices if i != 0])
    grown: dict[str, tuple[Cell, Growth]] = {c.name: (c, (own, sp.S.Zero) if kind == 0 else (sp.S.Zero, own))}
    ahead: list[int] = []
    asked = {at[c.name]}

    def reach(name: str) -> None:
        for k in readers.get(name, ()):
            if k not in asked:
                asked.add(k)
                heappush(ahead, k)

    reach(c.name)
    while ahead:
        r = cells[heappop(ahead)]
        if r.kind != "float" or not r.differentiable:
            continue
        growth = None if r.expr is None else growth_of(r.expr, grown)
        if growth is None or (growth != STILL and r.name in outputs):
            return False
        if growth != STILL:
            grown[r.name] = (r, growth)
            reach(r.name)
    return True


def growth_of(e: Any, grown: Mapping[str, tuple[Cell, Growth]]) -> Growth | None:
    """The share and the amount by which an expression grows; None where it grows in another way."""
    if not any(name_of(a) in grown for a in accesses(e)):
        return STILL
    if isinstance(e, (Sign, Floor, *BRACKETS)):
        return STILL
    if isinstance(e, Indexed):
        return at_access(e, grown)
    if isinstance(e, sp.Add):
        return of_sum(e, grown)
    if isinstance(e, Mul):
        return of_product(e, grown)
    if isinstance(e, Where):
        return of_choice(e, grown)
    inside = growth_of(e.body if isinstance(e, Sigma) else e.args[0], grown)
    if inside is None:
        return None
    share, amount = inside
    if isinstance(e, Sigma):
        summed = {i for i, _ in e.limits}
        varies = cast("Expr", share + amount).free_symbols & summed
        return None if varies else (share, amount * Mul(*[n for _, n in e.limits]))
    if isinstance(e, Pow) and e.exp.is_number:
        return (share * e.exp, sp.S.Zero) if amount == 0 else None
    if isinstance(e, sp.exp):
        return (amount, sp.S.Zero) if share == 0 else None
    if isinstance(e, sp.log):
        return (sp.S.Zero, share) if amount == 0 else None
    every = [inside, *[growth_of(a, grown) for a in e.args[1:]]]
    return STILL if all(g == STILL for g in every) else None


def at_access(a: Indexed, grown: Mapping[str, tuple[Cell, Growth]]) -> Growth | None:
    """How the element of a tensor grows that an access reads; None where its place is read from what grows."""
    found = grown.get(name_of(a))
    if found is None or any(name_of(i) in grown for j in a.indices for i in accesses(cast("Any", j))):
        return None
    cell, (share, amount) = found
    there = {i: j for i, j in zip(cell.indices, a.indices, strict=False) if i != 0}
    return share.xreplace(there), amount.xreplace(there)


def of_sum(e: Any, grown: Mapping[str, tuple[Cell, Growth]]) -> Growth | None:
    """A sum grows by a share where all of its terms grow by the same."""
    found = [growth_of(t, grown) for t in e.args if t not in (sp.S.Infinity, sp.S.NegativeInfinity)]
    if any(g is None for g in found):
        return None
    shares = {cast("Growth", g)[0] for g in found}
    return (shares.pop(), sp.Add(*[cast("Growth", g)[1] for g in found])) if len(shares) == 1 else None


def of_product(e: Any, grown: Mapping[str, tuple[Cell, Growth]]) -> Growth | None:
    """A product grows by the shares of its factors together; an amount is what a number in front makes of it."""
    number, rest = e.as_independent(Indexed, Sigma)
    found = [growth_of(f, grown) for f in Mul.make_args(rest)]
    if any(g is None for g in found):
        return None
    share = sp.Add(*[cast("Growth", g)[0] for g in found])
    amounts = [cast("Growth", g)[1] for g in found]
    if all(b == 0 for b in amounts):
        return share, sp.S.Zero
    return (share, number * amounts[0]) if len(amounts) == 1 else None


def of_choice(e: Any, grown: Mapping[str, tuple[Cell, Growth]]) -> Growth | None:
    """A choice grows as what is chosen does, in both cases alike; zero grows by any share, and what is infinite in any way."""
    found: set[Growth] = set()
    nothing = False
    for a in e.args[1:]:
        if a in (sp.S.Infinity, sp.S.NegativeInfinity):
            continue
        if a == 0:
            nothing = True
            continue
        g = growth_of(a, grown)
        if g is None:
            return None
        found.add(g)
    if len(found) > 1:
        return None
    growth = found.pop() if found else STILL
    return None if nothing and growth[1] != 0 else growth


__all__ = ["RULE", "told", "without_indifferent"]
