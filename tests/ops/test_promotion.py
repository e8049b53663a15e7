"""Type promotion: results and gradients have torch's dtypes and values where tensors and numbers of several kinds meet."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils import _pytree as pytree

import codegen

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Forward = Callable[..., Any]

F32, F64, F16, BF16 = torch.float32, torch.float64, torch.float16, torch.bfloat16
I64, I32, I16, I8, U8, BOOL = torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool


def tensor(dtype: torch.dtype, *shape: int) -> Tensor:
    """Numbers from 1 on, both truth values, or floats that every dtype holds."""
    count = torch.Size(shape).numel()
    if dtype == BOOL:
        return (torch.arange(count) % 2 == 0).reshape(shape)
    values = torch.arange(1, count + 1).reshape(shape)
    return values.to(dtype) if not dtype.is_floating_point else (values * 0.75 - 2.5).to(dtype)


BINARY: dict[str, Forward] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: torch.sub(x, y) if BOOL not in (x.dtype, y.dtype) else x + ~y if y.dtype == BOOL else x * y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "pow": lambda x, y: x**y if y.dtype != BOOL else x * y,
    "less": lambda x, y: torch.where(x < y, x, y),
    "maximum": torch.maximum,
    "atan2": torch.atan2,
    "stack": lambda x, y: torch.stack([x, y]),
    "cat": lambda x, y: torch.cat([y, x, y]),
    "addcmul": lambda x, y: torch.addcmul(x.double(), x.double(), y.double(), value=2),
    "hypot": lambda x, y: (x * x + y * y + 1).sqrt(),
}
OTHERS = (I64, I32, U8, BOOL, F32, F64)

NUMBERS: dict[str, Forward] = {
    "int": lambda x: x + 2,
    "float": lambda x: x * 0.1,
    "bool": lambda x: x * True,
    "reflected": lambda x: (1 - x) * 3 + 2 / (x * x + 1),
    "power": lambda x: x**2 + (x * x + 1) ** 0.5 + 2 ** (x / 4),
    "remainder": lambda x: x % 2 + (x + 3) % 0.75,
    "floor division": lambda x: x * (x.detach() // 2) + (x.detach() // 0.75),
    "clamp": lambda x: x.clamp(-1, 2) + x.clamp(min=0) + x.clamp(max=0.5),
    "where": lambda x: torch.where(x > 0, x, 0) + torch.where(x > 0, 1.5, x),
    "comparison": lambda x: (x > 1) * x + (x == x) + (x >= 0).float() * x,
    "zero-dim": lambda x: x + torch.tensor(2.5, dtype=F64) * torch.tensor(3),
    "zero-dim product": lambda x: x * torch.tensor(0.1),
    "fill": lambda x: x.masked_fill(x > 0, 1) + torch.full_like(x, 2),
    "count": lambda x: x * (x > 0).sum() + (x > 0).sum(0),
    "arange": lambda x: x * torch.arange(x.shape[0]) + torch.arange(x.shape[0], dtype=F64),
    "arange floats": lambda x: x + torch.arange(x.shape[0]) / 3,
    "index": lambda x: x + torch.arange(x.shape[0]) ** 2,
    "one-hot": lambda x: x[:, None] * torch.nn.functional.one_hot(torch.arange(3) % 2, 4),
    "mean": lambda x: x.mean(dtype=F64),
    "sum": lambda x: x.sum(dtype=F64) + x.sum(),
    "prod": lambda x: x.prod(0, dtype=F64),
    "softmax": lambda x: x.softmax(0, dtype=F64),
    "cumsum": lambda x: x.cumsum(0, dtype=F64),
    "to and back": lambda x: x.to(F64).to(x.dtype) * x.float().double(),
    "scalar tensor": lambda x: x * x.new_tensor(2) + x.sum() * x.new_ones(2, 1),
    "boolean sum": lambda x: x * (x > 0).float().mean() + (x > 0).double().mean(),
    "lerp": lambda x: torch.lerp(x, x * 2, 0.25),
    "rounded": lambda x: x * x.detach().round().long() + x.detach().long() // 2,
}

WHOLE: dict[str, Forward] = {
    "sum": lambda k: k.sum(),
    "sum over": lambda k: k.sum(0),
    "prod": lambda k: k.prod(0),
    "mean": lambda k: k.float().mean() if k.dtype != BOOL else k.double().mean(0),
    "quotient": lambda k: k / 4,
    "of two": lambda k: k / k.new_full((), 3),
    "power": lambda k: k**2 if k.dtype != BOOL else k & k,
    "floor division": lambda k: k // 2 if k.dtype != BOOL else ~k,
    "remainder": lambda k: (k - 3) % 2 if k.dtype not in (BOOL, U8) else k,
    "comparison": lambda k: (k > 1) == (k < 3),
    "float": lambda k: k * 1.5,
    "sqrt": lambda k: (k * 1.0).sqrt(),
    "exp": lambda k: k.exp(),
    "cumsum": lambda k: k.cumsum(0),
    "where": lambda k: torch.where(k > 1, k, 0),
    "clamp": lambda k: k.clamp(0, 2) if k.dtype != BOOL else k,
    "maximum": lambda k: torch.maximum(k, k.flip(0)),
    "abs": lambda k: k.abs() if k.dtype != BOOL else k | k,
    "any": lambda k: (k > 1).any(),
    "argmax": lambda k: k.int().argmax(),
}


def check(forward: Forward, *inputs: Tensor, mode: str) -> None:
    """Results and gradients of one forward against torch's: equal dtypes, and values as near as the dtype lets them be."""
    leaves = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    wanted = pytree.tree_leaves(forward(*leaves))
    program = codegen.generate(forward, *inputs, mode=mode)
    out, saved = program.forward(*inputs)
    coarsest = min((x.dtype for x in leaves if x.is_floating_point()), key=lambda d: -torch.finfo(d).eps)
    seeds = [torch.ones_like(o) if o.requires_grad else None for o in wanted]
    for mine, theirs in zip(pytree.tree_leaves(out), wanted, strict=True):
        same(mine, theirs.detach(), coarsest, program.source)
    asked = [x for x in leaves if x.requires_grad]
    live = [(o, g) for o, g in zip(wanted, seeds, strict=True) if g is not None]
    if not live or not asked:
        return
    gradients = torch.autograd.grad([o for o, _ in live], asked, [g for _, g in live], allow_unused=True)
    found = program.backward(saved, seeds[0] if program.graph.single else seeds)
    names = [n for n, x in zip(program.graph.inputs, leaves, strict=True) if x.requires_grad]
    for name, x, g in zip(names, asked, gradients, strict=True):
        same(found[name], torch.zeros_like(x) if g is None else g, coarsest, program.source)


def same(mine: Tensor, theirs: Tensor, coarsest: torch.dtype, source: str) -> None:
    """One tensor of each. torch itself computes some derivatives in the dtype of the coarser input."""
    bound = {F64: 1e-12, F32: 2e-6, F16: 4e-3, BF16: 3e-2}[coarsest] if theirs.is_floating_point() else 0
    torch.testing.assert_close(mine, theirs, rtol=bound, atol=bound, equal_nan=True, msg=lambda m: f"{m}\n{source}")


MODES = pytest.mark.parametrize("mode", ["steps", "closed"])


@MODES
@pytest.mark.parametrize("name", BINARY)
@pytest.mark.sampled("name")
def test_two_tensors(name: str, mode: str) -> None:
    """A float beside every kind, whole tensors and 0-dim ones, on either side."""
    for floating, other in product((F32, F64), OTHERS):
        if name == "atan2" and not other.is_floating_point:
            continue
        x, y = tensor(floating, 3, 2), tensor(other, 3, 2)
        check(BINARY[name], x, y, mode=mode)
        if name not in ("stack", "cat"):
            check(BINARY[name], tensor(floating), y, mode=mode)
            check(BINARY[name], x, tensor(other), mode=mode)
        if name not in ("pow", "sub"):
            check(BINARY[name], y, x, mode=mode)


@MODES
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.sampled("name")
def test_a_tensor_and_numbers(name: str, dtype: torch.dtype, mode: str) -> None:
    check(NUMBERS[name], tensor(dtype, 3), mode=mode)
    if name not in ("arange", "arange floats", "index", "one-hot", "prod", "softmax", "cumsum", "count"):
        check(NUMBERS[name], tensor(dtype, 2, 3), mode=mode)
        check(NUMBERS[name], tensor(dtype), mode=mode)


@MODES
@pytest.mark.parametrize("dtype", [I64, I32, I16, I8, U8, BOOL])
@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.sampled("name")
def test_whole_numbers_beside_a_float(name: str, dtype: torch.dtype, mode: str) -> None:
    """What integers give by themselves, as a result and times a float."""
    forward = WHOLE[name]
    check(lambda x, k: (x * forward(k), forward(k)), tensor(F32, 3), tensor(dtype, 3), mode=mode)
    check(lambda x, k: (x.sum() + forward(k), forward(k)), tensor(F64, 3), tensor(dtype, 3), mode=mode)


@MODES
@pytest.mark.parametrize("dtype", [F16, BF16])
def test_short_floats(dtype: torch.dtype, mode: str) -> None:
    """Among themselves, beside wider floats, beside whole numbers."""
    x = tensor(dtype, 3)
    for forward in (lambda x: x * 2 + 1, lambda x: x * x.float(), lambda x: (x > 0) * x, lambda x: x * torch.arange(3)):
        check(forward, x, mode=mode)
    check(lambda x, y: x * y + x, x, tensor(F32, 3), mode=mode)
    check(lambda x, y: x * y + x, x, tensor(F64), mode=mode)


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("dtypes", [(F64, F32), (F32, F64)], ids=["a longer logit", "a longer target"])
def test_a_target_of_another_dtype_has_a_gradient_of_its_own(
    dtypes: tuple[torch.dtype, torch.dtype], mode: str
) -> None:
    inputs = [tensor(dtypes[0], 4), tensor(dtypes[1], 4)]
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    program = codegen.generate(loss, *inputs, mode=mode)
    leaves = [x.clone().requires_grad_() for x in inputs]
    found = program.value_and_grad(*inputs)[1]
    for name, true in zip(("input", "target"), torch.autograd.grad(loss(*leaves), leaves), strict=True):
        torch.testing.assert_close(found[name], true)
