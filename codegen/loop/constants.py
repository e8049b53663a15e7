"""A constant tensor as an expression that says what it is: every form is found by its values and used where it gives them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from codegen.loop.calls import number

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = {
    2: "two",
    0.5: "half",
    1: "one",
    0: "zero",
    -1: "minus_one",
    3: "three",
    4: "four",
    -math.inf: "minus_inf",
    math.inf: "inf",
}
LARGEST = 1000
"""Whose square roots are told from other numbers."""


def shortest(t: Tensor) -> float | int | bool:
    """The number that a tensor of one element holds: of all that are rounded to it the one with the fewest digits."""
    value = t.item()
    if t.dtype != torch.float32 or not math.isfinite(value):
        return value
    return float(str(np.float32(value)))


def number_text(t: Tensor) -> str:
    """A single number as Python: a root as a root."""
    value = shortest(t)
    square = rooted(value, t.dtype)
    return f"{square} ** 0.5" if square else number(value)


def rooted(value: float, dtype: torch.dtype) -> int:
    """The whole number whose square root a number is; 0 for other numbers, and for whole ones."""
    if not isinstance(value, float) or not 1 < value < LARGEST or value.is_integer():
        return 0
    square = round(value * value)
    return square if torch.tensor(square**0.5, dtype=dtype) == torch.tensor(value, dtype=dtype) else 0


def number_name(value: float, dtype: torch.dtype = torch.float64) -> str:
    """What a number is called."""
    square = rooted(value, dtype)
    text = f"{abs(value):g}" if float(f"{value:g}") == value else repr(abs(value))
    text = re.sub(r"e(-?)\+?0*", lambda m: "e_minus_" if m[1] else "e", text)
    return NAMES.get(value) or (f"sqrt_{square}" if square else f"{'minus' if value < 0 else 'number'}_{text}")


def constant_name(t: Tensor) -> str:
    """What a constant is called, by what it is."""
    if not t.dim():
        return number_name(shortest(t), t.dtype)
    text = literal(t)
    value = shortest(t.reshape(-1)[0]) if t.numel() else 0
    if text.startswith("torch.full(") and 0 < value < 1 and 1 / value == round(1 / value) and ".tri" not in text:
        return f"ones_over_{round(1 / value)}"
    if ".triu(" in text and ".tril(" in text:
        return "diagonals"
    named = (
        (".triu(", "above_diagonal"), (".tril(", "below_diagonal"), ("torch.zeros(", "zeros"), ("torch.ones(", "ones"),
        ("torch.full(", "filled"), ("torch.eye(", "eye"), ("torch.arange(", "arange"),
    )  # fmt: skip
    return next((name for part, name in named if part in text), "constant")


def literal(t: Tensor) -> str:
    """A constant as an expression."""
    if not t.is_complex():
        for text in forms(t):
            made = eval(text, {"torch": torch, "float": float})  # noqa: S307  # the text that was just made here
            if same(made, t):
                return text
    return f"torch.tensor({listed(t)}, dtype={t.dtype})"


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same, zeros with their signs."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    return bool(torch.isclose(a, b, rtol=0, atol=0, equal_nan=True).all()) and torch.equal(a.signbit(), b.signbit())


def listed(t: Tensor) -> str:
    """Nested lists of numbers."""
    if not t.dim():
        return str(t.item()) if t.is_complex() else number_text(t)
    return f"[{', '.join(listed(x) for x in t)}]"


def forms(t: Tensor) -> Iterator[str]:
    """What a constant may be."""
    if not t.numel():
        yield uniform(t.shape, torch.zeros((), dtype=t.dtype))
        return
    first = t.reshape(-1)[0]
    if bool((t == first).all()):
        yield uniform(t.shape, first)
        return
    if t.dim() == 1 and t.dtype == torch.int64:
        yield arange(t)
    if t.dim() == 2 and bool((t != 0).any()):
        yield from bands(t)
    if t.dtype in (torch.int64, torch.float32, torch.float64):
        yield from ranges(t)
    for d in range(t.dim()):
        if t.shape[d] > 1 and bool((t == t.narrow(d, 0, 1)).all()):
            counts = ", ".join(str(n) if k == d else "1" for k, n in enumerate(t.shape))
            one = f"{literal(t.select(d, 0))}{f'.unsqueeze({d})' if d else '[None]'}"
            yield f"{one}.repeat({counts})"


def uniform(shape: tuple[int, ...], value: Tensor) -> str:
    """A tensor with one value everywhere."""
    text = number_text(value)
    kind = "zeros" if value == 0 and not value.signbit() else "ones" if value == 1 else "full"
    return f"torch.{kind}({tuple(shape)}{f', {text}' if kind == 'full' else ''}, dtype={value.dtype})"


def arange(t: Tensor) -> str:
    """Whole numbers with one step between them."""
    start, by = int(t[0]), int(t[1]) - int(t[0])
    stop = start + by * len(t)
    return (
        f"torch.arange({f'{start}, {stop}, {by}' if by != 1 else f'{start}, {stop}' if start else stop})"
        if by
        else "torch.arange(0)"
    )


def bands(t: Tensor) -> Iterator[str]:
    """One value on a run of diagonals, zeros elsewhere: a unit matrix, what is above the diagonal, what is below."""
    places = t.nonzero()
    apart = places[:, 1] - places[:, 0]
    low, high = int(apart.min()), int(apart.max())
    value = t[int(places[0, 0]), int(places[0, 1])]
    rows, columns = t.shape
    if low == high == 0 and t.dtype != torch.bool:
        yield f"torch.eye({rows}, {columns}, dtype={t.dtype})" + ("" if value == 1 else f" * {number_text(value)}")
    above = f".triu({low or ''})" if low > 1 - rows else ""
    below = f".tril({high or ''})" if high < columns - 1 else ""
    yield f"{uniform((rows, columns), value)}{above}{below}"


def ranges(t: Tensor) -> Iterator[str]:
    """Numbers that grow by one step along every dimension."""
    first = t[(0,) * t.dim()]
    kind = "" if t.dtype == torch.int64 else f", dtype={t.dtype}"
    terms: list[str] = []
    for d, n in enumerate(t.shape):
        step = t.select(d, min(1, n - 1))[(0,) * (t.dim() - 1)] - first
        behind = t.dim() - 1 - d
        at = f"[:{', None' * behind}]" if behind else ""
        terms.append(f"torch.arange({n}{kind}){at}" + ("" if step == 1 else f" * {number_text(step)}"))
    if first != 0:
        terms.append(number_text(first))
    yield f"({' + '.join(terms)})" if len(terms) > 1 else terms[0]


__all__ = ["constant_name", "literal", "number_name", "number_text", "shortest"]
