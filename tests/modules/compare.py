"""A module's program against autograd of a copy of the module: results, every gradient, every buffer."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from codegen import generate
from codegen.program import Program
from tests.modules.layers import Case

TOLERANCE = {torch.float32: (1e-4, 1e-5), torch.float64: (1e-9, 1e-12)}


def close(name: str, ours: Tensor, theirs: Tensor) -> None:
    """Raise AssertionError where two tensors differ by more than rounding of their dtype."""
    rtol, atol = TOLERANCE.get(theirs.dtype, (0.0, 0.0))
    scale = float(theirs.detach().abs().max()) if theirs.numel() and theirs.is_floating_point() else 0.0
    torch.testing.assert_close(
        ours, theirs, rtol=rtol, atol=atol * max(1.0, scale), equal_nan=True, msg=lambda m: f"{name}: {m}"
    )


def tensors_of(value: Any) -> list[Tensor]:
    """Every tensor in a structure."""
    return [v for v in pytree.tree_leaves(value) if isinstance(v, Tensor)]


def autograd(
    module: nn.Module, inputs: Sequence[Any], truth: Any = None, constants: int = 0
) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor], list[Tensor]]:
    """Results, cotangents, gradients of parameters by name, and of floating-point inputs in order, with seed 0."""
    given = tensors_of(inputs)
    last = len(given) - constants
    leaves = [t.detach().clone().requires_grad_(t.is_floating_point() and k < last) for k, t in enumerate(given)]
    rest = iter(leaves)
    again = pytree.tree_map(lambda v: next(rest) if isinstance(v, Tensor) else v, list(inputs))
    torch.manual_seed(0)
    out = tensors_of((truth or module)(*again))
    generator = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o.dtype) for o in out]
    known = {n: p for n, p in module.named_parameters() if p.requires_grad}
    floats = [t for t in leaves if t.requires_grad]
    live = [(o, c) for o, c in zip(out, cotangents, strict=True) if o.requires_grad]
    found = torch.autograd.grad(
        [o for o, _ in live],
        [*known.values(), *floats],
        [c for _, c in live],
        allow_unused=True,
        materialize_grads=True,
    )
    named = dict(zip(known, found, strict=False))
    return [o.detach() for o in out], cotangents, named, list(found[len(known) :])


def assert_program_matches(
    program: Program, module: nn.Module, inputs: Sequence[Any], truth: Any = None, constants: int = 0
) -> None:
    """One run of a program, with the module's own parameters, against a copy of the module."""
    theirs = copy.deepcopy(module)
    out, cotangents, parameters, floats = autograd(theirs, inputs, truth, constants)
    torch.manual_seed(0)
    result, saved = program.forward(*inputs)
    ours = tensors_of(result)
    assert len(ours) == len(out)
    for k, (a, b) in enumerate(zip(ours, out, strict=True)):
        close(f"result {k}", a, b)
    grads = program.backward(saved, cotangents[0] if program.graph.single else cotangents)
    own = [n for n in program.graph.inputs if n not in program.graph.parameters and program.graph[n].differentiable]
    assert len(own) == len(floats) + constants
    expected = {**parameters, **dict(zip(own, floats, strict=False))}
    keys = {*expected, *own}
    assert set(program.input_keys) == keys
    if program.mode == "closed":
        assert set(grads) == keys
    for name, g in expected.items():
        close(f"gradient of {name}", grads[name], g)
    before = {k: v.clone() for k, v in module.named_buffers()}
    renewed = program.buffers(saved)
    for name, b in theirs.named_buffers():
        close(f"buffer {name}", renewed.get(name, before[name]), b)
    assert all(torch.equal(before[k], v) for k, v in module.named_buffers())


def assert_module_matches(
    case: Case, mode: str, dtype: torch.dtype, sizes: Sequence[int] = (4, 2, 7), alone: bool = True
) -> None:
    """One program for all batch sizes, generated at the first; with `alone`, where torch takes it, one for a batch of one."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    torch.manual_seed(5)
    module = case.make().to(dtype).train(case.train)
    batches = [case.inputs(n, draw) for n in sizes]
    if batches:
        program = generate(module, *batches[0], mode=mode)
        for inputs in batches:
            assert_program_matches(program, module, inputs, case.truth, case.constants)
    if case.alone and alone:
        inputs = case.inputs(1, draw)
        assert_program_matches(generate(module, *inputs, mode=mode), module, inputs, case.truth, case.constants)
