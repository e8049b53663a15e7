"""Sizes as numbers that remember where they came from."""

import builtins
import math
from collections.abc import Callable
from operator import add, floordiv, mod, mul, sub, truediv
from typing import Any

import pytest
import sympy as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from codegen import generate
from engine import ShapeError, TraceError, trace
from engine.errors import InputError
from engine.evaluate import sizes_of
from engine.graph import Graph
from engine.notation import Quo
from engine.sizes import Dim, Real, Remainder, Sizes, evaluate, exact


def dims(*values: int) -> tuple[Sizes, list[Dim]]:
    sizes = Sizes()
    return sizes, [Dim(v, sizes.new(f"n{k}", v), sizes) for k, v in enumerate(values)]


OPERATORS = [add, sub, mul, truediv, floordiv, mod]


@given(
    st.sampled_from(OPERATORS), st.integers(2, 40), st.integers(2, 40) | st.sampled_from([0.5, -3, 1]), st.booleans()
)
def test_arithmetic_is_pythons(op: Callable[[Any, Any], Any], n: int, other: float, turned: bool) -> None:
    sizes, (d,) = dims(n)
    found, plain = (op(other, d), op(other, n)) if turned else (op(d, other), op(n, other))
    assert type(found) in (int, float, Dim, Real, Remainder)
    assert math.isclose(float(found), plain)
    if isinstance(found, Dim):
        assert sizes.value(found.expr) == plain
    if isinstance(found, Real):
        assert math.isclose(
            float(sp.N(found.expr.xreplace({s: sp.Integer(v) for s, v in sizes.values.items()}))), plain
        )


@given(st.sampled_from(OPERATORS), st.integers(2, 40), st.integers(2, 40))
def test_arithmetic_of_two_sizes(op: Callable[[Any, Any], Any], n: int, m: int) -> None:
    sizes, (a, b) = dims(n, m)
    found = op(a, b)
    assert math.isclose(float(found), op(n, m))
    if isinstance(found, Dim):
        assert sizes.value(found.expr) == op(n, m)


def test_what_stays_symbolic_fixes_nothing() -> None:
    sizes, (n, m) = dims(6, 4)
    for e in (n + m, n * m - 1, n / m, n // 2, (n * m) // m, 1 / n, n**2, n**0.5, -n, +n, 2 * n % 2, math.floor(n)):
        assert isinstance(e, (int, float))
    assert str((n // 2).expr) == str(Quo(n.expr, 2))
    assert ((n * m) // m).expr == n.expr
    assert type(2 * n % 2) is int
    assert sizes.guards == []


@pytest.mark.parametrize(
    "read",
    [
        lambda n: n == 6,
        lambda n: n < 6.5,
        lambda n: [0] * n,
        lambda n: n % 4,
        int,
        float,
        lambda n: "ab" * n,
        lambda n: math.ceil(n / 4),
        lambda n: math.floor(n * 0.3),
        lambda n: round(n / 4),
        lambda n: abs(-n),
        lambda n: n >> 1,
        lambda n: 7 & n,
        lambda n: divmod(n, 4),
    ],
)
def test_reading_the_number_fixes_it(read: Callable[[Any], Any]) -> None:
    sizes, (n,) = dims(6)
    assert read(n) == read(6)
    (guard,) = sizes.guards
    assert (guard.expr, guard.value) == (sp.Symbol("n0", integer=True, positive=True), 6)
    assert sizes.resolve(n.expr) == 6


def test_equal_sizes_compare_without_being_fixed() -> None:
    sizes, (n, m) = dims(6, 6)
    sizes.unify(n.expr, m.expr)
    assert n == m
    assert n + 1 <= m + 1
    assert sizes.guards == []


def test_sympy_takes_a_size_for_the_symbol_that_it_is() -> None:
    """It is no number to be compared with those that were seen before: a filter's length was taken for another one's."""
    sizes, (n,) = dims(6)
    _, (m,) = dims(6)
    assert sp.Symbol("x") - m == sp.Symbol("x") - m.expr
    assert sp.sympify(n) == n.expr
    assert sizes.guards == []
    for rows in (2, 1, 3):
        x, h = torch.randn(rows, 7), torch.randn(3)
        graph = trace(lambda x, h: x.unfold(1, h.shape[0], 1) @ h, x, h)
        assert graph.guards == ()


def test_a_size_of_one_is_the_number_one() -> None:
    assert Sizes().new("n", 1) == 1


def test_unifying() -> None:
    sizes, (n, m, k) = dims(6, 6, 12)
    assert sizes.unify(n.expr, m.expr) == n.expr
    assert sizes.resolve(m.expr) == n.expr
    assert sizes.unify(k.expr, 2 * m.expr) == 2 * n.expr
    assert sizes.resolve(k.expr) == 2 * n.expr
    assert sizes.guards == []
    with pytest.raises(ShapeError, match=r"6.*12|12.*6"):
        sizes.unify(n.expr, k.expr)
    assert sizes.unify(n.expr, sp.Integer(6)) == 6
    assert [g.value for g in sizes.guards] == [6]


def test_what_equals_a_size_that_becomes_a_number_is_one_too() -> None:
    """As the rows of a GRU's two weights are, each a third of what it holds: the state says how many that are."""
    sizes, (n, m) = dims(15, 15)
    sizes.unify((n // 3).expr, (m // 3).expr)
    assert sizes.unify((n // 3).expr, sp.Integer(5)) == 5
    assert sizes.resolve((m // 3).expr) == 5


def test_what_was_found_equal_to_a_size_that_is_fixed_later_is_fixed_with_it() -> None:
    """Thirds of a weight and of a bias are added: where those of the weight are eight, the bias has 24 elements."""
    sizes, (n, m) = dims(24, 24)
    sizes.unify(Quo(n.expr, 3), Quo(m.expr, 3))
    assert sizes.resolve(m.expr) == m.expr
    sizes.fix(Quo(n.expr, 3), 8)
    assert sizes.resolve(n.expr) == sizes.resolve(m.expr) == 24


def test_sizes_that_follow_from_sums_are_one() -> None:
    """`n + m` rows that are `2 n` rows: m is n, which is said so that it can be checked."""
    sizes, (n, m) = dims(6, 6)
    assert sizes.unify((n + m).expr, (2 * n).expr) == 2 * n.expr
    assert sizes.resolve(m.expr) == n.expr
    assert [{a, b} for a, b, _ in sizes.same_unseen] == [{n.expr, m.expr}]


def test_sizes_that_are_equal_by_chance_stay_two() -> None:
    sizes, (n, m) = dims(6, 3)
    assert sizes.unify(n.expr, (2 * m).expr) == 2 * m.expr
    sizes, (n, m) = dims(6, 4)
    sizes.unify((n + 2).expr, (2 * m).expr)
    assert sizes.resolve(m.expr) == m.expr
    assert [g.value for g in sizes.guards] == [0]


@pytest.mark.parametrize(
    ("number", "expected"),
    [(3, 3), (True, 1), (0.1, sp.Rational(1, 10)), (-2.5, sp.Rational(-5, 2)), (1e-5, sp.Rational(1, 100000))],
)
def test_numbers_are_exact(number: float, expected: Any) -> None:
    assert exact(number) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0.1 / 9, sp.Rational(1, 90)), (1 / 3, sp.Rational(1, 3)), (-2 / 7, sp.Rational(-2, 7))]
    + [(x, sp.Rational(repr(x))) for x in (math.sqrt(2), 0.123456789012345, 1.0507009873554805, 1 / 1237)],
)
def test_quotients_of_small_numbers_are_these(number: float, expected: Any) -> None:
    """And no others: a number with as many digits that is none is the decimal that it is written as."""
    assert exact(number) == expected
    assert float(expected) == number


def test_infinities_and_complex_numbers() -> None:
    assert exact(math.inf) == sp.oo
    assert exact(-math.inf) == -sp.oo
    assert exact(math.nan) is sp.nan
    with pytest.raises(TraceError, match="complex"):
        exact(1j)


@given(st.integers(1, 50), st.integers(1, 50))
def test_evaluating(n: int, m: int) -> None:
    _, (a, b) = dims(n + 1, m + 1)
    assert evaluate((a * b + a // 2).expr, {a.expr: n + 1, b.expr: m + 1}) == (n + 1) * (m + 1) + (n + 1) // 2


# -- in a forward --------------------------------------------------------------------------------------------------


def guards(forward: Callable[..., Any], *shape: int) -> tuple[Graph, list[tuple[str, int]]]:
    graph = trace(forward, torch.randn(*shape))
    return graph, [(str(g.expr), g.value) for g in graph.guards]


def looped(x: Tensor) -> Tensor:
    n = x.shape[0]
    total = x[0]
    for k in range(1, n):
        total = total + x[k]
    return total


def test_a_loop_over_a_size_fixes_it() -> None:
    graph, found = guards(looped, 4, 3)
    assert found == [("n0", 4)]
    assert sum(n.op == "add" for n in graph.nodes) == 3
    assert "test_sizes.py" in graph.guards[0].where


def test_the_root_of_a_size_stays_symbolic() -> None:
    graph, found = guards(lambda x: x / math.sqrt(x.shape[1]) + math.log(x.shape[0]), 4, 3)
    assert found == []
    assert "n1 ** 0.5" in repr(graph)
    assert "log(n0)" in repr(graph)


COMPARED: list[tuple[Callable[[Any], Any], list[int]]] = [
    (lambda n: n > 2, [3, 4, 9]), (lambda n: n >= 4, [4, 9]), (lambda n: n < 9, [2, 3, 4]), (lambda n: n <= 4, [2, 3, 4]),
    (lambda n: n > 4, [2, 3, 4]), (lambda n: n < 4, [4, 9]), (lambda n: n <= 3, [4, 9]), (lambda n: n >= 9, [2, 3, 4]),
    (lambda n: n != 3, [4, 9]), (lambda n: n == 9, [2, 3, 4]), (lambda n: 2 * n - 1 > 5, [4, 9]), (lambda n: 3 < n < 8, [4]),
    (lambda n: not n, [2, 3, 4, 9]), (lambda n: n > 0, [2, 3, 4, 9]), (lambda n: n % 2 == 0, [2, 4]), (lambda n: n % 2, [2, 4]),
    (lambda n: n == 4, [4]), (lambda n: n % 3 == 1, [4]), (lambda n: n > 3.5, [4]), (lambda n: n % 3 != 0, [4]),
    (lambda n: min(n, 6) == n, [2, 3, 4]),
]  # fmt: skip
"""Questions about a size of 4, and the sizes among 2, 3, 4 and 9 for which a trace then holds."""


@pytest.mark.parametrize(("asked", "held"), COMPARED)
def test_what_is_compared_holds_as_long_as_the_answer_does(asked: Callable[[Any], Any], held: list[int]) -> None:
    def forward(x: Tensor) -> Tensor:
        return x.sin() * x.shape[0] if asked(x.shape[0]) else x.cos()

    program = generate(forward, torch.randn(4, 3), mode="closed")
    for n in (2, 3, 4, 9):
        x = torch.randn(n, 3)
        if n in held:
            torch.testing.assert_close(program.function(x), forward(x))
            continue
        with pytest.raises((InputError, ValueError), match=r"test_sizes\.py:\d+"):
            program.function(x)
        if all("fixed" not in line for line in program.source.splitlines()):
            with pytest.raises(InputError, match=r"a comparison at \S*test_sizes\.py:\d+ was traced where"):
                sizes_of(program.graph, {"x": x})


def test_two_sizes_are_compared() -> None:
    def forward(x: Tensor, table: Tensor) -> Tensor:
        assert x.shape[1] <= table.shape[0], f"{x.shape[1]} are too many"
        return x + table[: x.shape[1]]

    program = generate(forward, torch.randn(4, 3), torch.randn(7), mode="closed")
    for width, rows in ((3, 7), (5, 5), (2, 3)):
        x, table = torch.randn(4, width), torch.randn(rows)
        torch.testing.assert_close(program.function(x, table), forward(x, table))
    with pytest.raises(ValueError, match=r"table\.shape\[0\] is at least x\.shape\[1\]"):
        program.function(torch.randn(4, 6), torch.randn(5))


EQUAL: dict[str, Callable[[Tensor, Tensor], bool]] = {
    "rows": lambda x, y: x.shape[0] == y.shape[0],
    "twice": lambda x, y: 2 * x.shape[0] == y.shape[0] + x.shape[0],
    "square": lambda x, _: x.shape[0] == x.shape[1],
    "three": lambda x, y: x.shape[0] == x.shape[1] == y.shape[1] + 1,
    "a multiple": lambda x, y: y.shape[0] == y.shape[1] + 1 and x.shape[0] % y.shape[0] == 0,
    "more rows": lambda x, y: 3 * x.shape[0] == 4 * y.shape[1],
    "one more": lambda x, y: x.shape[0] == y.shape[1] + 1,
    "half": lambda x, y: x.shape[0] // 2 == y.shape[0] // 2,
}


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("name", EQUAL)
def test_sizes_that_only_python_finds_equal_are_checked(name: str, mode: str) -> None:
    """No op asks for it: torch refuses nothing where they differ, and another branch is taken there."""
    asked = EQUAL[name]

    def forward(x: Tensor, y: Tensor) -> Tensor:
        return x.exp().sum() + y.sum() if asked(x, y) else x.sin().sum()

    x, y = torch.randn(4, 4), torch.randn(4, 3)
    assert asked(x, y)
    program = generate(forward, x, y, mode=mode)
    refused = 0
    for rows, columns, others, width in (
        (5, 4, 4, 3),
        (4, 4, 5, 4),
        (6, 6, 6, 5),
        (8, 8, 4, 3),
        (5, 2, 3, 3),
        (8, 2, 8, 6),
    ):
        x, y = torch.randn(rows, columns), torch.randn(others, width)
        for run in (program.function, lambda *given: program.module.forward(*given)[0]):
            try:
                found = run(x, y)
            except (InputError, ValueError):
                refused += 1
                continue
            torch.testing.assert_close(found, forward(x, y))
    assert 0 < refused < 12


def test_python_is_left_as_it_was() -> None:
    before = builtins.range, math.sqrt
    with pytest.raises(TraceError):
        trace(lambda x: x.item(), torch.randn(3))
    assert (builtins.range, math.sqrt) == before


def test_a_computed_size_of_one_that_is_broadcast_is_fixed() -> None:
    def forward(x: Tensor, w: Tensor) -> Tensor:
        return x[:-3] * w + x[1:].unfold(0, 3, 1).mean() * w

    graph = trace(forward, torch.randn(4, 3), torch.randn(5, 3))
    assert [(str(s.shape[0])) for s in (graph["x"], graph["w"], graph[graph.outputs[0]])] == ["4", "n2", "n2"]
    with pytest.raises(ShapeError):
        trace(forward, torch.randn(5, 3), torch.randn(4, 3))


def test_a_computed_size_of_one_that_is_squeezed_is_fixed() -> None:
    def forward(x: Tensor, w: Tensor) -> Tensor:
        return w * x[1:].squeeze()

    graph = trace(forward, torch.randn(2), torch.randn(5))
    assert [len(graph[name].shape) for name in ("x", "w", graph.outputs[0])] == [1, 1, 1]
    assert int(graph["x"].shape[0]) == 2


def test_len_stays_a_symbol() -> None:
    """`x[range(len(x)), y]` is how many index; Python itself makes a plain number of a length."""

    def forward(x: Tensor, y: Tensor) -> Tensor:
        return -x.log_softmax(1)[range(len(x)), y].sum() / len(x)

    def drawn(n: int) -> tuple[Tensor, Tensor]:
        return torch.linspace(-1, 1, 3 * n, dtype=torch.float64).view(n, 3), torch.arange(n) % 3

    program = generate(forward, *drawn(4))
    assert len([1, 2]) == 2
    assert type(builtins.len).__name__ == "builtin_function_or_method"
    for n in (2, 7):
        x, y = drawn(n)
        leaf = x.clone().requires_grad_()
        (true,) = torch.autograd.grad(forward(leaf, y), leaf)
        torch.testing.assert_close(program.value_and_grad(x, y)[1]["x"], true)


def test_a_loop_over_the_rows_is_told_where_it_is() -> None:
    def forward(x: Tensor) -> Tensor:
        total = x[0]
        for k in range(1, len(x)):
            total = total + x[k] ** 2
        return total.sum()

    program = generate(forward, torch.ones(4, 3))
    with pytest.raises(InputError, match=r"read that size as a number at .*test_sizes\.py:\d+ .*generate again"):
        program.forward(torch.ones(5, 3))
    with pytest.raises(TraceError, match="without dimensions"):
        generate(without_dimensions, torch.ones(3))


def without_dimensions(x: Tensor) -> Tensor:
    return x / len(x.sum())


# -- slices that end where a dimension does ------------------------------------------------------------------------


SLICES: dict[str, Callable[[Tensor], Tensor]] = {
    "first": lambda x: (x[:, :4] ** 2).mean(),
    "last": lambda x: (x[:, -4:] ** 2).mean(),
    "rest": lambda x: (x[:, 4:] ** 2).sum() + x.sum(),
    "between": lambda x: (x[:, 2:6] * x[:, 1:5]).mean(),
    "every second": lambda x: (x[:, 1:5:2] ** 2).mean(),
    "rows of": lambda x: x[..., :4].mean(1).exp().sum(),
    "written": lambda x: torch.slice_scatter(x, x[:, :4] ** 2, 1, 0, 4).mean(),
}


@pytest.mark.parametrize("mode", ["steps", "closed"])
@pytest.mark.parametrize("traced", [9, 3])
@pytest.mark.parametrize("name", SLICES)
def test_a_slice_holds_for_the_sizes_that_it_was_traced_for_or_says_so(name: str, traced: int, mode: str) -> None:
    """torch cuts a slice off where the dimension ends; what was recorded does not, and was silently wrong there."""
    forward = SLICES[name]
    if name == "between" and traced == 3:
        pytest.skip("2 to 6 and 1 to 5 of three columns are not as many")
    program = generate(forward, torch.randn(4, traced, dtype=torch.float64), mode=mode)
    refused = held = 0
    for n in (11, 9, 6, 5, 4, 3, 2):
        x = torch.randn(4, n, dtype=torch.float64, requires_grad=True)
        try:
            out = forward(x)
        except RuntimeError:
            continue
        (true,) = torch.autograd.grad(out, x)
        try:
            mine, grads = program.value_and_grad(x.detach())
        except ValueError as error:
            if n == traced or "for a slice at" not in str(error):
                raise
            refused += 1
            continue
        torch.testing.assert_close(mine, out.detach())
        torch.testing.assert_close(grads["x"], true)
        held += 1
    assert refused
    assert held


def test_what_a_slice_took_for_granted_is_said() -> None:
    longer = generate(SLICES["first"], torch.randn(4, 9))
    with pytest.raises(ValueError, match=r"x.shape\[1\] is at least 4, for a slice at .*test_sizes.py"):
        longer.module.forward(torch.randn(4, 3))
    shorter = generate(SLICES["first"], torch.randn(4, 3))
    with pytest.raises(ValueError, match=r"x.shape\[1\] is at most 4, for a slice at .*test_sizes.py"):
        shorter.module.forward(torch.randn(4, 9))
    with pytest.raises(InputError, match="a slice at .*test_sizes.py"):
        sizes_of(longer.graph, {"x": torch.randn(4, 3)})


def test_slices_that_fit_whatever_the_size_is_take_nothing_for_granted() -> None:
    def forward(x: Tensor) -> Tensor:
        return (x[:, :-1] * x[:, 1:]).sum() + x[: x.shape[0] // 2].sum() + x[:, ::2].sum() + x[:].sum()

    assert trace(forward, torch.randn(4, 9)).bounds == ()


def test_a_size_that_is_squeezed_where_it_is_one_is_checked_if_a_result_has_it() -> None:
    """Inside of the forward a dimension of one is as good as none; of a result's it would be one too many."""

    def shown(x: Tensor) -> Tensor:
        return x.squeeze() * 2

    def summed(x: Tensor) -> Tensor:
        return (x.squeeze() * 2).sum()

    def named(x: Tensor) -> Tensor:
        return x.squeeze(-1) * 2

    assert [str(b.expr) for b in trace(shown, torch.randn(4, 1)).bounds] == ["n0 - 2"]
    assert "a squeeze" in trace(shown, torch.randn(4, 1)).bounds[0].of
    assert not trace(summed, torch.randn(4, 1)).bounds
    assert not trace(named, torch.randn(4, 1)).bounds
