"""Whether an emitted expression keeps the dtype of the tensors in it.

torch makes float32 (its default dtype) of what numbers, integers and truth values become by themselves: `1 / counts`,
`mask * 1.0`, `torch.where(mask, 0.1, 0)`. Beside a float64 tensor that has dimensions the result is float64 again, but
a third has been rounded to seven digits by then; beside a float64 scalar it stays float32.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from codegen.tensors import T

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.values import TensorInfo

NUMBER, WHOLE, EXACT, INEXACT, SCALAR, TENSOR = range(6)
"""A Python number; integers or truth values; small numbers in the default dtype; others in it; a float tensor without
dimensions; one with dimensions."""
BOOLEAN = ("<", "<=", "==", ">", ">=", "!=", "&", "|", "~")
KEEPING = ("torch.where", "torch.cat", "torch.stack", "torch.einsum")


def rounds(t: T, tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether something in `t`, or `t` itself, is computed in torch's default dtype rather than the tensors' own."""
    seen: list[int] = []
    return _level(t, tensors, seen) in (EXACT, INEXACT) or INEXACT in seen


def _level(t: Any, tensors: Mapping[str, TensorInfo], seen: list[int]) -> int:
    found = _of(t, tensors, seen) if isinstance(t, T) else NUMBER
    seen.append(found)
    return found


def _of(t: T, tensors: Mapping[str, TensorInfo], seen: list[int]) -> int:
    if t.kind in ("number", "size", "slice"):
        return NUMBER
    if t.kind == "name":
        info = tensors.get(t.head)
        return TENSOR if info is None else WHOLE if info.kind != "float" else TENSOR if info.shape else SCALAR
    parts = [_level(a, tensors, seen) for a in _flat(t.args)]
    if t.kind == "binary":
        return _joined(t.head, parts, t)
    if t.kind == "unary":
        return WHOLE if t.head == "~" else parts[0]
    if t.kind == "call":
        return _called(t, parts)
    if t.kind == "method" and t.head in ("new_full", "to", "type_as", "new_ones", "new_zeros"):
        return TENSOR
    return _method(t, parts)


def _flat(args: tuple[Any, ...]) -> list[Any]:
    out: list[Any] = []
    for a in args:
        out.extend(_flat(a) if isinstance(a, tuple) else [a])
    return out


def _joined(symbol: str, parts: list[int], t: T) -> int:
    a, b = sorted(parts)
    if symbol in BOOLEAN:
        return WHOLE
    if b == NUMBER:
        return NUMBER
    if b == WHOLE:
        return INEXACT if symbol == "/" else max(WHOLE, *(_weight(x) for x in t.args))
    if b == SCALAR and a in (EXACT, INEXACT):
        return INEXACT
    if b == EXACT and symbol in ("/", "**"):
        return INEXACT
    return b


def _weight(t: Any) -> int:
    """What an integer tensor becomes beside a number: WHOLE, EXACT where float32 has the number, else INEXACT."""
    if not isinstance(t, T):
        return WHOLE
    if t.kind == "number":
        value = float(t.head)
        whole = not any(mark in t.head for mark in ".einf")
        return WHOLE if whole else EXACT if value == struct.unpack("f", struct.pack("f", value))[0] else INEXACT
    if t.kind == "size":
        return WHOLE if t.args[0].is_integer else INEXACT
    if t.kind == "binary" and t.head == "/":
        return INEXACT
    return max((_weight(a) for a in t.args), default=WHOLE) if t.kind in ("binary", "unary") else WHOLE


def _called(t: T, parts: list[int]) -> int:
    if t.head.startswith("math."):
        return NUMBER
    if t.head == "torch.where":
        chosen = max(parts[1:])
        if chosen > NUMBER:
            return INEXACT if chosen == SCALAR and EXACT in parts[1:] else chosen
        return max(_weight(x) for x in t.args[1:])
    if t.head in KEEPING:
        return max(parts)
    return WHOLE if t.head in ("torch.arange", "torch.tensor") else max([TENSOR, *parts])


def _method(t: T, parts: list[int]) -> int:
    first = parts[0] if parts else TENSOR
    if first == WHOLE and t.kind == "method":
        whole = ("sum", "amax", "abs", "sign", "neg", "relu", "floor", "clone", "expand", "expand_as", "view", "reshape")
        same = t.head in whole or t.head in ("unsqueeze", "squeeze", "permute", "transpose", "flatten", "unflatten")
        return WHOLE if same else INEXACT
    if t.head == "sum" and len(t.args) == 1 and first == TENSOR:
        return SCALAR
    return first
