"""Rules of the closed algebra, one at a time: where each holds, and where it must not be applied."""

from __future__ import annotations

import pytest
import sympy as sp
import torch
import torch.nn.functional as F

import codegen
from codegen.closed.algebra.commonfactor import by_common_factors
from codegen.closed.algebra.matching import fact_key
from codegen.derive import only_places
from codegen.lowering import tensors as tt
from codegen.lowering.lower import Lowerer
from codegen.lowering.values import TensorInfo
from engine.notation import Index, Less, LessEqual, Sigma, base, element, fresh, size_symbol
from tests.closed.test_forward_rules import emitted

N = sp.Symbol("n", positive=True, integer=True)


def closed(forward, *inputs, wrt=None) -> str:
    """The emitted file."""
    return codegen.generate(forward, *inputs, wrt=wrt).source


def test_sums_within_sums_keep_their_indices_apart() -> None:
    a, d, (i, k, m) = base("a"), base("d"), (Index(x) for x in "ikm")
    rows = Sigma(a[k, i] * Sigma(d[k, m], sp.Tuple(m, N)), sp.Tuple(k, N))
    columns = Sigma(a[k, i] * Sigma(d[m, k], sp.Tuple(m, N)), sp.Tuple(k, N))
    assert fact_key(rows)[0] != fact_key(columns)[0]
    assert fact_key(rows)[0] == fact_key(rows.xreplace({k: Index("p"), m: Index("q")}))[0]


def test_a_sum_over_few_places_of_which_one_is_meant() -> None:
    x, j = base("x"), Index("j")
    limits = {j: sp.Integer(3)}
    assert only_places(x[j] * Less(j, 1), limits) == (x[sp.Integer(0)], {j})
    assert only_places(x[j] * (1 - Less(j, 2)), limits) == (x[sp.Integer(2)], {j})
    assert only_places(x[j] * Less(j, 2), limits) == (x[j] * Less(j, 2), set())


def larger(x, y):
    return torch.maximum(x, y).sum()


def larger_of_sums(x, y):
    return torch.maximum(x + 1e16, 1e16 * y).sum()


def smaller_of_two(x, y):
    return torch.maximum(torch.minimum(2 * x, y), x).sum()


def test_the_larger_of_two_passes_back_by_a_sign_and_half_at_a_tie() -> None:
    inf = float("inf")
    x = torch.tensor([1.0, 2.0, 2.0, 0.0, inf, -inf, 5e-324], dtype=torch.float64)
    y = torch.tensor([1.0, 1.0, 2.0, -0.0, inf, inf, 0.0], dtype=torch.float64)
    for forward in (larger, smaller_of_two, larger_of_sums):
        leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
        true = torch.autograd.grad(forward(*leaves), leaves)
        program = codegen.generate(forward, x, y)
        found = program.backward(program.forward(x, y)[1])
        for name, wanted in zip("xy", true, strict=True):
            torch.testing.assert_close(found[name], wanted, rtol=0, atol=0)
        assert ".sign()" in program.source


def gelu_by_hand(x):
    return (x * x.exp() * (1 + torch.erf(x * 0.5**0.5)) / 2).sum()


def test_the_slope_of_gelu_is_its_kernel() -> None:
    """Not that of x exp(x) times the same function; nor where the tensor that it is taken of is larger than its cotangent."""
    x = torch.tensor([-40.0, -2.0, 0.0, 0.5, 40.0], dtype=torch.float64)
    for forward, kernel in (
        (lambda x: torch.nn.functional.gelu(x).square().sum(), True),
        (lambda x: torch.nn.functional.gelu(x).sum(), False),
        (gelu_by_hand, False),
    ):
        leaf = x.clone().requires_grad_()
        (true,) = torch.autograd.grad(forward(leaf), leaf)
        program = codegen.generate(forward, x)
        torch.testing.assert_close(program.backward(program.forward(x)[1])["x"], true)
        assert ("gelu_backward" in program.source) == kernel


def clipped(r, a):
    return torch.minimum(r * a, r.clamp(0.8, 1.25) * a).sum()


def clipped_elsewhere(r, a):
    return torch.minimum(r * a, r.clamp(0.8, 1.25) * a).sum() + (r.clamp(0.8, 1.25) * a.exp()).sum()


def test_a_clipped_objective_passes_back_by_one_comparison() -> None:
    """At the bounds, where both are equal, and where their factor is zero, as autograd does."""
    r = torch.tensor([0.5, 0.8, 1.0, 1.25, 2.0], dtype=torch.float64).repeat(3)
    a = torch.tensor([-1.5, 0.0, 2.0], dtype=torch.float64).repeat_interleave(5)
    for forward, once in ((clipped, True), (clipped_elsewhere, False)):
        leaf = r.clone().requires_grad_()
        (true,) = torch.autograd.grad(forward(leaf, a), leaf)
        program = codegen.generate(forward, r, a, wrt=("r",))
        torch.testing.assert_close(program.backward(program.forward(r, a)[1])["r"], true, rtol=0, atol=0)
        assert ("< 0.8" not in program.source) == once


def overlap(p, y):
    both = (p * y).sum()
    return both / (both + 0.3 * (p * (1 - y)).sum())


def missed(p, y):
    both = (p * y).sum()
    return (p * (1 - y)).sum().log() - both.log()


def test_a_sum_is_told_by_another_only_where_nothing_cancels() -> None:
    p, y = torch.rand(5, 3), torch.rand(5, 3)
    assert "1 - y" not in closed(overlap, p, y, wrt=("p",))
    assert "1 - y" in closed(missed, p, y, wrt=("p",))


def huber(x):
    return torch.where(x.abs() <= 2, x**2 / 2, 2 * (x.abs() - 1)).sum()


def broken(x):
    return torch.where(x.abs() <= 2, x**2 / 2, 2 * (x.abs() - 2)).sum()


def test_a_choice_is_a_polynomial_in_the_clamp_only_where_both_branches_are() -> None:
    x = torch.randn(50, dtype=torch.float64) * 4
    parts = {f: closed(f, x).split("def backward(") for f in (huber, broken)}
    assert ".clamp(-2, 2)" in parts[huber][0]
    assert ".clamp(-2, 2)" not in parts[broken][0]
    assert ".clamp(-2, 2)" in parts[broken][1]  # its slope is one all the same
    for forward in (huber, broken):
        assert codegen.check(codegen.generate(forward, x), x).ok


def test_a_difference_in_a_loss_of_torch_is_one_tensor_with_its_size_and_sign() -> None:
    x = torch.tensor([-3.0, -0.7, 0.0, 0.3, 0.7, 2.0], dtype=torch.float64).repeat(2)
    y = torch.zeros(12, dtype=torch.float64)
    y[6:] = torch.randn(6)
    for forward, bound in (
        (lambda x, y: F.huber_loss(x, y, delta=0.7), 0.7),
        (lambda x, y: F.smooth_l1_loss(x, y, beta=0.3, reduction="sum"), 0.3),
        (lambda x, y: F.smooth_l1_loss(x, y, reduction="none").exp().sum(), 1),
    ):
        leaves = [t.clone().requires_grad_() for t in (x, y)]
        true = torch.autograd.grad(forward(*leaves), leaves)
        program = codegen.generate(forward, x, y)
        found = program.backward(program.forward(x, y)[1])
        for name, wanted in zip("xy", true, strict=True):
            torch.testing.assert_close(found[name], wanted)
        assert f".clamp(-{bound}, {bound})" in program.source
        assert ".sign()" not in program.source
        assert "huber_loss(x, y" in program.source


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_loss_of_a_difference_is_torchs_and_so_is_its_sum(reduction: str) -> None:
    x, y = torch.randn(6, 1, 3, dtype=torch.float64) * 4, torch.randn(5, 3, dtype=torch.float64)

    def naive(x, y):
        d = (y - x).abs()
        return getattr(torch.where(d > 2, 4 * d - 4, d**2), reduction)()

    program = codegen.generate(naive, x, y)
    said = ', reduction="sum"' if reduction == "sum" else ""
    assert f"huber_loss(*torch.broadcast_tensors(y, x){said}, delta=2)" in program.source
    assert codegen.check(program, x, y).ok
    given = codegen.generate(lambda d, w: (torch.where(d.abs() > 2, 4 * d.abs() - 4, d**2) * w).sum(), y, y)
    assert "huber_loss" not in given.source


def softmax_by_log(x):
    log = x - x.exp().sum(1, keepdim=True).log()
    return (log.exp() * log).sum()


def test_the_exponential_of_a_log_softmax_is_taken_once() -> None:
    source = closed(softmax_by_log, torch.randn(4, 3))
    assert source.count(".exp()") == 1
    assert source.count("log_softmax") == 1


def running(x):
    return (x.exp().cumsum(0).tanh() * x).sum()


def test_a_running_sum_is_no_product_with_a_triangle() -> None:
    x = torch.randn(6, dtype=torch.float64)
    source = closed(running, x)
    assert "arange" not in source
    assert "flip(0).cumsum(0).flip(0)" in source
    assert codegen.check(codegen.generate(running, x), x).ok


def halves(x, y):
    a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat([-b, a], -1) * y + x


def test_halves_are_slices_for_even_and_odd_sizes() -> None:
    for n in (6, 7):
        x, y = torch.randn(4, n, dtype=torch.float64), torch.randn(4, n, dtype=torch.float64)
        program = codegen.generate(halves, x, y)
        assert "arange" not in program.source
        assert "index_put_" not in program.source
        assert codegen.check(program, x, y).ok
        assert codegen.check(program, x[:, :-1], y[:, :-1]).ok


def paired(x):
    return torch.stack([x[:, 0::2] * 2, x[:, 1::2] ** 2], -1).flatten(1)


def test_alternating_places_are_slices() -> None:
    x = torch.randn(4, 6, dtype=torch.float64)
    program = codegen.generate(paired, x)
    assert "arange" not in program.source
    assert "index_put_" not in program.source
    assert codegen.check(program, x).ok


def masked_mean(x, y):
    m = torch.where(y[:, None] == y, 1 - torch.eye(len(y)), 0.0).to(x.dtype)
    return ((x @ x.T) * m).sum() / m.sum(1).clamp(min=1).sum()


def test_what_reads_no_floats_has_the_precision_of_its_cell() -> None:
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 2, 1, 0])
    assert codegen.check(codegen.generate(masked_mean, x, y, wrt=("x",)), x, y).ok


def gamma_regression(x, w, y):
    z = x @ w
    return (y * (-z).exp() + z).mean()


def test_sums_against_one_tensor_are_joined() -> None:
    x, w, y = torch.randn(6, 3), torch.randn(3), torch.rand(6) + 0.5
    source = closed(gamma_regression, x, w, y, wrt=("w",))
    assert "(1 - out_mul) @ x" in source
    assert "x.sum(0)" not in source
    both = codegen.generate(lambda x, w, y: (gamma_regression(x, w, y), x.sum(0)), x, w, y, wrt=("w",))
    assert codegen.check(both, x.double(), w.double(), y.double()).ok


def shared_heads(q, v):
    return (q @ v.repeat_interleave(2, 1)).square().sum()


def test_products_of_sizes_are_one_size() -> None:
    source = closed(shared_heads, torch.randn(3, 4, 5, 6), torch.randn(3, 2, 6, 7))
    assert "index_put_" not in source
    assert "[:, :2" not in source


def test_the_first_and_the_last_place_of_any_size() -> None:
    x, j = base("x"), Index("j")
    limits = {j: N}
    assert only_places(x[j] * Less(j, 1), limits) == (x[sp.Integer(0)], {j})
    assert only_places(x[j] * LessEqual(j, 0), limits) == (x[sp.Integer(0)], {j})
    assert only_places(x[j] * (1 - Less(j, N - 1)), limits) == (x[N - 1], {j})
    for bracket in (Less(j, 2), 1 - Less(j, N - 2), 1 - Less(j, 1), Less(0, j)):
        assert only_places(x[j] * bracket, limits) == (x[j] * bracket, set())


def test_a_row_put_in_front_gets_what_is_passed_back_there() -> None:
    def forward(x, c):
        return (torch.cat([c, x], 1) ** 3).sum()

    source = closed(forward, torch.randn(4, 6, 3).double(), torch.randn(4, 1, 3).double())
    assert "arange" not in source
    assert "dz[:, 0]" in source.replace("dout_cat", "dz")


def test_signs_of_differences_are_taken_once() -> None:
    source = closed(lambda x, y, z: (torch.maximum(x * z, y) * z).sum(), *torch.randn(3, 7).double())
    assert source.count(".sign()") == 1


def weighted(x, w):
    m = (w * x).sum() / w.sum()
    return (w * (x - m) ** 4).sum() + (w * (x - m) ** 2).sum()


def test_deviations_from_a_weighted_mean_have_none() -> None:
    """The gradients at an offset of 1e6 are those without it."""
    x, w = torch.randn(50, generator=torch.Generator().manual_seed(0)).double(), torch.rand(50).double() + 0.5
    program = codegen.generate(weighted, x, w)
    leaves = [t.clone().requires_grad_() for t in (x, w)]
    true = torch.autograd.grad(weighted(*leaves), leaves)
    for offset in (0.0, 1e6):
        _, grads = program.value_and_grad(x + offset, w)
        for mine, wanted in zip(grads.values(), true, strict=True):
            torch.testing.assert_close(mine, wanted, rtol=1e-7, atol=1e-7)


def centred_twice(x, y):
    a, b = (x[:, None] - x[None]).abs(), (y[:, None] - y[None]).abs()
    a, b = (c - c.mean(0) - c.mean(1, keepdim=True) + c.mean() for c in (a, b))
    return (a * b).sum()


def test_what_is_centred_by_rows_and_columns_sums_to_zero_over_both() -> None:
    source = closed(centred_twice, *torch.randn(2, 9).double())
    backward = source[source.index("def backward(") : source.index("class Function")]
    assert backward.count(".sum(") == 2
    assert ".mean(" not in backward


def opposite(x):
    s = torch.sin(x[:, None] - x[None])
    return (s.sum(0) ** 3 * s.sum(1)).sum() + s.mean(0).exp().sum()


def test_sums_over_the_first_of_an_antisymmetric_pair_have_the_opposite_sign() -> None:
    x = torch.randn(6, generator=torch.Generator().manual_seed(1)).double()
    program = codegen.generate(opposite, x)
    leaf = x.clone().requires_grad_()
    wanted = opposite(leaf)
    out, grads = program.value_and_grad(x)
    torch.testing.assert_close(out, wanted.detach())
    torch.testing.assert_close(grads["x"], torch.autograd.grad(wanted, leaf)[0])


def policy(x, old, r):
    a = (r - r.mean()) / (r.std() + 1e-4)
    w = torch.exp(x - old)
    return torch.min(w * a, torch.clamp(w, 0.8, 1.2) * a).mean()


def test_quotients_in_choices_keep_what_they_divide_by() -> None:
    source = closed(policy, *torch.randn(3, 30).double(), wrt=("x",))
    backward = source[source.index("def backward(") : source.index("class Function")]
    assert "10000" not in backward
    assert ".sign()" not in backward


def dirichlet_kl(a, b):
    of_a, of_b = a.sum(1), b.sum(1)
    near = (a - b) * (torch.digamma(a) - torch.digamma(of_a)[:, None])
    beta = torch.lgamma(b).sum(1) - torch.lgamma(a).sum(1) - torch.lgamma(of_b)
    return (torch.lgamma(of_a) + beta + near.sum(1)).mean()


def test_a_sum_beside_what_it_is_made_of_is_gone() -> None:
    """What the logarithms of gammas pass back to a is what the difference of digammas does."""
    a, b = (torch.rand(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) + 0.5 for k in (0, 1))
    program = codegen.generate(dirichlet_kl, a, b)
    assert codegen.check(program, a, b).ok
    backward = program.source.split("def backward(")[1].split("def step(")[0].split("# da[")[1]
    assert "polygamma(1" in backward
    assert "polygamma(0" not in backward


def test_a_sum_beside_others_stays() -> None:
    x, y = (torch.rand(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) + 0.5 for k in (0, 1))

    def forward(x, y):
        u = x.exp() + y
        return (u * u * x).sum()

    assert codegen.check(codegen.generate(forward, x, y), x, y).ok


def test_what_is_added_to_a_quotient_cancels_over_its_denominator() -> None:
    def log_odds(x):
        return (x - torch.log1p(-x.exp())).square().sum()

    x = -torch.rand(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.1
    source = emitted(log_odds, x)
    assert "+ 1" not in source
    program = codegen.generate(log_odds, x)
    near = torch.full((5,), -1e-9, dtype=torch.float64)
    exact = 2 * (near - torch.log(-torch.expm1(near))) / -torch.expm1(near)
    torch.testing.assert_close(program.value_and_grad(near)[1]["x"], exact, rtol=1e-6, atol=0)


def test_what_is_minus_another_gradient_is_computed_from_it() -> None:
    a, b = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert "    da = -db\n" in emitted(lambda a, b: (torch.logaddexp(a, b) - a).sum(), a, b)


def test_the_logarithm_of_two_exponentials_less_one_of_them_is_softplus() -> None:
    """Where one is much larger, `logaddexp(a, b) - a` has no digits of what is left."""

    def forward(a, b):
        return (torch.logaddexp(a, b) - a).sum()

    a, b = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert "logaddexp" not in emitted(forward, a, b)
    program = codegen.generate(forward, a, b)
    large = torch.full((5,), 1e3, dtype=torch.float64)
    out, _ = program.value_and_grad(large, large - 60)
    torch.testing.assert_close(out, 5 * torch.exp(torch.tensor(-60.0, dtype=torch.float64)), rtol=1e-6, atol=0)


def test_differences_in_an_exponent_stay_there() -> None:
    """`exp(b - a)` as `exp(b) exp(-a)` overflows."""

    def forward(a, b):
        return (F.softplus(a - b) + b).sum() - a.sum() + (torch.logaddexp(a / 3, b) - b).sum()

    a, b = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    program = codegen.generate(forward, a, b)
    out, grads = program.value_and_grad(a + 3e3, b + 3e3)
    assert out.isfinite()
    assert all(g.isfinite().all() for g in grads.values())


def test_a_matrix_less_its_diagonal_has_none() -> None:
    x = torch.randn(12, 5, dtype=torch.float64)

    def by_diag(x):
        c = x.T @ x
        return (c - torch.diag(torch.diagonal(c))).pow(2).sum()

    def by_identity(x):
        c = x.T @ x
        return (c - c * torch.eye(5, dtype=x.dtype)).pow(2).sum()

    def of_another(x):
        c = x.T @ x
        return (c - torch.diag(torch.diagonal(2 * c))).pow(2).sum()

    for f in (by_diag, by_identity):
        text = closed(f, x)
        assert "fill_diagonal_(0)" in text
        assert "dx = x @ (2 * dc)" in text  # the cotangent is symmetric
    assert "fill_diagonal_(0)" not in closed(of_another, x)


def test_what_one_smaller_tensor_is_multiplied_with_is_added_first() -> None:
    i, j = Index("i"), Index("j")
    x, y, z, a = (base(n) for n in "xyza")
    e = a[i] * x[i, j] - a[i] * y[i, j] + 3 * z[i, j]
    assert by_common_factors(e) == a[i] * (x[i, j] - y[i, j]) + 3 * z[i, j]
    apart = a[i] * x[i, j] - 2 * a[i] * y[i, j] + 3 * z[i, j]  # the other number is a multiplication, too
    assert by_common_factors(apart) == apart


def test_a_sum_of_what_is_written_out_elsewhere_is_one_sum() -> None:
    def squash(x):
        length = (x**2).sum(1, keepdim=True)
        return ((length / (1 + length) * x) ** 2).sum(1)

    assert closed(squash, torch.randn(6, 5, dtype=torch.float64)).count("x ** 2") == 1


def test_a_logarithm_below_zero_is_subtracted() -> None:
    def mixed(x, y):
        return (0.1 * x.exp() + 0.9 * y.exp()).log()

    text = closed(mixed, torch.randn(6, dtype=torch.float64), torch.randn(6, dtype=torch.float64))
    assert " - 0.1053605156578263" in text
    assert "+ -" not in text


def test_terms_over_fewer_indices_are_added_first() -> None:
    i, j = fresh(), fresh()
    shape = (size_symbol("n"), size_symbol("k"))
    m, a, b = element(base("m"), (i, j)), element(base("a"), (i,)), element(base("b"), (i,))
    infos = {"m": TensorInfo(shape), "a": TensorInfo(shape[:1]), "b": TensorInfo(shape[:1])}
    low = Lowerer(infos, {}, fills=True).lower(m - a + 2 * b, (i, j), shape)
    assert low.dense is not None
    assert tt.text(low.dense.t) == "(2 * b - a).unsqueeze(-1) + m"


def test_a_sample_less_its_mean_is_what_was_added() -> None:
    """Of `u - m` with u = m + t, which others read as well, t is left, and of t = e s over s the noise e."""

    def forward(m, g, e):
        s = g.exp()
        u = m + s * e
        return (((u - m) / s) ** 2).sum() + u.tanh().sum()

    x = torch.randn(4, 3, dtype=torch.float64)
    program = codegen.generate(forward, x, x + 1, x - 1, wrt=("m", "g"))
    assert "/ s" not in program.source
    assert " - m" not in program.source
    assert codegen.check(program, x, x + 1, x - 1).ok


def test_powers_by_positions_are_one_table() -> None:
    def retained(q, k, v):
        i = torch.arange(q.shape[0])
        decay = torch.tril(0.9 ** (i[:, None] - i[None, :]).to(q.dtype))
        return (q @ k.T * decay).softmax(1) @ v

    q, k, v = (torch.randn(6, 4, dtype=torch.float64) for _ in range(3))
    program = codegen.generate(retained, q, k, v)
    assert "arange" not in program.source[program.source.index("def backward") :]
    assert codegen.check(program, q, k, v).ok
