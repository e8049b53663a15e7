"""What is computed with the text of a size fixes that size, at values that no second run tries; what only says one does not."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from codegen import generate
from codegen.program import load
from engine.errors import InputError


class Scales:
    """A number for one size, by its name."""

    n5 = 2.0


COMPUTED: dict[str, Callable[[Tensor], Tensor]] = {
    "str": lambda x: x.sin() * (2 if str(x.shape[0]) == "5" else 3),
    "an f-string": lambda x: x.sin() * (2 if f"{x.shape[0]}" == "5" else 3),
    "with more in it": lambda x: x.sin() * (2 if f"n{x.shape[0]}:" == "n5:" else 3),
    "format": lambda x: x.sin() * (2 if format(x.shape[0], "03d") == "005" else 3),
    "of a shape": lambda x: x.sin() * (2 if str(tuple(x.shape)) == "(5, 4)" else 3),
    "of torch's": lambda x: x.sin() * (2 if str(x.shape).startswith("torch.Size([5") else 3),
    "joined": lambda x: x.sin() * (2 if "x".join(map(str, x.shape)) == "5x4" else 3),
    "of a product": lambda x: x.sin() * (2 if repr(x.numel()) == "20" else 3),
    "of a float": lambda x: x.sin() * (2 if str(1 / x.shape[0]) == "0.2" else 3),
    "an attribute": lambda x: x.sin() * getattr(Scales, f"n{x.shape[0]}", 3.0),
    "a key": lambda x: x.sin() * {"5": 2.0}.get(f"{len(x)}", 3.0),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_what_reads_a_text_is_fixed(name: str) -> None:
    forward = COMPUTED[name]
    x, other = torch.randn(3, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    program = generate(forward, x)
    torch.testing.assert_close(program.function(x), forward(x))
    if name != "of a product":
        with pytest.raises(InputError, match=r"dimension 0 of x is 5, the trace had 3.*its text"):
            program.function(other)
    with pytest.raises(ValueError, match=r"fixed x.shape\[0\].* = (3|12) at .*test_texts"):
        load(program.source, "texts").forward(other)


def in_an_assertion(x: Tensor) -> Tensor:
    assert str(x.shape[0]) != "5", "five"
    return x.sin()


def written_in_place(x: Tensor) -> Tensor:
    y = x.sin()
    y.mul_(getattr(Scales, f"n{x.shape[0]}", 3.0))
    return y


def chosen_in_place(x: Tensor) -> Tensor:
    y = x.sin()
    y.mul_(2 if f"{x.shape[0]}" == "5" else 3)
    return y


@pytest.mark.parametrize("forward", [in_an_assertion, written_in_place, chosen_in_place])
def test_a_statement_by_itself_may_compute_with_one(forward: Callable[[Tensor], Tensor]) -> None:
    program = generate(forward, torch.randn(3, 4))
    with pytest.raises(InputError, match="dimension 0 of x is 5, the trace had 3"):
        program.function(torch.randn(5, 4))


def said(x: Tensor) -> Tensor:
    n, d = x.shape
    print(f"rows: {n}", str(d), x.shape)
    print(format(n), format(d, "d"))
    logging.getLogger("said").warning("%s", x.shape)
    assert d > 1, f"{n} rows of {d}"
    if d == 1:
        raise ValueError(f"{n} rows of {d}")
    return x.sin()


@pytest.mark.usefixtures("caplog")
def test_what_is_said_is_not(capsys: pytest.CaptureFixture[Any]) -> None:
    program = generate(said, torch.randn(3, 4))
    assert "rows: 3 4 (3, 4)\n3 4" in capsys.readouterr().out
    x = torch.randn(5, 6)
    torch.testing.assert_close(program.function(x), x.sin())
