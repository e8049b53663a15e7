"""Gradients that hold the parameter itself: weight decay in the loss, in several shapes, is taken before it moves."""

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

import codegen

PENALTIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squares": lambda w, b: 0.1 * (w.square().sum() + b.square().sum()),
    "cubes": lambda w, b: 0.1 * ((w**3).sum() + (b**3).sum()),
    "two at once": lambda w, b: 0.1 * (w.square().sum() + (w**3).sum() + b.square().sum() + b.exp().sum()),
    "transposed": lambda w, b: 0.1 * (w * w.T).sum() + 0.1 * (b * b.flip(0)).sum(),
    "products": lambda w, b: 0.1 * (w @ w).sum() + 0.1 * (w @ b).sum(),
}


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("name", PENALTIES)
def test_decay_is_that_of_autograd(name: str, momentum: float) -> None:
    def forward(x: Tensor, y: Tensor, w: Tensor, b: Tensor) -> Tensor:
        error = (x @ w + b).tanh() - y
        return error.square().mean() + PENALTIES[name](w, b)

    torch.manual_seed(0)
    x, y, w, b = (torch.randn(*s, dtype=torch.float64) for s in ((40, 4), (40, 4), (4, 4), (4,)))
    program = codegen.generate(forward, x[:8], y[:8], w, b)
    trainer = program.trainer({"w": w, "b": b}, batch_size=8, lr=0.05, momentum=momentum)
    losses = trainer.run((x, y), steps=30, generator=Generator().manual_seed(1))
    generator, leaves = Generator().manual_seed(1), [w.clone().requires_grad_(), b.clone().requires_grad_()]
    optimizer = torch.optim.SGD(leaves, lr=0.05, momentum=momentum)
    expected: list[Tensor] = []
    for _ in range(30):
        rows = torch.randint(0, 40, (8,), generator=generator)
        loss = forward(x[rows], y[rows], *leaves)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.detach())
    torch.testing.assert_close(losses, torch.stack(expected), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(list(trainer.params.values()), [p.detach() for p in leaves], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["squares", "halves"])
def test_decay_is_a_multiple_of_what_a_product_is_added_to(name: str) -> None:
    def forward(x: Tensor, y: Tensor, w: Tensor, b: Tensor, v: Tensor) -> Tensor:
        error = (x @ w + b).relu() @ v - y
        by = {"squares": 0.1, "halves": 0.5}[name]
        return error.square().mean() + by * (w.square().sum() + v.square().sum())

    torch.manual_seed(0)
    x, y, w, b, v = (torch.randn(*s, dtype=torch.float64) for s in ((40, 4), (40, 2), (4, 6), (6,), (6, 2)))
    program = codegen.generate(forward, x[:8], y[:8], w, b, v)
    trainer = program.trainer({"w": w, "b": b, "v": v}, batch_size=8, lr=0.05)
    trainer.run((x, y), steps=12, generator=Generator().manual_seed(1))
    text = trainer.source
    assert text.count("addmm_(") == text.count("beta=1 + ") == 2
    assert "dw = torch.empty" not in text
    assert "dv = torch.empty" not in text
    generator, leaves = Generator().manual_seed(1), [t.clone().requires_grad_() for t in (w, b, v)]
    for _ in range(12):
        rows = torch.randint(0, 40, (8,), generator=generator)
        grads = torch.autograd.grad(forward(x[rows], y[rows], *leaves), leaves)
        leaves = [(p - 0.05 * g).detach().requires_grad_() for p, g in zip(leaves, grads, strict=True)]
    torch.testing.assert_close(list(trainer.params.values()), [p.detach() for p in leaves], rtol=1e-10, atol=1e-12)
