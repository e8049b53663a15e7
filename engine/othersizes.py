"""Sizes that Python took for plain numbers and told nobody: `f"{n}"`, `table[n]`, `numpy.sqrt(n)`, `float("0.3") / n`.

What Python's operators, `math` and torch are asked of a size stays symbolic or is fixed. All else reads the integer below
it. So the forward's Python runs again on tensors of other sizes, without definitions, and whatever it calls is to be
what the trace says of these sizes.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeGuard

import sympy as sp
import torch
from torch.utils import _pytree as pytree

from engine.notation import in_wholes
from engine.sizes import evaluate
from engine.spelling import Ref, SizeArg, is_slice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sympy import Expr, Symbol

    from engine.proxy import Record
    from engine.sizes import Sizes
    from engine.tracer import Tracer

    Values = Mapping[Symbol, int]
    Shapes = tuple[tuple[int, ...], ...]

TIMES = (2, 3, 5, 7, 11, 13)
"""What sizes are multiplied by: what divides them still does."""


def calls(records: Sequence[Record]) -> Iterator[Record]:
    """A record of each call, in order, and the constants."""
    before: Any = None
    for r in records:
        if r.call is not None and r.call is not before:
            before = r.call
            yield r


def is_number(v: Any) -> TypeGuard[float]:
    """Whether something that is given to a call is a number."""
    return isinstance(v, (int, float)) and not isinstance(v, bool)


def at(v: Any, values: Values) -> Any:
    """What is given to a call, as a plain number where it is one, for sizes of these values."""
    if not isinstance(v, SizeArg):
        return v
    e = in_wholes(v.expr).xreplace({s: sp.Integer(n) for s, n in values.items()})
    return int(e.doit()) if v.expr.is_integer else float(sp.N(e, 17))


def given(r: Record) -> list[Any]:
    """All that is given to a call."""
    assert r.call is not None
    parts = pytree.tree_leaves((r.call.args, r.call.kwargs))
    return [p for v in parts for p in ((v.start, v.stop, v.step) if is_slice(v) else (v,))]


def alike(a: Any, b: Any) -> bool:
    """Whether the same is given to two calls."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.shape != b.shape or a.dtype != b.dtype or not a.is_floating_point():
            return torch.equal(a, b)
        return bool(torch.isclose(a, b, equal_nan=True).all())
    if is_number(a) and is_number(b):
        return math.isclose(a, b, rel_tol=1e-9) or (math.isnan(a) and math.isnan(b))
    return not (is_number(a) or is_number(b)) and (not isinstance(a, Ref) or a == b)


def unlike(tracer: Tracer, other: Tracer, values: Values) -> Record | None:
    """The first call of a trace that is another one where its sizes have these values; None if all are the same."""
    mine, theirs = list(calls(tracer.records)), list(calls(other.records))
    for r, o in zip(mine, theirs, strict=False):
        shape = tuple(evaluate(tracer.sizes.resolve(s), values) for s in r.shape)
        resolved = [SizeArg(tracer.sizes.resolve(v.expr)) if isinstance(v, SizeArg) else v for v in given(r)]
        here, there = [at(v, values) for v in resolved], given(o)
        same = r.op == o.op and shape == tuple(o.meta.shape) and len(here) == len(there)
        if not same or not all(map(alike, here, there)) or not alike(r.value, o.value):
            return r
    return None if len(mine) == len(theirs) else (mine or theirs)[-1]


def others(sizes: Sizes, example: Values, varied: Sequence[Symbol]) -> Iterator[dict[Symbol, int]]:
    """Other values of some sizes for which a trace holds: multiples of the example's, or its neighbours where bounds allow none."""
    for k in range(len(TIMES)):
        values = dict(example)
        for s in varied:
            n = example[s]
            multiples = [n * t for t in (*TIMES[k:], *TIMES[:k])]
            apart = [m for m in multiples if m not in values.values()] or multiples[:1]
            near = [m for m in (n // 2, n - 1, n + 1) if m > 1]
            values[s] = next((m for m in (*apart, *near) if sizes.within_bounds({**values, s: m})), n)
        if values != example or not varied:
            yield values


def smaller(tracer: Tracer, example: Values, varied: Sequence[Symbol]) -> Iterator[dict[Symbol, int]]:
    """Values below the example's, that divide it if there are any, for a forward that refuses all above: a table may end there.

    None at which a tensor has a size of one or less, which would be broadcast.
    """
    sizes, values = tracer.sizes, dict(example)
    shapes = {sizes.resolve(n) for r in tracer.records for n in r.shape}

    def held(values: Values) -> bool:
        return sizes.within_bounds(values) and all(n.is_Integer or evaluate(n, values) > 1 for n in shapes)

    for s in varied:
        n = example[s]
        less = [*(n // t for t in TIMES if n % t == 0), n // 2, n - 1]
        values[s] = next((m for m in less if m > 1 and held({**values, s: m})), n)
    if values != example:
        yield values


def taken_for_numbers(
    tracer: Tracer, inputs: Sequence[Record], again: Callable[[Shapes], Tracer | None]
) -> dict[Expr, str]:
    """The sizes of a trace that the forward computes with in ways that the trace does not see, and where.

    Args:
        tracer: the trace.
        inputs: its inputs.
        again: runs the forward on inputs of these shapes; None where it refuses them.
    """
    sizes = tracer.sizes
    example = {s: n for s, n in sizes.values.items() if sizes.resolve(s) == s}
    read = [s for s in example if any(s in sizes.resolve(r).free_symbols for r in tracer.read)]

    def difference(varied: Sequence[Symbol]) -> Record | None:
        for values in chain(others(sizes, example, varied), smaller(tracer, example, varied)):
            shapes = tuple(tuple(evaluate(sizes.resolve(s), values) for s in r.shape) for r in inputs)
            other = again(shapes)
            if other is not None:
                return unlike(tracer, other, values)
        return None

    first = difference(read) if read else None
    if first is None or difference(()) is not None:  # the same, or another one in every run
        return {}
    found = {s: r for s in read if (r := difference([s])) is not None} or dict.fromkeys(read, first)
    return {s: str(r.source or "") for s, r in found.items()}
