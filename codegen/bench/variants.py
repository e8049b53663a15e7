# pyright: basic
"""Ways to take steps on a workload: the emitted loop, eager autograd, torch.compile, JAX, and the matrix products alone."""

from __future__ import annotations

import importlib
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Generator, Tensor

import codegen

if TYPE_CHECKING:
    from collections.abc import Callable

    from codegen.bench.workloads import Workload
    from codegen.program import Program

LR = 0.01


@dataclass(frozen=True)
class Runner:
    """A variant of a workload: `run(steps)`, its parameters by name, and the bytes it holds besides them between runs.

    `made` is the processor time that was spent before `run` could be called.
    """

    run: Callable[[int], None]
    params: dict[str, Tensor]
    held: Callable[[], int] = lambda: 0
    made: float = 0.0


def generated(w: Workload) -> Program:
    """The closed program of a workload."""
    x, y = w.data()
    before = torch.get_default_dtype()
    torch.set_default_dtype(w.dtype)
    try:
        return codegen.generate(w.forward, x[:32], y[:32], *w.params.values())
    finally:
        torch.set_default_dtype(before)


def emitted(w: Workload, compile: bool = False) -> Runner:
    """Steps through `program.trainer`."""
    x, y = w.data()
    began = time.process_time()
    trainer = generated(w).trainer(w.params, batch_size=w.batch, lr=LR, compile=compile)
    generator = Generator().manual_seed(0)

    def run(steps: int) -> None:
        trainer.run((x, y), steps=steps, generator=generator)

    return Runner(run, trainer.params, trainer.workspace, time.process_time() - began)


def gradients(w: Workload) -> Runner:
    """Batches through `program.value_and_grad`, without an update unless a single step is taken, to be compared by."""
    x, y = w.data()
    began = time.process_time()
    program = generated(w)
    params = {k: p.clone() for k, p in w.params.items()}
    generator = Generator().manual_seed(0)

    def run(steps: int) -> None:
        for _ in range(steps):
            rows = torch.randint(0, len(x), (w.batch,), generator=generator)
            _, grads = program.value_and_grad(x[rows], y[rows], *params.values())
            if steps == 1:
                for k, p in params.items():
                    p.sub_(grads[k], alpha=LR)

    return Runner(run, params, made=time.process_time() - began)


def eager(w: Workload) -> Runner:
    """Steps of `nn.functional`, autograd and `torch.optim.SGD`."""
    x, y = w.data()
    values = [p.clone().requires_grad_() for p in w.params.values()]
    optimizer = torch.optim.SGD(values, lr=LR)
    generator = Generator().manual_seed(0)

    def run(steps: int) -> None:
        for step in range(steps):
            rows = torch.randint(0, len(x), (w.batch,), generator=generator)
            loss = w.eager(x[rows], y[rows], values)
            cast("Any", loss).backward()
            if w.update or (step == 0 and steps == 1):  # a single step is what gradients are compared by
                cast("Any", optimizer).step()
            optimizer.zero_grad()

    return Runner(run, dict(zip(w.params, values, strict=True)))


def compiled_step(w: Workload) -> Runner:
    """Forward, backward and update of one step as one function through torch.compile."""
    x, y = w.data()
    params = {k: p.clone() for k, p in w.params.items()}
    generator = Generator().manual_seed(0)

    def step(values: list[Tensor], bx: Tensor, by: Tensor) -> list[Tensor]:
        grads = cast("Any", torch.func.grad)(lambda v: w.eager(bx, by, v))(values)
        return [v - LR * g for v, g in zip(values, grads, strict=True)]

    call = cast("Any", torch.compile(step, dynamic=False))

    def run(steps: int) -> None:
        values = list(params.values())
        with torch.no_grad():
            for _ in range(steps):
                rows = torch.randint(0, len(x), (w.batch,), generator=generator)
                values = call(values, x[rows], y[rows])
            for p, v in zip(params.values(), values, strict=True):
                p.copy_(v)

    return Runner(run, params)


def jax_scan(w: Workload) -> Runner:
    """Steps in JAX: value_and_grad under jit, the loop in `lax.scan`. Batches are drawn by torch, all at once."""
    jax: Any = importlib.import_module("jax")
    jnp: Any = importlib.import_module("jax.numpy")
    jax.config.update("jax_enable_x64", w.dtype == torch.float64)
    x, y = w.data()
    layers = len(w.widths) - 1
    shallow = "bnw" in w.params

    def normal(z: Any, scale: Any, shift: Any, eps: float) -> Any:
        mean = z.mean(0)
        return (z - mean) * jax.lax.rsqrt(((z - mean) ** 2).mean(0) + eps) * scale + shift

    def loss_of(params: list[Any], bx: Any, by: Any) -> Any:
        h = params[0][bx].reshape(bx.shape[0], -1)
        if shallow:
            _, w1, w2, b2, bnw, bnb = params
            h = jnp.tanh(normal(h @ w1, bnw, bnb, 1e-12)) @ w2 + b2
        else:
            for k in range(layers):
                h = normal(h @ params[1 + 3 * k], params[2 + 3 * k], params[3 + 3 * k], 1e-5)
                h = jnp.tanh(h) if k < layers - 1 else h
        return -jnp.take_along_axis(jax.nn.log_softmax(h), by[:, None], 1).mean()

    def step(params: list[Any], rows: Any) -> tuple[list[Any], Any]:
        loss, grads = jax.value_and_grad(loss_of)(params, *rows)
        return [p - LR * g for p, g in zip(params, grads, strict=True)], loss

    scan = jax.jit(lambda params, rows: jax.lax.scan(step, params, rows))
    generator = Generator().manual_seed(0)
    state = {"params": [jnp.asarray(p.numpy()) for p in w.params.values()]}
    params = {k: p.clone() for k, p in w.params.items()}

    def run(steps: int) -> None:
        rows = torch.randint(0, len(x), (steps * w.batch,), generator=generator)
        bx = jnp.asarray(x[rows].view(steps, w.batch, -1).numpy())
        by = jnp.asarray(y[rows].view(steps, w.batch).numpy())
        state["params"], losses = scan(state["params"], (bx, by))
        losses.block_until_ready()
        if steps == 1:
            for p, value in zip(params.values(), state["params"], strict=True):
                p.copy_(torch.tensor(value.tolist(), dtype=p.dtype))

    return Runner(run, params)


def floor(w: Workload) -> Runner:
    """The step's matrix products alone, into memory that is there."""
    products: list[tuple[Tensor, Tensor, Tensor]] = []
    for a, b in itertools.pairwise(w.widths):
        x, d, m = (torch.randn(size, dtype=w.dtype) for size in ((w.batch, a), (w.batch, b), (a, b)))
        products += [(x, m, torch.empty_like(d)), (d, m.T, torch.empty_like(x)), (x.T, d, torch.empty_like(m))]

    def run(steps: int) -> None:
        with torch.inference_mode():
            for _ in range(steps):
                for a, b, out in products:
                    torch.mm(a, b, out=out)

    return Runner(run, {})


VARIANTS: dict[str, Callable[[Workload], Runner]] = {
    "emitted": emitted,
    "emitted, compiled": lambda w: emitted(w, compile=True),
    "emitted, value_and_grad": gradients,
    "eager": eager,
    "compile": compiled_step,
    "jax": jax_scan,
    "floor": floor,
}
