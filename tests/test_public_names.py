"""What `engine` and `codegen` export: all of it there, functions not hidden by modules, nothing heavy before it is used."""

import subprocess
import sys
from pathlib import Path

import pytest

import codegen
import engine

ROOT = Path(__file__).parents[1]


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


@pytest.mark.parametrize("package", [engine, codegen], ids=["engine", "codegen"])
def test_everything_that_is_announced_is_there(package: object) -> None:
    assert {n: getattr(package, n).__name__ for n in package.__all__} == {n: n for n in package.__all__}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.__getattr__("nothing")


def test_functions_are_not_hidden_by_their_modules() -> None:
    code = "import engine.trace, codegen.check, engine, codegen; print(engine.trace.__name__, codegen.check.__name__)"
    assert python(code) == "trace check"


def test_help_does_not_wait_for_torch() -> None:
    code = """
import sys
from codegen.cli import app
app(["--help"], standalone_mode=False)
print({"torch", "sympy"} & {*sys.modules})
"""
    assert python(code).endswith("set()")


def test_a_users_row_stays_whatever_is_imported_first() -> None:
    code = """
import torch
from engine.table import elementwise
@elementwise("tanh")
def tripled(x): return 3 * x
import engine
(node,) = (n for n in engine.trace(lambda x: x.tanh(), torch.ones(2)).nodes if n.op == "tanh")
print(str(node.template.expr).startswith("3*"))
"""
    assert python(code) == "True"
