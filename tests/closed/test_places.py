"""Positions, sizes and numbers: gathers passed back, runs of equal length, numbers that no integer holds, bounds by max and min."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import sympy as sp
import torch
import torch.nn.functional as F

import codegen
from codegen.closed.gates.sizes import small_sizes
from codegen.closed.regions.cells import Cell
from codegen.derive import gathered
from engine.errors import InputError
from engine.notation import Delta, Index, base, element, size_symbol

N = sp.Symbol("n", positive=True, integer=True)


def agrees(forward, *inputs, wrt=None) -> str:
    """The emitted file, whose gradients are those of autograd."""
    program = codegen.generate(forward, *inputs, wrt=wrt)
    out, grads = program.value_and_grad(*inputs)
    leaves = [
        t.clone().requires_grad_(t.is_floating_point() and n in grads)
        for n, t in zip(program.graph.inputs, inputs, strict=True)
    ]
    true = forward(*leaves)
    torch.testing.assert_close(out, true.detach())
    wanted = [t for t in leaves if t.requires_grad]
    torch.testing.assert_close(tuple(grads.values()), torch.autograd.grad(true, wanted))
    return program.source


def test_a_sum_over_what_an_integer_tensor_says_is_a_gather() -> None:
    x, c, i, k = base("x"), base("c", integer=True), Index("i"), Index("k")
    limits = {k: N}
    assert gathered(x[k] * Delta(k, c[i]), limits, {}) == x[c[i]]
    assert limits == {}
    limits = {k: N}
    assert gathered(x[k] * Delta(k, i), limits, {i: N}) == x[i]
    limits = {k: N}  # an index that runs further names places that the sum does not have
    assert gathered(x[k] * Delta(k, i), limits, {i: N + 1}) == x[k] * Delta(k, i)
    both = {k: N, i: N}  # what the place depends on is summed over too
    assert gathered(x[k] * Delta(k, c[i]), both, {}) == x[k] * Delta(k, c[i])
    assert both == {k: N, i: N}


def messages(x, to):
    return (torch.zeros(4, x.shape[1], dtype=x.dtype).index_add_(0, to, x) ** 2).sum()


def test_what_is_added_at_places_is_read_there() -> None:
    source = agrees(messages, torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 3, 3, 1, 0, 2]))
    assert "torch.arange" not in source
    assert ".index_select(0, to)" in source


def far_masked(x, keep):
    return x.masked_fill(~keep, -1e30).softmax(-1).square().sum()


WEIGHTED_BY_RANK = {
    "each column": lambda x: (x.sort(0).values * torch.arange(x.shape[0])[:, None]).sum(),
    "differences of all pairs": lambda x: (
        (x.sort().values * (2 * torch.arange(x.shape[1]) - x.shape[1] + 1)).sum() / x.sum()
    ),
    "by places": lambda x: (x.gather(0, x.argsort(0)) * torch.arange(x.shape[0])[:, None]).sum().tanh(),
}


@pytest.mark.parametrize("name", WEIGHTED_BY_RANK)
def test_whole_numbers_are_put_where_floats_are(name: str) -> None:
    """What is passed back to what was sorted are the ranks, times a number."""
    agrees(WEIGHTED_BY_RANK[name], torch.rand(4, 3, dtype=torch.float64))


def test_numbers_beyond_the_integers_are_floats() -> None:
    keep = torch.tensor([True, False, True])
    agrees(far_masked, torch.randn(2, 3, dtype=torch.float64), keep)


def picked(x, y):
    b, t, v = x.shape
    return -x.view(b * t, v).log_softmax(-1).gather(1, y.view(-1, 1)).mean()


def test_truth_values_are_added_as_floats() -> None:
    agrees(picked, torch.randn(2, 3, 4, dtype=torch.float64), torch.tensor([[0, 1, 3], [2, 2, 0]]))


def quarters(z, h):
    k = h.shape[1]
    return (z[:, :k].tanh() * z[:, k : 2 * k] + z[:, 2 * k : 3 * k].exp() * z[:, 3 * k :] * h).sum()


def test_a_size_that_is_a_multiple_of_another_is_cut_by_slices() -> None:
    source = agrees(quarters, torch.randn(5, 12, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64))
    assert "index_put_" not in source
    assert "clamp" not in source


def third(x):
    return (x[:, 6] * x.sum(1)).exp().mean()


def test_gates_have_room_for_every_position_that_is_read() -> None:
    program = codegen.generate(third, torch.randn(9, 8, dtype=torch.float64))
    assert program.writer is not None
    (region,) = [r for r in program.writer.regions.values() if any(c.expr is not None for c in r.code.cells)]
    assert region.code.refused == ()
    cells, values = region.code.cells, dict(region.code.values)
    assert min(small_sizes(cells, values).values()) > 6


def test_gates_keep_to_what_the_forward_fixed() -> None:
    """A dimension that is read at each of five places has five, one that is read at each of m has as many as m."""
    i, n, m = Index("i"), size_symbol("n"), size_symbol("m")

    def read(size, places):
        given = Cell("c0", (i,), (size,), None, "float", True, torch.float64)
        return [given, replace(given, name="c1", shape=(places,), expr=sp.exp(element(base("c0"), (i,))))]

    assert small_sizes(read(n, sp.Integer(5)), {n: 5, m: 2}) == {n: 5}
    assert small_sizes(read(n, sp.Integer(5)), {n: 6, m: 2}) == {n: 6}
    assert small_sizes(read(n, 3 * m), {n: 6, m: 2}) == {n: 6, m: 2}
    assert small_sizes(read(3 * m, n), {n: 6, m: 2}) == {n: 4, m: 3}


def bent(z, w, u):
    h = torch.tanh(z @ w)
    return ((1 + ((1 - h**2)[:, None] * w) @ u).abs().log() + (z + u * h[:, None]).sum(1)).sum()


def test_a_product_with_a_sum_of_fewer_indices_says_nothing_of_that_sum() -> None:
    draw = torch.Generator().manual_seed(0)
    z, w, u = (torch.randn(*s, generator=draw, dtype=torch.float64) * 0.3 for s in ((6, 4), (4,), (4,)))
    program = codegen.generate(bent, z, w, u)
    assert program.writer is not None
    assert not any("KeyError" in reason for reason in program.writer.refused)


@pytest.mark.parametrize(
    ("forward", "spelled"),
    [
        (lambda x: torch.maximum(x, torch.zeros_like(x)).square().sum(), ".relu()"),
        (lambda x: torch.max(torch.full_like(x, 0.5), x).square().sum(), ".clamp(min=0.5)"),
        (lambda x: torch.minimum(x, torch.zeros_like(x)).square().sum(), ".clamp(max=0)"),
        (lambda x: F.softplus(x).square().sum(), "softplus(x)"),
        (lambda x: F.softplus(x, threshold=3).square().sum(), "softplus(x, threshold=3)"),
    ],
)
def test_bounds_and_thresholds_are_kernels(forward, spelled) -> None:
    x = torch.cat([torch.linspace(-4, 4, 9), torch.tensor([0.5, 25.0])]).double()
    source = agrees(forward, x)
    assert spelled in source
    head = source[source.index("def forward(") : source.index("def backward(")]
    assert "torch.where" not in head


def matched(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return -(a @ b.T).log_softmax(1).diagonal().mean()


def slanted(x: torch.Tensor) -> torch.Tensor:
    return (x**2).diagonal().sum()


@pytest.mark.parametrize("mode", ["closed", "steps"])
def test_the_diagonal_of_a_square_is_not_that_of_other_sizes(mode) -> None:
    a, b = torch.randn(2, 5, 3)
    program = codegen.generate(matched, a, b, mode=mode)
    for rows, columns in ((5, 7), (7, 5)):
        with pytest.raises(InputError, match="equal"):
            program.forward(torch.randn(rows, 3), torch.randn(columns, 3))
    other = torch.randn(2, 7, 3)
    torch.testing.assert_close(program.forward(*other)[0], matched(*other))


def own_beside(a, b, c):
    """The own logit of every row of `a` is the one with the same row of `b`; those with `c` stand beside them."""
    s = torch.cat([a @ b.T, a @ c.T], 1)
    n = torch.arange(len(a))
    return -s.log_softmax(1)[n, n].mean()


def determinants(m):
    t = torch.tril(m)
    return (t**2).sum((1, 2)) - torch.diagonal(t, dim1=1, dim2=2).log().sum(1)


def without_own(x, scale):
    d = (x[:, :, None] - x[:, None, :]) ** 2
    return (scale * torch.exp(-d) * (1 - torch.eye(x.shape[1], dtype=x.dtype))).sum((1, 2)) / 2


@pytest.mark.parametrize(
    ("forward", "shapes", "spelled"),
    [
        (own_beside, [(5, 3), (5, 3), (7, 3)], "ds.diagonal().sub_("),
        (own_beside, [(5, 3), (9, 3), (1, 3)], "ds.diagonal().sub_("),
        (determinants, [(4, 3, 3)], ".diagonal(0, 1, 2).sub_("),
        (without_own, [(4, 3), (1,)], ".diagonal(0, 1, 2).fill_(0)"),
    ],
)
def test_what_stands_on_a_diagonal_of_any_two_dimensions_is_put_there(forward, shapes, spelled) -> None:
    g = torch.Generator().manual_seed(0)
    inputs = [torch.rand(s, generator=g, dtype=torch.float64) + 0.5 for s in shapes]
    program = codegen.generate(forward, *inputs)
    assert spelled in program.source
    assert "clamp(0," not in program.source
    leaves = [t.clone().requires_grad_() for t in inputs]
    out = forward(*leaves)
    grad_out = torch.rand(out.shape, generator=g, dtype=torch.float64)
    _, saved = program.forward(*inputs)
    grads = program.backward(saved, grad_out)
    for mine, true in zip(grads.values(), torch.autograd.grad(out, leaves, grad_out), strict=True):
        torch.testing.assert_close(mine, true)


def test_which_side_ends_a_diagonal_is_checked() -> None:
    program = codegen.generate(slanted, torch.randn(3, 5))
    x = torch.randn(3, 5)
    torch.testing.assert_close(program.value_and_grad(x)[1]["x"], 2 * x * torch.eye(3, 5))
    with pytest.raises((InputError, ValueError), match="3"):
        program.forward(torch.randn(6, 5))


def triangles(x):
    """The exponentials of what is not read are infinite."""
    e = x.exp()
    return torch.tril(e) @ torch.triu(x, 1).mT


@pytest.mark.parametrize("mode", ["closed", "steps"])
def test_triangles_of_matrices_are_read_as_such(mode) -> None:
    x = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 0, 3] = 1e4
    program = codegen.generate(triangles, x, mode=mode)
    assert "torch.where" not in program.source
    leaf = x.clone().requires_grad_()
    true = triangles(leaf)
    out, grads = program.value_and_grad(x)
    torch.testing.assert_close(out, true.detach())
    (wanted,) = torch.autograd.grad(true, leaf, torch.ones_like(true))
    finite = wanted.isfinite()
    torch.testing.assert_close(grads["x"][finite], wanted[finite])


def first_rows(x, y):
    return (x[torch.arange(len(y))] ** 2).sum() + y.sum()


def first_of_diagonal(x, y):
    n = torch.arange(len(y))
    return (x[n, n] ** 2).sum() + y.sum()


def first_gathered(x, y):
    return x.gather(0, torch.arange(1, len(y))[:, None]).sum() + y.sum()


def every_second(x, y):
    return (x.index_select(1, 2 * torch.arange(len(y)) + 1) ** 2).sum() + y.sum()


@pytest.mark.parametrize("mode", ["closed", "steps"])
@pytest.mark.parametrize(
    ("forward", "outside"),
    [(first_rows, (5, 9)), (first_of_diagonal, (6, 5)), (first_gathered, (5, 9)), (every_second, (9, 11))],
)
def test_positions_that_are_counted_are_places_of_what_is_read(forward, outside, mode) -> None:
    program = codegen.generate(forward, torch.randn(7, 10), torch.randn(4), mode=mode)
    x, y = torch.randn(6, 12), torch.randn(6)
    torch.testing.assert_close(program.forward(x, y)[0], forward(x, y))
    bad = torch.randn(outside)
    with pytest.raises((IndexError, RuntimeError)):
        forward(bad, y)
    with pytest.raises(ValueError, match=r"is at least .* for an index at .*test_places.py"):
        program.forward(bad, y)


def test_positions_may_stand_beside_a_number() -> None:
    agrees(lambda x: (torch.arange(len(x)) * x.mean()).sum(), torch.randn(5, dtype=torch.float64))


def shifted_by_one(x):
    return torch.cat([torch.zeros(x.shape[0], 1, dtype=x.dtype), x[:, :-1]], 1).mul(x).sum()


def with_sines(x, w):
    place, half = torch.arange(x.shape[1], dtype=x.dtype)[:, None], x.shape[2] // 2
    angle = place * torch.exp(torch.arange(half, dtype=x.dtype) * -0.5)
    return torch.tanh((x + torch.cat([angle.sin(), angle.cos()], 1)) @ w).sum()


def soft_place(x):
    grid = torch.linspace(-1, 1, x.shape[1], dtype=x.dtype)
    return (torch.softmax(x, 1) * grid).sum(1).square().mean()


def test_constants_beside_tensors_are_put_there() -> None:
    source = agrees(shifted_by_one, torch.randn(4, 6, dtype=torch.float64))
    assert "torch.cat([x.new_zeros((n0, 1)), x[:, :-1]], 1)" in source
    assert "torch.where(" not in source


def test_tables_of_positions_are_tensors_in_any_precision() -> None:
    source = agrees(with_sines, torch.randn(2, 5, 6, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64))
    assert source.count(".exp()") == 1
    assert "torch.float64" not in source
    source = agrees(soft_place, torch.randn(4, 6, dtype=torch.float64))
    assert source.count("torch.arange(") == 1
    program = codegen.generate(soft_place, torch.randn(4, 6, dtype=torch.float64))
    assert program.value_and_grad(torch.randn(3, 5))[1]["x"].dtype == torch.float32


def im2col(x, w):
    """A convolution as one product with the windows of an image as columns (Chellapilla et al. 2006)."""
    return torch.sin(w.view(len(w), -1) @ F.unfold(x, 3, padding=1)).sum()


def patches(x, w):
    """The patches of an image, each as a token (Dosovitskiy et al. 2021)."""
    return torch.sin(F.unfold(x, 2, stride=2).transpose(1, 2) @ w.view(len(w), -1).T).sum()


@pytest.mark.parametrize(("forward", "width", "compared"), [(im2col, 3, 4), (patches, 2, 0)])
def test_windows_are_put_back_once_and_where_they_are_compared_once(forward, width: int, compared: int) -> None:
    """That the product of three sizes is a multiple of another one leaves nothing out of range but what lies beside the image."""
    x = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    source = agrees(forward, x, torch.randn(5, 3, width, width, dtype=torch.float64))
    backward = source[source.index("def backward") : source.index("# What follows")]
    assert backward.count("index_put_") == 1
    code = [line for line in backward.splitlines() if "#" not in line]
    assert len(re.findall(" [<>]=? ", " ".join(code))) == compared


@pytest.mark.parametrize("scale", [2.0, 0.3])
def test_the_sign_of_a_multiple_is_that_of_the_tensor(scale: float) -> None:
    source = agrees(lambda x: torch.maximum(scale * x, -0.1 * x).sum(), torch.randn(7, dtype=torch.float64))
    assert "x.sign()" in source


def shifted_rows(x):
    step = x - x.roll(1, 1)
    return (step**2 / (1 + step**2)).sum() + (x.roll((-2, 1), (1, 0)) * x.exp()).mean()


def shifted_by_half(x):
    return (x.roll(x.shape[1] // 2, 1) * x.exp()).sum()


@pytest.mark.parametrize("forward", [shifted_rows, shifted_by_half])
def test_cyclic_shifts_are_undone_by_the_opposite_ones(forward) -> None:
    x = torch.randn(4, 5, dtype=torch.float64)
    source = agrees(forward, x)
    assert ".roll(" in source.split("def backward")[1]
    assert "index_put" not in source
    assert "% " not in "".join(line for line in source.splitlines() if "#" not in line)
    program = codegen.generate(forward, x)
    for shape in ((3, 3), (7, 8)):
        other = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        (true,) = torch.autograd.grad(forward(other), other)
        torch.testing.assert_close(program.value_and_grad(other.detach())[1]["x"], true)


def test_what_is_passed_back_to_a_slice_is_added_there() -> None:
    """How many columns there are is checked; no positions are counted, and none is held within the dimension."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        return (x[:, :4] ** 2).sum() + (x[:, -3:] ** 3).sum() + (x**4).sum()

    x = torch.randn(5, 9, dtype=torch.float64)
    program = codegen.generate(forward, x)
    assert "[:, :4].add_(" in program.source
    assert "arange" not in program.source
    for n in (9, 6, 4):
        report = codegen.check(program, torch.randn(5, n, dtype=torch.float64))
        assert report.ok, report.failures


def put_at_one_place(x, i):
    t = x * 2
    t[i * 0] = 5.0
    return (t * x).sum()


def put_in_the_only_column(x, i):
    t = x[:, :1] * 2
    t[:, i * 0] -= 1
    return (t * x).sum()


def put_by_positions(x, i):
    t = x * 2
    t[torch.zeros(4, dtype=torch.long)] -= 1
    return (t * x).sum()


def put_by_rows_of_one(x, i):
    t = x * 2
    t[i[:, None].expand(4, 3), 0] += 1
    return (t * x).sum()


def put_at_a_number(x, i):
    t = x * 2
    t[i[0].expand(3)] = 1.0
    return (t * x).sum()


def copied_to_one_place(x, i):
    return (x.index_copy(0, i * 0, x[:1].expand(4, -1)) * x).sum()


PUT = [
    put_at_one_place,
    put_in_the_only_column,
    put_by_positions,
    put_by_rows_of_one,
    put_at_a_number,
    copied_to_one_place,
]


@pytest.mark.parametrize("forward", PUT)
def test_what_is_put_at_one_place_several_times_is_there_once(forward) -> None:
    """The places are known to be the same, so that their count is a number and no sum: nothing adds up even so."""
    agrees(forward, torch.randn(4, 3, dtype=torch.float64), torch.tensor([2, 0, 2, 1]))


def shifted_in_place(x):
    t = x.sin()
    t[1:] = t[1:] + t[:-1]
    return (t * x).sum()


def shifted_up_in_place(x):
    t = x.sin()
    t[:-1] += x[1:] ** 2
    return (t * x).sum()


@pytest.mark.parametrize("rows", [1, 2, 6])
@pytest.mark.parametrize("forward", [shifted_in_place, shifted_up_in_place])
def test_a_slice_that_is_written_may_be_empty(forward, rows: int) -> None:
    program = codegen.generate(forward, torch.randn(4, 3, dtype=torch.float64))
    x = torch.randn(rows, 3, dtype=torch.float64)
    out, grads = program.value_and_grad(x)
    leaf = x.clone().requires_grad_()
    true = forward(leaf)
    torch.testing.assert_close(out, true.detach())
    torch.testing.assert_close(grads["x"], torch.autograd.grad(true, leaf)[0])


def less_one_where_it_is(x, i):
    t = (F.one_hot(i, 5).to(x.dtype) * x.mean()).clone()
    t[torch.arange(i.shape[0]), (i * 2) % 5] -= 1
    return t.mean()


def test_counts_are_divided_in_the_precision_of_what_they_meet() -> None:
    """A quotient of whole numbers would be float32, and of three places of which two are counted, none that it holds."""
    x, i = torch.randn(2, 3, dtype=torch.float64), torch.tensor([0, 1, 0])
    program = codegen.generate(less_one_where_it_is, x, i)
    leaf = x.clone().requires_grad_()
    (theirs,) = torch.autograd.grad(less_one_where_it_is(leaf, i), leaf)
    torch.testing.assert_close(program.value_and_grad(x, i)[1]["x"], theirs, rtol=1e-14, atol=0)


def test_ones_that_a_slice_leaves_out_are_no_gather() -> None:
    """The number of class 4 is none of the rows that are multiplied: it adds nothing."""
    i, t = torch.tensor([0, 1, 4, 2]), torch.randn(3, 2, dtype=torch.float64)
    agrees(lambda i, t: (F.one_hot(i, 5)[..., :3].to(t.dtype) @ t).exp().sum(), i, t)
    agrees(lambda i, t: (F.one_hot(i, 5).to(t.dtype)[:, 2:] @ t).exp().sum(), i, t)
    assert "t.index_select(0, i[:2])" in agrees(
        lambda i, t: (F.one_hot(i, 3)[:2].to(t.dtype) @ t).exp().sum(), i % 3, t
    )


def test_an_infinity_on_a_diagonal() -> None:
    def forward(x):
        return ((x + torch.diag(torch.full((x.shape[0],), -float("inf"), dtype=x.dtype))).softmax(1) * x).sum()

    assert 'sub_(float("inf"))' in agrees(forward, torch.randn(4, 4, dtype=torch.float64))


def test_differences_of_fixed_places_are_put_there() -> None:
    """Not as two rows of truth values over all places; what is summed for all of them is summed once."""

    def forward(x, w):
        step, bend = x[1] - x[0], x[3] - 2 * x[2]
        return (w * step * bend).sum()

    source = agrees(forward, torch.randn(7, dtype=torch.float64), torch.randn(4, dtype=torch.float64))
    assert "arange" not in source
    assert source.count("w.sum()") == 1
