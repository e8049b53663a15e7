"""Run `codegen ARGS` in this process, from a folder of its own."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from codegen.cli import main

RECIPE = '''
"""A recipe outside of the repository."""

import torch


def forward(x, w):
    h = x @ w
    p = h.tanh()
    return p.square().mean()


def example_inputs(generator):
    return {"x": torch.randn(6, 4, generator=generator), "w": torch.randn(4, 3, generator=generator)}
'''


@dataclass(frozen=True)
class Result:
    """What a command printed and how it exited."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """The console script, in a working directory that is not the repository."""
    monkeypatch.chdir(tmp_path)

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


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A file with a forward and example inputs."""
    path = tmp_path / "recipe.py"
    path.write_text(RECIPE)
    return path
