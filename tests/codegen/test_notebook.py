"""The lecture notebook's BatchNorm checks: its seeds, its elementwise error measure, within twice its own figures."""

import importlib

import pytest
import torch
from torch import Tensor

from codegen import check, generate
from codegen.program import Program
from examples import (
    batchnorm,
    batchnorm_eps,
    batchnorm_o_to_v,
    batchnorm_o_to_x,
    batchnorm_projection,
    batchnorm_v_to_x,
)

N, D = 100, 10


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def error(theirs: Tensor, ours: Tensor) -> float:
    """The notebook's measure: the largest of |(theirs - ours) / theirs|."""
    return float(((theirs - ours) / theirs).detach().abs().max())


def at_seed_42() -> tuple[Tensor, ...]:
    """x, w, b and the cotangent do, as the notebook draws them."""
    torch.manual_seed(42)
    return randn(N, D), randn(D), randn(D), randn(N, D)


def emitted(forward: object, *inputs: Tensor) -> Program:
    return generate(forward, *inputs, mode="steps")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", [batchnorm_projection, batchnorm], ids=["projection", "primitive"])
def test_the_whole_backward(form: object) -> None:
    """Either form's emitted code against autograd of the primitive form, which the notebook compares with."""
    x, w, b, do = at_seed_42()
    leaves = [t.clone().requires_grad_() for t in (x, w, b)]
    ot = batchnorm.forward(*leaves)
    (ot * do).sum().backward()
    xt, wt, bt = (t.grad for t in leaves)
    program = emitted(form.forward, x.float(), w.float(), b.float())  # type: ignore[attr-defined]
    o, saved = program.forward(x, w, b)
    grads = program.backward(saved, do)
    assert error(ot, o) <= 2 * 1.3e-13
    assert error(bt, grads["b"]) == 0
    assert error(wt, grads["w"]) <= 2 * 2.9e-15
    assert error(xt, grads["x"]) <= 2 * 8.8e-14


def test_v_to_x() -> None:
    torch.manual_seed(42)
    x, _w, _b = randn(N, D), randn(D), randn(D)
    program = emitted(batchnorm_v_to_x.forward, x.float())
    dv = torch.randn_like(randn(D) * 0)  # as the notebook: the cotangent comes after the three parameters
    report = check(program, x, grad_out=dv)
    assert report.ok, report.failures
    assert report["x"].elementwise <= 2 * 2.4e-15


@pytest.mark.parametrize(
    ("form", "key", "figure"), [(batchnorm_o_to_v, "v", 8.1e-15), (batchnorm_o_to_x, "x", 3.6e-13)]
)
def test_from_o(form: object, key: str, figure: float) -> None:
    torch.manual_seed(45)
    x, w, b = randn(N, D), randn(D), randn(D)
    v = torch.rand(D, dtype=torch.float64)
    do = torch.randn_like(x)
    given = {"x": x, "w": w, "b": b, "v": v}
    names = form.forward.__code__.co_varnames[:4]  # type: ignore[attr-defined]
    program = emitted(form.forward, *(given[n].float() for n in names))  # type: ignore[attr-defined]
    report = check(program, *(given[n] for n in names), grad_out=do)
    assert report.ok, report.failures
    assert report[key].elementwise <= 2 * figure


@pytest.mark.parametrize(
    "name",
    ["batchnorm", "batchnorm_eps", "batchnorm_projection", "batchnorm_v_to_x", "batchnorm_o_to_v", "batchnorm_o_to_x"],
)
def test_the_committed_files_are_these_programs(name: str) -> None:
    """generated/NAME/steps.py, imported as it is, gives autograd's gradients."""
    example = importlib.import_module(f"examples.{name}")
    module = importlib.import_module(f"generated.{name}.steps")
    inputs = {k: t.double() for k, t in example.example_inputs(torch.Generator().manual_seed(1)).items()}
    program = emitted(example.forward, *(t.float() for t in inputs.values()))
    program.module = module
    report = check(program, *inputs.values())
    assert report.ok, report.failures


def test_eps_keeps_constant_columns_finite() -> None:
    x, w, b = torch.ones(N, D, dtype=torch.float64), randn(D), randn(D)
    _, grads = emitted(batchnorm_eps.forward, x, w, b).value_and_grad(x, w, b)
    assert all(bool(g.isfinite().all()) for g in grads.values())
