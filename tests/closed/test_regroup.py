"""Products of products: in which order they are taken, when a product is kept, and that what is not equal is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from sympy import Tuple

import codegen
import codegen.closed.definitions.balanced as balanced_module
import codegen.closed.regroup.without as without_module
from codegen.closed.regions import region
from codegen.closed.regions.builder import Builder
from codegen.closed.regroup.accuracy import as_accurate
from codegen.closed.regroup.order import Group, Order
from codegen.closed.regroup.products import Product
from engine import trace
from engine.notation import Sigma, fresh
from tests.closed.products import differs
from tests.closed.test_forward_rules import emitted

if TYPE_CHECKING:
    import pytest

G = torch.Generator().manual_seed(0)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=G, dtype=torch.float64)


def backward(source: str) -> str:
    """The backward of an emitted file."""
    return source[source.index("def backward(") : source.index("class Function")]


Q, K, V = randn(12, 3), randn(12, 3), randn(12, 4)
X, Y = randn(9, 3), randn(9, 2)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (q @ k.T) @ v


def test_the_order_depends_on_the_sizes() -> None:
    assert "k_v = k.T @ v" in emitted(attention, Q, K, V)
    wide = [randn(3, 12), randn(3, 12), randn(3, 4)]
    assert "q @ k.T" in emitted(attention, *wide)


def test_factors_that_were_sums_are_found_again() -> None:
    def normalised(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        a = q.exp() @ k.exp().T
        return (a / a.sum(1, keepdim=True)) @ v

    source = emitted(normalised, Q, K, V)
    assert "b.sum(0)" in source or "k_exp_sum" in source or ".sum(0)" in source
    assert ".T @ v" in source


def test_what_somebody_else_reads_is_made_as_before() -> None:
    def both(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        a = q @ k.T
        return (a @ v).sum() + a.tanh().sum()

    assert "a = q @ k.T" in emitted(both, Q, K, V)


def test_softmax_attention_keeps_its_shares() -> None:
    def shares(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        e = (q @ k.T).exp()
        return (e / e.sum(1, keepdim=True)) @ v

    assert ".softmax(1)" in emitted(shares, Q, K, V)


def test_a_square_of_a_difference_is_not_multiplied_out() -> None:
    def orthogonal(x: torch.Tensor) -> torch.Tensor:
        return ((x @ x.T - torch.eye(len(x), dtype=x.dtype)) ** 2).sum()

    assert "x @ x.T" in emitted(orthogonal, X)


def test_a_sum_of_squares_stays_one() -> None:
    """`Sum (x w)^2` as `Sum (x^T x) (w w^T)` moves less, and has no digits left where x w is small."""

    def norm(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return ((x @ w) ** 2).sum()

    assert "x @ w" in emitted(norm, randn(40, 3), randn(3, 30))
    assert "x_gram = x.T @ x" in emitted(lambda x: ((x @ x.T) ** 2).sum(), X)


def test_a_mean_of_features_is_not_moved_into_the_weights() -> None:
    """What is left out has to be smaller then: a layer norm stays behind its layer."""

    def layer(x: torch.Tensor, w: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        h = x @ w
        h = h - h.mean(1, keepdim=True)
        return (h / (h.square().mean(1, keepdim=True) + 1e-5).sqrt()) @ u

    assert "x @ w" in emitted(layer, randn(32, 10), randn(10, 24), randn(24, 6))


def test_a_kernel_matrix_is_centred_by_its_features() -> None:
    def alignment(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h = torch.eye(len(x), dtype=x.dtype) - 1 / len(x)
        return ((h @ (x @ x.T) @ h) * (h @ (y @ y.T) @ h)).sum()

    source = emitted(alignment, X, Y)
    assert "x_centred = x - x.mean(0)" in source
    assert "x @ x.T" not in source
    assert ".mean(" not in backward(source)  # the gradients' columns sum to zero


def test_the_columns_of_a_gradient_need_not_sum_to_zero() -> None:
    def moments(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        c = x - x.mean(0)
        return ((c.T @ y) ** 2).sum() + (c.T @ c).sum()

    assert ".mean(0)" in backward(emitted(moments, X, Y))


def test_what_the_forward_centres_is_centred_in_the_backward() -> None:
    """In float32 the mean at a large offset is not exact: the gradient's own mean has to take that out."""

    def covariance(x: torch.Tensor) -> torch.Tensor:
        x = x - x.mean(0)
        return ((x.T @ x) ** 2).sum()

    x = (randn(64, 3) + 1000).float()
    (true,) = torch.autograd.grad(covariance(y := x.double().requires_grad_()), y)
    (theirs,) = torch.autograd.grad(covariance(y := x.clone().requires_grad_()), y)
    _, grads = codegen.generate(covariance, x).value_and_grad(x)
    assert (grads["x"] - true).norm() <= 1.5 * (theirs - true).norm()


def test_diagonal_matrices_scale_rows() -> None:
    def scaled(x: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        return torch.diag(d.exp()) @ x @ torch.diag(d.sin()) @ x.T

    source = emitted(scaled, randn(5, 5), randn(5))
    assert "torch.where" not in source
    assert "torch.diag" not in source


def test_products_with_one_tensor_in_common_are_one() -> None:
    def style(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return ((x.T @ x - t) ** 2).sum()

    source = emitted(style, X, randn(3, 3))
    assert backward(source).count("@") == 1


def test_another_order_that_is_not_equal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Order.cheapest

    def wrong(self: Order, ranges: dict[Any, Any]) -> Group | None:
        found = right(self, ranges)
        one, other = found.parts if found is not None and found.parts is not None else (None, None)
        if found is None or one is None or other is None or one.parts is None:
            return found
        return replace(found, parts=(replace(one, parts=one.parts[:1] * 2), other))

    monkeypatch.setattr(Order, "cheapest", wrong)
    tried: list[bool] = []
    gates = without_module.Without.passes_gates
    monkeypatch.setattr(without_module.Without, "passes_gates", lambda self: tried.append(gates(self)) or tried[-1])
    program = codegen.generate(attention, Q, K, V)
    assert tried == [False] * len(tried) != []
    assert "q @ k.T" in program.source


def test_an_order_that_loses_digits_is_refused() -> None:
    """A variance as `Sum x^2 - (Sum x)^2 / n` has none left at an offset."""

    def variance(x: torch.Tensor) -> torch.Tensor:
        m = x.mean(0)
        return ((x - m) ** 2).sum(0)

    graph = trace(variance, X)
    x, *own = Builder(graph).build()
    out, mean = own[-1], next(c for c in own if c.name == "m")
    (i, j), (n, _) = (fresh(), out.indices[0]), x.shape
    shifted = Sigma(x.element((i, j)) ** 2, Tuple(i, n)) - n * mean.element((j,)) ** 2
    assert as_accurate(own, own, [x], graph.example)
    assert not as_accurate(own, [mean, replace(out, expr=shifted)], [x], graph.example)


def test_a_wrong_factor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Product.renamed
    monkeypatch.setattr(Product, "renamed", lambda self, where: replace(right(self, where), number=2 * self.number))
    program = codegen.generate(attention, Q, K, V)
    assert "q @ k.T" in program.source


def test_a_tensor_that_does_not_sum_to_zero_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def alignment(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h, y = torch.eye(len(x), dtype=x.dtype) - 1 / len(x), y.sin()
        return ((h @ (x @ x.T) @ h) * (y @ y.T)).sum()

    monkeypatch.setattr(balanced_module, "balanced", lambda c, axis, by_name: (c,) if c.expr is not None else ())
    assert ".mean(0)" in backward(emitted(alignment, X, Y))


def test_random_products_of_products() -> None:
    assert [d for d in map(differs, range(40)) if d] == []


def running(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    states = (k[:, :, None] * v[:, None, :]).cumsum(0)
    return (q[:, None, :] @ states).squeeze(1)


def test_a_running_sum_of_products_is_a_triangle_of_a_product_where_that_is_smaller() -> None:
    short = [randn(9, 8), randn(9, 8), randn(9, 7)]
    source = emitted(running, *short)
    assert ".tri" in source
    assert "cumsum" not in source
    assert "cumsum" in emitted(running, randn(400, 2), randn(400, 2), randn(400, 3))


def test_triangles_are_those_of_other_sizes_too() -> None:
    program = codegen.generate(running, randn(9, 8), randn(9, 8), randn(9, 7))
    for rows in (2, 5, 30):
        inputs = [randn(rows, 8), randn(rows, 8), randn(rows, 7)]
        leaves = [t.clone().requires_grad_() for t in inputs]
        wanted = running(*leaves)
        out, grads = program.value_and_grad(*inputs)
        torch.testing.assert_close(out, wanted.detach())
        for mine, true in zip(grads.values(), torch.autograd.grad(wanted.sum(), leaves), strict=True):
            torch.testing.assert_close(mine, true)


def test_what_reads_a_running_sum_otherwise_keeps_it() -> None:
    def both(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        states = (k[:, :, None] * v[:, None, :]).cumsum(0)
        return (q[:, None, :] @ states).sum() + states.tanh().sum()

    assert "cumsum" in emitted(both, randn(9, 8), randn(9, 8), randn(9, 7))


def test_products_of_several_tensors_are_multiplied_two_at_a_time() -> None:
    def forward(c, b, m, x):
        return torch.einsum("bln,bsn,bls,bsp->blp", c, b, m, x)

    source = emitted(forward, randn(2, 12, 3), randn(2, 9, 3), randn(2, 12, 9), randn(2, 9, 4))
    forwards = source[source.index("def forward(") : source.index("def backward(")]
    assert "einsum" not in source
    assert forwards.count(" @ ") == 2
    assert backward(source).count(" @ ") == 4


def test_products_of_the_same_tensor_and_at_one_place_twice_are_right() -> None:
    a, b = randn(4, 4), randn(4, 4)
    emitted(lambda a, b: torch.einsum("ij,jk,kl->il", a, b, a), a, b)
    emitted(lambda a, b: torch.einsum("ii,ij,jk->k", a, b, a), a, b)
    emitted(lambda a, b, c: torch.einsum("i,ij,j->", a, b, c), randn(4), randn(4, 3), randn(3))
    emitted(lambda a, b, c: torch.einsum("ij,jk,kl->il", a, b, c), randn(1, 3), randn(3, 1), randn(1, 2))
    emitted(lambda a, b, y: torch.einsum("ij,jk,ik->k", a, b, y.to(a.dtype)), randn(4, 3), randn(3, 5), randn(4, 5) > 0)


def test_rows_are_scaled_where_a_matrix_is_scaled_from_both_sides() -> None:
    """`A / sqrt(d d')` is no matrix: rows of what it is multiplied with are divided by roots, and rows of the product."""

    def normalised(a: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        a = a.exp() + torch.eye(a.shape[0], dtype=a.dtype)
        d = a.sum(1)
        return (a / torch.sqrt(d[:, None] * d[None, :])) @ x

    source = emitted(normalised, randn(12, 12), randn(12, 2))
    assert source.count(".sqrt()") == 1
    assert "x / d_sqrt.unsqueeze(-1)" in source


def test_roots_of_what_may_be_negative_are_those_of_sizes() -> None:
    def correlation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        a, b = x.sum(1), y.sum(1)
        return (x @ y.T) / torch.sqrt(a[:, None] * b[None, :])

    x, y = -randn(5, 3).abs(), -randn(4, 3).abs()
    program = codegen.generate(correlation, x, y)
    out, _ = program.forward(x, y)
    torch.testing.assert_close(out, correlation(x, y))
    assert codegen.check(program, x, y).ok
    assert ".abs()" in program.source


def test_sums_on_the_diagonal_of_a_product_are_read_there() -> None:
    def spread(x: torch.Tensor) -> torch.Tensor:
        u = x - x.mean(0)
        c = u.T @ u
        return (c**3).sum() + torch.sqrt((u * u).sum(0) + 1).sum()

    source = emitted(spread, X)
    assert "diagonal()" in source
    assert source.count("** 2") == 0 or "u ** 2" not in source


def test_what_is_read_entry_by_entry_too_keeps_its_sum() -> None:
    """What follows of a standardised tensor follows of its sum of squares."""

    def standardised(x: torch.Tensor) -> torch.Tensor:
        u = x - x.mean(0)
        c = u.T @ u
        return (c**3).sum() + (u / torch.sqrt((u * u).sum(0) + 1)).tanh().sum()

    assert "c.diagonal()" not in emitted(standardised, X)


def test_a_region_that_reads_itself_through_others_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever depths say: here that all is at one, so that what stands between two products is a region with the first one's readers."""
    monkeypatch.setattr(region, "depths", lambda cells: dict.fromkeys((c.name for c in cells), 0))
    x, w = (torch.randn(4, 4, dtype=torch.float64) for _ in range(2))

    def forward(x, w):
        h = (x @ w).tanh()
        return (h * (h @ w)).sum()

    program = codegen.generate(forward, x, w)
    assert codegen.check(program, x, w).ok
