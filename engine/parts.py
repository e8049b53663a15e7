"""Tensors that show a part of another one, or all of it in another shape: how they are taken, and how writes go back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from engine.ops.assignment import setitem

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.proxy import Proxy
    from engine.table import Row

RESHAPED = frozenset(("view", "view_as", "unflatten", "squeeze", "unsqueeze"))
"""Calls that show all elements in their order. (`reshape` and `flatten` may copy, which depends on strides.)"""
PERMUTED = frozenset(("permute", "transpose", "t", "mT", "movedim"))
"""Rows of calls that show all elements with dimensions in another order."""


def _selected(whole: Any, new: Any, dim: int, index: Any) -> Any:
    return torch.select_scatter(whole, new, dim, index)


def _narrowed(whole: Any, new: Any, dim: int, start: Any, length: Any) -> Any:
    first = start + whole.shape[dim] if start < 0 else start
    return torch.slice_scatter(whole, new, dim, first, first + length)


def _on_diagonal(whole: Any, new: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    return torch.diagonal_scatter(whole, new, offset, dim1, dim2)


def _indexed(whole: Any, new: Any, item: Any) -> Any:
    return setitem(whole, item, new)


WRITTEN: dict[str, Callable[..., Any]] = {
    "__getitem__": _indexed,
    "select": _selected,
    "narrow": _narrowed,
    "diagonal": _on_diagonal,
}
"""By row, a whole with a part replaced, for the arguments of the call that took the part."""


@dataclass(frozen=True)
class Part:
    """What a tensor shows of `whole`: `row`'s `call` of it with these arguments, with or without gradients (`grad`)."""

    whole: Proxy
    row: Row
    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    grad: bool

    def put(self, new: Any) -> Any:
        """The whole with these values in the part."""
        if self.row.name in PERMUTED:
            return new.permute(self._back()) if new.dim() != 2 or self._back() == [0, 1] else new.t()
        if self.row.name in WRITTEN:
            args, kwargs = self.row.arguments((None, *self.args), self.kwargs)
            return WRITTEN[self.row.name](self.whole, new, *args[1:], **kwargs)
        return new.reshape(self.whole.shape)

    def _back(self) -> list[int]:
        """The permutation that undoes the call, which is found on dimensions that are all of another size."""
        probe = torch.empty([d + 2 for d in range(self.whole.dim())], device="meta")
        order = [s - 2 for s in self.call(probe, *self.args, **self.kwargs).shape]
        return [order.index(d) for d in range(len(order))]


def part(row: Row, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Part | None:
    """The part that a call shows of its first argument; None where writes into its result do not go back."""
    known = call.__name__ in RESHAPED or row.name in PERMUTED or row.name in WRITTEN
    return Part(args[0], row, call, args[1:], kwargs, torch.is_grad_enabled()) if known else None
