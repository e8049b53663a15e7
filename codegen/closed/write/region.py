"""A plan as torch statements: kernels put in, the forward regenerated, what is read once written out in its reader."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.sums import rebuilt
from codegen.closed.definitions import outer
from codegen.closed.definitions.logistic import DEPTH, UNIFIED, softplus_arguments, unified
from codegen.closed.definitions.stabilize import KERNEL, kernel_form
from codegen.closed.kernels import gathers, keptmasks, logshare, onceonly, scattered, sumsonce
from codegen.closed.kernels.kinks import CLAMP, HUBER, clamped, with_huber
from codegen.closed.kernels.namedsums import with_named_sums
from codegen.closed.kernels.norms import NORM, by_lengths, length_in_whole
from codegen.closed.kernels.powerslopes import slopes_alone
from codegen.closed.kernels.runningshares import with_running_shares, without_running_kernels
from codegen.closed.kernels.slopes import by_clamps, by_sizes, with_slopes, written_out
from codegen.closed.kernels.softmaxslope import with_softmax_slopes, without_kernels
from codegen.closed.kernels.wholeexponents import with_whole_exponents
from codegen.closed.plan.backward import cot_name
from codegen.closed.regions import copies
from codegen.closed.regions.cells import Cell, natural, substituted
from codegen.closed.regions.code import RegionCode
from codegen.closed.regions.rewrites import Rewrite, compared, rewritten
from codegen.closed.write.line import LIKE, Line
from codegen.lowering.kernels import stable
from codegen.lowering.lower import Lowerer
from codegen.lowering.values import TensorInfo
from engine.indexed import Indexed
from engine.notation import Delta, Equal, Index, Sigma, Where, accesses, name_of
from engine.sizes import evaluate

if TYPE_CHECKING:
    from codegen.closed.plan.planner import Planned
    from codegen.closed.regions.region import Region

IN_FRONT = "a number that all terms of a sum have goes in front of it"
"""The rule of `numbers_in_front`, as the trail of the forward names it."""


ROOT = "a root is zero where what is below it is"
"""The rule of `root_alone`."""


def written(region: Region, plan: Planned, values: dict[Any, int], literal: bool = False) -> RegionCode:
    """A plan as torch statements; with the forward's lines as they are if `literal`, else in stable forms."""
    cells = region.cells
    by_name = {c.name: c for c in cells}
    apart = {s.name: scattered.scattered_apart(s.expr, s.indices) for s in plan.statements}
    slopes = {n: kernels_of(e, by_name) for n, e in apart.items()}
    named = with_named_sums(slopes, cells)
    formulas = with_named_sums({s.name: s.expr for s in plan.statements if named[s.name] != slopes[s.name]}, cells)
    same = {} if literal else copies.twins(cells, region.copies)
    slopes = {n: copies.renamed(e, same) for n, e in named.items()}
    if not literal:
        masked, slopes = keptmasks.with_kept_masks(cells, slopes)
        region = region.by(keptmasks.RULE, lambda _: masked)
        cells = region.cells
        by_name = {c.name: c for c in cells}
    reads = {name_of(a) for e in slopes.values() for a in accesses(e)}
    read_back = [c.name for c in cells if c.name in reads]
    infos = {c.name: c.info for c in cells}
    for c in cells:
        infos[cot_name(c.name)] = infos[f"{cot_name(c.name)}_out"] = TensorInfo(c.shape)
    for s in plan.statements:
        infos[s.name] = TensorInfo(s.shape)
    forward, notes = forward_lines(region, by_name, {*region.needed, *read_back}, infos, values, literal)
    cells = tuple({c.name: c for c in (*cells, *by_name.values())}.values())
    for c in cells:
        sources = frozenset(c.reads).union(*[infos[r].sources for r in c.reads if r in infos])
        infos[c.name] = replace(c.info, sources=sources)
    backward: list[Line] = []
    for s in plan.statements:
        expr = scattered.scattered_apart(with_kernels(slopes[s.name], by_name), s.indices)
        low = Lowerer(infos, {}, LIKE, fills=True, example=values).lower(expr, s.indices, s.shape)
        infos[s.name] = TensorInfo(s.shape, low.kind)
        plain = slopes_alone(formulas.get(s.name, s.expr), by_name)
        known = reads.issuperset(map(name_of, accesses(plain)))
        formula = plain if known else without_running_kernels(without_kernels(written_out(slopes[s.name])))
        backward.append(Line(s.name, s.indices, s.shape, formula, low))
    return RegionCode(
        cells,
        tuple(forward),
        tuple(backward),
        plan.gradients,
        tuple(read_back),
        plan.statements,
        notes=(*region.notes, *notes),
        simplified=plan.simplified,
    )


def kernels_of(e: Expr, known: dict[str, Cell]) -> Any:
    """An expression with the kernels that torch has for slopes."""
    e = with_running_shares(with_whole_exponents(slopes_alone(by_lengths(e, known), known), known), known)
    return with_softmax_slopes(by_sizes(with_slopes(by_clamps(e, known), known)), known)


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
    differences = {} if literal else outer.outer_differences(known)
    same = {} if literal else copies.twins(region.cells, region.copies)
    notes: dict[str, list[Rewrite]] = {}

    def step(rule: str, c: Cell, expr: Any) -> Cell:
        new = replace(c, expr=expr)
        note = rewritten(rule, c, new)
        notes.setdefault(c.name, []).extend([] if note is None else [note])
        return new

    def local_form(c: Cell) -> Cell:
        first = {c.name: same[c.name]} if c.name in same else same
        own = c.element(c.indices) if c.name in same else cast("Expr", c.expr)
        c = c if c.exact else step(copies.RULE, c, copies.renamed(own, first))
        c = step(KERNEL, c, kernel_form(c, known))
        c = step(HUBER, c, c.expr if c.exact else with_huber(c.expr, known))
        c = step(CLAMP, c, clamped(c.expr, known))
        c = step(NORM, c, length_in_whole(c, known, needed))
        c = step(ROOT, c, root_alone(c.expr))
        c = step(outer.RULE, c, outer.without_outer(c.expr, known, differences))
        return step(gathers.RULE, c, gathers.at_places(cast("Expr", c.expr), c, known))

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
    inlined: dict[str, Cell] = {}
    for n in (c.name for c in region.cells if c.name in live and c.name not in needed and not literal):
        if counts.get(n, 0) == 1 and inlines(local[n], live, local, values, inlined):
            inlined[n] = local[n]
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
            own = step(scattered.RULE, own, scattered.by_places(own.expr, c.indices))
        written_out.append((c, cast("Expr", own.expr)))
    told = [n for c, _ in written_out for n in notes.get(c.name, [])]
    if not literal:
        for rule, change in (
            (logshare.RULE, logshare.with_log_shares),
            (sumsonce.RULE, sumsonce.with_sums_by_name),
            (onceonly.RULE, onceonly.with_shared_functions),
        ):
            before, written_out = written_out, change(written_out)
            told += compared(rule, *([replace(c, expr=e) for c, e in x] for x in (before, written_out)))
    lines: list[Line] = []
    for c, e in written_out:
        infos[c.name] = c.info
        like = LIKE if c.kind == "float" else None
        value = Lowerer(
            infos, {}, like, fills=c.kind == "float" and not literal, example=None if literal else values
        ).lower(e, c.indices, c.shape)
        lines.append(Line(c.name, c.indices, c.shape, e, value))
        known[c.name] = c
    return lines, told


def put_in(names: list[str]) -> str:
    """The rule by which cells are written out in the only one that reads them."""
    listed = [f"{{{n}}}" for n in names]
    whole = " and ".join([", ".join(listed[:-1]), *listed[-1:]]) if len(names) > 1 else "".join(listed)
    return f"what nothing else reads is written out: {whole}"


def root_alone(e: Any) -> Any:
    """The root of a tensor, without a choice of zero where that is zero: what its slope asks, its value does not."""
    if isinstance(e, Where):
        condition, zero, root = e.args
        same = isinstance(root, sp.Pow) and root.exp.is_positive and isinstance(condition, Equal)
        if same and zero == 0 and {*condition.args} == {root.base, sp.S.Zero}:
            return root
    return e


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


def inlines(
    cell: Cell, live: set[str], local: dict[str, Cell], values: dict[Any, int], inlined: dict[str, Cell]
) -> bool:
    """Whether a cell read once is written out, with those `inlined` before: unless it has a name and its reader reads all of it.

    Nor is what is read at more places than it has, as the mean of every class, nor a matrix without its diagonal that is
    summed. A sum is not written out in a sum either:
    `(a - b) - (c - d)` loses digits as `a - b - c + d`, nor the logarithm of a sum of exponentials in an exponential, in
    which both would cancel.
    """
    (reader,) = [local[n] for n in live if cell.name in local[n].reads]
    whole = cast("Expr", reader.expr)
    inside = written_with(cell.expr, inlined)
    summed = any(x.has(sp.exp) for x in inside.atoms(sp.log))
    exponents = [x for x in whole.atoms(sp.exp) if accesses(x, cell.name)]
    if (
        summed
        and exponents
        and (
            inside == cell.expr or not all(is_kernel(written_with(x, {cell.name: cell, **inlined})) for x in exponents)
        )
    ):
        return False
    if isinstance(cell.expr, sp.Add) and adds(whole, cell.name):
        return False
    if whole.has(Sigma) and is_without_diagonal(cell):
        return False
    placed = scattered.by_places(cell.expr, cell.indices) is not cell.expr
    if placed and not all(scattered.is_linear(whole, a) for a in accesses(whole, cell.name)):
        return False
    gathers = any(isinstance(i, Indexed) for a in accesses(whole, cell.name) for i in a.indices)
    if gathers and not isinstance(cell.expr, Indexed) and elements(cell, values) < elements(reader, values):
        return False
    if not cell.named or fills(whole, cell.name) or unites(cell, reader, local):
        return True
    return gathers or isinstance(cell.expr, sp.exp)


def unites(cell: Cell, reader: Cell, local: dict[str, Cell]) -> bool:
    """Whether a reader adds a cell up with others that take the same softplus, or that of minus its argument: one serves them."""
    others = [local[n] for n in reader.reads if n != cell.name and n in local and cell.shape == local[n].shape]
    if not others or not adds(sums_apart(reader.expr), cell.name):
        return False
    mine = softplus_within(cell, local)
    return bool(mine) and not mine.isdisjoint(g for c in others for g in softplus_within(c, local))


def softplus_within(cell: Cell, local: dict[str, Cell]) -> set[Any]:
    """The arguments of softplus in a cell, up to their sign, and in what it reads that has no name."""
    e: Any = cell.expr
    for _ in range(DEPTH):
        unnamed = {n: local[n] for n in map(name_of, accesses(e)) if n in local and not local[n].named}
        step = substituted(e, {n: c for n, c in unnamed.items() if not cast("Expr", c.expr).has(Sigma)})
        if step == e:
            break
        e = step
    return {canonical_argument(g) for g in softplus_arguments(e)}


def sums_apart(e: Any) -> Any:
    """What a sum over axes adds up, without the numbers in front."""
    rest = sp.Mul(*[f for f in sp.Mul.make_args(e) if isinstance(f, Sigma)])
    return rest.body if isinstance(rest, Sigma) else e


def canonical_argument(g: Any) -> Any:
    """An argument up to its sign, whatever the indices are called."""
    own = {i: Index(f"_u{k}") for k, i in enumerate(natural(g))}
    plain = g.xreplace(own)
    return -plain if plain.could_extract_minus_sign() else plain


def written_with(e: Any, inlined: dict[str, Cell]) -> Any:
    """An expression with these cells written out, and what they read of each other."""
    while any(name_of(a) in inlined for a in accesses(e)):
        e = substituted(e, inlined)
    return e


def is_kernel(e: Any) -> bool:
    """Whether kernels of torch compute a product, so that no exponential is left outside of them."""
    while e.has(sp.exp):
        kernel = stable(cast("Expr", e))
        if kernel is None:
            return False
        e = kernel[1][1] if kernel[0] == "scaled" else sp.S.One
    return True


def is_without_diagonal(c: Cell) -> bool:
    """Whether a cell is a product with a matrix that is zero on the diagonal and else one: zeros are put there."""
    places = [1 - f for f in sp.Mul.make_args(c.expr) if isinstance(1 - f, Delta)]
    return len(c.indices) == 2 and any({*d.args} == {*c.indices} for d in places)


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
