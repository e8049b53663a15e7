"""Many matrices with a vector each: in the calls that are fast for their sizes, and with the numbers of autograd."""

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

import codegen


def attended(x: Tensor, y: Tensor, c: Tensor, q: Tensor, v: Tensor) -> Tensor:
    """The mean of rows, weighted by their products with the last one."""
    h = c[x]
    a = F.softmax((h @ (h[:, -1] @ q).unsqueeze(2)).squeeze(2), 1)
    return F.cross_entropy((a.unsqueeze(1) @ h).squeeze(1) @ v, y)


@pytest.mark.parametrize(
    ("places", "width", "rows", "found"),
    [(20, 24, 6, [4, 0, 0, 0]), (5, 16, 6, [2, 2, 2, 0]), (5, 16, 160, [2, 2, 0, 8]), (12, 32, 6, [0, 0, 4, 0])],
)
def test_vectors_of_a_batch(places: int, width: int, rows: int, found: list[int]) -> None:
    g = Generator().manual_seed(0)
    params = {"c": torch.randn(9, width, generator=g), "q": torch.randn(width, width, generator=g) / width}
    params["v"] = torch.randn(width, 4, generator=g)
    data = torch.randint(0, 9, (300, places), generator=g), torch.randint(0, 4, (300,), generator=g)
    trainer = codegen.generate(attended, *[d[:rows] for d in data], *params.values()).trainer(params, rows, 0.1)
    trainer.run(data, steps=3, generator=Generator().manual_seed(1))
    calls = "torch.bmm(", "torch.bmm(h", "keepdim=True", "addcmul_(h"
    assert [trainer.source.count(c) for c in calls] == found
    generator, now = Generator().manual_seed(1), list(params.values())
    for _ in range(3):
        at = torch.randint(0, 300, (rows,), generator=generator)
        leaves = [t.clone().requires_grad_() for t in now]
        grads = torch.autograd.grad(attended(*[d[at] for d in data], *leaves), leaves)
        now = [t - 0.1 * d for t, d in zip(now, grads, strict=True)]
    for mine, true in zip(trainer.params.values(), now, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-10, atol=1e-12)
