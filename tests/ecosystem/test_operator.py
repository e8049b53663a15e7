"""The emitted `torch.library.custom_op`: torch's own opcheck, gradients, the compiler, and the file that build writes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import codegen
from codegen.build import build
from engine.errors import InputError
from tests.ecosystem.models import CASES, loss_of

pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
SEED = 3
EXACT = [name for name, case in CASES.items() if not case.random]


def made(name: str) -> tuple[Any, list[torch.Tensor], codegen.Program]:
    torch.manual_seed(SEED)
    forward, inputs = CASES[name].make()
    program = codegen.generate(forward, *inputs)
    tensors = [t.detach().clone() for t in program.tensors(inputs)]
    for n, t in zip(program.graph.inputs, tensors, strict=True):
        t.requires_grad_(program.graph[n].differentiable)
    return program.custom_op(f"symgrad_tests::case_{list(CASES).index(name)}"), tensors, program


@pytest.mark.parametrize("name", EXACT)
def test_opcheck_passes_and_gradients_are_those_of_the_function(name: str) -> None:
    call, tensors, program = made(name)
    operator = getattr(torch.ops.symgrad_tests, f"case_{list(CASES).index(name)}").default
    results = torch.library.opcheck(operator, tuple(tensors))
    assert set(results.values()) == {"SUCCESS"}
    wanted = [t for t in tensors if t.requires_grad]
    mine = torch.autograd.grad(loss_of(call(*tensors)), wanted)
    theirs = torch.autograd.grad(loss_of(program.module.function(*tensors)), wanted)
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_the_compiler_keeps_the_operator_whole() -> None:
    call, tensors, _ = made("gathers")
    seen: list[str] = []

    def backend(module: torch.fx.GraphModule, example: Any) -> Any:
        seen.extend(str(n.target) for n in module.graph.nodes if n.op == "call_function")
        return module.forward

    torch.compiler.reset()
    compiled = torch.compile(call, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(*tensors), call(*tensors))
    assert any("symgrad_tests" in s for s in seen)


def test_names_are_checked_and_steps_mode_has_none() -> None:
    x = torch.randn(3)
    with pytest.raises(InputError, match="it has the form namespace::name"):
        codegen.generate(lambda x: x.tanh().sum(), x).custom_op("tanh")
    with pytest.raises(InputError, match="use mode='closed'"):
        codegen.generate(lambda x: x.tanh().sum(), x, mode="steps").custom_op()


def test_build_writes_a_file_that_needs_only_torch(tmp_path: Path) -> None:
    (built,) = [b for b in build("cross_entropy", tmp_path, operator=True) if b.path.name == "custom_op.py"]
    assert built.write()
    script = (
        "import sys, torch, runpy\n"
        f"op = runpy.run_path({str(built.path)!r})['call']\n"
        "assert not {'engine', 'codegen'} & {m.split('.')[0] for m in sys.modules}\n"
        "z = torch.randn(4, 3, requires_grad=True); y = torch.tensor([0, 2, 1, 1])\n"
        "op(z, y).backward()\n"
        "g, = torch.autograd.grad(torch.nn.functional.cross_entropy(z, y), z)\n"
        "torch.testing.assert_close(z.grad, g)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
