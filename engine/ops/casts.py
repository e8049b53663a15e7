"""Changes of dtype and layout in memory: the same numbers. What rounds has no derivative."""

from __future__ import annotations

from typing import Any

import torch
from sympy import Expr

from engine.errors import TraceError
from engine.ops.comparison import truth
from engine.ops.pointwise import REALS
from engine.table import Definition, Opaque, Operand, elementwise, op, pointwise

Tensor = torch.Tensor


@elementwise(
    "float",
    "double",
    "half",
    "bfloat16",
    "contiguous",
    "alias",
    "alias_copy",
    "resolve_conj",
    "resolve_neg",
    "real",
    "conj",
    "conj_physical",
    targets=(Tensor.real.__get__,),
    probes=REALS,
    view=True,
)
def same(x: Expr, *_: Any, **__: Any) -> Expr:
    return x


@elementwise("clone", probes=REALS)
def clone(x: Expr, *, memory_format: Any = None) -> Expr:
    return x


def converted(x: Operand, dtype: torch.dtype | None) -> Definition | Opaque:
    """`x` in another dtype: truth values of numbers are a comparison, integers of real numbers are rounded."""
    if dtype is None or dtype.is_floating_point or dtype == x.dtype or (not x.floating and dtype != torch.bool):
        return pointwise(lambda e: e, x)
    if dtype.is_complex:
        raise TraceError(
            "complex numbers are outside of what is derived; keep real and imaginary parts as real tensors"
        )
    return pointwise(lambda e: truth(x, e), x) if dtype == torch.bool else Opaque(x.shape)


@op("to", "type", view=True)
def to(x: Operand, *args: Any, dtype: Any = None, **_: Any) -> Definition | Opaque:
    """`to(dtype)`, `to(other)`, `to(device)`, in any order."""
    for a in args:
        if isinstance(a, Operand):
            dtype = a.dtype
        elif isinstance(a, torch.dtype):
            dtype = a
        elif isinstance(a, str) and a.startswith("torch."):
            dtype = torch.empty(0).type(a).dtype
        elif isinstance(a, type) or "tensortype" in type(a).__name__:
            dtype = a.dtype
    return converted(x, dtype)


@op("type_as")
def type_as(x: Operand, other: Operand) -> Definition | Opaque:
    return converted(x, other.dtype)


def _integer(dtype: torch.dtype) -> Any:
    return lambda x, *, memory_format=None: converted(x, dtype)


for _name, _dtype in (
    ("long", torch.int64),
    ("int", torch.int32),
    ("short", torch.int16),
    ("char", torch.int8),
    ("byte", torch.uint8),
    ("bool", torch.bool),
):
    op(targets=(getattr(Tensor, _name),), view=True)(_integer(_dtype))
