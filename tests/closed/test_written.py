"""How a closed program reads: what one call makes is taken apart at once, parts stand in their sums, blocks are side by side."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import codegen
from codegen.closed.plan.planner import unsimplified
from codegen.formula import latex_formula, lettered, text_formula
from codegen.worked.story import SHARE, WHOLE, backward_story
from engine.notation import accesses, name_of
from tests.closed.forms.thresholds import sparsemax
from tests.closed.test_forward_rules import emitted

G = torch.Generator().manual_seed(0)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=G, dtype=torch.float64)


def gated(x, w):
    a, b, c = (x @ w).chunk(3, 1)
    return (a.sigmoid() * b.tanh() + c).square()


def without_middle(x, w):
    a, _, c = (x @ w).chunk(3, 1)
    return (a.sigmoid() * c).square()


def test_what_one_call_makes_is_taken_apart_where_it_is_made() -> None:
    x, w = drawn(4, 3), drawn(3, 6)
    assert "\n    a, b, c = (x @ w).chunk(3, 1)\n" in emitted(gated, x, w)
    source = emitted(without_middle, x, w)
    assert "\n    a, _, c = (x @ w).chunk(3, 1)\n" in source
    assert "outputs" not in source


def test_parts_that_are_read_once_are_taken_apart_too() -> None:
    def projected(x, w, b):
        a, c = (F.linear(x, *of).reshape(*x.shape[:2], 2, 2) for of in zip(w.chunk(2), b.chunk(2), strict=True))
        return (a * c.tanh()).square().sum()

    source = emitted(projected, drawn(4, 2, 3), drawn(8, 3), drawn(8))
    assert "outputs" not in source
    assert source.count(".chunk(2)\n") == 2
    assert "clamp" not in source, "four of the bias are added to four of the product: it has eight"


def test_a_call_says_only_what_is_not_usual_and_words_stand_in_double_quotes() -> None:
    def pooled(x, w, y):
        return F.cross_entropy(F.conv1d(x, w, padding="same").mean(2), y)

    x, w, y = drawn(4, 3, 6), drawn(5, 3, 3), torch.tensor([0, 2, 4, 2])
    assert 'padding="same"' in emitted(pooled, x, w, y)
    steps = codegen.generate(pooled, x, w, y, mode="steps").source
    assert 'padding="same"' in steps
    assert "torch.nn.functional.cross_entropy(out_mean, y)" in steps


def test_what_passes_nothing_back_is_not_computed() -> None:
    """What an absolute value is compared with, to find the largest, passes 0 back: its cotangent is in no chain."""
    program = codegen.generate(lambda x: x.abs().max(), drawn(4, 5))
    assert program.writer is not None
    (closed,) = program.writer.regions.values()
    assert closed.code.region is not None
    chain = unsimplified(closed.code.region).statements
    read = {name_of(a) for s in chain for a in accesses(s.expr)}
    assert len(chain) > 1
    assert all(s.name in read or s.cell in closed.code.region.wanted for s in chain)


def test_a_deviation_is_the_root_of_a_variance() -> None:
    source = emitted(lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True), drawn(4, 5))
    assert "_std = ((" in source
    assert "where" not in source, "where the root is 0 all is divided by it"


def ranked(x, w):
    k = (x @ w).topk(2, dim=1).values
    m = x.exp().max(1).values
    return (k**2).sum() + m.sum()


def test_values_stand_beside_their_places_as_one_call_makes_both() -> None:
    x, w = drawn(4, 3), drawn(3, 6)
    source = emitted(ranked, x, w)
    assert "\n    k, k_indices = (x @ w).topk(2, dim=1)\n" in source
    assert "\n    m, m_indices = x.exp().max(1)\n" in source
    assert "dm_sum" not in source, "what is passed back as it is has no second name"
    assert "dout_" not in source


def test_a_pool_is_called_by_its_public_name() -> None:
    source = emitted(lambda x: F.max_pool2d(x.relu(), 2).square().sum(), drawn(2, 3, 4, 4))
    assert ", out_indices = torch.nn.functional.max_pool2d(out_relu, 2, return_indices=True)\n" in source


def scaled_scores(q, k, bias):
    return (0.3 * (q @ k.T) + bias).softmax(1).square().sum()


def residual(x, w, y):
    return (y - x @ w).square().sum()


def test_a_number_is_multiplied_with_what_a_product_passes_back_where_that_is_smaller() -> None:
    large = drawn(9, 2), drawn(8, 2), drawn(9, 8)
    source = emitted(scaled_scores, *large)
    assert "softmax = torch.addmm(bias, q, k.T, alpha=0.3).softmax(1)\n" in source
    assert "dq = dout_add @ (0.3 * k)\n" in source  # k is smaller than dq
    assert "dk = 0.3 * (dout_add.T @ q)\n" in source
    assert codegen.check(codegen.generate(scaled_scores, *large), *large).ok
    small = drawn(3, 8), drawn(2, 8), drawn(3, 2)
    assert "dout_matmul = 0.3 * dout_add\n" in emitted(scaled_scores, *small)


def test_minus_a_product_is_that_of_the_product() -> None:
    inputs = drawn(9, 2), drawn(2, 8), drawn(9, 8)
    source = emitted(residual, *inputs)
    assert "dx = -(dout_sub @ w.T)\n" in source
    assert "dw = -(x.T @ dout_sub)\n" in source
    assert codegen.check(codegen.generate(residual, *inputs), *inputs).ok


def quotient(a, v):
    d = a / v
    return (d.erf() * (d - v).sin()).sum()


def normalised(x, w, b):
    centred = x - x.mean(0)
    return w * centred / (centred.square().mean(0) + 1e-5).sqrt() + b


def test_a_gradient_that_is_a_factor_of_another_one_is_read_there() -> None:
    x = drawn(6), drawn(6).exp()
    source = emitted(quotient, *x)
    assert "da = dd / v\n" in source
    assert "dv = -torch.addcmul(dout_sub, d, da)\n" in source
    batch = drawn(9, 4), drawn(4), drawn(4)
    source = emitted(normalised, *batch)
    assert "centred, dw / (n0 * out_sqrt), value=-1)" in source, "the published form has the scale's gradient"
    for forward, inputs in ((quotient, x), (normalised, batch)):
        assert codegen.check(codegen.generate(forward, *inputs), *inputs).ok


def test_a_size_that_is_split_has_to_be_a_multiple() -> None:
    x, w = drawn(4, 3), drawn(3, 6)
    for mode in ("closed", "steps"):
        program = codegen.generate(gated, x, w, mode=mode)
        assert "if w.shape[1] % 3 != 0:" in program.source
        with pytest.raises(ValueError, match=r"fixed w\.shape\[1\] as a multiple of 3 at .*test_written\.py"):
            program.forward(x, drawn(3, 7))


def test_what_fills_a_dimension_part_by_part_is_one_choice_in_its_formula() -> None:
    source = emitted(lambda x: x[:, :2].exp().sum() + x[:, 2:5].sin().sum() + x[:, 5:].cos().sum(), drawn(4, 9))
    assert "else" in next(line for line in source.splitlines() if line.startswith("    # dx[i,j] = "))
    assert "Σ_k" not in source
    assert "[j < 2]" not in source


def turned(x, cos, sin):
    a, b = x.chunk(2, dim=1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=1)


def test_the_backward_of_a_rotation_is_the_rotation_back() -> None:
    source = emitted(turned, drawn(4, 6), drawn(3), drawn(3))
    backward = source[source.index("def backward(") : source.index("# What follows")]
    assert [line.strip() for line in backward.splitlines() if line.startswith("    # da[") or "    # db[" in line] == [
        "# db[i,j] = cos[j] dout_add[i,j] - sin[j] dout_sub[i,j]",
        "# da[i,j] = sin[j] dout_add[i,j] + cos[j] dout_sub[i,j]",
    ]
    assert "da_out" not in backward
    assert "* -sin" not in backward


def penalized(x, w, b):
    return (x @ w + b).tanh().sum() + 0.1 * ((w * w).sum() + (b * b).sum())


def test_parts_of_a_gradient_stand_in_the_sum_of_them() -> None:
    source = emitted(penalized, drawn(4, 3), drawn(3, 2), drawn(2))
    backward = source[source.index("def backward(") : source.index("def step(")]
    assert sum(line.startswith(("    dw", "    db")) for line in backward.splitlines()) == 2


def test_what_is_copied_to_every_row_is_added_as_it_is() -> None:
    def rows(x, a, c):
        return (x @ a.T).exp().sum() + (c * x.sum(0)).sum()

    source = emitted(rows, drawn(4, 3), drawn(5, 3), drawn(3))
    assert "expand" not in source[source.index("def backward(") : source.index("def step(")]
    emitted(rows, drawn(1, 3), drawn(5, 3), drawn(3))


def test_a_part_that_something_else_reads_keeps_its_name() -> None:
    """The part that two gradients share is made once."""

    def shared(x, y):
        d = x - y
        return (d @ d.T).exp().sum() + x.square().sum() + y.square().sum()

    emitted(shared, drawn(4, 3), drawn(4, 3))


@pytest.mark.parametrize("act", [F.relu, lambda x: F.leaky_relu(x, 0.2), F.elu, torch.tanh])
def test_a_cross_entropy_behind_an_activation_closes_before_it(act) -> None:
    y = torch.tensor([0, 2, 1, 2])
    source = emitted(lambda x: F.cross_entropy(act(x), y), drawn(4, 3))
    assert "_softmax[i,j] - [j = " in source
    assert "new_zeros" not in source
    assert "dout_log_softmax" not in source


def test_the_exponential_of_a_logarithm_is_the_share_that_the_backward_reads() -> None:
    def distilled(p, q):
        return F.kl_div(F.log_softmax(q / 2, -1), F.log_softmax(p, -1), log_target=True, reduction="batchmean")

    source = emitted(distilled, drawn(4, 3), drawn(4, 3))
    forward, backward = source[: source.index("def step(")].split("def backward(")
    assert forward.count(".exp()") == 2
    assert ".exp()" not in backward


def test_a_mean_over_a_number_that_the_forward_fixed_is_a_mean() -> None:
    y = torch.tensor([0, 2, 1, 2])
    source = emitted(lambda x: -(x + torch.eye(4, 3)).log_softmax(1)[torch.arange(4), y].sum() / 4, drawn(4, 3))
    assert "].mean()" in source
    assert "-= grad_out / 4" in source
    assert "sum()" not in source[source.index("def forward(") : source.index("def backward(")]


def test_nothing_is_added_where_nothing_is_passed_back() -> None:
    source = emitted(lambda x, m: (x.flatten().exp().view_as(m) * m).sum() / m.sum(), drawn(4, 3), drawn(4, 3).exp())
    assert "+ 0\n" not in source


def test_the_story_says_what_is_a_part_and_what_is_the_whole() -> None:
    program = codegen.generate(penalized, drawn(4, 3), drawn(3, 2), drawn(2))
    told = [(p.name, p.role) for p in backward_story(program.writer) if p.cell == "b"]
    assert told[-1] == ("db", WHOLE)
    assert len(told) > 1
    assert all(role == SHARE for _, role in told[:-1])


def test_a_cotangent_that_no_statement_computes_is_told_before_what_follows_from_it() -> None:
    program = codegen.generate(scaled_scores, drawn(9, 2), drawn(8, 2), drawn(9, 8))
    told = [p.name for p in backward_story(program.writer)]
    assert "    dout_matmul = " not in program.source
    assert told.index("dout_add") < told.index("dout_matmul") < told.index("dq")


@pytest.mark.parametrize(("dims", "call"), [((), "amax()"), ((1,), "amax(1)")])
def test_the_largest_of_all_is_one_call_and_what_is_compared_with_it(dims, call) -> None:
    source = emitted(lambda x: (x.amax(*dims) - x.mean()).square().sum(), drawn(4, 5))
    assert f"out_amax = x.{call}\n" in source
    assert "x == out_amax" in source
    assert source.count("torch.where(") == 1, "nothing is added up at places in the forward"


def test_the_smallest_of_all_is_said_to_be_that() -> None:
    program = codegen.generate(lambda x: x.amin(1).sum(), drawn(4, 5), mode="steps")
    indices, definition = program.graph["out_amin"].definition
    assert text_formula(lettered(definition, indices)[0]) == "min_j x[i,j]"
    assert r"\min_{j} x_{i,j}" in latex_formula(lettered(definition, indices)[0])
    assert "= x.amin(1)\n" in program.source


def test_sizes_in_front_of_a_sum_and_in_its_terms_cancel() -> None:
    """The slope of a variance over n - 1 has an n - 1 above, and so has that of the covariances beside it."""

    def spread(x: torch.Tensor) -> torch.Tensor:
        z = x - x.mean(0)
        c = (z.T @ z) / (len(x) - 1)
        off = c - torch.diag(torch.diag(c))
        return torch.relu(1 - x.var(0).sqrt()).mean() + (off**2).sum() / x.shape[1]

    program = codegen.generate(spread, torch.randn(5, 3, dtype=torch.float64))
    formulas = [line for line in program.source.splitlines() if line.lstrip().startswith("#")]
    assert not any("/ 2 - 1/2" in line for line in formulas)


def test_a_root_of_a_mean_is_one_whatever_root_it_is() -> None:
    source = codegen.generate(lambda x: x.abs().pow(3).mean(1) ** (1 / 3), drawn(4, 5)).source
    assert ".mean(1) ** (1 / 3)\n" in source
    assert "0.333" not in source


def test_minus_a_kernel_is_written_so() -> None:
    program = codegen.generate(lambda x, y: (-(x[:, :, None] - y[:, None]).abs()).softmax(2), drawn(4, 5), drawn(4, 6))
    assert "out = (-out_sub.abs()).softmax(2)" in program.source


def test_values_at_places_are_put_into_what_they_are_added_to() -> None:
    """There is no tensor of zeros for them, and none for the cotangent of what is only compared."""
    source = codegen.generate(sparsemax, drawn(4, 6)).source
    assert "dz = dout_sub.scatter_add(-1, ordered_indices, dordered)" in source
    assert "new_zeros" not in source
    assert "dsupport" not in source
