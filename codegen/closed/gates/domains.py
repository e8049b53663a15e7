# pyright: basic
"""Numbers moved to where a region's functions are defined: `log(p + b)` and `log(1 - p - b)` ask for a sum between 0 and 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch

from codegen.closed.gates.execute import definitions, execute, one_by_the_forward, scope_of
from codegen.closed.write.line import LIKE, Line
from codegen.lowering.lower import Lowerer
from codegen.lowering.values import TensorInfo
from engine.indexed import Indexed
from engine.notation import BINDERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sympy import Symbol

    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.region import Region

POSITIVE, UNIT = (0.0, math.inf), (-1.0, 1.0)
DOMAINS: dict[Any, tuple[float, float]] = {
    sp.log: POSITIVE, sp.loggamma: POSITIVE, sp.digamma: POSITIVE, sp.acosh: (1.0, math.inf),
    sp.asin: UNIT, sp.acos: UNIT, sp.atanh: UNIT, sp.erfinv: UNIT,
}  # fmt: skip
"""The open intervals in which functions are real and have a derivative; of a power see `asked`."""
MARGINS = (0.05, 0.45)
"""How far inside numbers are put, drawn for each of them."""
NEAR = 0.5
"""The part of its margin that a number may lack."""
MOVES = 1000
SMALLER = 3
"""How often a margin that is too wide for all of them together becomes a tenth."""


@dataclass(frozen=True)
class Asked:
    """What a cell asks for: an argument, as a line, between two numbers."""

    line: Line
    low: float
    high: float


def within_domains(
    region: Region, given: Mapping[str, torch.Tensor], sizes: dict[Symbol, int]
) -> dict[str, torch.Tensor] | None:
    """float64 values near those given at which the functions of a region are defined; None where none are found.

    Each step moves what a cell's arguments are computed from against how far these are outside. What is known to sum to a
    number stays.
    """
    fixed = {name for name, _, _ in region.sums}
    moved = [c.name for c in region.cells if c.expr is None and c.kind == "float" and c.name not in fixed]
    asked = {c.name: list(asked_of(c, region)) for c in region.cells if c.expr is not None}
    if not any(asked.values()):
        return None
    for smaller in range(SMALLER):
        values, margins = {k: v.double() if v.is_floating_point() else v for k, v in given.items()}, {}
        for _ in range(MOVES):
            leaves = {n: values[n].clone().requires_grad_() for n in moved}
            with torch.enable_grad():
                outside = first_outside(region, {**values, **leaves}, asked, sizes, margins, 0.1**smaller)
                if outside is None:
                    return {**values, **{one: values[other] for one, other in region.copies}}
                slopes = torch.autograd.grad(outside, list(leaves.values()), allow_unused=True)
            found = {n: g for n, g in zip(leaves, slopes, strict=True) if g is not None}
            length = sum(float(g.square().sum()) for g in found.values())
            if not 0 < length < math.inf:
                break
            step = 2 * float(outside.detach()) / length  # where one number is outside this puts it on its margin
            values |= {n: values[n] - step * g for n, g in found.items()}
            values |= {one: values[other] for one, other in region.copies}
    return None


def first_outside(
    region: Region,
    given: Mapping[str, torch.Tensor],
    asked: Mapping[str, list[Asked]],
    sizes: dict[Symbol, int],
    margins: dict[Line, torch.Tensor],
    scale: float,
) -> torch.Tensor | None:
    """How far arguments of the first cell that has any are outside of their margins, squared and summed; None where none are."""
    made, scope, written = dict[str, Any](given), scope_of(sizes), definitions(region.cells)
    for c in region.cells:
        for a in asked.get(c.name, ()):
            execute(a.line, made, scope, sizes, torch.float64)
            at = made[a.line.name]
            if a.line not in margins:
                g = torch.Generator().manual_seed(len(margins))
                least, most = MARGINS
                margins[a.line] = scale * (least + (most - least) * torch.rand(at.shape, generator=g).double())
            margin = margins[a.line]
            inside = (at > a.low + NEAR * margin) & (at < a.high - NEAR * margin)
            if not bool(inside.all()):
                lacking = torch.relu(a.low + margin - at) + torch.relu(at - (a.high - margin))
                return lacking.square().sum()
        if c.expr is not None:
            one_by_the_forward(c, made, written, scope, sizes, torch.float64)
    return None


def asked_of(c: Cell, region: Region) -> Iterator[Asked]:
    """What the functions of a cell ask for, each as a tensor over the indices of the cell and of the sums it stands in."""
    infos = {k.name: TensorInfo(k.shape, k.kind) for k in region.cells}
    known: set[Any] = set()
    for k, (argument, interval, limits) in enumerate(arguments(cast("Any", c.expr), ())):
        if (argument, interval) in known:
            continue
        known.add((argument, interval))
        indices = (*c.indices, *[i for i, _ in limits])
        shape = (*c.shape, *[n for _, n in limits])
        value = Lowerer(infos, {}, LIKE).lower(argument, indices, shape)
        yield Asked(Line(f"{c.name}_asked_{k}", indices, shape, argument, value), *interval)


def arguments(e: Any, limits: tuple[Any, ...]) -> Iterator[tuple[Any, tuple[float, float], tuple[Any, ...]]]:
    """(argument, the interval it has to be in, the limits of the sums it stands in) of the functions in an expression."""
    if isinstance(e, Indexed) or not e.args:
        return
    if isinstance(e, BINDERS):
        yield from arguments(e.args[0], (*limits, *[tuple(x) for x in cast("Any", e).limits]))
        return
    for a in e.args:
        yield from arguments(a, limits)
    interval = DOMAINS.get(e.func)
    if isinstance(e, sp.Pow) and e.exp.is_integer is not True:
        interval = POSITIVE
    if interval is not None and e.args[0].has(Indexed):
        yield e.args[0], interval, limits


__all__ = ["within_domains"]
