# pyright: basic
"""What a closed form must pass before it is used: it is equal to the derivation, and it is as accurate as autograd.

Equality is tested at random points in 50-digit arithmetic, against the unsimplified chain of local derivatives of the same
cells. Accuracy is tested by running both in float32 on inputs around 0, 10, 100 and 1000, and on inputs of which many are 0,
with float64 autograd of the unsimplified cells as the truth. A gate that cannot be evaluated refuses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import mpmath
import numpy as np
import sympy as sp
import torch
from sympy import Expr, Symbol

from codegen import tensors as tt
from codegen.closed.backward import Backward, Statement, cot_name
from codegen.closed.line import LIKE, Line
from codegen.distances import NAME, squared_distances
from codegen.lower import Lowerer
from codegen.values import TensorInfo
from engine.arithmetic import arithmetic
from engine.interpret import Interpreter
from engine.notation import Index, accesses, name_of
from engine.sizes import evaluate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import CodeType

    from codegen.closed.cells import Cell
    from codegen.closed.region import Region

DIGITS = 50
TOLERANCE = mpmath.mpf(10) ** -40
OFFSETS = (0.0, 10.0, 100.0, 1000.0)
RELATED = "longdouble"
"""The arithmetic in which values are found that float64 values are to be related by."""
ZEROS = 0.3
"""The share of zeros among the inputs that show what divides by one: a product's factor is not its value by the other."""
SLACK = 2.0
NEAR = 1.11
"""What errors may be of autograd's, as the geometric mean over draws, for a plan that needs no repair."""
SAME = 1.01
"""What they are at most on any draw where the operations that make them are the same."""
MANY = 128
"""How many inputs decide at most whether a plan needs a repair; fewer where their mean is `SURE` deviations from NEAR."""
SURE = 4.0
DRAWS = 4
"""How many inputs decide where one does not."""
SEEDS = 12
"""How many random points are tried until the derivation is finite at one."""
KINDS: tuple[Callable[[Any], Any], ...] = (
    lambda x: x,
    lambda x: 0.5 + 0.4 * np.tanh(x),
    lambda x: -0.5 + 0.4 * np.tanh(x),
    lambda x: np.sort(x, axis=-1) if np.ndim(x) else x,
    lambda x: 0.2 * np.tanh(x),
    lambda x: 1.5 + abs(x),
)
"""What numbers are drawn of normal ones, until a forward is finite: any, shares, negative ones, increasing, small and large ones."""
HUGE = 1e4
"""What inputs are multiplied by so that exponentials of them overflow."""
LARGE = 2**18
"""Elements of the largest tensor that accuracy is measured on, so that many dimensions are small ones."""
READERS = 16
"""How many tensors a gradient is summed against, so that luck averages out."""
DTYPES = {"int": torch.int64, "bool": torch.bool}
"""Of cells that are no floats."""
FLOOR = 2e-6
"""float32 errors below a few ulps of the largest entry are not told apart."""


@dataclass(frozen=True)
class Verdict:
    """Whether a gate lets a plan pass, and why not."""

    passed: bool
    reason: str = ""
    judged: bool = True
    """Whether there was anything to tell it by."""


def size_symbols(cells: Sequence[Cell]) -> list[Symbol]:
    """Every size symbol that a region's shapes and definitions mention."""
    found: set[Any] = set()
    for c in cells:
        for n in c.shape:
            found |= n.free_symbols
        if c.expr is not None:
            labels = {a.base.label for a in accesses(c.expr)}
            found |= {
                x for x in c.expr.free_symbols if isinstance(x, Symbol) and not isinstance(x, Index) and x not in labels
            }
    return sorted(found, key=str)


def small_sizes(cells: Sequence[Cell], values: Mapping[Any, int], first: int = 3, step: int = 1) -> dict[Symbol, int]:
    """Small numbers for the size symbols of a region, in the order of the sizes at the example; equal ones stay equal.

    They are larger than every position that the region reads by its number.
    """
    first = max([first, *[p + 1 for c in cells if c.expr is not None for p in fixed_positions(c.expr)]])
    ranks = sorted({values[s] for s in size_symbols(cells) if s in values})
    return {s: first + step * ranks.index(values[s]) if s in values else first for s in size_symbols(cells)}


def fixed_positions(e: Expr) -> list[int]:
    """The positions that an expression reads by their number."""
    return [int(i) for a in accesses(e) for i in cast("Any", a.indices) if i.is_Integer]


def sizes_to_measure(cells: Sequence[Cell], values: Mapping[Any, int]) -> dict[Symbol, int]:
    """Sizes at which rounding shows, unless a tensor of many dimensions would be too large."""
    for first in (16, 8, 5):
        sizes = small_sizes(cells, values, first, 3)
        if all(math.prod(shape_at(c.shape, sizes)) <= LARGE for c in cells):
            return sizes
    return small_sizes(cells, values)


def shape_at(shape: Sequence[Expr], sizes: dict[Symbol, int]) -> tuple[int, ...]:
    """A shape as numbers."""
    return tuple(evaluate(n, sizes) for n in shape)


def scope_of(sizes: Mapping[Symbol, int]) -> dict[str, Any]:
    """What emitted text refers to beside tensors. Logarithms of sizes are Python's here, the writer has torch take them."""
    return {"torch": torch, "log": math.log, NAME: squared_distances, **{str(s): n for s, n in sizes.items()}}


def equal(
    region: Region,
    cells: Sequence[Cell],
    plan: Sequence[Statement],
    gradients: Sequence[tuple[str, str]],
    values: Mapping[Any, int],
) -> Verdict:
    """Equality with the unsimplified derivation, at random points."""
    sizes = small_sizes(cells, values)
    backward = Backward(list(region.cells), region.seeds, region.wanted, cast("Any", None))
    naive = backward.chain()
    with mpmath.workdps(DIGITS):
        for seed in range(SEEDS):
            tensors = point(region, region.cells, sizes, seed)
            if tensors is None:
                continue
            changed = rewritten(cells, tensors, sizes)
            if changed:
                return Verdict(False, f"{changed} was rewritten into something else")
            relate(region, cells, tensors, sizes)
            ours, theirs = dict(tensors), dict(tensors)
            run(naive, theirs, sizes)
            if not all(mpmath.isfinite(x) for s in naive for x in theirs[s.name].flat):
                continue
            run(plan, ours, sizes)
            for cell, name in gradients:
                a, b = ours[name], theirs[cot_name(cell)]
                scale = max([abs(x) for x in b.flat] + [mpmath.mpf(1)])
                worst = max(
                    (abs(x - y) for x, y in zip(np.broadcast_to(boxed(a), b.shape).flat, b.flat, strict=True)),
                    default=mpmath.mpf(0),
                )
                if not worst <= TOLERANCE * scale:
                    return Verdict(
                        False, f"the cotangent of {cell} differs from the derivation by {mpmath.nstr(worst, 3)}"
                    )
            return Verdict(True)
    return Verdict(False, "no point was found where the forward is finite")


def point(region: Region, cells: Sequence[Cell], sizes: dict[Symbol, int], seed: int) -> dict[str, Any] | None:
    """Random values of the boundary and of the seeds, and the cells computed from them; None where they are not finite."""
    rng = np.random.default_rng(seed)
    numbers = arithmetic(DIGITS)
    tensors: dict[str, Any] = {}
    for c in cells:
        shape = shape_at(c.shape, sizes)
        if c.expr is None:
            if c.kind == "float":
                tensors[c.name] = boxed(numbers.lift(KINDS[seed % len(KINDS)](rng.normal(size=shape))))
            else:
                tensors[c.name] = rng.integers(0, 2, size=shape)  # truth values are the numbers 0 and 1
            tensors[c.name] = with_sum(tensors[c.name], region, c)
            continue
        value = boxed(Interpreter(numbers, tensors, sizes).tensor(c.indices, shape, c.expr))
        if any(isinstance(x, mpmath.mpc) or mpmath.isnan(x) for x in value.flat):
            return None
        tensors[c.name] = value
    for name in region.seeds:
        shape = shape_at(next(c.shape for c in cells if c.name == name), sizes)
        tensors[cot_name(name)] = tensors[f"{cot_name(name)}_out"] = boxed(numbers.lift(rng.normal(size=shape)))
    return tensors


def with_sum(values: Any, region: Region, c: Cell) -> Any:
    """Values of a boundary cell so that they sum to what they are known to sum to: all moved alike, or ones at some places."""
    for name, axis, value in region.sums:
        if name != c.name:
            continue
        if c.kind != "float":
            at = values.argmax(axis)
            return np.moveaxis(np.eye(values.shape[axis], dtype=values.dtype)[at], -1, axis)
        whole = values.sum(axis, keepdims=True)
        return values + (mpmath.mpf(value.p) / value.q - whole) / values.shape[axis]
    return values


def rewritten(cells: Sequence[Cell], tensors: dict[str, Any], sizes: dict[Symbol, int]) -> str:
    """The name of a cell whose new definition does not give its old value; "" if there is none. New cells are computed."""
    numbers = arithmetic(DIGITS)
    for c in cells:
        if c.expr is None:
            continue
        value = boxed(Interpreter(numbers, tensors, sizes).tensor(c.indices, shape_at(c.shape, sizes), c.expr))
        old = tensors.setdefault(c.name, value)
        for x, y in zip(value.flat, old.flat, strict=True):
            if x != y and not abs(x - y) <= TOLERANCE * max(1, abs(y)):
                return c.name
    return ""


def boxed(a: Any) -> Any:
    """An array even of a single number; truth values are the numbers 0 and 1."""
    whole = np.asarray(a, dtype=object) if not isinstance(a, np.ndarray) else a
    return whole.astype(int) if whole.dtype == bool else whole


def relate(
    region: Region,
    cells: Sequence[Cell],
    tensors: dict[str, Any],
    sizes: dict[Symbol, int],
    number: str | int = DIGITS,
) -> None:
    """Values for what the relations name beyond the region, such that they hold (each is a theorem of a linear reader)."""
    numbers = arithmetic(number)
    rng = np.random.default_rng(7)
    shapes = {c.name: c.shape for c in cells}
    for left, right in region.relations:
        cot, out = sorted(accesses(right), key=lambda a: not name_of(a).startswith("d_"))
        out_name = name_of(out)
        shape = shape_at(shapes[out_name], sizes)
        direction = boxed(numbers.lift(rng.normal(size=shape)))
        tensors[name_of(cot)] = direction
        tensors[out_name] = direction
        indices = tuple(i for i in out.indices)
        free = [i for i in indices if isinstance(i, Index)]
        want = boxed(Interpreter(numbers, tensors, sizes).tensor(indices, shape, left))
        have = boxed(Interpreter(numbers, tensors, sizes).tensor(indices, shape, right))
        tensors[out_name] = boxed(direction * (want / have)) if free else direction


def run(statements: Sequence[Statement], tensors: dict[str, Any], sizes: dict[Symbol, int]) -> None:
    """Evaluate statements in order."""
    numbers = arithmetic(DIGITS)
    for s in statements:
        tensors[s.name] = boxed(
            Interpreter(numbers, tensors, sizes).tensor(s.indices, shape_at(s.shape, sizes), s.expr)
        )


# -- accuracy ------------------------------------------------------------------------------------------------------


def accurate(
    region: Region,
    cells: Sequence[Cell],
    forward: Sequence[Line],
    backward: Sequence[Line],
    gradients: Sequence[tuple[str, str]],
    values: Mapping[Any, int],
) -> Verdict:
    """float32 errors of a plan's torch statements against those of autograd, around several offsets."""
    sizes = sizes_to_measure(cells, values)
    told = False
    for offset in (*OFFSETS, None):
        verdict = at_offset(region, cells, forward, backward, gradients, sizes, offset)
        if not verdict.passed:
            return verdict
        told = told or verdict.judged
    for kind in range(1, len(KINDS)) if not told else ():
        verdict = at_offset(region, cells, forward, backward, gradients, sizes, 0.0, kind)
        if not verdict.passed or verdict.judged:
            return verdict
    return Verdict(True)


def above(
    region: Region,
    cells: Sequence[Cell],
    forward: Sequence[Line],
    backward: Sequence[Line],
    gradients: Sequence[tuple[str, str]],
    values: Mapping[Any, int],
) -> str:
    """Which error of a plan is on average larger than autograd's; "" if none is. A plan that passes may be repaired then."""
    sizes = sizes_to_measure(cells, values)
    for offset in OFFSETS:

        def drawn(draw: int, offset: float = offset) -> dict[str, tuple[float, float]]:
            """Errors at one draw by what they are of."""
            every = errors(region, cells, forward, backward, gradients, sizes, offset, draw)
            return {what: (mine, other) for what, mine, other in every}

        first = drawn(0)
        for what in first:
            by = larger(what, first, drawn)
            if by > NEAR:
                return f"{what} has {by:.2f} times autograd's float32 error at offset {offset:g}"
    return ""


def by_the_forward(
    region: Region, given: Mapping[str, Any], scope: Mapping[str, Any], sizes: dict[Symbol, int], dtype: torch.dtype
) -> dict[str, Any]:
    """What is given, and every cell of a region by the forward's own torch call, or by its definition where it has none."""
    own = dict(given)
    for c, line in lines_of(region.cells):
        if line is None:
            own[c.name] = eval(compiled(cast("str", c.text)), {**scope, **own})  # noqa: S307
        else:
            execute(line, own, scope, sizes, DTYPES.get(c.kind, dtype))
    return own


_lines: dict[int, tuple[tuple[Cell, ...], list[tuple[Cell, Line | None]]]] = {}


def lines_of(cells: tuple[Cell, ...]) -> list[tuple[Cell, Line | None]]:
    """The cells that are computed, each with its definition as a statement where it has no call of its own.

    Those of the last cells are remembered: every gate asks for them at every draw.
    """
    if id(cells) not in _lines:
        infos = {c.name: TensorInfo(c.shape, c.kind) for c in cells}
        found: list[tuple[Cell, Line | None]] = []
        for c in cells:
            if c.expr is not None and c.text is not None:
                found.append((c, None))
            elif c.expr is not None:
                value = Lowerer(infos, {}).lower(c.expr, c.indices, c.shape)
                found.append((c, Line(c.name, c.indices, c.shape, c.expr, value)))
        _lines.clear()
        _lines[id(cells)] = cells, found  # with the cells, so that no others get their id
    return _lines[id(cells)][1]


def inputs_at(
    region: Region,
    cells: Sequence[Cell],
    sizes: dict[Symbol, int],
    offset: float | None,
    draw: int = 0,
    kind: int = 0,
) -> dict[str, torch.Tensor]:
    """float64 boundary values, and cotangents of the seeds.

    Tensors of the largest rank are around an offset; without an offset some entries of all are 0.
    """
    g = torch.Generator().manual_seed(int(offset or 0) + 10_000 * draw)
    largest = max((len(c.shape) for c in cells if c.expr is None and c.kind == "float"), default=0)
    values: dict[str, torch.Tensor] = {}
    for c in region.cells:
        shape = shape_at(c.shape, sizes)
        if c.expr is None and c.kind == "float":
            drawn = torch.randn(shape, generator=g, dtype=torch.float64)
            drawn = torch.from_numpy(np.asarray(KINDS[kind](drawn.numpy()))) if kind else drawn
            if offset is None:
                drawn = drawn * (torch.rand(shape, generator=g) > ZEROS)
            values[c.name] = drawn + (offset or 0.0) if len(c.shape) == largest else drawn
        elif c.expr is None:
            values[c.name] = torch.randint(0, 2, shape, generator=g).to(torch.bool if c.kind == "bool" else torch.int64)
        for name, axis, value in region.sums if c.expr is None else ():
            if name == c.name and c.kind == "float":  # as it is where they are rows of a softmax
                values[name] = torch.softmax(values[name], axis) * float(value)
            elif name == c.name:
                places = torch.nn.functional.one_hot(values[name].int().argmax(axis), shape[axis])
                values[name] = places.movedim(-1, axis).to(values[name].dtype)
    for name in region.seeds:
        shape = shape_at(next(c.shape for c in cells if c.name == name), sizes)
        values[cot_name(name)] = torch.randn(shape, generator=g, dtype=torch.float64)
    return {k: v.float().double() if v.is_floating_point() else v for k, v in values.items()}


def at_offset(
    region: Region,
    cells: Sequence[Cell],
    forward: Sequence[Line],
    backward: Sequence[Line],
    gradients: Sequence[tuple[str, str]],
    sizes: dict[Symbol, int],
    offset: float | None,
    kind: int = 0,
) -> Verdict:
    """The gate at one offset. What fails on one draw is judged by several: one error is small or large by luck.

    So is what cannot be judged because an integer was drawn that is divided by, and is 0.
    """
    verdict, found = Verdict(True), dict[str, list[tuple[float, float]]]()
    integers = any(c.kind != "float" and c.expr is None for c in region.cells)
    for draw in range(DRAWS):
        for what, mine, other in errors(region, cells, forward, backward, gradients, sizes, offset, draw, kind):
            found.setdefault(what, []).append((mine, other))
        if draw == DRAWS - 1 or (draw == 0 and (found or not integers)):
            verdicts = (verdict_on(what, pairs, offset) for what, pairs in found.items())
            verdict = next((v for v in verdicts if not v.passed), Verdict(True))
            if verdict.passed:
                break
    return verdict if found else replace(verdict, judged=False)


def larger(
    what: str, first: Mapping[str, tuple[float, float]], drawn: Callable[[int], Mapping[str, tuple[float, float]]]
) -> float:
    """How many times autograd's error one tensor's is on average, 1 where it is small: as many draws as it takes to tell."""
    mine, other = first[what]
    if mine <= FLOOR or mine <= SAME * other:
        return 1.0
    ratios: list[float] = []
    middle = 0.0
    for draw in range(MANY):
        mine, other = drawn(draw).get(what, (0.0, 0.0)) if draw else (mine, other)
        if mine > 0 and 0 < other < math.inf:
            ratios.append(math.log(mine / other) - math.log(NEAR))
            middle = sum(ratios) / len(ratios)
        if len(ratios) >= DRAWS:
            spread = math.sqrt(sum((r - middle) ** 2 for r in ratios) / (len(ratios) - 1) / len(ratios))
            if abs(middle) > SURE * spread:
                break
    return NEAR * math.exp(middle) if ratios else 1.0


def verdict_on(what: str, pairs: Sequence[tuple[float, float]], offset: float | None) -> Verdict:
    """Whether one tensor's errors, ours and autograd's, are alike over all draws in which autograd's is finite."""
    judged = [(mine, other) for mine, other in pairs if math.isfinite(other)]
    if offset is None:  # 0 is a kink of many functions: what differs there is a convention, what is not finite is wrong
        finite = all(math.isfinite(mine) for mine, _ in judged)
        return Verdict(True) if finite else Verdict(False, f"{what} is not finite where inputs are 0")
    mine, other = (math.sqrt(sum(p[k] ** 2 for p in judged) / max(1, len(judged))) for k in (0, 1))
    if mine <= max(SLACK * other, FLOOR):
        return Verdict(True)
    return Verdict(False, f"{what} has float32 error {mine:.1e} at offset {offset:g}, autograd {other:.1e}")


def errors(
    region: Region,
    cells: Sequence[Cell],
    forward: Sequence[Line],
    backward: Sequence[Line],
    gradients: Sequence[tuple[str, str]],
    sizes: dict[Symbol, int],
    offset: float | None,
    draw: int,
    kind: int = 0,
) -> list[tuple[str, float, float]]:
    """(what, our error, autograd's) of every gradient whose truth is finite, at one draw."""
    values = inputs_at(region, cells, sizes, offset, draw, kind)
    scope = scope_of(sizes)
    if region.relations:
        values |= related(region, cells, values, scope, sizes)
    truth = autograd(region, values, scope, sizes, torch.float64)
    theirs = autograd(region, values, scope, sizes, torch.float32)
    ours: dict[str, Any] = {k: v.float() if v.is_floating_point() else v for k, v in values.items()}
    for name in region.seeds:
        ours[f"{cot_name(name)}_out"] = ours[cot_name(name)]
    with torch.no_grad():
        for line in (*forward, *backward):
            execute(line, ours, scope, sizes)
    pairs = [(f"the cotangent of {cell}", truth[cell], theirs[cell], ours[name]) for cell, name in gradients]
    pairs += [
        p for cell, name in gradients for p in read_on(region, cell, truth[cell], theirs[cell], ours[name], offset)
    ]
    out: list[tuple[str, float, float]] = []
    for what, exact, autograds, emitted in pairs:
        if bool(exact.isfinite().all()):
            scale = float(exact.square().mean().sqrt()) + 1e-30
            mine, other = (float((g.double() - exact).square().mean().sqrt()) / scale for g in (emitted, autograds))
            out.append((what, mine, other))
    return out


def finite_at_large(
    region: Region,
    cells: Sequence[Cell],
    forward: Sequence[Line],
    backward: Sequence[Line],
    gradients: Sequence[tuple[str, str]],
    values: Mapping[Any, int],
) -> bool:
    """Whether a plan's results and gradients stay finite where inputs of both signs are so large that exponentials of them are not."""
    sizes = small_sizes(cells, values)
    scope = scope_of(sizes)
    wide = in_exponents(region.cells)
    ours: dict[str, Any] = inputs_at(region, cells, sizes, 0.0, kind=1)
    ours |= {
        k: v * HUGE for k, v in inputs_at(region, cells, sizes, 0.0).items() if k in wide and v.is_floating_point()
    }
    for name in region.seeds:
        ours[f"{cot_name(name)}_out"] = ours[cot_name(name)]
    with torch.no_grad():
        for line in (*forward, *backward):
            execute(line, ours, scope, sizes, torch.float64)
    told = [ours[name] for name in (*region.needed, *[g for _, g in gradients])]
    return all(bool(torch.as_tensor(t).isfinite().all()) for t in told)


def in_exponents(cells: Sequence[Cell]) -> set[str]:
    """The cells that exponents are made of."""
    found: set[str] = set()
    for c in reversed(cells):
        if c.expr is not None:
            found |= {name_of(a) for e in c.expr.atoms(sp.exp) for a in accesses(e)}
            found |= set(c.reads) if c.name in found else set()
    return found


def read_on(
    region: Region,
    cell: str,
    exact: torch.Tensor,
    autograds: torch.Tensor,
    emitted: torch.Tensor,
    offset: float | None,
) -> list[tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """A gradient as its readers go on with it: summed against a tensor around the same offset, over the axes that they sum."""
    out: list[tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for axes in dict(region.summed).get(cell, ()):
        shape = [n for k, n in enumerate(exact.shape) if k in axes]
        g = torch.Generator().manual_seed(1)
        partner = torch.randn(READERS, *shape, generator=g, dtype=torch.float64) + (offset or 0.0)
        partner = partner.float().double()

        def summed(t: torch.Tensor, partner: torch.Tensor = partner, axes: tuple[int, ...] = axes) -> torch.Tensor:
            order = [*axes, *[k for k in range(t.dim()) if k not in axes]]
            return partner.to(t.dtype).flatten(1) @ t.expand(exact.shape).permute(order).flatten(
                0, len(axes) - 1
            ).flatten(1)

        out.append((f"what readers make of the cotangent of {cell}", summed(exact), summed(autograds), summed(emitted)))
    return out


def related(
    region: Region,
    cells: Sequence[Cell],
    values: dict[str, torch.Tensor],
    known: Mapping[str, Any],
    sizes: dict[Symbol, int],
) -> dict[str, torch.Tensor]:
    """float64 values of what the relations name beyond the region, such that they hold for these values of the boundary."""
    own = by_the_forward(region, values, known, sizes, torch.float64)
    read = {name_of(a) for left, _ in region.relations for a in accesses(left)}
    tensors: dict[str, Any] = {k: arithmetic(RELATED).lift(own[k].numpy()) for k in sorted(read)}
    relate(region, cells, tensors, sizes, RELATED)
    told = {name_of(a) for _, right in region.relations for a in accesses(right)}
    return {k: torch.from_numpy(tensors[k].astype(np.float64)) for k in sorted(told)}


def autograd(
    region: Region,
    values: dict[str, torch.Tensor],
    known: Mapping[str, Any],
    sizes: dict[Symbol, int],
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Gradients of the unsimplified cells by torch."""
    given = {k: v.to(dtype) if v.is_floating_point() else v for k, v in values.items()}
    leaves = {k: v.clone().requires_grad_() for k, v in given.items() if k in region.wanted}
    own = by_the_forward(region, {**given, **leaves}, known, sizes, dtype)
    total = sum((own[s] * own[cot_name(s)]).sum() for s in region.seeds)
    found = torch.autograd.grad(cast("torch.Tensor", total), list(leaves.values()), allow_unused=True)
    return {k: torch.zeros_like(leaves[k]) if g is None else g for k, g in zip(leaves, found, strict=True)}


def execute(
    line: Line,
    tensors: dict[str, Any],
    scope: Mapping[str, Any],
    sizes: dict[Symbol, int],
    dtype: torch.dtype = torch.float32,
    like: torch.dtype | None = None,
) -> None:
    """Run one emitted line, whose value is of `dtype`, computed as `like` where it reads no floats."""
    everything = {**scope, LIKE: torch.zeros((), dtype=like or dtype), **tensors}
    shape = shape_at(line.shape, sizes)
    low = line.value
    dense = 0.0 if low.dense is None else eval(compiled(tt.text(low.dense.t)), everything)  # noqa: S307
    value = torch.as_tensor(dense, dtype=dtype).expand(shape)
    if low.scatters:
        value = value.clone()
    everything["_value"] = value
    for s in low.scatters:
        everything["_items"] = eval(  # noqa: S307
            f"_Keep[{', '.join(tt.argument(i) for i in s.items) or '...'}]", {**everything, "_Keep": _Keep()}
        )
        everything["_new"] = torch.as_tensor(eval(compiled(tt.text(s.value)), everything)).to(dtype)  # noqa: S307
        if s.diagonal and s.fills:
            value.fill_diagonal_(float(everything["_new"]))
        elif s.diagonal:
            value.diagonal().add_(everything["_new"])
        elif s.fills:
            value[everything["_items"]] = everything["_new"]
        elif s.accumulate:
            places = tuple(torch.as_tensor(i) for i in as_tuple(everything["_items"]))
            value.index_put_(places, everything["_new"], accumulate=True)
        else:
            value[everything["_items"]] += everything["_new"]
    tensors[line.name] = value


@lru_cache(maxsize=2**12)
def compiled(text: str) -> CodeType:
    """An expression for `eval`, which reads the same ones at every draw."""
    return compile(text, "<gate>", "eval")


class _Keep:
    """Hands back what stands between its brackets."""

    def __getitem__(self, items: Any) -> Any:
        return items


def as_tuple(items: Any) -> tuple[Any, ...]:
    """Index items as a tuple."""
    return cast("tuple[Any, ...]", items) if isinstance(items, tuple) else (items,)


__all__ = ["Verdict", "above", "accurate", "equal", "finite_at_large", "sp"]
