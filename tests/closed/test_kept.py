"""What is kept for the backward: rather what is a tensor in the forward anyway, and what torch's kernels read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

import codegen

if TYPE_CHECKING:
    from torch import Tensor


def drawn(*shapes: tuple[int, ...]) -> list[Tensor]:
    g = torch.Generator().manual_seed(5)
    return [torch.randn(s, generator=g, dtype=torch.float64) for s in shapes]


def cosines(x: Tensor, w: Tensor) -> Tensor:
    a = x / (x * x).sum(1, keepdim=True).sqrt()
    b = w / (w * w).sum(1, keepdim=True).sqrt()
    return (a @ b.T).exp().sum()


def test_what_a_product_reads_is_kept_in_place_of_what_it_was_made_of() -> None:
    inputs = drawn((7, 5), (6, 5))
    program = codegen.generate(cosines, *inputs)
    backward = program.source[program.source.index("def backward(") :]
    assert "dw[i,j] = (db[i,j] - b[i,j] Σ_k b[i,k] db[i,k]) / b_sqrt[i,0]" in backward
    assert "dx[i,j] = (da[i,j] - a[i,j] Σ_k a[i,k] da[i,k]) / a_sqrt[i,0]" in backward
    _, saved = program.forward(*inputs)
    assert not any(t is x for t in saved for x in inputs)


def bounded(x: Tensor, y: Tensor) -> Tensor:
    d = (x - y).abs()
    return torch.where(d < 1, 0.5 * d**2, d - 0.5).mean()


def smoothed(x: Tensor, y: Tensor) -> Tensor:
    return -(0.9 * x.log_softmax(1) + 0.1 * y).mean() * x.shape[0]


def test_no_tensor_is_kept_for_its_sizes_where_another_has_them() -> None:
    x, y = drawn((7, 5), (7, 5))
    for forward in (bounded, smoothed):
        program = codegen.generate(forward, x, y, wrt=("x",))
        _, saved = program.forward(x, y)
        assert not any(t is x or t is y for t in saved)
        for rows in (1, 3):
            leaf = x[:rows].clone().requires_grad_()
            (true,) = torch.autograd.grad(forward(leaf, y[:rows]), leaf)
            found = program.backward(program.forward(x[:rows], y[:rows])[1])["x"]
            torch.testing.assert_close(found, true)


def test_nothing_is_divided_by_a_square_that_overflows() -> None:
    """The share itself is read, which has any size at all."""

    def shares(x: Tensor, v: Tensor) -> Tensor:
        e = x.exp()
        return (e @ v) / (e @ torch.ones_like(v))

    x, v = drawn((4, 3), (3, 2))
    x[:, 0] += 60.0  # the sum of exponentials is 1e26, its square none of float32
    leaf = x.clone().requires_grad_()
    (true,) = torch.autograd.grad(shares(leaf, v).sum(), leaf)
    program = codegen.generate(shares, x.float(), v.float(), wrt=("x",))
    out, saved = program.forward(x.float(), v.float())
    found = program.backward(saved, torch.ones_like(out))["x"]
    assert found.isfinite().all()
    torch.testing.assert_close(found, true.float(), rtol=1e-3, atol=1e-7)


def cell(x: Tensor, c: Tensor, w: Tensor) -> Tensor:
    k = c.shape[1]
    z = x @ w
    i, f, g = z[:, :k].sigmoid(), z[:, k : 2 * k].sigmoid(), z[:, 2 * k :].tanh()
    return (f * c + i * g).tanh()


def test_a_gate_keeps_what_it_multiplies_and_not_the_product() -> None:
    """`sigmoid_backward(c dc, f)` reads c, which is there; `(1 - f) (f c) dc` would keep f c as well."""
    program = codegen.generate(cell, *drawn((4, 5), (4, 3), (5, 9)))
    assert program.source.count("sigmoid_backward(") == 2
    assert "(1 - f)" not in program.source


def test_numbers_are_not_turned_into_longer_ones() -> None:
    (x,) = drawn((4, 3))
    program = codegen.generate(lambda x: x * torch.sigmoid(1.702 * x), x)
    assert "torch.addcmul(out_sigmoid, 1 - out_sigmoid, out, value=1.702) * grad_out" in program.source


def test_a_number_less_its_product_is_put_out_once() -> None:
    """A number in front of a difference is put into it: what comes of that is no sum to look for differences in again."""
    (x,) = drawn((4, 3))
    program = codegen.generate(lambda x: (3 * x.sigmoid() * (1 - x.sigmoid()) + x.sigmoid() + 2).log().sum(), x)
    leaf = x.clone().requires_grad_()
    s = leaf.sigmoid()
    (true,) = torch.autograd.grad((3 * s * (1 - s) + s + 2).log().sum(), leaf)
    torch.testing.assert_close(program.backward(program.forward(x)[1])["x"], true, rtol=1e-12, atol=1e-14)
