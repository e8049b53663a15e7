"""Calls of a step that are no operators of torch, as functions: what the batch gives for many steps, and sums of rows."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from codegen.loop.graph import Node, mapped, packet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


def places(x: Tensor, count: int, symbols: int) -> Tensor:
    """Rows of the table that a batch reads. See `codegen.loop.tables`."""
    return (x.reshape(-1, count) + torch.arange(count) * symbols).reshape(-1)


def spread(at: Sequence[Tensor], amount: Any, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """`amount` at the given places and zeros elsewhere."""
    return torch.zeros(tuple(shape), dtype=dtype).index_put(tuple(at), torch.tensor(amount, dtype=dtype))


def spread_rows(column: Tensor, amount: Any, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """`amount` at one column of every row and zeros elsewhere."""
    return torch.where(torch.arange(shape[1]) == column[:, None], amount, 0.0).to(dtype)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (of all rows, not one less) of every column."""
    return x.mean(0), x.var(0, unbiased=False)


def turned(x: Tensor) -> Tensor:
    """All symbols of a batch, place by place. See `codegen.loop.turned`."""
    return x.reshape(len(x), -1).T.reshape(-1)


def bag(values: Tensor, indices: Tensor, starts: Tensor) -> Tensor:
    """Sums of rows."""
    return torch.ops.aten._embedding_bag_forward_only(values, indices, starts, False, 0, False, None, False, -1)[0]


def part(whole: Sequence[Tensor], k: int) -> Tensor:
    """One of several results."""
    return whole[k]


def onehot(flat: Tensor, width: int, symbols: int = 0) -> Tensor:
    """Where each index is; of `symbols` that there are, if there are fewer than columns."""
    return torch.arange(width) == flat[:, None]


def counts(flat: Tensor, places: int, symbols: int) -> Tensor:
    """How often each symbol is among the places of every row. See `codegen.loop.bags`."""
    x = flat.reshape(-1, places)
    return torch.zeros(len(x), symbols, dtype=torch.int64).scatter_add(1, x, torch.ones_like(x))


def order(at: Tensor, count: int) -> Tensor:
    """The row that each place belongs to, places of equal symbols beside one another."""
    return torch.sort(at, stable=True).indices // count


def begins(at: Tensor, count: int) -> Tensor:
    """Where each symbol begins among the sorted places."""
    return torch.searchsorted(torch.sort(at).values, torch.arange(count))


def bracket(x: Tensor, y: Any, comparison: str) -> Tensor:
    """Iverson's bracket: 1 where a comparison holds and 0 elsewhere, in the dtype of what is compared."""
    return packet(comparison)(x, y).to(x.dtype)


def repeated(x: Tensor, kernel: Sequence[int], stride: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Every entry at each place of its window, in planes of these sizes; where windows overlap, they are added."""
    out = x.new_zeros((*x.shape[:-2], *sizes))
    for at in windows(x.shape, kernel, stride):
        out[..., *(slice(*a) for a in at)] += x
    return out


def windows(shape: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> Iterator[list[tuple[int, int, int]]]:
    """For each place of a window where those places are, of so many windows: begin, end and step of both dimensions."""
    for place in product(*map(range, kernel)):
        yield [(k, k + by * (count - 1) + 1, by) for k, by, count in zip(place, stride, shape[-2:], strict=True)]


OWN: dict[str, Callable[..., Any]] = {
    "part": part,
    "onehot": onehot,
    "counts": counts,
    "places": places,
    "turned": turned,
    "order": order,
    "begins": begins,
    "bag": bag,
    "moments": moments,
    "repeated": repeated,
    "bracket": bracket,
}
"""Calls that are no operators of torch."""


def evaluated(n: Node, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """The value of a call for these arguments."""
    if n.op == "spread":
        return spread(args[0], args[1], args[2], n.value.dtype)
    if n.op in OWN:
        out = OWN[n.op](*args)
        return out.to(n.value.dtype) if n.op in ("onehot", "counts") else out
    if n.write:
        return changed(n, args, named)
    f = packet(n.op)
    return (getattr(f, n.overload) if n.overload else f)(*args, **named)


def changed(n: Node, args: Sequence[Any], named: Mapping[str, Any]) -> Tensor:
    """A tensor after a call that changes a part of it."""
    out = view = args[0].clone()
    for op, inside in n.path:
        view = packet(op)(view, *mapped(inside, lambda a: a))
    getattr(view, f"{n.op}_")(*args[1:], **named)
    return out
