"""`program.function` in any torch program: it behaves as the forward does, differentiated in whatever way."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import codegen
from engine.errors import InputError
from tests.codegen.random_forwards import RandomForward
from tests.ecosystem.models import CASES, gathers, loss_of, several, tensors_of

EXACT = [name for name, case in CASES.items() if not case.random]
SEED = 3
pytestmark = [  # torch's own, in forward mode and in the compiler
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]


def made(name: str, mode: str = "closed") -> tuple[codegen.Program, Any, tuple[Any, ...]]:
    """A program, the forward it was made from, and arguments whose floats want gradients."""
    torch.manual_seed(SEED)
    forward, inputs = CASES[name].make()
    program = codegen.generate(forward, *inputs, mode=mode)
    return program, forward, tuple(t.requires_grad_() if t.is_floating_point() else t for t in inputs)


def leaves(forward: Any, inputs: tuple[Any, ...]) -> list[Tensor]:
    """Everything that may have a gradient."""
    held = list(forward.parameters()) if isinstance(forward, nn.Module) else []
    return [t for t in (*tensors_of(inputs), *held) if t.requires_grad]


def gradients(function: Callable[..., Any], forward: Any, inputs: tuple[Any, ...]) -> list[Tensor]:
    """Of `loss_of` the result, with respect to `leaves`; the same random numbers every time."""
    torch.manual_seed(SEED)
    loss = loss_of(function(*inputs))
    return list(torch.autograd.grad(loss, leaves(forward, inputs), materialize_grads=True, allow_unused=True))


def pure(program: codegen.Program, forward: Any, inputs: tuple[Any, ...]) -> tuple[Callable[..., Any], list[Tensor]]:
    """The function of all its tensors that have gradients: those of the trace, in order."""
    tensors = program.tensors(inputs)
    at = [k for k, n in enumerate(program.graph.inputs) if program.graph[n].differentiable]

    def function(*some: Tensor) -> Any:
        full = list(tensors)
        for k, t in zip(at, some, strict=True):
            full[k] = t
        out = program.module.function(*full)
        return out if isinstance(out, Tensor) else tuple(o for o in out if o.is_floating_point())

    return function, [tensors[k].detach().clone().requires_grad_() for k in at]


def reference(program: codegen.Program, forward: Any, inputs: tuple[Any, ...]) -> Callable[..., Any]:
    """`pure`, by autograd of the forward itself."""
    tensors = program.tensors(inputs)
    graph = program.graph
    at = [k for k, n in enumerate(graph.inputs) if graph[n].differentiable]

    def function(*some: Tensor) -> Any:
        full = list(tensors)
        for k, t in zip(at, some, strict=True):
            full[k] = t
        values = dict(zip(graph.inputs, full, strict=True))
        own = [v for n, v in values.items() if n not in graph.parameters]
        if isinstance(forward, nn.Module):
            # a module changes its buffers in place: each call has its own, batched as the first argument is
            link = torch.zeros_like(some[0]).sum()
            state = {graph.key(n): v for n, v in values.items() if n in graph.parameters}
            state |= {graph.key(n): values[n] + link.to(values[n].dtype) for n in graph.buffers}
            out = torch.func.functional_call(forward, state, tuple(own))
        else:
            out = forward(*own)
        found = [o for o in tensors_of(out) if o.is_floating_point()]
        return found[0] if isinstance(out, Tensor) else tuple(found)

    return function


@pytest.mark.sampled("name")
@pytest.mark.parametrize("mode", ["closed", "steps"])
@pytest.mark.parametrize("name", CASES)
def test_results_and_gradients_are_the_forwards(name: str, mode: str) -> None:
    program, forward, inputs = made(name, mode)
    torch.manual_seed(SEED)
    mine = program.function(*inputs)
    torch.manual_seed(SEED)
    theirs = forward(*inputs)
    assert pytree.tree_structure(mine) == pytree.tree_structure(theirs)
    torch.testing.assert_close(tensors_of(mine), tensors_of(theirs), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradients(program.function, forward, inputs), gradients(forward, forward, inputs), rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("name", EXACT)
def test_gradcheck_with_batched_and_forward_mode(name: str) -> None:
    given = made(name)
    function, at = pure(*given)
    batched = "einsum" not in given[0].source  # the older vmap, which gradcheck uses, has no rule for it
    assert torch.autograd.gradcheck(function, at, check_batched_grad=batched, check_forward_ad=True, fast_mode=True)


@pytest.mark.parametrize("name", EXACT)
def test_gradgradcheck(name: str) -> None:
    function, at = pure(*made(name))
    assert torch.autograd.gradgradcheck(function, at, check_batched_grad=True, fast_mode=True)


@pytest.mark.parametrize("name", EXACT)
def test_function_transforms(name: str) -> None:
    """torch.func: grad, jvp, vmap, their compositions and a Hessian's product with a vector equal autograd's."""
    given = made(name)
    function, at = pure(*given)
    theirs = reference(*given)
    at = [t.detach() for t in at]
    every = tuple(range(len(at)))
    torch.manual_seed(SEED)
    moves = tuple(torch.randn_like(t) for t in at)
    several_at = tuple(torch.stack([t, t + m / 3, t - m / 5]) for t, m in zip(at, moves, strict=True))

    def of(f: Callable[..., Any]) -> Callable[..., Tensor]:
        return lambda *a: loss_of(f(*a))

    def product(f: Callable[..., Any]) -> Any:
        return torch.func.jvp(torch.func.grad(of(f), every), tuple(at), moves)[1]

    found = [
        (
            torch.func.grad(of(f), every)(*at),
            torch.func.jvp(f, tuple(at), moves)[1],
            torch.vmap(f)(*several_at),
            torch.vmap(torch.func.grad(of(f), every))(*several_at),
            torch.func.grad(lambda *a, f=f: torch.vmap(of(f))(*a).sum(), every)(*several_at),
            product(f),
        )
        for f in (function, theirs)
    ]
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-10)


def test_gradients_of_every_sample() -> None:
    """Parameters are not batched, samples are: what is written in place then needs another way."""
    program, _, (x, y, *rest) = made("gathers")
    params = tuple(t.detach() for t in rest)
    xs, ys = x[:, None], y[:, None]
    mine, theirs = (
        torch.vmap(torch.func.grad(f, (2, 3, 4)), (0, 0, None, None, None))(xs, ys, *params)
        for f in (program.function, gathers)
    )
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


WRITTEN = {
    "rows added": lambda x, i, z: z.index_add(0, i[:, 0], x[:, :4]).sin(),
    "places added": lambda x, i, z: z.scatter_add(1, i, x).square(),
    "rows put": lambda x, i, z: z.index_put((i[:, 0],), x[:, :1].expand(6, 4) + i[:, :1]).exp().sum(1),
    "a part": lambda x, i, z: torch.cat([z[:, :1] * 2, x[:, :3] * i[:, :3]], 1).cos(),
}


@pytest.mark.parametrize("mode", ["closed", "steps"])
@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_to_need_not_be_batched(name: str, mode: str) -> None:
    """vmap over any one of the inputs, of the result, its gradient and a gradient's derivative."""
    forward = WRITTEN[name]
    g = torch.Generator().manual_seed(SEED)
    x, z = (torch.randn(6, n, generator=g, dtype=torch.float64) for n in (5, 4))
    i = torch.stack([torch.randperm(4, generator=g)[torch.arange(6) % 4]] * 5, 1)
    if name == "rows put":
        i = torch.randperm(6, generator=g)[:, None].expand(6, 5).clone()
    given = (x, i, z)
    program = codegen.generate(forward, *given, mode=mode)
    for at in range(3):
        dims = tuple(0 if k == at else None for k in range(3))
        some = tuple(torch.stack([t, t.flip(0)]) if k == at else t for k, t in enumerate(given))
        found = [
            (
                torch.vmap(f, dims)(*some),
                torch.vmap(torch.func.grad(lambda *a, f=f: f(*a).sum(), (0, 2)), dims)(*some),
                torch.vmap(torch.func.jacfwd(lambda *a, f=f: f(*a).sum(), (0, 2)), dims)(*some),
            )
            for f in (program.function, forward)
        ]
        torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("mode", ["closed", "steps"])
def test_places_below_zero_are_refused_wherever_they_come_in(mode: str) -> None:
    """The example had none. Under vmap their values are looked at, in compiled code when it is run."""
    g = torch.Generator().manual_seed(SEED)
    x, v = torch.randn(6, 4, generator=g), torch.randn(3, 4, generator=g)
    i = torch.tensor([4, 0, 2])

    def forward(x: Tensor, i: Tensor, v: Tensor) -> Tensor:
        return x.index_put((i,), v).exp().sum(1)

    program = codegen.generate(forward, x, i, v, mode=mode)
    torch.compiler.reset()
    compiled = torch.compile(program.function, fullgraph=True, backend="aot_eager")
    some = torch.stack([i, i.flip(0)])
    for function in (program.function, compiled):
        torch.testing.assert_close(function(x, i, v), forward(x, i, v))
    torch.testing.assert_close(
        torch.vmap(program.function, (None, 0, None))(x, some, v), torch.vmap(forward, (None, 0, None))(x, some, v)
    )
    message = "i has places below zero, which count from the end"
    with pytest.raises(InputError, match=message):
        program.function(x, i - 6, v)
    with pytest.raises(InputError, match=message):
        torch.vmap(program.function, (None, 0, None))(x, some - 1, v)
    with pytest.raises(RuntimeError, match=message):
        compiled(x, i - 6, v)


@pytest.mark.sampled("name")
@pytest.mark.parametrize("mode", ["closed", "steps"])
@pytest.mark.parametrize("name", EXACT)
def test_compiled_without_a_break(name: str, mode: str) -> None:
    program, forward, inputs = made(name, mode)
    torch.compiler.reset()
    function = torch.compile(program.function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        gradients(function, forward, inputs), gradients(forward, forward, inputs), rtol=1e-9, atol=1e-11
    )


def test_compiled_by_inductor() -> None:
    program, forward, inputs = made("gathers")
    torch.compiler.reset()
    function = torch.compile(program.function, fullgraph=True)
    torch.testing.assert_close(
        gradients(function, forward, inputs), gradients(forward, forward, inputs), rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("mode", ["closed", "steps"])
def test_only_some_inputs_want_a_gradient(mode: str) -> None:
    program, _, (x, y, C, w, b) = made("gathers", mode)
    for wanted in (C, w, b):
        others = [t.detach() if t is not wanted else t for t in (C, w, b)]
        (mine,) = torch.autograd.grad(program.function(x, y, *others), wanted)
        (theirs,) = torch.autograd.grad(gathers(x, y, *others), wanted)
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)
    assert not program.function(x, y, *[t.detach() for t in (C, w, b)]).requires_grad


@pytest.mark.parametrize("mode", ["closed", "steps"])
def test_results_that_are_not_used_and_gradients_that_are_not_there(mode: str) -> None:
    program, _, (x, w) = made("several", mode)
    for part in ("loss", "parts"):
        mine, theirs = (loss_of(f(x, w)[part]) for f in (program.function, several))
        unused = torch.zeros(3, requires_grad=True)
        a = torch.autograd.grad(mine, (x, w, unused), materialize_grads=True, allow_unused=True)
        b = torch.autograd.grad(theirs, (x, w, unused), materialize_grads=True, allow_unused=True)
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    out = program.function(x, w)
    assert not out["best"].requires_grad
    assert out["best"].equal(several(x, w)["best"])


@pytest.mark.parametrize("mode", ["closed", "steps"])
def test_what_is_detached_wants_no_gradient(mode: str) -> None:
    def forward(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        return x.detach(), (x * w).detach().exp(), (x * w).sin()

    inputs = tuple(torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    results = codegen.generate(forward, *inputs, mode=mode).function(*inputs)
    assert [t.requires_grad for t in results] == [t.requires_grad for t in forward(*inputs)] == [False, False, True]


def test_a_gradient_that_was_left_out_is_refused_and_not_none() -> None:
    torch.manual_seed(SEED)
    x, w = torch.randn(4, 3), torch.randn(3, 2, requires_grad=True)
    program = codegen.generate(lambda x, w: (x @ w).tanh().sum(), x, w, wrt=["w"])
    (g,) = torch.autograd.grad(program.function(x, w), w)
    torch.testing.assert_close(g, torch.autograd.grad((x @ w).tanh().sum(), w)[0])
    with pytest.raises(ValueError, match="derived without the gradient of x: derive it with that in wrt"):
        program.function(x.requires_grad_(), w)


@pytest.mark.parametrize("name", EXACT)
def test_inputs_that_are_not_contiguous(name: str) -> None:
    program, forward, inputs = made(name)

    def strided(t: Tensor) -> Tensor:
        spread = torch.stack([t.detach(), torch.full_like(t, 77).detach()], -1)[..., 0]
        return spread.requires_grad_() if t.requires_grad else spread

    given = tuple(strided(t) for t in inputs)
    assert any(not t.is_contiguous() for t in given)
    torch.testing.assert_close(
        gradients(program.function, forward, given), gradients(forward, forward, given), rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_autocast_loses_nothing(low: torch.dtype) -> None:
    """Inside autocast the emitted function computes in float32, whatever comes in, and there and back."""
    torch.manual_seed(SEED)
    x, y = torch.randn(8, 5), torch.randint(3, (8,))
    first, w = nn.Linear(5, 6), torch.randn(6, 3, requires_grad=True)

    def forward(h: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return F.cross_entropy(h.tanh() @ w, y)

    program = codegen.generate(forward, torch.randn(8, 6), y, w)
    with torch.autocast("cpu", dtype=low):
        h = first(x)
        assert h.dtype == low
        loss = program.function(h, y, w)
        loss.backward()
    assert loss.dtype == torch.float32
    kept = h.detach().float().requires_grad_()
    expected = forward(kept, y, w.detach().requires_grad_())
    torch.testing.assert_close(loss, expected)
    twin = w.detach().requires_grad_()
    (at_w,) = torch.autograd.grad(forward(kept, y, twin), twin)
    torch.testing.assert_close(w.grad, at_w)
    assert first.weight.grad is not None


def test_a_random_mask_is_the_same_in_the_second_derivative() -> None:
    """With the mask that was drawn, the gradient is linear in the inputs here, and its derivative is that of the same mask."""
    program = codegen.generate(lambda x: F.dropout(x, 0.5).square().sum(), torch.randn(50, dtype=torch.float64))
    x = torch.randn(50, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(program.function(x), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, (first / x).detach())
    assert set(second.tolist()) == {0.0, 8.0}


def test_steps_mode_does_not_draw_again() -> None:
    program = codegen.generate(
        lambda x: F.dropout(x, 0.5).square().sum(), torch.randn(50, dtype=torch.float64), mode="steps"
    )
    x = torch.randn(50, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(program.function(x), x, create_graph=False)
    assert set((first / x).round(decimals=9).tolist()) == {0.0, 8.0}
    with pytest.raises(NotImplementedError, match="Use mode='closed'"):
        torch.autograd.grad(program.function(x), x, create_graph=True)


def test_a_module_in_another_mode_is_refused() -> None:
    program, forward, inputs = made("batch norm")
    forward.eval()
    with pytest.raises(InputError, match="is in evaluation mode and was derived in training mode"):
        program.function(*inputs)


def test_running_statistics_are_the_modules() -> None:
    program, forward, inputs = made("batch norm")
    twin = copy.deepcopy(forward)
    for _ in range(3):
        program.function(*inputs).backward()
        twin(*inputs)
    assert forward.bn.num_batches_tracked == 3
    torch.testing.assert_close(dict(forward.named_buffers()), dict(twin.named_buffers()), rtol=1e-12, atol=1e-12)


SAME = (
    "x.tanh().double()", "x.tanh().mean(1, keepdim=True)", "x.exp().expand(3, 1)", "x.tanh()[:, 0].flatten()", "+x.tanh()",
    "torch.atleast_2d(x.tanh())", "F.dropout(x.tanh(), 0.5, False)", "torch.flatten(x[:, 0].exp())", "x.exp().real", "x.contiguous()",
    "(x.tanh(), x.tanh().double())", "(x.tanh().contiguous(), x.tanh().double())", "x.exp().diff(n=0)", "x.exp().sum(1)",
)  # fmt: skip


@pytest.mark.parametrize("mode", ["closed", "steps"])
@pytest.mark.parametrize("text", SAME)
def test_a_result_that_is_the_tensor_that_is_saved_has_a_gradient(text: str, mode: str) -> None:
    forward = RandomForward(f"def forward(x):\n    return {text}\n", ()).function()
    x = torch.randn(3, 1, dtype=torch.float64)
    function = codegen.generate(forward, x, mode=mode).function
    found: list[Tensor] = []
    for call in (function, forward):
        leaf = x.clone().requires_grad_()
        out = call(leaf)
        outs = out if isinstance(out, tuple) else (out,)
        assert all(o.requires_grad for o in outs)
        found += torch.autograd.grad(sum((k + 1) * o.square().sum() for k, o in enumerate(outs)), leaf)
    torch.testing.assert_close(*found)
