"""What is known of index expressions, against trying every index at several sizes."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import Expr

from codegen.lowering.ranges import digit_of, digits, extreme, holds, nonnegative, radix, simplified
from engine.notation import Delta, Index, Less, LessEqual, Quo, Rem, Where, size_symbol

P, Q, R = Index("p"), Index("q"), Index("r")
N, M = size_symbol("n"), size_symbol("m")
RANGES = {P: N, Q: M, R: N + M}
SIZES = [{N: n, M: m} for n, m in itertools.product((1, 2, 4), repeat=2)]


def places(sizes: Mapping[Any, int]) -> Iterator[dict[Any, sp.Integer]]:
    """Every value of every index at these sizes, with the sizes themselves."""
    known = {s: sp.Integer(v) for s, v in sizes.items()}
    counts = [range(int(RANGES[i].xreplace(known))) for i in (P, Q, R)]
    for at in itertools.product(*counts):
        yield {**known, **dict(zip((P, Q, R), map(sp.Integer, at), strict=True))}


FEWER = settings(max_examples=40)
COEFFICIENTS = st.sampled_from([sp.Integer(c) for c in (-2, -1, 0, 1, 2)])
CONSTANTS = st.sampled_from([sp.S.Zero, sp.S.One, sp.Integer(-1), N, M, N - 1, -N, N * M, 1 - M])


@st.composite
def linear(draw: st.DrawFn) -> Expr:
    return sum((draw(COEFFICIENTS) * i for i in (P, Q, R)), draw(CONSTANTS))


@FEWER
@given(linear())
def test_bounds_hold_everywhere(e: Expr) -> None:
    low, high = extreme(e, RANGES, largest=False), extreme(e, RANGES, largest=True)
    assert low is not None
    assert high is not None
    for sizes in SIZES:
        for at in places(sizes):
            assert low.xreplace(at) <= e.xreplace(at) <= high.xreplace(at)


@FEWER
@given(linear(), linear(), st.sampled_from([Less, LessEqual, Delta]))
def test_a_bracket_is_decided_only_where_it_always_holds(a: Expr, b: Expr, head: Any) -> None:
    bracket = head(a, b)
    decided = holds(bracket, RANGES)
    found = simplified(bracket + 2, RANGES) - 2
    for at in (at for sizes in SIZES for at in places(sizes)):
        true = bracket.xreplace(at)
        assert decided is None or int(decided) == true
        assert found.xreplace(at) == true


@FEWER
@given(linear(), st.sampled_from([N, M, N * M, sp.Integer(2)]), st.sampled_from([Quo, Rem]))
def test_digits_are_the_quotient_and_the_remainder(e: Expr, size: Expr, head: Any) -> None:
    position = e - extreme(e, RANGES, largest=False)  # never negative
    found = digits(head(position, size), RANGES)
    for at in (at for sizes in SIZES for at in places(sizes)):
        assert found.xreplace(at) == head(position.xreplace(at), size.xreplace(at))


@pytest.mark.parametrize(
    ("e", "expected"),
    [
        (Quo(P * M + Q, M), P),
        (Rem(P * M + Q, M), Q),
        (Rem(Q, M), Q),
        (Quo(Q, M), 0),
        (Quo(Quo(P * M + Q, M), N), 0),
        (Rem(P * M + 2 * Q, M), Rem(P * M + 2 * Q, M)),
        (Less(P, N), 1),
        (Less(P, 0), 0),
        (LessEqual(N, P), 0),
        (Delta(P, N + Q), 0),
        (Delta(P, Q), Delta(P, Q)),
        (Where(Less(P, N), P, Q), P),
        (P * Less(P + 1, N), P * Less(P + 1, N)),
    ],
)
def test_worked_out(e: Expr, expected: Expr | int) -> None:
    assert simplified(e, RANGES) == expected


@pytest.mark.parametrize(
    ("e", "known"),
    [
        (N - 1, True),
        (N * M - N, True),
        (N * M - N - M + 1, True),
        (sp.S.Zero, True),
        (N - 2, False),
        (N - M, False),
        (-N, False),
        (1 / N - 1, False),
    ],
)
def test_nonnegative(e: Expr, known: bool) -> None:
    assert nonnegative(e) is known


@pytest.mark.parametrize(
    ("e", "total", "expected"),
    [
        (P * M + Q, N * M, [(Q, sp.S.One), (P, M)]),
        (Q * N + P, N * M, [(P, sp.S.One), (Q, N)]),
        (P * M + Q, N * M + 1, None),
        (P * M + Q + 1, N * M, None),
        (2 * P + Q, N * M, None),
        (P * M + P, N * M, None),
        (P, N, None),
        (P * M + Index("unknown"), N * M, None),
    ],
)
def test_radix(e: Expr, total: Expr, expected: list[tuple[Index, Expr]] | None) -> None:
    assert radix(e, RANGES, total) == expected


def test_digits_know_their_place() -> None:
    assert digit_of(Quo(P, M)) == (P, M, None)
    assert digit_of(Rem(Quo(P, M), N)) == (P, M, N)
    assert digit_of(Rem(P, N)) == (P, 1, N)
    assert digit_of(P + Q) is None


def test_a_quotient_is_at_most_what_was_divided() -> None:
    n = sp.Symbol("n", positive=True, integer=True)
    assert nonnegative(n - Quo(n, 2))
    assert nonnegative(n - 2 * Quo(n, 2))
    assert not nonnegative(n - 2 * Quo(n + 1, 2))
    assert not nonnegative(Quo(n, 2) - n)
