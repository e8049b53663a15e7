"""Rows that read or write at the places that integer tensors name, and constants that a forward makes."""

from __future__ import annotations

from typing import Any

import torch

from tests.ops.samples.call import Call, b, call, i, named, p, permutation, spelled, t, ties

EXTREMES = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 0.0, 1.5], dtype=torch.float64)


def made(target: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """A constant beside a tensor of the forward, of its first size where `args` say None."""
    return x, target(*[x.shape[0] if a is None else a for a in args], **kwargs)


def constant(*args: Any, **kwargs: Any) -> Call:
    """A factory called by a forward."""
    return spelled(made, t(3, 2), *args, **kwargs)


def set_item(target: Any, x: Any, item: Any, value: Any) -> Any:
    """An assignment to a copy."""
    x = x.clone()
    target(x, item, value)
    return x


def written_in_place(target: Any, x: Any, *args: Any) -> Any:
    """An in-place method on a copy, whose result and whose tensor are the same."""
    y = x * 2
    target(y, *args)
    return y * x


SAMPLES: dict[str, list[Call]] = {
    "index_select": [
        call(t(4, 3), 0, i(4, 5)), call(t(2, 3), 1, i(3, 1)), call(t(1, 3), 0, i(1, 2)), call(t(3), 0, i(3)),
    ],
    "gather": [
        call(t(4, 3), 0, i(4, 2, 3)), call(t(4, 3), 1, i(3, 4, 5)), call(t(2, 3, 4), 1, i(3, 2, 1, 4)),
        call(t(1, 3), 1, i(3, 1, 1)),
    ],
    "take_along_dim": [call(t(4, 3), i(6, 2, 3) - 2, 0), call(t(4, 3), i(3, 1, 2), 1), call(t(2, 3, 4), i(3, 2, 1, 4), 1)],
    "take": [call(t(4, 3), i(12, 5)), call(t(1, 3), i(3, 2, 2)), call(t(2, 3), i(6, 4) - 6)],
    "embedding": [
        call(i(5, 2, 3), t(5, 4)), call(i(5, 3), t(5, 2), padding_idx=-1), call(i(2), t(2, 1)),
        call(i(3, 1), t(3, 2), 0),
    ],
    "one_hot": [call(i(4, 3), 4), call(i(2, 2, 1), num_classes=5)],
    "index_add": [
        call(t(4, 3), 0, i(4, 5), t(5, 3)), call(t(2, 3), 1, i(3, 4), t(2, 4), alpha=2.0),
        call(t(3, 1), 0, i(3, 1), t(1, 1)),
    ],
    "index_fill": [call(t(4, 3), 0, i(4, 2), 1.5), call(t(2, 3), 1, i(3, 4), t())],
    "index_copy": [call(t(4, 3), 0, permutation(4)[:3], t(3, 3)), call(t(2, 3), 1, permutation(3)[:1], t(2, 1))],
    "index_put": [
        call(t(4, 3), (permutation(4)[:2],), t(2, 3)),
        call(t(4, 3), (permutation(4)[:3], i(3, 3)), t(3)),
        call(t(4, 3), (i(4, 6), i(3, 6)), t(6), True),
    ],
    "scatter_add": [
        call(t(4, 3), 0, i(4, 2, 3), t(2, 3)), call(t(4, 3), 1, i(3, 4, 5), t(4, 5)), call(t(3), 0, i(3, 5), t(5)),
        call(t(2, 3), 1, i(3, 1, 2), t(1, 2)),
    ],
    "scatter": [
        call(t(4, 3), 1, torch.stack([permutation(3)[:2] for _ in range(4)]), t(4, 2)),
        call(t(5, 3), 1, torch.stack([permutation(3)[:2] for _ in range(2)]), t(2, 2)),
        call(t(3), 0, permutation(3)[:2], t(2)),
        call(t(4, 3), 1, i(3, 4, 2), 1.5),
        call(torch.zeros(3, 5).double(), 1, i(5, 3, 1), 1),
    ],
    "scatter_reduce": [
        call(t(4, 3), 0, i(4, 2, 3), t(2, 3), "sum"),
        *[
            call(make(4, 3), 0, i(4, 5, 3), make(5, 3), how, include_self=own)
            for how in ("sum", "mean", "amax", "amin") for own in (True, False) for make in (t, ties)
        ],
    ],
    "index_reduce": [
        call(t(4, 3), 0, i(4, 5), t(5, 3), "mean"), call(t(4, 3), 1, i(3, 2), t(4, 2), "amax", include_self=False),
    ],
    "copy_": [spelled(written_in_place, t(4, 3), t(3)), spelled(written_in_place, t(1, 3), t())],
    "zero_": [spelled(written_in_place, t(4, 3))],
    "fill_diagonal_": [
        spelled(written_in_place, t(3, 3), 0.0), spelled(written_in_place, t(4, 3), -1.5), spelled(written_in_place, t(2, 2, 2), 2),
    ],
    "__setitem__": [
        spelled(set_item, t(4, 3), 1, t(3)),
        spelled(set_item, t(4, 3), (slice(1, 3), slice(None, 2)), t(2, 2)),
        spelled(set_item, t(4, 3), (Ellipsis, -1), 2.5),
        spelled(set_item, t(4, 3), b(4, 3), 0.0),
        spelled(set_item, t(4, 3), b(4), 1.0),
        spelled(set_item, t(4, 3), permutation(4)[:2], t(2, 3)),
        spelled(set_item, t(4, 3), (permutation(4)[:2], i(3, 2)), 7.0),
        spelled(set_item, t(1, 3), slice(None), t(3)),
    ],
    "where": [
        named("torch.where", b(3, 4), t(3, 4), t(4)),
        named("torch.where", b(3, 1), t(3, 4), 0.5),
        named("torch.where", b(1), 1.0, t()),
        named("Tensor.where", t(3, 4), b(3, 1), t(4)),
        named("Tensor.where", t(2), b(2), 0.0),
    ],
    "masked_fill": [call(t(3, 4), b(3, 4), 1.5), call(t(2, 3, 1), b(3, 1), -float("inf")), call(t(3), b(3), t())],
    "logical_and": [call(b(3, 4), b(4)), call(ties(3), ties(3))],
    "logical_or": [call(b(3, 4), b(4)), call(ties(3), ties(3))],
    "logical_xor": [call(b(3, 4), b(4)), call(ties(3), ties(3))],
    "logical_not": [call(b(3, 4)), call(ties(3))],
    "bitwise_and": [call(b(3, 4), b(4)), call(i(9, 3), i(9, 3))],
    "bitwise_or": [call(b(3, 4), b(4)), call(i(9, 3), i(9, 3))],
    "bitwise_xor": [call(b(3, 4), b(4)), call(i(9, 3), i(9, 3))],
    "bitwise_not": [call(b(3, 4)), call(i(9, 3))],
    "nan_to_num": [
        call(EXTREMES), call(EXTREMES, 1.5), call(EXTREMES, posinf=2.0), call(EXTREMES, 1.5, 2.0, -2.0), call(t(3, 2)),
        call(i(5, 3)),
    ],
    "signbit": [call(ties(3, 4)), call(-ties(3, 4)), call(EXTREMES)],
    "bincount": [
        call(i(4, 7), minlength=4), call(i(4, 3), minlength=6), Call((i(3, 5), t(5), 3), {}, constant=(1,)),
    ],
    "isin": [call(ties(3, 4), ties(2))],
    "searchsorted": [spelled(lambda f, x, v: f(x.sort().values, v), t(5), t(3, 2))],
    "to": [
        named("Tensor.to", t(3), torch.float32), named("Tensor.to", ties(3), torch.int64),
        named("Tensor.to", t(3), t(1)),
        named("Tensor.to", ties(3), dtype=torch.bool), named("Tensor.type", t(3), torch.float32),
        named("Tensor.type", ties(3), torch.int32),
    ],
    "as_tensor": [call(t(3)), call(t(3), dtype=torch.float32), call(i(4, 3), dtype=torch.float64)],
    "type_as": [call(t(3), t(2)), call(i(4, 3), t(1)), call(t(3), i(4, 1))],
    **{name: [call(ties(3, 2)), call(t(3)), call(b(2))] for name in ("long", "int", "short", "char", "bool")},
    "byte": [call(i(9, 3).double()), call(b(2))],
    "round": [call(t(3, 4) * 3), call(torch.tensor([0.5, 1.5, -0.5, 2.5]).double())],
    "heaviside": [Call((t(3) * 4, t(3)), {}, constant=(0, 1)), Call((i(9, 3) - 4, i(2, 3)), {}, constant=(0, 1))],
    "new_tensor": [spelled(lambda f, x: x * f(x, [0.5, 1.5, 2]), t(3)), spelled(lambda f, x: x + f(x, 2), t(3))],
    "floor_divide": [Call((t(3) * 4, t(3)), {}, constant=(0, 1)), call(i(9, 3) + 1, 2)],
    "ones": [constant(None, 3), constant(1), constant((2, 3), dtype=torch.float64)],
    "zeros": [constant(None, 3), constant(1)],
    "full": [spelled(lambda f, x: (x, f((x.shape[0], 2), 1.5)), t(3, 2)), spelled(lambda f, x: (x, f((), 2)), t(3))],
    "eye": [constant(None), constant(2, 3), constant(1)],
    "arange": [
        constant(None), constant(1, 7, 2), constant(5, 1, -2), constant(0.5, 2.5, 0.5, dtype=torch.float64),
        constant(0, None),
    ],
    "linspace": [
        constant(0.0, 1.0, 5, dtype=torch.float64), constant(-2.0, 3.0, None, dtype=torch.float64),
        constant(1.0, 2.0, 1),
    ],
    "rand": [constant(None, 4)],
    "empty": [spelled(made, t(3, 2), 2, values=False)],
    "randint": [
        spelled(lambda f, x: (x, f(0, 9, (x.shape[0], 2))), t(3, 2)), spelled(lambda f, x: (x, f(5, (2,))), t(3)),
    ],
    "randperm": [constant(None), constant(5)],
    "multinomial": [call(p(3, 4), 2), call(p(4), 9, replacement=True), call(p(2, 3), num_samples=1)],
    "poisson": [call(p(3, 2)), call(ties(4) + 1)],
    "normal": [
        call(t(3, 2), p(2)), call(t(3), 0.5), call(1.5, p(2, 3)), call(t(2)),
        constant(0.5, 2.0, (3, 2), dtype=torch.float64), constant(0.0, 1.0, size=(4,)),
    ],
    "empty_like": [spelled(lambda f, x: f(x), t(3), values=False)],
    "new_empty": [spelled(lambda f, x: (x, f(x, x.shape[0], 2)), t(3), values=False)],
    "new": [
        spelled(lambda f, x: x * f(x, x.shape).normal_(), t(3, 2)),
        spelled(lambda f, x: x * f(x, 3, 2).uniform_(), t(3, 2)),
    ],
    "ones_like": [call(t(2, 3)), call(i(3, 1))],
    "zeros_like": [call(t(2, 3)), call(i(3, 1))],
    "full_like": [call(t(2, 3), 1.5), call(t(1), 2)],
    "fill": [call(t(2, 3), 1.5), call(t(1), value=2), call(t(2, 3), t())],
    "normal_": [
        spelled(lambda f, x: x * f(torch.empty_like(x)), t(3, 2), only=f"Tensor.{name}_$")
        for name in ("normal", "uniform", "bernoulli", "cauchy", "random", "exponential", "log_normal")
    ] + [spelled(lambda f, x: x * f(torch.ones_like(x), 0.3), t(3, 2), only="Tensor.geometric_")],
    "new_ones": [call(t(2, 3), (2, 1)), call(i(3, 1), 3)],
    "new_zeros": [call(t(2, 3), (2, 1)), call(i(3, 1), 3)],
    "new_full": [call(t(2, 3), (2, 1), 1.5)],
    "rand_like": [
        named("rand_like", t(3, 2)), named("randn_like", t(3, 2)), named("randint_like", t(3, 2), 5),
        named("bernoulli", t(3, 2).sigmoid()),
    ],
}  # fmt: skip
