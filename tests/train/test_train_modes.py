"""`--backward`: where gradients come from, and the two ways in lockstep."""

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from rich.console import Console

from codegen.cli.progress import TrainingReport
from codegen.train.checkpoint import read_checkpoint
from codegen.train.metrics import Row

Command = Callable[..., Any]
DIFFERENCES = re.compile(r"difference of losses +(\S+)\n  largest difference of parameters +(\S+) \((\w+)\)")


def test_generated_goes_through_the_emitted_code_alone(train: Command, stand_in: Command, tmp_path: Path) -> None:
    calls = stand_in()
    assert train("--backward", "generated").code == 0
    assert calls == ["forward", "backward"] * 40
    train("--backward", "autograd", "--out", tmp_path / "autograd")
    assert len(calls) == 80
    generated, autograd = read_checkpoint(tmp_path / "run"), read_checkpoint(tmp_path / "autograd")
    assert all(torch.equal(value, autograd.tensors[name]) for name, value in generated.tensors.items())


def test_both_agree_when_the_gradients_do(train: Command, stand_in: Command, tmp_path: Path) -> None:
    stand_in()
    out = train("--backward", "both").out
    assert "backward both" in out
    found = DIFFERENCES.search(out)
    assert found is not None
    assert (float(found[1]), float(found[2])) == (0, 0)
    tensors = read_checkpoint(tmp_path / "run").tensors
    assert torch.equal(tensors["params.w1"], tensors["twin.params.w1"])
    assert torch.equal(tensors["buffers.bnstd_running"], tensors["twin.buffers.bnstd_running"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_show_a_wrong_gradient(train: Command, stand_in: Command, dtype: str) -> None:
    stand_in(1.001)
    found = DIFFERENCES.search(train("--backward", "both", "--dtype", dtype).out)
    assert found is not None
    assert float(found[1]) > 1e-5
    assert float(found[2]) > 1e-5


def test_both_resume_as_if_undisturbed(train: Command, stand_in: Command, tmp_path: Path) -> None:
    stand_in(1.001)
    whole = DIFFERENCES.search(train("--backward", "both", "--out", tmp_path / "whole").out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codegen.cli.training.Interrupt", Requested)
        assert train("--backward", "both").code == 130
    parts = DIFFERENCES.search(train("--backward", "both", "--resume").out)
    assert whole is not None
    assert parts is not None
    assert whole.groups() == parts.groups()
    first, second = read_checkpoint(tmp_path / "whole"), read_checkpoint(tmp_path / "run")
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(value, second.tensors[name]) for name, value in first.tensors.items())


class Requested:
    """An Interrupt that was asked for from the third look on."""

    code = 130

    def __init__(self, patient: bool = False) -> None:
        self.looks = 0

    @property
    def requested(self) -> bool:
        self.looks += 1
        return self.looks > 3

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None


def test_the_emitted_mlp_agrees_with_autograd(train: Command) -> None:
    for dtype, tolerance in (("float32", 1e-5), ("float64", 1e-12)):
        result = train("--backward", "both", "--dtype", dtype, "--steps", 200, "--overwrite")
        found = DIFFERENCES.search(result.out)
        assert found is not None
        assert float(found[1]) < tolerance
        assert float(found[2]) < 10 * tolerance


def test_code_for_a_recipe_of_ones_own_is_generated_now(
    command: Command, bigram: Path, names: Path, tmp_path: Path
) -> None:
    result = command(
        "train", bigram, "--data", names, "--out", tmp_path / "run", "--backward", "both", "--dtype", "float64"
    )
    found = DIFFERENCES.search(result.out)
    assert found is not None
    assert float(found[1]) < 1e-12
    assert (float(found[2]), found[3]) == (pytest.approx(0, abs=1e-12), "table")


def test_the_culprit_under_emitted_code(train: Command, stand_in: Command) -> None:
    stand_in()
    result = train("--backward", "generated", "--batch", 1)
    assert result.code == 2
    assert "the node hpreact_bn (nan)" in result.err


def test_emitted_code_that_is_missing(
    command: Command, names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "generated.mlp.steps", None)  # type: ignore[arg-type]
    result = command("train", "--data", names, "--out", tmp_path / "run")
    assert result.code == 2
    assert "Emit it with `codegen build mlp`" in result.err


def test_a_terminal_gets_a_bar_and_the_lines() -> None:
    console = Console(force_terminal=True, record=True, width=100, file=io.StringIO())
    with TrainingReport(console, 2000, 0, lockstep=True) as report:
        report.progress(500, 2.5)
        report.row(Row(1000, 2.5, 2.25), 1e-7)
        report.progress(2000, 2.125)
    text = console.export_text()
    assert "step 1,000  train loss 2.5000  val loss 2.2500  largest loss difference so far 1.0e-07" in text
    assert "2000/2000" in text
