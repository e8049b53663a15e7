"""Which form of a region is used: the cheapest plan that passes the gates; made once per structure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import sympy as sp

from codegen.closed.algebra.algebra import Algebra
from codegen.closed.definitions import (
    atplaces,
    attruths,
    boundedslopes,
    bymasks,
    cancelled,
    centredgate,
    chosengate,
    chosenslope,
    completed,
    diagonals,
    joinedsums,
    linear,
    logpowers,
    masked,
    moments,
    oncemultiplied,
    pieces,
    zeroweights,
)
from codegen.closed.definitions.differences import in_factors
from codegen.closed.definitions.enrich import enriched
from codegen.closed.definitions.inlogarithms import in_logarithms
from codegen.closed.definitions.outer import among_rows, outer_differences
from codegen.closed.definitions.scaled import scaled
from codegen.closed.definitions.stabilize import stabilized
from codegen.closed.gates import (
    Trial,
    Verdict,
    above,
    accurate,
    equal,
    faithful,
    not_finite,
    sizes_given,
    sizes_to_measure,
    small_sizes,
)
from codegen.closed.kernels.norms import SQUARED, squared
from codegen.closed.plan.backward import Backward
from codegen.closed.plan.complement import complemented, replaces
from codegen.closed.plan.deviations import centred_again
from codegen.closed.plan.planner import Planned, knowledge, plans, unsimplified
from codegen.closed.plan.recentre import recentred
from codegen.closed.write.region import written
from engine.errors import DerivationError
from engine.notation import Less, Where

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.closed.regions.code import RegionCode
    from codegen.closed.regions.region import Region


UNWRITTEN = (DerivationError, NotImplementedError, RecursionError, ValueError, KeyError, TypeError, RuntimeError)
"""What is raised where a form cannot be made, or not be written: the next one is tried."""

_codes: dict[Any, RegionCode] = {}


def region_code(key: Any, region: Region, values: dict[Any, int]) -> RegionCode:
    """The code of a region; remembered by its key and the sizes of the example."""
    full = (key, tuple(values.items()))
    if full not in _codes:
        _codes[full] = make(region, values)
    return _codes[full]


@dataclass(frozen=True)
class Form:
    """A plan with the region it is for, which tells of the sums over its gradients that can be made accurate.

    `literal` forms leave the forward's lines as they are. `repairs` are more accurate ones that cost more, cheaper ones first:
    gradients centred last, deviations centred twice.
    """

    region: Region
    plan: Planned
    literal: bool = False
    repairs: tuple[tuple[Region, Planned], ...] = ()


def make(region: Region, values: dict[Any, int]) -> RegionCode:
    """Close a region and write it out: the cheapest plan that passes the gates, else the chain as it was derived."""
    kept = (*region.needed, *region.seeds)
    region = replace(region, wanted=reached(region))
    start = (
        region.by(attruths.RULE, lambda cells: attruths.by_truths(cells, kept))
        .by(bymasks.RULE, lambda cells: bymasks.by_masks(cells, kept))
        .by(chosengate.RULE, chosengate.with_chosen_gates)
        .by(pieces.RULE, pieces.by_pieces)
        .by(boundedslopes.RULE, boundedslopes.with_bounded_slopes)
        .by(chosenslope.RULE, chosenslope.by_slopes)
        .by(SQUARED, squared)
        .by(moments.RULE, moments.by_moments)
    )
    start = start.by(diagonals.RULE, diagonals.with_diagonals)
    start = start.by(diagonals.LESS, lambda cells: diagonals.less_diagonals(cells, kept))
    start = start.by(atplaces.RULE, lambda cells: atplaces.at_places(cells, kept))
    start = start.by(completed.RULE, lambda cells: completed.completed(cells, kept))

    def together(careful: bool) -> Region:
        whole = start.by(linear.RULE, lambda cells: linear.collected(cells, kept, careful))
        whole = whole.by(cancelled.RULE, cancelled.without_cancelling)
        whole = whole.by(joinedsums.RULE, lambda cells: joinedsums.joined(cells, kept))
        return whole.by(oncemultiplied.RULE, lambda cells: oncemultiplied.multiplied_once(cells, kept))

    def best(start: Region) -> RegionCode:
        stable = stabilized(start, kept)
        code = of_stable(stable)
        if code.simplified or all(n.rule != logpowers.RULE for n in stable.notes):
            return code
        other = of_stable(stabilized(start, kept, powers=False))  # torch has a slope of its own for 0 to the power of 0
        return other if other.simplified else code

    def of_stable(plain: Region) -> RegionCode:
        centred = plain.by(centredgate.RULE, lambda cells: centredgate.with_centred_gates(cells, kept))
        if centred.cells != plain.cells:
            code = passing(region, enriched(centred, kept), values)
            if code.simplified:
                return code
        return passing(region, enriched(plain, kept), values)

    whole = together(careful=False)
    code = best(whole)
    if not code.simplified:  # numbers that are small beside others may have lost their digits to them
        apart = together(careful=True)
        other = code if len(apart.cells) == len(whole.cells) else best(apart)
        whole, code = (apart, other) if other.simplified else (whole, code)
    left = overflowing(code, values) if code.statements else Counter[str]()

    def take(finite: RegionCode) -> bool:
        nonlocal code, left
        still = overflowing(finite, values)
        if still < left:
            code, left = replace(finite, refused=(*code.refused, *finite.refused)), still
            return True
        return False

    for careful in careful_starts(whole, kept) if left else ():
        if left and take(best(careful)):
            whole = careful
    weighted = zeroweights.by_zero_weights(stabilized(whole, kept), kept) if left else None
    if weighted is not None:
        take(of_stable(weighted))
    return code


def careful_starts(start: Region, kept: tuple[str, ...]) -> Iterator[Region]:
    """A region in other forms that exponentials overflow in less, the simplest first."""
    yield from (r for r in (scaled(start, kept), in_logarithms(start, kept), in_factors(start, kept)) if r is not None)
    exponents = masked.by_masked_exponents(start, kept)
    if exponents is not None:
        yield exponents
        yield from (r for r in (in_logarithms(exponents, kept),) if r is not None)


def reached(region: Region) -> tuple[str, ...]:
    """The wanted cells that get a gradient: not those that are compared alone, whatever a rule makes of what reads the truth."""
    live = Backward(list(region.cells), region.seeds, region.wanted, Algebra({}, {})).live
    return tuple(n for n in region.wanted if n in live)


def passing(region: Region, closed: Region, values: dict[Any, int]) -> RegionCode:
    """The code of the first form that passes the gates."""
    refused: list[str] = []
    for form in forms(region, closed, values):
        try:
            code = written(form.region, form.plan, values, form.literal)
        except UNWRITTEN as error:
            if form.literal:
                raise
            refused.append(f"{type(error).__name__}: {error}")
            continue
        summed = replace(region, summed=form.region.summed)
        verdict = Verdict(True) if form.literal else judged(summed, code, values, form.plan.simplified)
        if verdict.passed:
            code, reason = repaired(form, summed, code, values)
            refused += [reason] if reason else []
            return replace(
                code, refused=tuple(refused), region=region, values=tuple(values.items()), sums=form.plan.sums
            )
        refused.append(verdict.reason)
    raise DerivationError(f"no form of a region passed its gates: {'; '.join(refused)}")


def repaired(form: Form, summed: Region, code: RegionCode, values: dict[Any, int]) -> tuple[RegionCode, str]:
    """The code of a plan that passes, or, where its errors are above autograd's and those of a repair are not, of that one.

    With it comes why.
    """
    reason = above_autograd(summed, code, values) if form.repairs else ""
    for region, plan in form.repairs if reason else ():
        better = written(region, plan, values)
        if judged(summed, better, values, simplified=True).passed and not above_autograd(summed, better, values):
            return better, reason
    return code, ""


def forms(region: Region, closed: Region, values: dict[Any, int]) -> Iterator[Form]:
    """Forms from the most to the least simplified; one that cannot be made is passed over."""

    def closing(
        folds: bool, simplify: bool, apart: bool = False, masked: bool = False, signs: bool = True, before: bool = False
    ) -> Iterator[tuple[Region, Planned, Algebra | None]]:
        algebra = knowledge(closed, values, folds, apart, masked, signs)
        return ((closed, plan, algebra) for plan in plans(closed, algebra, simplify, before))

    outer = outer_differences({c.name: c for c in closed.cells})
    attempts = (
        *((lambda: closing(folds=True, simplify=True, apart=True),) if outer else ()),
        *((lambda: closing(folds=True, simplify=True, apart=True, masked=True),) if among_rows(outer) else ()),
        lambda: closing(folds=True, simplify=True),
        lambda: closing(folds=False, simplify=True),
        *((lambda: closing(folds=True, simplify=True, signs=False),) if by_size(closed) else ()),
        lambda: closing(folds=True, simplify=True, before=True),
        lambda: closing(folds=True, simplify=False),
        lambda: iter([(region, unsimplified(region), None)]),
    )
    for attempt in attempts:
        try:
            for own, plan, algebra in attempt():
                yield from with_repairs(own, plan, algebra)
        except UNWRITTEN:
            continue
    yield Form(region, unsimplified(region), literal=True)


def with_repairs(own: Region, plan: Planned, algebra: Algebra | None) -> Iterator[Form]:
    """A plan as it is, and with its gradients centred last, its deviations centred twice, or its complements kept."""
    later: list[tuple[Region, Planned]] = []
    centred = recentred(own, plan, algebra) if algebra is not None else None
    plain = replace(own, summed=centred[0].summed if centred is not None else ())
    everywhere = recentred(plain, plan, algebra, everywhere=True) if algebra is not None else None
    last = [(plain, everywhere[1])] if everywhere is not None else []
    for form in ((plain, plan), centred):
        if form is not None:
            twice = centred_again(form[0], algebra) if algebra is not None else None
            more = [(twice, form[1])] if twice is not None else []
            later += more
            careful = complemented(*form) if plan.simplified else None
            repairs = (*(last if form[1] is plan else ()), *more)
            if careful is not None and not repairs and replaces(form[1], careful):
                yield Form(*careful)
            yield Form(*form, repairs=repairs)
            if careful is not None:
                yield Form(*careful)
    for form in (*last, *later):
        yield Form(*form)


def by_size(region: Region) -> bool:
    """Whether a cell of a region is the larger or the smaller of two."""
    chosen = (w for c in region.cells if c.expr is not None and c.expr.has(Where) for w in c.expr.atoms(Where))
    inner = ((w.args[0], w.args[2].args[0]) for w in chosen if isinstance(w.args[2], Where))
    return any(isinstance(a, Less) and isinstance(b, Less) and a.args == b.args[::-1] for a, b in inner)


def judged(region: Region, code: RegionCode, values: dict[Any, int], simplified: bool) -> Verdict:
    """All gates: where the backward is `simplified`, its equality and accuracy; always the forward's values.

    One that raises refuses, and so does a name that two tensors have.
    """
    proven = simplified and code.backward
    twice = [name for name, k in Counter(c.name for c in code.cells).items() if k > 1]
    if twice:
        return Verdict(False, f"two tensors are called {twice[0]}")
    lines = {line.name: line.expr for line in code.forward}
    changed = [c.name for c in region.cells if c.exact and lines.get(c.name) != c.expr]
    if changed:
        return Verdict(False, f"{changed[0]} is rounded later, and is not computed as the forward does")
    try:
        if proven:
            verdict = equal(region, code.cells, code.statements, code.gradients, values)
            if not verdict.passed:
                return verdict
        verdict = faithful(region, code, values)
        if not proven or not verdict.passed:
            return verdict
        return accurate(trial(region, code, sizes_to_measure(code.cells, values)))
    except Exception as error:  # noqa: BLE001  # a gate that cannot be evaluated must not let anything pass, whatever went wrong in it
        return Verdict(False, f"{type(error).__name__}: {error}")


def trial(region: Region, code: RegionCode, sizes: dict[Any, int]) -> Trial:
    """A plan as the gates run it."""
    return Trial(region, code.cells, code.forward, code.backward, code.gradients, sizes)


def overflowing(code: RegionCode, values: dict[Any, int]) -> Counter[str]:
    """The inputs of a region for large values of which exponentials in its code are not finite, nor so many numbers made of them."""
    assert code.region is not None
    if not any(c.expr is not None and c.expr.has(sp.exp) for c in code.region.cells):
        return Counter()
    try:
        return not_finite(trial(code.region, code, small_sizes(code.cells, values)))
    except Exception:  # noqa: BLE001  # the code has passed its gates, and is used unless another one is better
        return Counter()


def above_autograd(region: Region, code: RegionCode, values: dict[Any, int]) -> str:
    """Which error of a plan that passes is larger than autograd's all the same; "" if there is none, or it cannot be told."""
    try:
        tried = (
            above(trial(region, code, sizes))
            for sizes in (sizes_to_measure(code.cells, values), *sizes_given(code.cells, values))
        )
        return next((reason for reason in tried if reason), "")
    except Exception:  # noqa: BLE001  # the plan has passed its gates
        return ""
