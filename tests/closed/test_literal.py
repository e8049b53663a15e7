"""What is rounded or compared is computed as the forward says: the last bit decides which whole number, or which branch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
import torch.nn.functional as F

import codegen
from codegen.closed.code import judged
from codegen.closed.regions.code import RegionCode
from codegen.closed.regions.region import Region
from codegen.closed.regions.structure import Structure
from codegen.closed.write.line import Line
from codegen.lowering.lower import Lowered
from engine import trace

if TYPE_CHECKING:
    from collections.abc import Callable

FORWARDS: dict[str, Callable[..., Any]] = {
    "floor": lambda x: torch.floor(x / 0.1) * x,
    "ceil": lambda x: torch.ceil((x + 0.1) * 3) * x,
    "round": lambda x: (x / 0.1).round() * 0.1 * x,
    "long": lambda x: (x / 0.1).long() * x,
    "int32": lambda x: (x * 10 / 0.7).to(torch.int32) * x,
    "remainder": lambda x: (x * 2) % 0.2,
    "fmod": lambda x: torch.fmod(x, 0.1),
    "floor division": lambda x: (x.detach() * 3 // 0.3) * x,
    "frac": lambda x: (x / 0.1).frac(),
    "straight through": lambda x: x / 0.1 + ((x / 0.1).round() - x / 0.1).detach(),
    "quotient": lambda x: (x / x[0]).clamp(-8, 20).round() * x + ((x / x[0]).clamp(-8, 20) * x).sum(),
    "product": lambda x: torch.floor(x * x[2]) * x + (x * x[2]).exp(),
    "grid": lambda x: torch.floor((torch.arange(10, dtype=x.dtype) + 0.5) * 1.4 - 0.5) * x[:10],
    "single grid": lambda x: torch.floor((torch.arange(10) + 0.5) * 1.4 - 0.7) * x[:10],
    "linspace": lambda x: torch.floor(torch.linspace(0, 1, 11, dtype=x.dtype) * 10) * x[:11],
    "bucketize": lambda x: torch.bucketize(x.detach() / 0.1, torch.arange(10, dtype=x.dtype)) * x,
    "at least": lambda x: torch.where(x / 0.1 >= 3, x, 2 * x),
    "above": lambda x: torch.where((x * 0.1 - 0.3) > 0, x, 2 * x),
    "truth": lambda x: (x / 0.1 >= 3).to(x.dtype) * x + (x / 3 * 7 >= 0.3) * x,
    "kinks": lambda x: (x * 0.1 - 0.03).relu() + (x / 0.1 - 3).clamp(min=0) + (x / 0.1 - 3).abs(),
    "sign": lambda x: (x / 0.1 - 3).sign() * x,
    "equal": lambda x: torch.where(x / 0.1 == 3, x, -x),
    "larger": lambda x: torch.maximum(x * 0.1, torch.arange(1, 30, dtype=x.dtype) / 100),
    "bicubic": lambda x: F.interpolate(x[:10].view(1, 1, 5, 2), size=(7, 4), mode="bicubic"),
}


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", FORWARDS)
def test_at_tenths(name: str, mode: str) -> None:
    """Tenths are where a quotient by 0.1 and a product with 10 round apart."""
    forward = FORWARDS[name]
    x = torch.arange(1, 30, dtype=torch.float64) / 10
    leaf = x.clone().requires_grad_()
    wanted = forward(leaf)
    (gradient,) = torch.autograd.grad(wanted.sum(), leaf)
    program = codegen.generate(forward, x, mode=mode)
    out, saved = program.forward(x)
    torch.testing.assert_close(out, wanted.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(program.backward(saved)["x"], gradient, rtol=1e-12, atol=1e-12)


def larger_of_multiples(x):
    return torch.maximum(0.9 * x, -0.1 * x).sum()


def larger_of_others(x):
    return torch.maximum(0.9 * x, 0.1 * x).sum()


def test_multiples_of_two_signs_may_be_told_by_the_tensor() -> None:
    """Which of 0.9 x and -0.1 x is larger is the sign of x; 0.9 x and 0.1 x are equal where x is infinite."""
    x = torch.tensor([-2.0, 0.0, 1.0, float("inf"), -float("inf")], dtype=torch.float64)
    sources: list[str] = []
    for forward in (larger_of_multiples, larger_of_others):
        leaf = x.clone().requires_grad_()
        (true,) = torch.autograd.grad(forward(leaf), leaf)
        program = codegen.generate(forward, x)
        torch.testing.assert_close(program.backward(program.forward(x)[1])["x"], true)
        sources.append(program.source)
    assert "x.sign()" in sources[0]
    assert "x.sign()" not in sources[1]


def test_what_a_rounding_reads_is_computed_as_the_forward_does() -> None:
    """Its quotient is known to the algebra, which divides by s nothing that was multiplied with it; the statement stays."""

    def quantised(x, s):
        c = torch.clamp(x / s, -8, 7)
        return (c + (torch.round(c) - c).detach()) * s

    x, s = torch.randn(6, 5), torch.tensor(0.3)
    program = codegen.generate(quantised, x, s)
    forward = program.source[program.source.index("def forward") : program.source.index("def backward")]
    assert "x / s" in forward
    assert "clamp(-8, 7)" in forward


def test_a_form_that_computes_it_otherwise_is_refused() -> None:
    def rounded(x, s):
        u = x / s
        return u.round() * x + u.exp()

    graph = trace(rounded, torch.randn(6, 5), torch.tensor(0.3))
    (unit,) = [u for u in Structure(graph, ("x", "s")).units if any(c.exact for c in u.cells)]
    exact = next(c for c in unit.cells if c.exact)
    region = Region(unit.cells, (), (), tuple(c.name for c in unit.cells))
    line = Line(exact.name, exact.indices, exact.shape, 2 * cast("Any", exact.expr), Lowered(None, ()))
    code = RegionCode(unit.cells, (line,), (), (), (), ())
    assert "rounded later" in judged(region, code, {}, simplified=True).reason
