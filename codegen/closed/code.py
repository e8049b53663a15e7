"""A region's forward and backward as torch statements, by position of its cells; made once per structure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen import tensors as tt
from codegen.closed.backward import cot_name
from codegen.closed.cells import Cell, substituted
from codegen.closed.chosengate import RULE as CHOSEN
from codegen.closed.chosengate import with_chosen_gates
from codegen.closed.complement import complemented, replaces
from codegen.closed.copies import RULE as COPIES
from codegen.closed.copies import renamed, twins
from codegen.closed.deviations import centred_again
from codegen.closed.enrich import enriched
from codegen.closed.gates import (
    Trial,
    Verdict,
    above,
    accurate,
    equal,
    faithful,
    finite_at_large,
    sizes_given,
    sizes_to_measure,
    small_sizes,
)
from codegen.closed.gathers import RULE as PLACES
from codegen.closed.gathers import at_places
from codegen.closed.keptmasks import RULE as MASKS
from codegen.closed.keptmasks import with_kept_masks
from codegen.closed.kinks import CLAMP, clamped
from codegen.closed.line import LIKE, Line
from codegen.closed.linear import RULE as COLLECTED
from codegen.closed.linear import collected
from codegen.closed.logistic import UNIFIED, unified
from codegen.closed.logshare import RULE as LOG_SHARES
from codegen.closed.logshare import with_log_shares
from codegen.closed.moments import RULE as MOMENTS
from codegen.closed.moments import by_moments
from codegen.closed.namedsums import with_named_sums
from codegen.closed.norms import NORM, SQUARED, by_lengths, length_in_whole, squared
from codegen.closed.onceonly import RULE as SHARED
from codegen.closed.onceonly import with_shared_functions
from codegen.closed.outer import RULE as OUTER
from codegen.closed.outer import outer_differences, without_outer
from codegen.closed.pieces import RULE as PIECES
from codegen.closed.pieces import by_pieces
from codegen.closed.planner import Planned, knowledge, planned, unsimplified
from codegen.closed.powerslopes import slopes_alone
from codegen.closed.recentre import recentred
from codegen.closed.rewrites import Rewrite, compared, rewritten
from codegen.closed.scaled import scaled
from codegen.closed.scattered import RULE as SCATTERED
from codegen.closed.scattered import by_places, is_linear, scattered_apart
from codegen.closed.slopes import by_clamps, with_slopes, written_out
from codegen.closed.softmaxslope import with_softmax_slopes, without_kernels
from codegen.closed.stabilize import KERNEL, kernel_form, stabilized
from codegen.closed.sums import rebuilt
from codegen.lower import Lowerer
from codegen.values import TensorInfo
from engine.errors import DerivationError
from engine.indexed import Indexed
from engine.notation import Delta, Sigma, Where, accesses, name_of
from engine.sizes import evaluate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.closed.algebra import Algebra
    from codegen.closed.backward import Statement
    from codegen.closed.constants import Sums
    from codegen.closed.region import Region


IN_FRONT = "a number that all terms of a sum have goes in front of it"
"""The rule of `numbers_in_front`, as the trail of the forward names it."""


@dataclass(frozen=True)
class RegionCode:
    """A region's statements, the cells its backward reads, and the statements of its derivation."""

    cells: tuple[Cell, ...]
    forward: tuple[Line, ...]
    backward: tuple[Line, ...]
    gradients: tuple[tuple[str, str], ...]
    saved: tuple[str, ...]
    statements: tuple[Statement, ...]
    refused: tuple[str, ...] = ()
    region: Region | None = None
    """What was closed, as it was before."""
    values: tuple[tuple[Any, int], ...] = ()
    """The sizes of the example it was closed for."""
    sums: Sums = ()
    """What its cells sum to over an axis, as far as others need to know."""
    notes: tuple[Rewrite, ...] = ()
    """What the rules of the forward made of its tensors' definitions, in order; sizes by position."""
    origin: RegionCode | None = None
    """The code with sizes by position that this one was made from."""
    sized: dict[Any, RegionCode] = field(default_factory=dict[Any, "RegionCode"], init=False, compare=False, repr=False)


_codes: dict[Any, RegionCode] = {}


def region_code(key: Any, region: Region, values: dict[Any, int]) -> RegionCode:
    """The code of a region; remembered by its key and the sizes of the example."""
    full = (key, tuple(values.items()))
    if full not in _codes:
        _codes[full] = make(region, values)
    return _codes[full]


def resized(code: RegionCode, sizes: dict[Any, Expr]) -> RegionCode:
    """The code of a region for the sizes of one graph; layers of equal sizes share it."""
    key = tuple(sizes.items())
    if key not in code.sized:
        code.sized[key] = _resized(code, sizes)
    return code.sized[key]


def _resized(code: RegionCode, sizes: dict[Any, Expr]) -> RegionCode:
    shapes = {c.shape for c in code.cells} | {x.shape for x in (*code.forward, *code.backward, *code.statements)}
    known = {s: tuple(n.xreplace(sizes) for n in s) for s in shapes}

    def line(x: Line) -> Line:
        dense = x.value.dense
        new = None if dense is None else replace(dense, t=tt.rename(dense.t, {}, sizes))
        scatters = tuple(
            replace(s, items=tuple(tt.rename(i, {}, sizes) for i in s.items), value=tt.rename(s.value, {}, sizes))
            for s in x.value.scatters
        )
        return replace(
            x, shape=known[x.shape], expr=x.expr.xreplace(sizes), value=replace(x.value, dense=new, scatters=scatters)
        )

    return replace(
        code,
        origin=code,
        cells=tuple(
            replace(c, shape=known[c.shape], expr=None if c.expr is None else c.expr.xreplace(sizes))
            for c in code.cells
        ),
        forward=tuple(line(x) for x in code.forward),
        backward=tuple(line(x) for x in code.backward),
        statements=tuple(
            replace(s, shape=known[s.shape], expr=s.expr.xreplace(sizes), naive=s.naive.xreplace(sizes))
            for s in code.statements
        ),
    )


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
    start = region.by(CHOSEN, with_chosen_gates).by(PIECES, by_pieces).by(SQUARED, squared).by(MOMENTS, by_moments)
    start = start.by(COLLECTED, lambda cells: collected(cells, kept))

    def best(start: Region) -> RegionCode:
        return passing(region, enriched(stabilized(start, kept), kept), values)

    code = best(start)
    careful = scaled(start, kept) if code.statements and overflows(code, values) else None
    if careful is not None:
        finite = best(careful)
        code = code if overflows(finite, values) else replace(finite, refused=(*code.refused, *finite.refused))
    return code


def passing(region: Region, closed: Region, values: dict[Any, int]) -> RegionCode:
    """The code of the first form that passes the gates."""
    refused: list[str] = []
    for form in forms(region, closed, values):
        code = written(form.region, form.plan, values, form.literal)
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

    def closing(folds: bool, simplify: bool, apart: bool = False) -> tuple[Region, Planned, Algebra]:
        algebra = knowledge(closed, values, folds, apart)
        return closed, planned(closed, algebra, simplify), algebra

    outer = bool(outer_differences({c.name: c for c in closed.cells}))
    attempts = (
        *((lambda: closing(folds=True, simplify=True, apart=True),) if outer else ()),
        lambda: closing(folds=True, simplify=True),
        lambda: closing(folds=False, simplify=True),
        lambda: closing(folds=True, simplify=False),
        lambda: (region, unsimplified(region), None),
    )
    for attempt in attempts:
        try:
            own, plan, algebra = attempt()
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
        except (DerivationError, NotImplementedError, RecursionError, ValueError, KeyError, TypeError, RuntimeError):
            continue
    yield Form(region, unsimplified(region), literal=True)


def judged(region: Region, code: RegionCode, values: dict[Any, int], simplified: bool) -> Verdict:
    """All gates: where the backward is `simplified`, its equality and accuracy; always the forward's values. One that raises refuses."""
    proven = simplified and code.backward
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


def overflows(code: RegionCode, values: dict[Any, int]) -> bool:
    """Whether exponentials in a region's code overflow."""
    assert code.region is not None
    if not any(c.expr is not None and c.expr.has(sp.exp) for c in code.region.cells):
        return False
    try:
        return not finite_at_large(trial(code.region, code, small_sizes(code.cells, values)))
    except Exception:  # noqa: BLE001  # the code has passed its gates, and is used unless another one is better
        return False


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


def written(region: Region, plan: Planned, values: dict[Any, int], literal: bool = False) -> RegionCode:
    """A plan as torch statements; with the forward's lines as they are if `literal`, else in stable forms."""
    cells = region.cells
    by_name = {c.name: c for c in cells}
    slopes = {s.name: kernels_of(s.expr, by_name) for s in plan.statements}
    named = with_named_sums(slopes, cells)
    formulas = with_named_sums({s.name: s.expr for s in plan.statements if named[s.name] != slopes[s.name]}, cells)
    same = {} if literal else twins(cells, region.copies)
    slopes = {n: renamed(e, same) for n, e in named.items()}
    if not literal:
        masked, slopes = with_kept_masks(cells, slopes)
        region = region.by(MASKS, lambda _: masked)
        cells = region.cells
        by_name = {c.name: c for c in cells}
    reads = {name_of(a) for e in slopes.values() for a in accesses(e)}
    read_back = [c.name for c in cells if c.name in reads]
    infos = {c.name: TensorInfo(c.shape, c.kind) for c in cells}
    for c in cells:
        infos[cot_name(c.name)] = infos[f"{cot_name(c.name)}_out"] = TensorInfo(c.shape)
    for s in plan.statements:
        infos[s.name] = TensorInfo(s.shape)
    forward, notes = forward_lines(region, by_name, {*region.needed, *read_back}, infos, values, literal)
    cells = tuple({c.name: c for c in (*cells, *by_name.values())}.values())
    for c in cells:
        sources = frozenset(c.reads).union(*[infos[r].sources for r in c.reads if r in infos])
        infos[c.name] = TensorInfo(c.shape, c.kind, sources)
    backward: list[Line] = []
    for s in plan.statements:
        expr = scattered_apart(with_kernels(slopes[s.name], by_name), s.indices)
        low = Lowerer(infos, {}, LIKE, fills=True).lower(expr, s.indices, s.shape)
        plain = slopes_alone(formulas.get(s.name, s.expr), by_name)
        known = reads.issuperset(map(name_of, accesses(plain)))
        formula = plain if known else without_kernels(written_out(slopes[s.name]))
        backward.append(Line(s.name, s.indices, s.shape, formula, low))
    return RegionCode(
        cells,
        tuple(forward),
        tuple(backward),
        plan.gradients,
        tuple(read_back),
        plan.statements,
        notes=(*region.notes, *notes),
    )


def kernels_of(e: Expr, known: dict[str, Cell]) -> Any:
    """An expression with the kernels that torch has for slopes."""
    e = slopes_alone(by_lengths(e, known), known)
    return with_softmax_slopes(with_slopes(by_clamps(e, known), known), known)


def forward_lines(
    region: Region,
    known: dict[str, Cell],
    needed: set[str],
    infos: dict[str, TensorInfo],
    values: dict[Any, int],
    literal: bool,
) -> tuple[list[Line], list[Rewrite]]:
    """Statements for the cells that are needed, with what is read once written out inside of its reader unless `literal`.

    With them comes what was done to the definitions of these cells.
    """
    outer = {} if literal else outer_differences(known)
    same = {} if literal else twins(region.cells, region.copies)
    notes: dict[str, list[Rewrite]] = {}

    def step(rule: str, c: Cell, expr: Any) -> Cell:
        new = replace(c, expr=expr)
        note = rewritten(rule, c, new)
        notes.setdefault(c.name, []).extend([] if note is None else [note])
        return new

    def local_form(c: Cell) -> Cell:
        first = {c.name: same[c.name]} if c.name in same else same
        own = c.element(c.indices) if c.name in same else cast("Expr", c.expr)
        c = step(COPIES, c, renamed(own, first))
        c = step(KERNEL, c, kernel_form(c, known))
        c = step(CLAMP, c, clamped(c.expr, known))
        c = step(NORM, c, length_in_whole(c, known, needed))
        c = step(OUTER, c, without_outer(c.expr, known, outer))
        return step(PLACES, c, at_places(cast("Expr", c.expr), c, known))

    local = {n: c if literal else local_form(c) for n, c in known.items() if c.expr is not None}
    live: set[str] = set()
    stack = [n for n in needed if n in local]
    while stack:
        name = stack.pop()
        if name not in live:
            live.add(name)
            stack.extend(r for r in local[name].reads if r in local)
    counts: dict[str, int] = {}
    for name in live:
        for a in all_accesses(cast("Expr", local[name].expr)):
            counts[name_of(a)] = counts.get(name_of(a), 0) + 1
    inlined = {
        n: local[n]
        for n in live
        if not literal and n not in needed and counts.get(n, 0) == 1 and inlines(local[n], live, local, values)
    }
    written_out: list[tuple[Cell, Expr]] = []
    for c in region.cells:
        if c.name not in live or c.name in inlined:
            continue
        e: Any = local[c.name].expr
        names = dict[str, None]()
        while any(name_of(a) in inlined for a in accesses(e)):
            names.update(dict.fromkeys(name_of(a) for a in accesses(e) if name_of(a) in inlined))
            e = substituted(e, inlined)
        own = step(put_in(list(names)), local[c.name], e)
        if e.has(sp.log) and not literal:
            own = step(UNIFIED, own, unified(e))
        if e.has(Sigma):
            own = step(IN_FRONT, own, numbers_in_front(own.expr))
        if not literal and c.kind == "float":
            own = step(SCATTERED, own, by_places(own.expr, c.indices))
        written_out.append((c, cast("Expr", own.expr)))
    told = [n for c, _ in written_out for n in notes.get(c.name, [])]
    if not literal:
        for rule, change in ((LOG_SHARES, with_log_shares), (SHARED, with_shared_functions)):
            before, written_out = written_out, change(written_out)
            told += compared(rule, *([replace(c, expr=e) for c, e in x] for x in (before, written_out)))
    lines: list[Line] = []
    for c, e in written_out:
        infos[c.name] = TensorInfo(c.shape, c.kind)
        like = LIKE if c.kind == "float" else None
        value = Lowerer(infos, {}, like, fills=c.kind == "float" and not literal).lower(e, c.indices, c.shape)
        lines.append(Line(c.name, c.indices, c.shape, e, value))
        known[c.name] = c
    return lines, told


def put_in(names: list[str]) -> str:
    """The rule by which cells are written out in the only one that reads them."""
    listed = [f"{{{n}}}" for n in names]
    whole = " and ".join([", ".join(listed[:-1]), *listed[-1:]]) if len(names) > 1 else "".join(listed)
    return f"what nothing else reads is written out: {whole}"


def numbers_in_front(e: Any) -> Any:
    """`Sum -x` as `-Sum x`, `Sum (2 x - 2 y)` as `2 Sum (x - y)`, and `Sum log x / log 2` as `Sum log x` over log 2."""
    if isinstance(e, Sigma):
        body = numbers_in_front(e.body)
        terms = [t.as_independent(sp.Symbol, Indexed, as_Add=False) for t in sp.Add.make_args(body)]
        number = terms[0][0]
        if not (number.is_real and not number.has(sp.Float) and all(abs(c) == abs(number) for c, _ in terms)):
            return e.func(body, *e.args[1:])
        number = -abs(number) if all(c.is_negative for c, _ in terms) else abs(number)
        return number * e.func(sp.Add(*[c / number * t for c, t in terms]), *e.args[1:])
    return e if isinstance(e, Indexed) or not e.args else rebuilt(e, numbers_in_front)


def inlines(cell: Cell, live: set[str], local: dict[str, Cell], values: dict[Any, int]) -> bool:
    """Whether a cell read once is written out: unless it has a name of its own and its reader reads all of it.

    Nor is what is read at more places than it has, as the mean of every class. A sum is not written out in a sum either:
    `(a - b) - (c - d)` loses digits as `a - b - c + d`.
    """
    (reader,) = [local[n] for n in live if cell.name in local[n].reads]
    whole = cast("Expr", reader.expr)
    if isinstance(cell.expr, sp.Add) and adds(whole, cell.name):
        return False
    placed = by_places(cell.expr, cell.indices) is not cell.expr
    if placed and not all(is_linear(whole, a) for a in accesses(whole, cell.name)):
        return False
    gathers = any(isinstance(i, Indexed) for a in accesses(whole, cell.name) for i in a.indices)
    if gathers and not isinstance(cell.expr, Indexed) and elements(cell, values) < elements(reader, values):
        return False
    if not cell.named or fills(whole, cell.name):
        return True
    return gathers or isinstance(cell.expr, sp.exp)


def elements(c: Cell, values: dict[Any, int]) -> int:
    """How many elements a cell has at the sizes of the example."""
    return evaluate(cast("Expr", sp.Mul(*c.shape)), values)


def fills(e: Expr, name: str) -> bool:
    """Whether an expression is a tensor with a number put at places of it."""
    if not isinstance(e, Where) or not e.args[0].has(Delta) or not isinstance(e.args[2], Indexed):
        return False
    return name_of(e.args[2]) == name and not e.args[1].has(Indexed)


def adds(e: Expr, name: str) -> bool:
    """Whether an expression adds a multiple of a tensor to others, or is one."""
    rests = (cast("Any", t).as_coeff_Mul()[1] for t in sp.Add.make_args(e))
    return any(isinstance(r, Indexed) and name_of(r) == name for r in rests)


def all_accesses(e: Any) -> list[Indexed]:
    """Every access in an expression, as often as it stands there."""
    return [x for x in sp.preorder_traversal(e) if isinstance(x, Indexed)]


def with_kernels(e: Expr, known: dict[str, Cell]) -> Expr:
    """Sums of exponentials written out where an exponential is divided by them, so that softmax is seen."""
    if not e.has(sp.exp):
        return e
    sums = {n: c for n, c in known.items() if isinstance(c.expr, Sigma) and isinstance(c.expr.body, sp.exp)}
    return cast("Expr", substituted(e, sums)) if sums else e
