"""Formulas as a person writes them, what they say of brackets and choices, and the names that parts and nodes have."""

import re

import pytest
import sympy as sp
import torch
from sympy import Expr
from torch import Tensor
from torch.nn import functional as F

from codegen import generate
from codegen.formula import lettered, text_formula
from codegen.steps import wrapped
from engine.notation import Index, Less, LessEqual, Quo, Sigma, Sign, Where, base, element

A, B, C = Index("a"), Index("b"), Index("c")
D = sp.Symbol("d", integer=True, positive=True)
X = element(base("x"), [A])


def slope(x: Expr) -> Expr:
    """Of gelu."""
    return (1 + sp.erf(x / sp.sqrt(2))) / 2 + x * sp.exp(-(x**2) / 2) / sp.sqrt(2 * sp.pi)


FORMULAS = [
    (sp.expand(slope(X)), "erf(x[a] / sqrt(2)) / 2 + x[a] exp(-x[a]^2 / 2) / sqrt(2 pi) + 1/2"),
    (-2 * X * (X - 1), "2 (1 - x[a]) x[a]"),
    (-X * (X - B), "-(x[a] - b) x[a]"),
    (X ** sp.Rational(3, 2), "x[a]^(3/2)"),
    (1 / sp.sqrt(X + 1), "1/sqrt(x[a] + 1)"),
    (element(base("x"), [Quo(A, Quo(D, sp.Integer(4)))]), "x[a//(d//4)]"),
    (B * Quo(D, sp.Integer(4)), "b (d//4)"),
    (Sign(X) * B, "b sign(x[a])"),
    ((1 - LessEqual(X, 0)) * B, "b [0 < x[a]]"),
    ((1 - Less(7, X)) * B, "b [x[a] ≤ 7]"),
    (1 - LessEqual(B + 1, A), "[a ≤ b]"),
    (Where(LessEqual(X, 0), 0, X), "0 if x[a] ≤ 0 else x[a]"),
    (
        Where(Less(A + B - 1, D), Where(LessEqual(0, A + B - 1), X, 0), 0),
        "x[a] if 0 ≤ a + b - 1 < d else 0",
    ),
]


@pytest.mark.parametrize(("e", "text"), FORMULAS, ids=[t for _, t in FORMULAS])
def test_a_formula_is_written_as_a_person_would(e: Expr, text: str) -> None:
    assert text_formula(e) == text


def test_sums_beside_each_other_have_the_same_letters_and_those_inside_have_others() -> None:
    x = base("x")
    inner = Sigma(element(x, [C]), (C, D))
    total = Sigma(element(x, [B]) * inner, (B, D)) / (1 + Sigma(element(x, [A]), (A, D)))
    assert text_formula(lettered(total, ())[0]) == "(Σ_i x[i] Σ_j x[j]) / (Σ_i x[i] + 1)"


def test_a_long_formula_is_broken_outside_of_brackets() -> None:
    line = (
        "dx[i,j] = (a[i,j + k - 1] + b[i,j + k - 1]) c[i,j + k - 1] + (d[i,j + k - 1] - e[i,j + k - 1]) f[i,j + k - 1]"
    )
    assert wrapped(line, 80) == [
        "dx[i,j] = (a[i,j + k - 1] + b[i,j + k - 1]) c[i,j + k - 1]",
        "    + (d[i,j + k - 1] - e[i,j + k - 1]) f[i,j + k - 1]",
    ]


def test_parts_are_named_after_what_they_are_of() -> None:
    def forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return F.layer_norm(x, (5,), w, b).softmax(1).log().sum()

    source = generate(forward, torch.randn(4, 5), torch.ones(5), torch.zeros(5)).source
    assert re.search(r"\bx_centred = x - x\.mean\(1, keepdim=True\)", source)
    assert "x_rstd = ((x_centred ** 2).mean(1) + 1e-05).rsqrt()" in source


def test_numbers_of_names_grow_with_the_order_of_execution() -> None:
    def forward(x: Tensor, y: Tensor) -> Tensor:
        h = x.sum() * y.sum() * (x * y).sum()
        return h

    names = [n.name for n in generate(forward, torch.randn(3), torch.randn(3), mode="steps").graph.nodes]
    assert [n for n in names if n.startswith("h_sum")] == ["h_sum", "h_sum_1", "h_sum_2"]
    assert [n for n in names if n.startswith("h_mul")] == ["h_mul", "h_mul_1"]


def test_what_is_given_anyway_is_not_written() -> None:
    def forward(x: Tensor) -> Tensor:
        return F.gelu(F.log_softmax(x, dim=-1)).mean()

    program = generate(forward, torch.randn(3, 4), mode="steps")
    assert "log_softmax(x, dim=-1)" in program.source
    assert "torch.ops.aten.gelu_backward(" in program.source
