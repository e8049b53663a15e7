"""What a mask chooses in a trace, as data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from engine.errors import TraceError
from engine.located import located
from engine.proxy import plain_subclass, without_modes

if TYPE_CHECKING:
    from engine.proxy import Record


class Selected(torch.Tensor):
    """`x[mask]` in a trace, for a mask of the dimension `at`.

    `raw` are all entries as they are, `full` all of them with one that is chosen in the place of those that are not (None
    until something is computed with it). `by` is the mask as it was given, of which `mask` is one dimension.
    What are the places of the mask itself along a dimension of it have that dimension as `place`. `family` is shared with what lies
    in the same memory, and `stale` says that it was written through another one of these.
    """

    raw: Any
    full: Any
    mask: Any
    by: Record
    at: int
    place: int | None
    family: list[Selected]
    stale: bool
    __torch_function__ = plain_subclass

    @property
    def record(self) -> Record:
        """There is none of these alone: what asks for it does not work on each entry by itself."""
        raise refused("a call")


def refused(what: str) -> TraceError:
    """The error for what needs to know how many entries there are."""
    return TraceError(
        f"{what} at {located()}: x[mask] has as many entries as the mask's values say, and a trace has no values. What "
        "works on each entry by itself is traced, then sum, mean, max, min, a loss of them, or x[mask] = ... at the same mask. "
        "Else use torch.where(mask, x, 0), and mask.sum() for their number."
    )


def chosen(raw: Any, full: Any, mask: Any, by: Record, at: int) -> Selected:
    """Entries, of which a mask chooses."""
    with without_modes():
        s = raw.record.meta.detach().as_subclass(Selected)
    s.raw, s.full, s.mask, s.by, s.at, s.place = raw, full, mask, by, at, None
    s.family, s.stale = [s], False
    return s


def view_of(s: Selected, made: Selected) -> Selected:
    """Entries that lie in the memory of others."""
    made.family = s.family
    made.family.append(made)
    return made


def write(s: Selected, full: Any) -> None:
    """Other values in place. What lies in the same memory is not known any more."""
    s.full, s.place = full, None
    for other in s.family:
        other.stale = other.stale or other is not s


def beside(mask: Any, x: Any, at: int) -> Any:
    """A mask of the dimensions of `x` from `at` on, with ones for those behind."""
    behind = x.dim() - at - mask.dim()
    return mask.reshape([*mask.shape, *[1] * behind]) if behind else mask


def entries_or(s: Selected, other: Any) -> Any:
    """All entries, another number in the place of those that are not chosen."""
    return torch.where(beside(s.mask, s.raw, s.at), s.raw if s.full is None else s.full, other)
