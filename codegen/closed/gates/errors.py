# pyright: basic
"""float32 errors of emitted statements and of autograd's, with float64 autograd of the unsimplified cells as the truth.

Where the emitted statements in float64 say something else, many digits decide what it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from codegen.closed.gates.domains import within_domains
from codegen.closed.gates.execute import DTYPES, by_the_forward, execute, scope_of
from codegen.closed.gates.points import DRAWN, counts, covering, of_kind, relate, stilled, whole
from codegen.closed.gates.sizes import shape_at
from codegen.closed.gates.truth import VALUE, apart, in_many_digits
from codegen.closed.plan.backward import cot_name
from engine.arithmetic import arithmetic
from engine.notation import accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sympy import Symbol

    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.region import Region
    from codegen.closed.write.line import Line

RELATED = "longdouble"
"""The arithmetic in which values are found that float64 values are to be related by."""
ZEROS = 0.3
"""The share of zeros among the inputs that show what divides by one: a product's factor is not its value by the other."""
SEEN = 1e-6
"""The float32 error from which on it is asked whether the truth is one."""
READERS = 16
"""How many tensors a gradient is summed against, so that luck averages out."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A plan as torch statements at the sizes that it is run with. `gradients` names those of its boundary cells."""

    region: Region
    cells: Sequence[Cell]
    forward: Sequence[Line]
    backward: Sequence[Line]
    gradients: Sequence[tuple[str, str]]
    sizes: dict[Symbol, int]

    def run(self, values: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, Any]:
        """What the statements make of values of the boundary and of cotangents."""
        made: dict[str, Any] = {k: v.to(dtype) if v.is_floating_point() else v for k, v in values.items()}
        for name in self.region.seeds:
            made[f"{cot_name(name)}_out"] = made[cot_name(name)]
        scope = scope_of(self.sizes)
        kinds = {c.name: c.kind for c in self.cells}
        with torch.no_grad():
            for line in (*self.forward, *self.backward):
                execute(line, made, scope, self.sizes, DTYPES.get(kinds.get(line.name, "float"), dtype))
        return made


def errors(
    trial: Trial, offset: float | None, draw: int, kind: int = 0, digits: bool = True
) -> list[tuple[str, float, float]]:
    """(what, our error, autograd's) of every gradient and every result where its truth is finite, at one draw.

    With `digits`, many of them say what the truth is where that is in doubt.
    """
    region, cells, sizes, gradients = trial.region, trial.cells, trial.sizes, trial.gradients
    values = inputs_at(region, cells, sizes, offset, draw, kind)
    scope = scope_of(sizes)
    if region.relations:
        values |= related(region, cells, values, scope, sizes)
    truth, exact_values = autograd(region, values, scope, sizes, torch.float64)
    theirs, their_values = autograd(region, values, scope, sizes, torch.float32)
    ours = trial.run(values, torch.float32)

    made = [cell for cell in region.seeds if cell in ours]
    truth |= {f"{VALUE} {cell}": exact_values[cell] for cell in made}

    def found(truth: Mapping[str, Any]) -> list[tuple[str, float, float]]:
        """Errors of gradients and results whose truth is given."""
        pairs = [(f"the cotangent of {cell}", truth[cell], theirs[cell], ours[name]) for cell, name in gradients]
        pairs += [(what, truth[what], their_values[cell], ours[cell]) for cell in made for what in [f"{VALUE} {cell}"]]
        pairs += [
            p for cell, name in gradients for p in read_on(region, cell, truth[cell], theirs[cell], ours[name], offset)
        ]
        return [e for what, *tensors in pairs for e in relative(what, *tensors)]

    out = found(truth)
    if not digits or not any(mine > max(other, SEEN) for _, mine, other in out):
        return out
    wide = trial.run(values, torch.float64)
    both = [*gradients, *((f"{VALUE} {cell}", cell) for cell in made)]
    if not any(apart(truth[what], torch.as_tensor(wide[name]).expand(truth[what].shape)) for what, name in both):
        return out
    exact = in_many_digits(region, values, sizes)
    return out if exact is None else found(truth | exact)


def relative(
    what: str, exact: torch.Tensor, autograds: torch.Tensor, emitted: torch.Tensor
) -> list[tuple[str, float, float]]:
    """(what, our error, autograd's) where the truth is finite; none where it is nowhere."""
    told = exact.isfinite()
    if not bool(told.any()) and exact.numel():
        return []
    true = exact[told]
    scale = float(true.square().mean().sqrt()) + 1e-30
    mine, other = (
        float((torch.as_tensor(g).double().expand(exact.shape)[told] - true).square().mean().sqrt()) / scale
        for g in (emitted, autograds)
    )
    return [(what, mine, other)]


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
    for k, c in enumerate(region.cells):
        shape = shape_at(c.shape, sizes)
        if c.expr is None and c.kind == "float":
            drawn = torch.randn(shape, generator=g, dtype=torch.float64)
            drawn = torch.from_numpy(np.asarray(of_kind(drawn.numpy(), kind, k))) if kind else drawn
            if offset is None:
                drawn = drawn * (torch.rand(shape, generator=g) > ZEROS)
            values[c.name] = drawn + (offset or 0.0) if len(c.shape) == largest else drawn
        elif c.expr is None:
            drawn = whole(torch.randint(0, 2, shape, generator=g).numpy(), kind, k)
            drawn = covering(counts(drawn, c, region.cells), kind, c, region.cells, sizes)
            ones = torch.from_numpy(np.asarray(drawn))
            values[c.name] = ones.to(torch.bool if c.kind == "bool" else torch.int64)
        for name, axis, value in region.sums if c.expr is None else ():
            if name == c.name and c.kind == "float":  # as it is where they are rows of a softmax
                values[name] = torch.softmax(values[name], axis) * float(value)
            elif name == c.name:
                places = torch.nn.functional.one_hot(values[name].int().argmax(axis), shape[axis])
                values[name] = places.movedim(-1, axis).to(values[name].dtype)
    values |= {one: values[other] for one, other in region.copies}
    if kind >= DRAWN:
        values = within_domains(region, values, sizes) or values
    for name in region.seeds:
        shape = shape_at(next(c.shape for c in cells if c.name == name), sizes)
        drawn = torch.randn(shape, generator=g, dtype=torch.float64)
        values[cot_name(name)] = torch.from_numpy(stilled(drawn.numpy(), region, name).copy())
    return {k: v.float().double() if v.is_floating_point() else v for k, v in values.items()}


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
    with np.errstate(all="ignore"):  # exponentials around a large offset
        relate(region, cells, tensors, sizes, RELATED)
    told = {name_of(a) for _, right in region.relations for a in accesses(right)}
    return {k: torch.from_numpy(tensors[k].astype(np.float64)) for k in sorted(told)}


def autograd(
    region: Region,
    values: dict[str, torch.Tensor],
    known: Mapping[str, Any],
    sizes: dict[Symbol, int],
    dtype: torch.dtype,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Gradients of the unsimplified cells by torch, and their values."""
    given = {k: v.to(dtype) if v.is_floating_point() else v for k, v in values.items()}
    leaves = {k: v.clone().requires_grad_() for k, v in given.items() if k in region.wanted}
    own = by_the_forward(region, {**given, **leaves}, known, sizes, dtype)
    found: Sequence[Any] = [None] * len(leaves)
    if region.seeds:
        total = sum((own[s] * own[cot_name(s)]).sum() for s in region.seeds)
        found = torch.autograd.grad(cast("torch.Tensor", total), list(leaves.values()), allow_unused=True)
    values = {k: v.detach() for k, v in own.items() if isinstance(v, torch.Tensor)}
    return {k: torch.zeros_like(leaves[k]) if g is None else g for k, g in zip(leaves, found, strict=True)}, values


__all__ = ["Trial", "errors", "inputs_at"]
