"""Small data and small runs, so that every path of `codegen train` is taken in well under a second."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from codegen.cli import main
from codegen.train.backward import AutogradBackward
from codegen.train.data import bundled_path
from codegen.train.recipe import Recipe

BIGRAM = '''
"""The smallest recipe: a table of scores, one row per character."""

import torch

context = 1
DEFAULTS = {"steps": 30, "batch": 8, "lr": 2.0}


def forward(x, y, table):
    scores = table[x.view(-1)]
    total = scores.exp().sum(dim=1)
    nll = total.log() - scores[torch.arange(y.shape[0]), y]
    loss = nll.mean()
    return loss


def example_inputs(generator):
    x = torch.randint(0, 5, (8, 1), generator=generator)
    y = torch.randint(0, 5, (8,), generator=generator)
    return {"x": x, "y": y, **init(generator, 5, torch.float32)}


def init(generator, vocab_size, dtype):
    return {"table": torch.randn(vocab_size, vocab_size, generator=generator, dtype=dtype)}


def logits(x, params, buffers, batch_stats):
    return params["table"][x.view(-1)]
'''


@dataclass(frozen=True)
class Result:
    """What a command printed and how it exited."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]


@dataclass
class StandIn:
    """The interface of an emitted module, with autograd inside and a factor on every gradient."""

    recipe: Recipe
    factor: float = 1.0
    calls: list[str] = field(default_factory=list[str])

    def forward(self, *inputs: Tensor) -> tuple[Tensor, object]:
        self.calls.append("forward")
        x, y, *params = inputs
        with torch.inference_mode(False):
            copies = {name: p.clone() for name, p in zip(self.recipe.parameters, params, strict=True)}
            loss, grads, saved = AutogradBackward(self.recipe.forward).step(copies, x.clone(), y.clone())
        return loss, SimpleNamespace(**vars(saved), gradients=grads)

    def backward(self, saved: Any) -> dict[str, Tensor]:
        self.calls.append("backward")
        grads = {name: g * self.factor for name, g in saved.gradients.items()}
        return {"loss": torch.ones(())} | grads  # as in steps mode, gradients of nodes come along


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Let `--backward generated` use a StandIn; returns the list of the calls to it."""

    def install(factor: float = 1.0) -> list[str]:
        calls: list[str] = []
        monkeypatch.setattr("codegen.train.emitted.emitted_code", lambda target, recipe: StandIn(recipe, factor, calls))
        monkeypatch.setattr("codegen.train.emitted.recipe_trainer", lambda *arguments: None)  # no loop: step by step
        return calls

    return install


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `codegen ARGS` in this process."""

    def run(*args: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["codegen", *map(str, args)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every hundredth bundled name: 300 of them, all 27 symbols."""
    path = tmp_path_factory.mktemp("data") / "names.txt"
    path.write_text("\n".join(bundled_path().read_text().splitlines()[::100]) + "\n")
    return path


@pytest.fixture
def bigram(tmp_path: Path) -> Path:
    """A recipe in a file of its own."""
    path = tmp_path / "bigram.py"
    path.write_text(BIGRAM)
    return path


@pytest.fixture
def train(command: Command, names: Path, tmp_path: Path) -> Command:
    """Run a short `codegen train mlp` under autograd into tmp_path/run; further options win."""

    def run(*args: object) -> Result:
        defaults = {"--steps": 40, "--log-every": 10, "--data": names, "--out": tmp_path / "run"}
        defaults["--backward"] = "autograd"
        given = [a for name, value in defaults.items() if name not in args for a in (name, value)]
        return command("train", "mlp", *given, *args)

    return run
