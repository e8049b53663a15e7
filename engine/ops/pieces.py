"""Joining tensors and cutting them apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch
from sympy import Expr, Integer

from engine.errors import TraceError
from engine.notation import Less, Quo, Rem, Where
from engine.ops.layout import flat
from engine.shapes import broadcast_shapes
from engine.sizes import expression
from engine.table import (
    Definition,
    Operand,
    Row,
    axis,
    composite,
    define,
    divided,
    equal,
    indices_of,
    op,
    quotient,
    recorded_as,
    value_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Tensor = torch.Tensor
PAD_SEQUENCE: Any = vars(torch)["_C"]._nn.pad_sequence  # what torch.nn.utils.rnn.pad_sequence calls


def choose(at: Expr, ends: Sequence[Expr], pieces: Sequence[Expr]) -> Expr:
    """The piece in whose range a position lies; a tree of comparisons, so that many pieces stay shallow."""
    if len(pieces) == 1:
        return pieces[0]
    half = len(pieces) // 2
    left, right = choose(at, ends[:half], pieces[:half]), choose(at, ends[half:], pieces[half:])
    return cast("Expr", Where(Less(at, ends[half - 1]), left, right))


@op("cat", "concat", "concatenate")
def cat(xs: Sequence[Operand], dim: int = 0) -> Definition:
    given = [x for x in xs if not (x.rank == 1 and x.shape[0] == 0)] or list(xs[:1])  # torch skips empty vectors
    given = [x for x in given if value_of(x.shape[axis(dim, x.rank)]) > 0] or given[:1]
    d = axis(dim, given[0].rank)
    shape = list(given[0].shape)
    for x in given[1:]:
        shape = [s if k == d else equal(s, x.shape[k]) for k, s in enumerate(shape)]
    shape[d] = cast("Expr", sp.Add(*[x.shape[d] for x in given]))
    at = list(indices_of(shape))
    ends: list[Expr] = []
    pieces: list[Expr] = []
    start: Expr = sp.S.Zero
    for x in given:
        here = [(i - start) if k == d else i for k, i in enumerate(at)]
        start = start + x.shape[d]
        ends.append(start)
        pieces.append(x.element(*here))
    return define(shape, at, choose(at[d], ends, pieces))


@op("stack")
def stack(xs: Sequence[Operand], dim: int = 0) -> Definition:
    d = axis(dim, xs[0].rank + 1)
    shape = list(xs[0].shape)
    for x in xs[1:]:
        shape = [equal(s, x.shape[k]) for k, s in enumerate(shape)]
    full = [*shape[:d], Integer(len(xs)), *shape[d:]]
    at = list(indices_of(full))
    rest = at[:d] + at[d + 1 :]
    ends = [Integer(k + 1) for k in range(len(xs))]
    return define(full, at, choose(at[d], ends, [x.element(*rest) for x in xs]))


@composite("hstack")
def hstack(xs: Any) -> Any:
    """Along the second dimension, or the only one, which a number gets."""
    xs = [x.reshape(1) if x.dim() == 0 else x for x in xs]
    return torch.cat(xs, 0 if xs[0].dim() == 1 else 1)


@composite(targets=(torch.column_stack,))
def column_stack(xs: Any) -> Any:
    return torch.cat([x.reshape(-1, 1) if x.dim() < 2 else x for x in xs], 1)


@composite("dstack")
def dstack(xs: Any) -> Any:
    return torch.cat([cast("Any", torch).atleast_3d(x) for x in xs], 2)


@composite("hsplit")
def hsplit(x: Any, indices_or_sections: Any) -> Any:
    return x.tensor_split(indices_or_sections, 0 if x.dim() == 1 else 1)


@composite("vsplit")
def vsplit(x: Any, indices_or_sections: Any) -> Any:
    return x.tensor_split(indices_or_sections, 0)


@composite("dsplit")
def dsplit(x: Any, indices_or_sections: Any) -> Any:
    return x.tensor_split(indices_or_sections, 2)


@composite("vstack", "row_stack")
def vstack(xs: Any) -> Any:
    return torch.cat([x.reshape(1, -1) if x.dim() < 2 else x for x in xs], 0)


def narrowed(x: Operand, dim: int, start: Expr, length: Expr) -> Definition:
    """`length` entries of one dimension, from `start`."""
    shape = [length if d == dim else s for d, s in enumerate(x.shape)]
    at = indices_of(shape)
    return define(shape, at, x[tuple(start + i if d == dim else i for d, i in enumerate(at))])


@op("narrow", "narrow_copy", view=True)
def narrow(x: Operand, dim: int, start: Any, length: Any) -> Definition:
    if isinstance(start, Operand):
        raise TraceError("narrow at a tensor's value; use index_select or torch.gather")
    d = axis(dim, x.rank)
    first = expression(start)
    return narrowed(x, d, (x.shape[d] + first) if value_of(first) < 0 else first, expression(length))


def cut(x: Operand, dim: int, lengths: Sequence[Expr]) -> tuple[Definition, ...]:
    """Consecutive pieces of these lengths along a dimension."""
    out: list[Definition] = []
    start: Expr = sp.S.Zero
    for length in lengths:
        out.append(narrowed(x, dim, start, length))
        start = start + length
    equal(x.shape[dim], start)
    return tuple(out)


@op("split", "split_with_sizes", "split_with_sizes_copy", "split_copy", "unsafe_split", view=True)
def split(x: Operand, split_size: Any, dim: int = 0) -> tuple[Definition, ...]:
    d = axis(dim, x.rank)
    if isinstance(split_size, (tuple, list)):
        return cut(x, d, [expression(s) for s in cast("Sequence[Any]", split_size)])
    size = expression(split_size)
    total, each = value_of(x.shape[d]), value_of(size)
    if total == 0 or each == 0:
        return cut(x, d, [x.shape[d]])
    count = -(-total // each)
    if total % each == 0 and (not size.is_Integer or sp.cancel(x.shape[d] / size) == count):
        return cut(x, d, [size] * count)
    equal(x.shape[d], Integer(total))
    return cut(x, d, [Integer(min(each, total - k * each)) for k in range(count)])


@op("chunk", "unsafe_chunk", view=True)
def chunk(x: Operand, chunks: int, dim: int = 0) -> tuple[Definition, ...]:
    d = axis(dim, x.rank)
    total = value_of(x.shape[d])
    if total == 0:
        return cut(x, d, [x.shape[d]] * int(chunks))
    if total % chunks == 0:
        each = quotient(x.shape[d], chunks)
        part = each if each.is_integer else divided(each)
        if part is not None:
            return cut(x, d, [part] * chunks)
    return split(x, -(-total // chunks), dim)


@op("tensor_split", view=True)
def tensor_split(x: Operand, indices_or_sections: Any, dim: int = 0) -> tuple[Definition, ...]:
    """A number of nearly equal pieces, or pieces that end at given positions."""
    d = axis(dim, x.rank)
    total = value_of(x.shape[d])
    if isinstance(indices_or_sections, Operand):
        raise TraceError("tensor_split at a tensor's values; pass a list of ints")
    equal(x.shape[d], Integer(total))
    if isinstance(indices_or_sections, (tuple, list)):
        ends = [*(int(i) for i in cast("Sequence[Any]", indices_or_sections)), total]
        places = [min(max(e + total if e < 0 else e, 0), total) for e in ends]
        lengths: list[int] = []
        before = 0
        for place in places:
            lengths.append(max(place - before, 0))
            before = place
        starts = [0, *places[:-1]]
        return tuple(narrowed(x, d, Integer(s), Integer(n)) for s, n in zip(starts, lengths, strict=True))
    count = int(indices_or_sections)
    return cut(x, d, [Integer(total // count + (1 if k < total % count else 0)) for k in range(count)])


@op("unbind", "unbind_copy", targets=(Tensor.__iter__,), view=True)
def unbind(x: Operand, dim: int = 0) -> tuple[Definition, ...]:
    if not x.rank:
        raise TraceError("a tensor without dimensions cannot be iterated over")
    d = axis(dim, x.rank)
    count = value_of(x.shape[d])
    equal(x.shape[d], Integer(count))
    return tuple(picked(x, d, Integer(k)) for k in range(count))


def picked(x: Operand, dim: int, at: Expr) -> Definition:
    """One entry of a dimension, which goes."""
    shape = [s for d, s in enumerate(x.shape) if d != dim]
    rest = list(indices_of(shape))
    return define(shape, rest, x[(*rest[:dim], at, *rest[dim:])])


@op("select", "select_copy", view=True)
def select(x: Operand, dim: int, index: Any) -> Definition:
    d = axis(dim, x.rank)
    k = expression(index)
    return picked(x, d, (x.shape[d] + k) if value_of(k) < 0 else k)


def tiled(x: Operand, times: Sequence[Expr]) -> Definition:
    """Copies of a tensor side by side, `times` along each dimension."""
    lead = len(times) - x.rank
    old = [Integer(1)] * lead + list(x.shape)
    shape = [(s * t) for s, t in zip(old, times, strict=True)]
    at = indices_of(shape)
    source = [remainder(i, s, t) for i, s, t in zip(at, old, times, strict=True)]
    return define(shape, at, x.element(*source[lead:]))


def remainder(i: Expr, size: Expr, times: Expr) -> Expr:
    """The place within one copy."""
    return i if times == 1 else sp.S.Zero if size == 1 else cast("Expr", Rem(i, size))


@op("repeat")
def repeat(x: Operand, *sizes: Any) -> Definition:
    return tiled(x, [expression(s) for s in flat(sizes)])


@op("tile")
def tile(x: Operand, *dims: Any) -> Definition:
    times = [expression(s) for s in flat(dims)]
    return tiled(x, [Integer(1)] * (x.rank - len(times)) + times)


def each_repeated(x: Operand, repeats: Any, dim: int) -> Definition:
    """Every entry of a dimension a number of times."""
    d, times = axis(dim, x.rank), expression(repeats)
    shape = [(s * times) if k == d else s for k, s in enumerate(x.shape)]
    at = indices_of(shape)
    return define(shape, at, x.element(*[cast("Expr", Quo(i, times)) if k == d else i for k, i in enumerate(at)]))


REPEATED = Row("repeat_interleave", (), each_repeated)


@composite("repeat_interleave")
def repeat_interleave(x: Any, repeats: Any, dim: Any = None, *, output_size: Any = None) -> Any:
    """Every entry of a dimension (of the flattened tensor without one) a number of times, or each as often as a tensor says."""
    if dim is None:
        x, dim = x.reshape(-1), 0
    if not isinstance(repeats, torch.Tensor):
        with recorded_as(REPEATED):
            return torch.repeat_interleave(x, repeats, dim)
    if output_size is None:
        raise TraceError("repeat_interleave by a tensor has as many entries as its values add up to; pass output_size")
    ends = repeats.expand(x.shape[dim]).cumsum(0)
    return x.index_select(dim, torch.searchsorted(ends, torch.arange(output_size), right=True))


@composite(targets=(PAD_SEQUENCE,))
def pad_sequence(
    sequences: Any, batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Any:
    """Sequences of several lengths as one tensor. Lengths that differ get fixed."""
    given = list(sequences)
    longest = max((x.shape[0] for x in given), default=0)
    padded: list[Any] = []
    for x in given:
        missing = longest - x.shape[0]
        if missing:
            ends = (missing, 0) if padding_side == "left" else (0, missing)
            x = torch.nn.functional.pad(x, (*[0, 0] * (x.dim() - 1), *ends), value=padding_value)
        padded.append(x)
    return torch.stack(padded, 0 if batch_first else 1)


@composite("block_diag")
def block_diag(*tensors: Any) -> Any:
    """Matrices along the diagonal of a larger one; vectors count as rows."""
    blocks = [x.reshape(1, -1) if x.dim() < 2 else x for x in flat(tensors)]
    width = sum(int(b.shape[1]) for b in blocks)
    rows: list[Any] = []
    before = 0
    for b in blocks:
        columns = int(b.shape[1])
        rows.append(torch.nn.functional.pad(b, (before, width - before - columns)))
        before += columns
    return torch.cat(rows)


@composite("cartesian_prod")
def cartesian_prod(*tensors: Any) -> Any:
    """Every choice of one entry of each vector, as rows."""
    given = flat(tensors)
    if len(given) == 1:
        return given[0]
    return torch.stack([g.reshape(-1) for g in cast("Any", torch).meshgrid(*given, indexing="ij")], 1)


@composite("combinations")
def combinations(x: Any, r: int = 2, with_replacement: bool = False) -> Any:
    """Every choice of two entries of a vector in their order, as rows."""
    if r != 2:
        raise TraceError(
            f"combinations of {r} are not in the table; stack x[first], x[second], ... at indices of your own"
        )
    n = x.shape[0]
    first, second = torch.triu_indices(n, n, 0 if with_replacement else 1)
    return torch.stack([x[first], x[second]], 1)


@composite("masked_scatter")
def masked_scatter(x: Any, mask: Any, source: Any) -> Any:
    """Where a mask holds, the next entry of `source` in the order of all elements."""
    shape = broadcast_shapes(x.shape, mask.shape)
    chosen = mask.expand(shape)
    place = (chosen.reshape(-1).cumsum(0) - 1).clamp(min=0)
    return torch.where(chosen, source.reshape(-1)[place].reshape(shape), x)
