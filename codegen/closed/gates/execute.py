# pyright: basic
"""Torch statements run at numbers: emitted lines, and a region's cells by the forward's own calls."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import torch

from codegen.closed.gates.sizes import shape_at
from codegen.closed.write.line import LIKE, Line
from codegen.helpers import FUNCTIONS
from codegen.lowering import tensors as tt
from codegen.lowering.lower import Lowerer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import CodeType

    from sympy import Expr, Symbol

    from codegen.closed.regions.cells import Cell
    from codegen.closed.regions.region import Region
    from codegen.lowering.values import TensorInfo

DTYPES = {"int": torch.int64, "bool": torch.bool}
"""Of cells that are no floats."""


def scope_of(sizes: Mapping[Symbol, int]) -> dict[str, Any]:
    """What emitted text refers to beside tensors."""
    return {"torch": torch, "math": math, **FUNCTIONS, **{str(s): n for s, n in sizes.items()}}


def by_the_forward(
    region: Region, given: Mapping[str, Any], scope: Mapping[str, Any], sizes: dict[Symbol, int], dtype: torch.dtype
) -> dict[str, Any]:
    """What is given, and every cell of a region by the forward's own torch call, or by its definition where it has none.

    So it is where the call cannot be made at these sizes, as `layer_norm(x, (8,))` that says one of them as a number.
    """
    own, written = dict(given), definitions(region.cells)
    for c in region.cells:
        if c.expr is not None:
            one_by_the_forward(c, own, written, scope, sizes, dtype)
    return own


def one_by_the_forward(
    c: Cell,
    own: dict[str, Any],
    written: Definitions,
    scope: Mapping[str, Any],
    sizes: dict[Symbol, int],
    dtype: torch.dtype,
) -> None:
    """A cell's value, made of those it reads."""
    value = called(c.text, {**scope, **own}, dtype) if c.text is not None else None
    if value is None or tuple(value.shape) != shape_at(c.shape, sizes):
        execute(written.line(c), own, scope, sizes, DTYPES.get(c.kind, dtype))
    else:
        own[c.name] = value
    if not c.differentiable:  # nothing is passed back to it, whatever it is computed from
        own[c.name] = own[c.name].detach()


def called(text: str, everything: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """What a torch call gives where floats are of `dtype`, None where torch refuses it."""
    try:
        return torch.as_tensor(eval(compiled(text, dtype), dict(everything)))  # noqa: S307
    except RuntimeError:
        return None


@lru_cache(maxsize=1)
def definitions(cells: tuple[Cell, ...]) -> Definitions:
    """The definitions of cells. Those of the last cells are remembered: every gate asks for them at every draw."""
    return Definitions({c.name: c.info for c in cells}, {})


@dataclass(frozen=True)
class Definitions:
    """Cells' definitions as statements, each made when it is first asked for."""

    infos: dict[str, TensorInfo]
    lines: dict[str, Line]

    def line(self, c: Cell) -> Line:
        """The definition of a cell."""
        if c.name not in self.lines:
            expr = cast("Expr", c.expr)
            like = LIKE if c.kind == "float" else None
            value = Lowerer(self.infos, {}, like).lower(expr, c.indices, c.shape)
            self.lines[c.name] = Line(c.name, c.indices, c.shape, expr, value)
        return self.lines[c.name]


def execute(
    line: Line,
    tensors: dict[str, Any],
    scope: Mapping[str, Any],
    sizes: dict[Symbol, int],
    dtype: torch.dtype = torch.float32,
    like: torch.dtype | None = None,
) -> None:
    """Run one emitted line, whose value is of `dtype`, computed as `like` where it reads no floats."""
    everything = {**scope, LIKE: torch.zeros((), dtype=like or dtype), **tensors}
    shape = shape_at(line.shape, sizes)
    low, kind = line.value, like or dtype
    dense = 0.0 if low.dense is None else eval(compiled(tt.text(low.dense.t), kind), everything)  # noqa: S307
    value = torch.as_tensor(dense, dtype=dtype).expand(shape)
    if low.scatters:
        value = value.clone()
    everything["_value"] = value
    for s in low.scatters:
        everything["_items"] = eval(  # noqa: S307
            f"_Keep[{', '.join(tt.argument(i) for i in s.items) or '...'}]", {**everything, "_Keep": _Keep()}
        )
        new = eval(compiled(tt.text(s.value), kind), everything)  # noqa: S307
        everything["_new"] = torch.as_tensor(new, dtype=dtype)  # a number would be one of float32 first
        if s.diagonal and s.fills:
            value.diagonal(0, *s.diagonal).fill_(float(everything["_new"]))
        elif s.diagonal:
            value.diagonal(0, *s.diagonal).add_(everything["_new"])
        elif s.fills:
            value[everything["_items"]] = everything["_new"]
        elif s.accumulate:
            places = tuple(torch.as_tensor(i) for i in as_tuple(everything["_items"]))
            value.index_put_(places, everything["_new"], accumulate=True)
        else:
            value[everything["_items"]] += everything["_new"]
    tensors[line.name] = value


@lru_cache(maxsize=2**12)
def compiled(text: str, dtype: torch.dtype) -> CodeType:
    """An expression for `eval`, which reads the same ones at every draw, with the numbers that floats of `dtype` hold.

    A mask of the least float64 is one of the least float32 where that is what errors are measured in.
    """
    tree = ast.parse(text, "<gate>", "eval")
    return compile(_Within(dtype).visit(tree) if dtype.is_floating_point else tree, "<gate>", "eval")


class _Within(ast.NodeTransformer):
    """Finite numbers beyond a dtype's largest one become that one."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.largest = torch.finfo(dtype).max

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        """A number; what is written as infinite stays so."""
        beyond = isinstance(node.value, float) and self.largest < node.value < math.inf
        return ast.copy_location(ast.Constant(self.largest), node) if beyond else node


class _Keep:
    """Hands back what stands between its brackets."""

    def __getitem__(self, items: Any) -> Any:
        return items


def as_tuple(items: Any) -> tuple[Any, ...]:
    """Index items as a tuple."""
    return cast("tuple[Any, ...]", items) if isinstance(items, tuple) else (items,)


__all__ = ["DTYPES", "by_the_forward", "definitions", "execute", "one_by_the_forward", "scope_of"]
