"""The places where a mask holds, `torch.where(mask)` and `mask.nonzero()`: what is read or written at them is what the mask chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from engine.chosen import Selected, refused
from engine.proxy import Proxy
from engine.selected import alike, as_written, selected

if TYPE_CHECKING:
    from engine.tracer import Tracer


def places(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The places of a mask, along each of its dimensions; of `nonzero` without `as_tuple` as the rows of a matrix.

    Raises TraceError for a tensor without dimensions.
    """
    (mask,) = [a for a in (*args, *kwargs.values()) if isinstance(a, Proxy)]
    rank, is_mask = mask.record.meta.dim(), mask.record.meta.dtype == torch.bool
    if not rank:
        raise refused(f"{name} of a tensor without dimensions")
    with as_written(tracer):
        holds: Any = mask if is_mask else mask != 0
        sizes = holds.shape
        numbers = [torch.arange(n).reshape([-1 if k == d else 1 for k in range(rank)]) for d, n in enumerate(sizes)]
        along = [n.expand(sizes) for n in numbers] if rank > 1 else numbers
        whole = None if name == "where" or kwargs.get("as_tuple") else torch.stack(along, -1)
    found: list[Selected] = [
        selected(tracer, cast("Proxy", at), holds) for at in ([whole] if whole is not None else along)
    ]
    for k, s in enumerate(found):
        s.place = k if whole is None or rank == 1 else None
    return tuple(found) if whole is None else found[0]


def of_masks(item: Any, read: bool) -> Any:
    """What stands in the brackets of an indexing, with the mask where the places of all its dimensions follow one another.

    As it is where it is read and numbers or other tensors stand beside: what is read at places is a gather then.
    """
    several = isinstance(item, tuple)
    items: list[Any] = list(cast("tuple[Any, ...]", item)) if several else [item]
    out: list[Any] = []
    while items:
        first = items[0]
        rank = first.by.meta.dim() if isinstance(first, Selected) else 0
        group = items[:rank]
        whole = rank and len(group) == rank and all(is_place(s, first, k) for k, s in enumerate(group))
        out.append(Proxy.of(first.by) if whole else first)
        items = items[rank if whole else 1 :]
    if read and sum(isinstance(i, (int, torch.Tensor)) for i in out) > 1:
        return item
    return tuple(out) if several else out[0]


def is_place(s: Any, first: Selected, k: int) -> bool:
    """Whether something is the places of the same mask as `first` along its dimension `k`."""
    return isinstance(s, Selected) and s.place == k and alike(s.by, first.by)
