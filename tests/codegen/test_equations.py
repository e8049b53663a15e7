"""What equations define: solutions of linear systems, inverses, Cholesky's factor, determinants, in both modes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mpmath
import numpy as np
import pytest
import torch

import codegen
from codegen import implicit
from codegen.derivation_md import derivation_markdown
from codegen.lowering import tensors as tt
from engine import trace
from engine.errors import InputError
from engine.evaluate import evaluate, truth_gradient

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

DIGITS = 50


def covariance(a: Tensor) -> Tensor:
    """A positive definite matrix."""
    return a @ a.mT + torch.eye(a.shape[-1], dtype=a.dtype)


def gaussian_by_cholesky(x: Tensor, mean: Tensor, a: Tensor) -> Tensor:
    """The negative log likelihood of rows with a full covariance."""
    factor = torch.linalg.cholesky(covariance(a))
    z = torch.linalg.solve_triangular(factor, (x - mean).mT, upper=False)
    return z.square().sum() / (2 * x.shape[0]) + factor.diagonal().log().sum()


def gaussian_by_solve(x: Tensor, mean: Tensor, a: Tensor) -> Tensor:
    """The same by a solution and a determinant."""
    s, d = covariance(a), x - mean
    return (d.mT * torch.linalg.solve(s, d.mT)).sum() / (2 * x.shape[0]) + torch.linalg.slogdet(s)[1] / 2


def gaussian_by_inverse(x: Tensor, mean: Tensor, a: Tensor) -> Tensor:
    """The same by the inverse."""
    s, d = covariance(a), x - mean
    precision = torch.linalg.inv(s)
    return ((d @ precision) * d).sum() / (2 * x.shape[0]) + torch.logdet(s) / 2


def ridge(x: Tensor, mean: Tensor, a: Tensor) -> Tensor:
    """The error of the solution of a penalised least squares problem."""
    w = torch.linalg.solve(x.T @ x + mean.square().sum() * torch.eye(x.shape[1], dtype=x.dtype), x.T @ x @ a)
    return (x @ w - x @ a).square().mean()


def process(x: Tensor, mean: Tensor, a: Tensor) -> Tensor:
    """The marginal likelihood of a Gaussian process with scales `mean`, of the targets a x."""
    d = x.unsqueeze(-2) / mean - x.unsqueeze(-3) / mean
    k = 2 * torch.exp(-d.square().sum(-1) / 2)
    k.diagonal().add_(0.5)
    factor = torch.linalg.cholesky(k)
    y = x @ a
    return (y * torch.cholesky_solve(y, factor)).sum() / 2 + factor.diagonal().log().sum() * a.shape[-1]


def batched(x: Tensor, mean: Tensor, a: Tensor) -> Tensor:
    """Matrices of a batch, of which every op here is taken."""
    s = covariance(x.unsqueeze(-1) * a)
    y = x.unsqueeze(-1) - mean
    first = torch.linalg.solve(s, y) + torch.cholesky_solve(mean.unsqueeze(-1), torch.linalg.cholesky(s))
    second = torch.cholesky_inverse(torch.linalg.cholesky(s, upper=True), upper=True) - torch.linalg.inv(s @ s)
    return (first.sin() @ second).mean() + torch.det(s).log().sum() + torch.slogdet(s).logabsdet.square().sum()


def gaussian_of_torch(x: Tensor, mean: Tensor, a: Tensor) -> Tensor:
    """torch's own distribution."""
    normal: Any = torch.distributions.MultivariateNormal(mean, covariance(a))
    return -normal.log_prob(x).mean()


FORWARDS = (gaussian_of_torch, gaussian_by_cholesky, gaussian_by_solve, gaussian_by_inverse, ridge, process, batched)
SIZES = ((5, 3), (7, 2), (4, 4), (3, 1), (2, 6))


def inputs(n: int, d: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, a vector and a matrix."""
    generator = torch.Generator().manual_seed(10 * n + d)
    shapes = ((n, d), (d,), (d, d))
    x, mean, a = (torch.randn(s, dtype=torch.float64, generator=generator).to(dtype) for s in shapes)
    return x, mean.abs() + 0.5, a


def autograd(forward: Callable[..., Tensor], given: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The result and the gradients."""
    leaves = [t.clone().requires_grad_() for t in given]
    out = forward(*leaves)
    return out.detach(), torch.autograd.grad(out, leaves)


@pytest.mark.sampled("forward")
@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("forward", FORWARDS)
def test_gradients_equal_autograds_at_every_size(forward: Callable[..., Tensor], mode: str) -> None:
    program = codegen.generate(forward, *inputs(5, 3), mode=mode)
    single = codegen.generate(forward, *inputs(3, 1), mode=mode)
    for n, d in SIZES:
        given = inputs(n, d)
        out, grads = (single if d == 1 and n == 3 else program).value_and_grad(*given)
        wanted, gradients = autograd(forward, given)
        torch.testing.assert_close(out, wanted, rtol=1e-10, atol=1e-10)
        for name, g in zip(program.graph.inputs, gradients, strict=True):
            torch.testing.assert_close(grads[name], g, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.sampled("forward")
@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("forward", FORWARDS)
def test_check_holds_them_against_the_truth(forward: Callable[..., Tensor], mode: str) -> None:
    program = codegen.generate(forward, *inputs(5, 3), mode=mode)
    report = codegen.check(program, *inputs(4, 2), digits=30, samples=2)
    assert report.ok, report.failures
    assert all(r.error is not None and r.error < 1e-8 for r in report.rows)


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("forward", FORWARDS)
def test_function_has_first_and_second_derivatives(forward: Callable[..., Tensor], mode: str) -> None:
    program = codegen.generate(forward, *inputs(3, 2), mode=mode)
    leaves = [t.requires_grad_() for t in inputs(3, 2)]
    assert torch.autograd.gradcheck(program.function, leaves)
    assert torch.autograd.gradgradcheck(program.function, leaves, atol=1e-4)


@pytest.mark.parametrize("forward", [gaussian_by_cholesky, gaussian_by_solve, gaussian_by_inverse])
def test_second_order_is_derived_of_what_was_emitted(forward: Callable[..., Tensor]) -> None:
    given = inputs(4, 3)
    program = codegen.generate(forward, *given, order=2)
    v = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a = given[2].clone().requires_grad_()
    (g,) = torch.autograd.grad(forward(*given[:2], a), a, create_graph=True)
    (wanted,) = torch.autograd.grad((g * v).sum(), a)
    torch.testing.assert_close(program.hvp(given, {"a": v})["a"], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("forward", [gaussian_by_cholesky, gaussian_by_solve, gaussian_by_inverse])
def test_loop_takes_the_steps_of_gradient_descent(forward: Callable[..., Tensor]) -> None:
    rows, mean, a = torch.randn(64, 3, dtype=torch.float64), *inputs(4, 3)[1:]
    trainer = codegen.generate(forward, *inputs(8, 3)).trainer({"mean": mean, "a": a}, batch_size=8, lr=0.05)
    losses = trainer.run((rows,), steps=20, generator=torch.Generator().manual_seed(3))
    params, generator = [mean.clone(), a.clone()], torch.Generator().manual_seed(3)
    for loss in losses:
        at = torch.randint(0, 64, (8,), generator=generator)
        wanted, gradients = autograd(forward, (rows[at], *params))
        torch.testing.assert_close(loss, wanted, rtol=1e-9, atol=1e-9)
        params = [p - 0.05 * g for p, g in zip(params, gradients[1:], strict=True)]
    torch.testing.assert_close(trainer.params["a"], params[1], rtol=1e-9, atol=1e-9)


def test_solution_passes_back_the_solution_of_the_transposed_system() -> None:
    def forward(A: Tensor, B: Tensor) -> Tensor:
        X = torch.linalg.solve(A, B)
        return X.square().sum()

    source = codegen.generate(forward, torch.randn(3, 4, 4), torch.randn(3, 4, 2)).source
    for line in (
        "# X_adjoint solves Σ_l A[i,l,j] X_adjoint[i,l,k] = dX[i,j,k]",
        "X_adjoint = torch.linalg.solve(A.mT, dX)",
        "dA = -X_adjoint @ X.mT",
        'return {"A": dA, "B": X_adjoint}',
    ):
        assert line in source


def test_triangles_pass_back_triangles() -> None:
    def forward(L: Tensor, b: Tensor) -> Tensor:
        x = torch.linalg.solve_triangular(L, b, upper=False)
        y = torch.cholesky_solve(x, L)
        return y.square().sum()

    source = codegen.generate(forward, torch.randn(4, 4), torch.randn(4, 2)).source
    assert "x_adjoint = torch.linalg.solve_triangular(L.mT, dx, upper=True)" in source.replace("y_adjoint,", "dx,")
    assert "y_adjoint = torch.cholesky_solve(dy, L)" in source
    backward = source.split("def backward")[1].split("def step")[0]
    assert ".tril()" in backward
    assert not any(word in backward for word in ("arange", "torch.where", "einsum"))


def test_inverse_that_the_forward_has_is_not_computed_again() -> None:
    program = codegen.generate(gaussian_by_inverse, *inputs(5, 3))
    assert program.source.split("def step")[0].count("torch.linalg.inv") == 1
    program = codegen.generate(gaussian_by_solve, *inputs(5, 3))
    assert program.source.split("def step")[0].count("torch.linalg.inv") == 1  # of the determinant


def test_derivation_shows_the_equation_and_how_it_moves_and_its_adjoint() -> None:
    def forward(A: Tensor, B: Tensor) -> Tensor:
        X = torch.linalg.solve(A, B)
        return X.sum() + torch.logdet(A)

    program = codegen.generate(forward, torch.eye(3) + 0.1, torch.randn(3, 2), mode="steps")
    text = derivation_markdown(program.derivation, "forward")
    parts = (
        r"\sum_{k} A_{i,k} X_{k,j} = B_{i,j}",
        r"\sum_{k} A_{i,k} \text{δX}_{k,j} + \sum_{k} X_{k,j} \text{δA}_{i,k} - \text{δB}_{i,j} = 0",
        r"\sum_{k} A_{k,i} \mathrm{X\_adjoint}_{k,j} = \mathrm{dX}_{i,j}",
        r"\frac{\partial\, \mathrm{X\_equation}_{i,j}}{\partial\, A_{i,k}} = X_{k,j}",
        r"\sum_{k} A_{i,k} \mathrm{cofactor\_A}_{j,k} = \delta_{i,\,j} \mathrm{det\_A}",
        r"\sum_{k} A_{i,k} \mathrm{A\_inverse}_{k,j} = \delta_{i,\,j}",
    )
    assert [p for p in parts if p not in text] == []
    assert "`X_equation` is its left side less its right one" in text


def exact(t: Tensor) -> mpmath.matrix:
    """A matrix of floats as mpmath's."""
    return mpmath.matrix([[mpmath.mpf(v) for v in row] for row in t.tolist()])


@pytest.mark.parametrize("n", [1, 2, 5])
def test_values_in_many_digits_are_mpmaths(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    a = torch.randn(n, n, dtype=torch.float64, generator=generator)
    s, b = a @ a.T + torch.eye(n, dtype=torch.float64), torch.randn(n, 2, dtype=torch.float64, generator=generator)
    s = (s + s.T) / 2

    def forward(s: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        x, inverse, factor = torch.linalg.solve(s, b), torch.linalg.inv(s), torch.linalg.cholesky(s)
        return x, inverse, factor, torch.det(s), torch.slogdet(s)[1]

    graph = trace(forward, s, b)
    found = evaluate(graph, {"s": s, "b": b}, DIGITS)
    with mpmath.workdps(DIGITS + 10):
        m, v = exact(s), exact(b)
        d = mpmath.det(m)
        columns = [mpmath.lu_solve(m, v[:, k]) for k in range(2)]
        x = np.array([[columns[k][i] for k in range(2)] for i in range(n)], dtype=object)
        wanted = (x, np.array((m**-1).tolist()), np.array(mpmath.cholesky(m).tolist()), d, mpmath.log(abs(d)))
        for name, w in zip(graph.outputs, wanted, strict=True):
            difference = np.max(
                np.abs(np.asarray(found[name]) - np.asarray(w, dtype=object).reshape(found[name].shape))
            )
            assert difference < mpmath.mpf(10) ** (8 - DIGITS), name


def test_truth_of_a_derivative_is_the_formula_of_books() -> None:
    a = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    graph = trace(lambda a: torch.linalg.inv(a).sum(), a)
    found = truth_gradient(graph, {"a": a}, "a", number=DIGITS)
    with mpmath.workdps(DIGITS + 10):
        inverse = np.array((exact(a) ** -1).tolist())
        wanted = -np.outer(inverse.sum(0), inverse.sum(1))  # -A⁻ᵀ 1 1ᵀ A⁻ᵀ
        assert np.max(np.abs(found - wanted)) < mpmath.mpf(10) ** (8 - DIGITS)


def test_a_system_that_is_not_transposed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any) -> tt.T:
        return tt.call("torch.linalg.solve", tt.name("_0"), tt.name("_cot"))

    implicit.auxiliary.cache_clear()
    monkeypatch.setattr(implicit, "solved", wrong)
    try:
        program = codegen.generate(gaussian_by_solve, *inputs(5, 3))
        general = codegen.generate(lambda a, b: torch.linalg.solve(a, b).sum(), *inputs(3, 3)[::2])
    finally:
        implicit.auxiliary.cache_clear()
    assert codegen.check(program, *inputs(5, 3)).ok  # a symmetric matrix is its own transpose
    assert not codegen.check(general, *inputs(3, 3)[::2]).ok


def test_singular_matrices_have_no_truth() -> None:
    graph = trace(torch.linalg.inv, torch.eye(2))
    with pytest.raises((InputError, RuntimeError), match="singular"):
        evaluate(graph, {graph.inputs[0]: torch.ones(2, 2)})


def test_truth_of_larger_systems_is_there() -> None:
    """Columns are systems of their own, so that 40 x 40 unknowns are not one system."""
    a = covariance(torch.randn(40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    program = codegen.generate(lambda a: torch.linalg.inv(a).sin().sum(), a)
    report = codegen.check(program, a)
    assert report.ok
    assert report["a"].error is not None


def test_what_is_not_in_the_triangle_has_no_gradient() -> None:
    """torch passes something back to entries of a factor that `cholesky_solve` never reads; the truth is zero there."""
    given = (inputs(3, 3)[2], inputs(3, 2)[0])

    def forward(factor: Tensor, b: Tensor) -> Tensor:
        return torch.cholesky_solve(b, factor).square().sum()

    for mode in ("steps", "closed"):
        program = codegen.generate(forward, *given, mode=mode)
        grads = program.value_and_grad(*given)[1]
        assert bool((grads["factor"].triu(1) == 0).all())
        assert codegen.check(program, *given).ok
