"""Tensors that are made anew: which tensor each takes its dtype and device from, so that emitted code follows its inputs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from codegen.closed.write.places import put
from codegen.lowering import tensors as tt
from codegen.lowering.values import Val, is_scalar
from engine.sizes import evaluate

if TYPE_CHECKING:
    from sympy import Expr

    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.structure import Structure
    from codegen.lowering.lower import Scatter
    from codegen.lowering.tensors import T
    from codegen.steps import Used


VIEWS = frozenset(
    [
        "unsqueeze",
        "squeeze",
        "expand",
        "view",
        "reshape",
        "permute",
        "transpose",
        "flatten",
        "unflatten",
        "diagonal",
        "to",
    ]
)
"""Methods whose result may be the tensor itself, in another shape."""


class Likes:
    """Makes tensors for the forward like an input, and for the backward like a cotangent that the caller gives."""

    def __init__(self, structure: Structure, ranks: dict[str, int]) -> None:
        self.structure = structure
        self.graph = structure.graph
        self.ranks = ranks

    def given(self, k: int) -> str:
        """What the caller's cotangent of a result is called."""
        return "grad_out" if self.graph.single else f"grad_out_{k}"

    def from_inputs(self, dtype: Any) -> str:
        """The input that constants of the forward are made from: of the same dtype if there is one."""
        inputs = self.graph.inputs
        return next((n for n in inputs if self.graph[n].dtype == dtype), inputs[0])

    def smallest(self, like: str) -> str:
        """The smallest input that has the dtype of an input: what is made from it is not made from more than that."""
        if like not in self.graph.inputs:
            return like
        alike = [n for n in self.graph.inputs if self.graph[n].dtype == self.graph[like].dtype]
        return min(alike, key=lambda n: self.elements(self.graph[n].shape))

    def elements(self, shape: tuple[Expr, ...]) -> int:
        """The number of elements of a shape at the sizes of the example."""
        return math.prod(evaluate(n, self.graph.example) for n in shape)

    def from_cotangents(self, dtype: Any) -> str:
        """The cotangent that constants of the backward are made from: of the same dtype if there is one."""
        live = [k for k, o in enumerate(self.graph.outputs) if o in self.structure.live]
        return self.given(next((k for k in live if self.graph[self.graph.outputs[k]].dtype == dtype), live[0]))

    def precision(self, cell: Cell) -> str | None:
        """An input that has the precision of a cell."""
        return next((i for i in self.graph.inputs if self.graph[i].dtype == cell.dtype and cell.kind == "float"), None)

    def dtype_of(self, like: str) -> Any:
        """The dtype of an input, or of the result that a given cotangent belongs to."""
        given = {self.given(k): o for k, o in enumerate(self.graph.outputs)}
        return self.graph[given.get(like, like)].dtype

    def dtype_text(self, dtype: Any, like: str) -> T:
        """A dtype: that of the input `like` where it has it, so that the emitted code follows its inputs."""
        return tt.attribute(tt.name(like), "dtype") if self.dtype_of(like) == dtype else tt.name(str(dtype))

    def constant(self, value: T, shape: tuple[Expr, ...], dtype: Any, like: str) -> T:
        """A number as a tensor: of `shape` and `dtype`, where the tensor `like` is."""
        keywords = {} if self.dtype_of(like) == dtype else {"dtype": tt.name(str(dtype))}
        like = self.smallest(like)
        sizes = tuple(tt.size(n) for n in shape)
        if value == tt.number(0):
            return tt.method(tt.name(like), "new_zeros", sizes, **keywords)
        return tt.method(tt.name(like), "new_full", sizes, value, **keywords)

    def zeros(self, shape: tuple[Expr, ...], values: list[T], like: str) -> T:
        """Zeros of a shape, like the smallest floating-point tensor that the values for them read."""
        floats = [x for v in values for x in tt.walk(v) if self.is_float(x)]
        least = min(floats, key=lambda x: self.size_of(str(x.head)), default=tt.name(self.smallest(like)))
        return tt.method(least, "new_zeros", tuple(tt.size(s) for s in shape))

    def size_of(self, name: str) -> float:
        """The number of elements of a tensor at the example's sizes; of one that is none of the graph's, more than any."""
        cell = self.structure.by_name.get(name)
        return float("inf") if cell is None else self.elements(cell.shape)

    def zero_cotangent(self, c: Cell, values: list[T]) -> T:
        """Zeros of a cell's shape, with the dtype of a tensor that is there."""
        if c.node is not None and c.node.is_input:
            return tt.call("torch.zeros_like", tt.name(c.name))
        return self.zeros(c.shape, values, self.from_cotangents(c.dtype))

    def is_float(self, t: T) -> bool:
        """Whether an expression is the name of a floating-point tensor: a cotangent, or a cell of that kind."""
        cell = self.structure.by_name.get(str(t.head))
        made = t.head in self.ranks and t.head not in self.structure.masks
        return t.kind == "name" and made and (cell is None or cell.kind == "float")

    def put(self, target: str, s: Scatter, alone: bool, dtype: Any, like: str, used: Used) -> str:
        """One statement that puts or adds values into places of `target`, and what it reads noted in `used`."""
        if s.accumulate and is_scalar(s.value):
            s = replace(s, value=self.constant(s.value, (), dtype, like))
        elif (
            s.kind == "int" and dtype.is_floating_point and not all(is_scalar(i) or i.kind == "slice" for i in s.items)
        ):
            s = replace(s, value=tt.method(s.value, "to", self.dtype_text(dtype, like)))  # as `index_put_` asks for
        for t in (*s.items, s.value):
            used.see(t)
        return put(target, s, alone)


def covers(v: Val, shape: tuple[Expr, ...]) -> bool:
    """Whether a tensor has every dimension of a shape in full, so that it needs no expansion."""
    return (
        not v.is_number
        and len(v.axes) == len(shape)
        and all(a is not None or n == 1 for a, n in zip(v.axes, shape, strict=True))
    )


def may_be_view(t: T) -> bool:
    """Whether an expression may be the memory of a tensor that is there, so that a copy of it is written into."""
    if (
        t.kind == "method" and t.head == "to"
    ):  # a copy of what is computed here, whether it has that type already or not
        inner: Any = t.args[0]
        return may_be_view(inner)
    return t.kind in ("name", "attribute", "item") or (t.kind == "method" and t.head in VIEWS)


def expanded(t: T, shape: tuple[Expr, ...]) -> T:
    """A tensor at every place of a shape."""
    return tt.method(t, "expand", *[tt.size(s) for s in shape])


__all__ = ["Likes", "covers", "expanded", "may_be_view"]
