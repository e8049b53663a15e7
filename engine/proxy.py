"""What the forward sees while it is traced: tensors without values, each with the record of the node that it becomes."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch

from engine.located import located
from engine.wholes import kept

if TYPE_CHECKING:
    from sympy import Expr, Symbol

    from engine.graph import Call, Source
    from engine.implicit import Implicit
    from engine.parts import Part
    from engine.table import Definition, Shape

_INTERNALS: Any = vars(torch)["_C"]  # torch has no public names for these two
without_modes = _INTERNALS.DisableTorchFunction
plain_subclass = _INTERNALS._disabled_torch_function_impl


class SymbolicShape(tuple[int, ...]):
    """A shape whose entries are `Dim`s."""

    __slots__ = ()

    def numel(self) -> Any:
        """The number of elements, symbolic."""
        count: Any = 1
        for s in self:
            count = s * count
        return count


class Proxy(torch.Tensor):
    """A tensor of the trace: a meta tensor that knows its record, and what it is a part of."""

    record: Record
    part_of: Part | None
    __torch_function__ = plain_subclass

    @staticmethod
    def of(record: Record) -> Proxy:
        """A tensor of its own for a record: later writes into others are not seen."""
        with without_modes():
            p = record.meta.detach().as_subclass(Proxy)
        p.record, p.part_of = record, None
        return p

    def sized_len(self) -> Any:
        """What `len` of it is during a trace: the first size as a symbol."""
        own = cast("Any", self)
        return own.shape[0] if own.dim() else own.__len__()

    def __getattr__(self, name: str) -> Any:
        """What is asked for where there is nothing of that name."""
        close = [] if name.startswith("_") else difflib.get_close_matches(name, dir(torch.Tensor), n=1)
        hint = f". Did you mean {close[0]!r}?" if close else ""
        where = "" if name.startswith("_") else f", at {located()}"
        raise AttributeError(f"'Tensor' object has no attribute {name!r}{where}{hint}")


@dataclass(eq=False)
class Record:
    """A node while the trace runs, before it has a name."""

    op: str
    operands: tuple[Record, ...]
    template: Definition | None
    sizes: tuple[tuple[Symbol, Expr], ...]
    shape: tuple[Expr, ...]
    meta: torch.Tensor
    differentiable: bool
    source: Source | None
    call: Call | None = None
    output: int | None = None
    outputs: int = 1
    view: bool = False
    value: Any = None
    positive: bool = False
    operand_shapes: tuple[Shape, ...] = ()
    views: list[Record] = field(default_factory=list["Record"])
    stale: bool = False
    is_buffer: bool = False
    wanted: list[tuple[int, int, str]] = field(default_factory=list[tuple[int, int, str]])
    known: torch.Tensor | None = None
    """Integers and truth values as they are at the example, where nothing but such is read."""
    signed: bool = False
    """Whether these are integers that may be below zero."""
    implicit: Implicit | None = None

    @property
    def stored(self) -> list[int]:
        """The dimensions in the order in which torch stores them, outermost first."""
        with without_modes():
            if self.meta.is_contiguous():
                return list(range(self.meta.dim()))
            strides = self.meta.stride()
        return sorted(range(len(strides)), key=lambda d: -strides[d])

    def look_at(self, t: torch.Tensor) -> None:
        """Keep what an input or a constant holds, if it is integers."""
        self.known = kept(t)
        self.signed = self.known is not None and bool((self.known < 0).any())
