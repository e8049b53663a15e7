"""`codegen check`: the table, its options, and exit code 1 for a mismatch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import codegen.cli.checking as checking
from codegen.program import Program, load
from tests.cli.conftest import Command


def test_the_table(command: Command, recipe: Path) -> None:
    done = command("check", recipe)
    assert (done.code, done.err) == (0, "")
    for dtype in ("float32", "float64"):
        assert f"recipe {dtype}: " in done.out
    assert "gradients exact, 6 of 6 close; forward: " in done.out
    lines = done.out.splitlines()
    header = next(line for line in lines if line.startswith("gradient of"))
    for title in ("exact", "close", "max abs", "max rel", "elementwise", "error", "autograd's"):
        assert title in header
    names = [line.split()[0] for line in lines if " yes " in line or " no " in line]
    assert {"x", "w", "h", "p"} <= {*names}


def test_one_dtype_and_several_batches(command: Command, recipe: Path) -> None:
    done = command("check", recipe, "--dtype", "float64", "--batch", 1, "--batch", 9)
    assert done.code == 0
    assert "recipe float64, batch 1: " in done.out
    assert "recipe float64, batch 9: " in done.out
    assert "float32" not in done.out


def test_edges(command: Command, recipe: Path) -> None:
    done = command("check", recipe, "--edges", "--dtype", "float32")
    assert done.code == 0
    for case in ("all 0", "all ±1", "all ±100", "all ±300", "mixed", "x + 10", "x + 1000", "batch 1", "batch 0"):
        assert f"recipe float32, {case}" in done.out


def test_digits(command: Command, recipe: Path) -> None:
    done = command("check", recipe, "--digits", 50, "--dtype", "float64")
    assert done.code == 0
    assert command("check", recipe, "--digits", 5).code == 2


def test_the_notebooks_tensors(command: Command) -> None:
    done = command("check", "mlp")
    assert done.code == 0
    for name in [
        "nlls",
        "probs",
        "count",
        "exp_l",
        "logits",
        "h",
        "hpreact_bn",
        "bnmeani",
        "bnstdi",
        "hpreact",
        "emb",
        "C",
        "w1",
        "w2",
        "b2",
        "bnw",
        "bnb",
    ]:
        assert f"\n{name} " in done.out


@pytest.fixture
def corrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Let every program that is checked have its text changed."""

    def change(old: str, new: str) -> None:
        plain = checking.program_of

        def program_of(*args: Any) -> Program:
            program = plain(*args)
            assert old in program.source
            program.module = load(program.source.replace(old, new), "corrupted")
            return program

        monkeypatch.setattr(checking, "program_of", program_of)

    return change


def test_a_mismatch_exits_1_and_says_who_is_wrong(
    command: Command, recipe: Path, corrupt: Callable[[str, str], None]
) -> None:
    corrupt("torch.ops.aten.tanh_backward(dp, p)", "dp * (1 - p) ** 2")
    done = command("check", recipe)
    assert done.code == 1
    assert "ours is wrong: error" in done.out
    assert "mismatch: recipe float32; recipe float64" in done.out
    assert "mismatches" in done.out


def test_code_that_raises_exits_1(command: Command, recipe: Path, corrupt: Callable[[str, str], None]) -> None:
    corrupt("x.T @", "x @")
    done = command("check", recipe)
    assert done.code == 1
    assert "the emitted code raised RuntimeError" in done.out


def test_bad_options(command: Command, recipe: Path) -> None:
    assert command("check", recipe, "--dtype", "float8").code == 2
    assert command("check", recipe, "--batch", -1).code == 2
    done = command("check", "recipe.py:nothing")
    assert done.code == 2
    assert "has nothing named" in done.err
