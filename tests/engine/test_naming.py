"""Identifiers for emitted files, and whose frames are read for them."""

import keyword
import sys
import time
from pathlib import Path

import pytest
import sympy
import torch

import codegen.emit
import engine.tracer
from engine.naming import RESERVED, Namer, is_user_code
from engine.notation import fresh, ordered


def test_each_name_once() -> None:
    namer = Namer(["y"])
    assert [namer(n) for n in ("x", "x", "y", "x_1", "x", "x_1")] == ["x", "x_1", "y_1", "x_1_1", "x_2", "x_1_2"]


@pytest.mark.parametrize("wanted", ["fc1.weight", "0.bias", "", "a b", "é", "lambda", "saved", "x[0]", "-"])
def test_whatever_is_wanted_an_identifier_comes_out(wanted: str) -> None:
    name = Namer()(wanted)
    assert name.isidentifier()
    assert not keyword.iskeyword(name)
    assert name not in RESERVED


def test_many_equal_names_take_no_longer_than_many_different_ones() -> None:
    namer, began = Namer(), time.perf_counter()
    names = [namer("h") for _ in range(50_000)]
    assert time.perf_counter() - began < 5
    assert len({*names}) == 50_000


@pytest.mark.parametrize(
    ("file", "users"),
    [
        (__file__, True),
        ("/somewhere/forward.py", True),
        (str(Path(sys.prefix, "lib", "python3", "site-packages", "models", "net.py")), True),
        (torch.nn.__file__, False),
        (sympy.__file__, False),
        (time.__spec__.origin or "built-in", True),
        (keyword.__file__, False),
        (engine.tracer.__file__, False),
        (codegen.emit.__file__, False),
        ("<string>", True),
        ("<stdin>", True),
        ("<ipython-input-3-0a1b>", True),
        ("<python-input-2>", True),
        ("<frozen importlib._bootstrap>", False),
        ("<generated forward 0a1b2c3d4e5f>", False),
    ],
)
def test_whose_code_it_is(file: str, users: bool) -> None:
    assert is_user_code(file) is users


def test_indices_sort_as_they_were_made() -> None:
    made = [fresh() for _ in range(1200)]
    assert ordered(reversed(made)) == made
    assert sorted(made, key=str) == made
