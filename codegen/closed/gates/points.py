# pyright: basic
"""Random points in 50-digit arithmetic: values of a region's cells and of what is known about them, and of statements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mpmath
import numpy as np
import sympy as sp
import torch

from codegen.closed.gates.domains import within_domains
from codegen.closed.gates.sizes import shape_at, size_symbols
from codegen.closed.plan.backward import Statement, cot_name
from engine.arithmetic import arithmetic
from engine.indexed import Indexed
from engine.interpret import Interpreter
from engine.notation import Delta, Index, accesses, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sympy import Symbol

    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.region import Region

KINDS: tuple[Callable[[Any], Any], ...] = (
    lambda x: x,
    lambda x: 0.5 + 0.4 * np.tanh(x),
    lambda x: -0.5 + 0.4 * np.tanh(x),
    lambda x: np.sort(x, axis=-1) if np.ndim(x) else x,
    lambda x: 0.2 * np.tanh(x),
    lambda x: 1.5 + abs(x),
)
"""What numbers are drawn of normal ones, until a forward is finite: any, shares, negative ones, increasing, small and large ones."""
MIXED = 12
"""How many draws more there are, in which every tensor has numbers of its own kind: `log(b - a)` needs b to be the larger one.

Then integers may be such that a pair of them, of two tensors or of two rows, is of two different things everywhere.
"""
DRAWN = len(KINDS) + MIXED
"""How many draws there are by kinds alone. What is drawn by later ones is moved to where the region's functions are defined."""
SEEDS = DRAWN + 3
"""How many there are in all."""
DIGITS = 50
TOLERANCE = mpmath.mpf(10) ** -40


def of_kind(x: Any, seed: int, ordinal: int) -> Any:
    """Normal numbers as those of the kind that the draw number `seed` has for a region's tensor number `ordinal`."""
    if seed >= len(KINDS):
        seed = int(np.random.default_rng([seed, ordinal]).integers(len(KINDS)))
    return KINDS[seed](x)


def whole(drawn: Any, seed: int, ordinal: int) -> Any:
    """Zeros and ones as the draw number `seed` has them: as they were drawn, then by turns along the first axis or all alike."""
    if seed < len(KINDS) or not np.ndim(drawn):
        return drawn
    first, turns = np.random.default_rng([seed, ordinal]).integers(0, 2, size=2)
    at = np.arange(len(drawn)).reshape(-1, *[1] * (np.ndim(drawn) - 1))
    return np.zeros_like(drawn) + (first + at * (turns or np.ndim(drawn) > 1)) % 2


def counts(drawn: Any, c: Cell, cells: Iterable[Cell]) -> Any:
    """Zeros and ones as drawn for a cell of integers; as ones and twos where a definition divides by it and none reads places by it."""
    used = [c.expr for c in cells if c.expr is not None]
    divides = any(p.exp.is_negative and accesses(p.base, c.name) for e in used for p in e.atoms(sp.Pow))
    places = any(accesses(i, c.name) for e in used for a in e.atoms(sp.Indexed) for i in a.indices)
    return drawn + 1 if divides and c.kind == "int" and not places else drawn


def covering(drawn: Any, seed: int, c: Cell, cells: Iterable[Cell], sizes: dict[Symbol, int]) -> Any:
    """Integers as drawn; in the last draws all places at which they put something by turns, as sums that nothing is put into have no logarithm."""
    if seed < DRAWN or c.kind != "int":
        return drawn
    for d in cells:
        for one, other in (x.args for x in (d.expr.atoms(Delta) if d.expr is not None else ())):
            for i, at in ((one, other), (other, one)):
                if isinstance(at, Indexed) and name_of(at) == c.name and isinstance(i, Index) and i in d.ranges:
                    (count,) = shape_at((d.ranges[i],), sizes)
                    return np.arange(np.size(drawn)).reshape(np.shape(drawn)) % count
    return drawn


def point(region: Region, cells: Sequence[Cell], sizes: dict[Symbol, int], seed: int) -> dict[str, Any] | None:
    """Random values of the boundary and of the seeds, and the cells computed from them; None where they are not finite."""
    rng = np.random.default_rng(seed)
    numbers = arithmetic(DIGITS)
    tensors: dict[str, Any] = {}
    same, drawn = dict(region.copies), dict[str, Any]()
    for k, c in ((k, c) for k, c in enumerate(cells) if c.expr is None):
        shape = shape_at(c.shape, sizes)
        if c.kind == "float":
            tensors[c.name] = boxed(numbers.lift(of_kind(rng.normal(size=shape), seed, k)))
        else:  # truth values are the numbers 0 and 1
            ones = counts(whole(rng.integers(0, 2, size=shape), seed, k), c, cells)
            tensors[c.name] = covering(ones, seed, c, cells, sizes)
        tensors[c.name] = with_sum(tensors[c.name], region, c)
        tensors[c.name] = drawn.setdefault(same.get(c.name, c.name), tensors[c.name])
    if seed >= DRAWN:
        plain = {c.name: as_torch(tensors[c.name], c.kind) for c in cells if c.expr is None}
        moved = within_domains(region, plain, sizes)
        if moved is None:
            return None
        tensors |= {n: boxed(numbers.lift(t.numpy())) for n, t in moved.items() if t is not plain[n]}
    for c in cells:
        if c.expr is None:
            continue
        shape = shape_at(c.shape, sizes)
        value = boxed(Interpreter(numbers, tensors, sizes).tensor(c.indices, shape, c.expr))
        if any(isinstance(x, mpmath.mpc) or mpmath.isnan(x) for x in value.flat):
            return None
        tensors[c.name] = value
    for name in region.seeds:
        shape = shape_at(next(c.shape for c in cells if c.name == name), sizes)
        passed = stilled(rng.normal(size=shape), region, name)
        tensors[cot_name(name)] = tensors[f"{cot_name(name)}_out"] = boxed(numbers.lift(passed))
    return tensors


def as_torch(values: Any, kind: str) -> torch.Tensor:
    """Numbers of a kind, floats as float64."""
    dtype = {"float": torch.float64, "bool": torch.bool}.get(kind, torch.int64)
    return torch.from_numpy(np.asarray(values, dtype=np.float64 if kind == "float" else np.int64)).to(dtype)


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


def stilled(values: Any, region: Region, seed: str) -> Any:
    """A cotangent that sums to zero over an axis where it is known to, exactly: every second entry is less the one before."""
    for name, axis, _ in region.sums:
        if name == cot_name(seed):
            v = np.moveaxis(np.array(values), axis, 0)
            v[1::2] = -v[: len(v) - 1 : 2]
            v[len(v) - len(v) % 2 :] = 0
            values = np.moveaxis(v, 0, axis)
    return values


def given_at_random(given: Sequence[Cell], cells: Sequence[Cell]) -> tuple[dict[str, Any], dict[Any, int]]:
    """Random values between 0 and 1 of what cells are computed from, whole ones of integers, and sizes that are all different."""
    sizes: dict[Any, int] = {s: 3 + k for k, s in enumerate(size_symbols([*cells, *given]))}
    numbers, rng = arithmetic(DIGITS), np.random.default_rng(0)
    drawn: dict[str, Any] = {}
    for c in given:
        shape = shape_at(c.shape, sizes)
        whole = c.kind != "float"
        drawn[c.name] = boxed(
            rng.integers(0, 2, size=shape) if whole else numbers.lift(rng.uniform(0.1, 0.9, size=shape))
        )
    return drawn, sizes


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


def given_to(cells: Sequence[Cell], known: Mapping[str, Cell]) -> list[Cell]:
    """What cells are computed from beside each other."""
    inside = {c.name for c in cells}
    return [known[r] for r in dict.fromkeys(r for c in cells for r in c.reads if r not in inside)]


def one_value(old: Sequence[Cell], new: Sequence[Cell], given: Sequence[Cell]) -> bool:
    """Whether cells that are written in two ways have one value, at a random point in 50-digit arithmetic."""
    with mpmath.workdps(DIGITS):
        tensors, sizes = given_at_random(given, [*old, *new])
        rewritten(old, tensors, sizes)
        return not rewritten(new, tensors, sizes)


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


def run(
    statements: Sequence[Statement], tensors: dict[str, Any], sizes: dict[Symbol, int], digits: int = DIGITS
) -> None:
    """Evaluate statements in order."""
    numbers = arithmetic(digits)
    for s in statements:
        tensors[s.name] = boxed(
            Interpreter(numbers, tensors, sizes).tensor(s.indices, shape_at(s.shape, sizes), s.expr)
        )


__all__ = [
    "DIGITS", "DRAWN", "SEEDS", "TOLERANCE", "boxed", "counts", "covering", "given_at_random", "given_to", "of_kind", "one_value", "point", "relate",
    "rewritten", "run", "stilled", "whole",
]  # fmt: skip
