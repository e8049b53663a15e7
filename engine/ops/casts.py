"""Changes of dtype and layout in memory: the same numbers. What rounds has no derivative."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from engine.errors import TraceError
from engine.ops.comparison import truth
from engine.ops.pointwise import REALS
from engine.table import Definition, Opaque, Operand, composite, elementwise, op, pointwise

if TYPE_CHECKING:
    from sympy import Expr

Tensor: Any = torch.Tensor


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
        return pointwise(same, x)
    if dtype.is_complex:
        raise TraceError(
            "complex numbers are outside of what is derived; keep real and imaginary parts as real tensors"
        )
    if dtype != torch.bool:
        return Opaque(x.shape)

    def true(e: Expr) -> Any:
        return truth(x, e)

    return pointwise(true, x)


@op("to", "type", view=True)
def to(x: Operand, *args: Any, dtype: Any = None, **_: Any) -> Definition | Opaque:
    """`to(dtype)`, `to(other)`, `to(device)`, in any order."""
    for a in args:
        if isinstance(a, Operand):
            dtype = a.dtype
        elif isinstance(a, torch.dtype):
            dtype = a
        elif str(a).startswith("torch.") and not isinstance(a, torch.memory_format):  # "torch.LongTensor"
            dtype = torch.empty(0).type(str(a)).dtype
    return converted(x, dtype)


@op("type_as")
def type_as(x: Operand, other: Operand) -> Definition | Opaque:
    return converted(x, other.dtype)


@composite("as_tensor", "asarray")
def as_tensor(data: Any, dtype: Any = None, **_: Any) -> Any:
    if not isinstance(data, torch.Tensor):
        raise TraceError("a list of tensors is copied without gradients; use torch.stack")
    return data if dtype is None else data.to(dtype)


def _to(name: str, dtype: torch.dtype) -> None:
    """Register the method that converts to a dtype that is not floating."""

    @op(targets=(getattr(Tensor, name),), view=True)
    def integral(x: Operand, *, memory_format: Any = None) -> Definition | Opaque:
        return converted(x, dtype)


_to("long", torch.int64)
_to("int", torch.int32)
_to("short", torch.int16)
_to("char", torch.int8)
_to("byte", torch.uint8)
_to("bool", torch.bool)
