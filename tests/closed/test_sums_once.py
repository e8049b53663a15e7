"""Sums that are lines of a forward, read in other lines."""

from typing import Any

import pytest
import sympy as sp
import torch

from codegen.closed.kernels.sumsonce import with_sums_by_name
from codegen.closed.regions.cells import Cell
from engine.indexed import Indexed
from engine.notation import Amax, Sigma, Smallest, base, element, fresh, size_symbol

N, M = size_symbol("n"), size_symbol("m")


@pytest.mark.parametrize(("largest", "of", "read"), [(Amax, "f", True), (Amax, "g", False), (Smallest, "f", False)])
def test_a_logarithm_of_exponentials_is_of_their_sum_where_the_largest_was_taken_out(
    largest: Any, of: str, read: bool
) -> None:
    """Elsewhere the sum may overflow, and the kernel that takes both at once does not."""

    def line(name: str, shape: tuple[Any, ...], expr: Any, at: list[Any]) -> tuple[Cell, Any]:
        return Cell(name, tuple(at), shape, expr, "float", True, torch.float64), expr

    def total(i: Any) -> Any:
        j = fresh()
        return Sigma(sp.exp(element(base("f"), [i, j]) - element(base("top"), [i])), (j, M))

    i, a, b, k = (fresh() for _ in range(4))
    lines = [
        line("top", (N,), largest(element(base(of), [a, k]), (k, M)), [a]),
        line("total", (N,), total(i), [i]),
        line("out", (N,), sp.log(total(b)), [b]),
    ]
    (_, out) = with_sums_by_name(lines)[-1]
    assert isinstance(out.args[0], Indexed) == read
