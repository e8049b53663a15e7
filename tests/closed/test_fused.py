"""Sums with a product in them: one call of torch for both, where the product is a tensor of floats that fits."""

from __future__ import annotations

import torch
from sympy import S, Symbol

import codegen
from codegen.closed.write.fused import Fuse

N, K = Symbol("n", positive=True, integer=True), Symbol("k", positive=True, integer=True)


def test_products_that_are_added_are_made_in_one_call() -> None:
    shapes = {"x": (N, K), "w": (K, K), "b": (K,), "r": (N,), "g": ()}
    line = Fuse(shapes, frozenset({"n0"})).line
    assert line("y = b + x @ w") == "y = torch.addmm(b, x, w)"
    assert line("y = (b + x @ w).tanh()") == "y = torch.addmm(b, x, w).tanh()"
    assert line("y = x.T @ x - w") == "y = x.T @ x - w"
    assert line("y = w - x.T @ x") == "y = torch.addmm(w, x.T, x, alpha=-1)"
    assert line("y = x * b + r.unsqueeze(-1)") == "y = torch.addcmul(r.unsqueeze(-1), x, b)"
    assert line("y = x * (r @ x) + x @ w") == "y = torch.addmm(x * (r @ x), x, w)"
    assert line("y = x @ w + b * g") == "y = torch.addmm(b * g, x, w)"
    assert line("y = w * (w @ b).unsqueeze(-1) + x.T @ x") == "y = torch.addmm(w * (w @ b).unsqueeze(-1), x.T, x)"
    assert line("y = x - x * (g / (2 * n0)) * b") == "y = torch.addcmul(x, x * (g / (2 * n0)), b, value=-1)"


def test_numbers_in_products_that_are_added_are_given_to_the_call() -> None:
    """But for one that a smaller factor has: there it costs less."""
    line = Fuse({"x": (N, K), "b": (K,), "r": (N,), "g": ()}, frozenset({"n0"})).line
    assert line("y = x + 2 * x * b") == "y = torch.addcmul(x, x, b, value=2)"
    assert line("y = x - b * (x * n0)") == "y = torch.addcmul(x, b, x, value=-n0)"
    assert line("y = x + 2 * b * x") == "y = torch.addcmul(x, 2 * b, x)"
    assert line("y = x + x * g * b") == "y = torch.addcmul(x, x * g, b)"


def test_choices_are_factors_like_others() -> None:
    line = Fuse({"x": (N, K), "b": (K,), "r": (N,), "m": (N, S.One)}, frozenset({"n0"})).line
    chosen = "torch.where(r >= 1, r / n0, 0).unsqueeze(-1)"
    assert line(f"y = x - x * {chosen}") == f"y = torch.addcmul(x, x, {chosen}, value=-1)"
    kept = "torch.where((m > 0) & ~(m == 1), x, 0)"
    assert line(f"y = x + {kept} * b") == f"y = torch.addcmul(x, {kept}, b)"
    row = "torch.where((m > 0).squeeze(1), r, 0)"
    assert line(f"y = r + {row} * r") == f"y = torch.addcmul(r, {row}, r)"
    for unknown in (
        "torch.where(k, x, 0)",
        "torch.where(x > k, x, 0)",
        "torch.where(x > 0, k, 0)",
        "torch.where(x > 0, 1, 0)",
    ):
        assert line(f"y = x + {unknown} * b") == f"y = x + {unknown} * b"


def test_dimensions_of_one_that_are_put_in() -> None:
    line = Fuse({"x": (N, K), "b": (K,), "r": (N,)}, frozenset()).line
    assert line("y = x * b + x * r[:, None]") == "y = torch.addcmul(x * b, x, r[:, None])"
    for text in ("y = x * b + x[1:, None] * b", "y = x * b + x[0] * x"):
        assert line(text) == text


def test_what_is_no_tensor_of_floats_is_left() -> None:
    line = Fuse({"x": (N, K), "w": (K, K), "b": (K,), "c": (N, S.One)}, frozenset()).line
    for text in ("y = x + 2 * x", "y = x + mask * x", "y = 1 + x * x", "y = x + (x > 0) * x", "y = x + x[:, :1] * x"):
        assert line(text) == text
    assert line("y = x + b.unsqueeze(0).T @ b.unsqueeze(0)") == "y = x + b.unsqueeze(0).T @ b.unsqueeze(0)"


def test_what_is_the_same_along_rows_twice_is_left() -> None:
    """torch has no vector form of such a call: a scale and a shift of every channel of an image."""
    line = Fuse({"x": (N, K, K, N), "s": (K, S.One, S.One), "b": (K, S.One, S.One), "v": (N,)}, frozenset()).line
    assert line("y = b + x * s") == "y = b + x * s"
    assert line("y = v + x * s") == "y = torch.addcmul(v, x, s)"


def two_activations(x, w, a):
    h = torch.tanh(x)
    return a * torch.log(1.5 - h**2).sum(1) - h @ w


def test_slopes_that_terms_have_in_common_are_taken_once() -> None:
    program = codegen.generate(two_activations, torch.randn(3, 4), torch.randn(4), torch.randn(3))
    assert program.source.count("tanh_backward") == 1


def pieces(x):
    d = x[1:] - x[:-1]
    return (d**2).sum() + x[:, 1].sum()


def test_gradients_of_slices_are_added_to_one_tensor() -> None:
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    program = codegen.generate(pieces, x.detach())
    assert ".clone()" not in program.source.split("def step")[0]
    (true,) = torch.autograd.grad(pieces(x), x)
    torch.testing.assert_close(program.value_and_grad(x.detach())[1]["x"], true)


def from_the_end(x):
    e = torch.exp(x)
    c = torch.cumsum(e.flip(1), 1).flip(1)
    return (torch.log(c) * e).sum()


def test_what_is_turned_around_and_back_is_not_copied() -> None:
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    program = codegen.generate(from_the_end, x.detach())
    assert program.source.split("def backward")[1].count(".flip(") == 0
    (true,) = torch.autograd.grad(from_the_end(x), x)
    torch.testing.assert_close(program.value_and_grad(x.detach())[1]["x"], true)


def mixed(x, w):
    return (x.double() * w + w).sum()


def test_tensors_of_two_precisions_are_multiplied_and_added() -> None:
    x, w = torch.randn(3, 4), torch.randn(4, dtype=torch.float64)
    program = codegen.generate(mixed, x, w)
    assert "addcmul" not in program.source
    assert program.value_and_grad(x, w)[1]["w"].dtype == torch.float64
