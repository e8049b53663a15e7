"""Biases as rows of their matrices: what several layers read has one memory with a one behind its rows."""

import re

import pytest
import torch
from torch import Generator, Tensor

from tests.loop.networks import Network, compared
from tests.loop.test_loop_layernorm import loop_of

GATED = "h = torch.sigmoid(z @ w2 + b2) * F.softplus(z @ w3 + b3) @ u"
THREE = "h = (torch.sigmoid(z @ w2 + b2) * F.softplus(z @ w3 + b3) + torch.sin(z @ w4 + b4)) @ u"


@pytest.mark.parametrize(("line", "layers"), [(GATED, 2), (THREE, 3)])
def test_layers_beside_one_another_read_the_same_rows(line: str, layers: int) -> None:
    g = Generator().manual_seed(0)
    names = [str(k) for k in range(1, layers + 2)]
    weights = {f"w{k}": torch.randn(50, 50, generator=g, dtype=torch.float64) / 7 for k in names}
    biases: dict[str, Tensor] = {f"b{k}": torch.zeros(50, dtype=torch.float64) for k in names}
    params = weights | biases | {"u": torch.randn(50, 6, generator=g, dtype=torch.float64) / 7}
    lines = f"z = torch.tanh(x @ w1 + b1)\n    {line}\n    return F.cross_entropy(h, y)\n"
    x = torch.randn(300, 50, generator=g, dtype=torch.float64)
    y = torch.randint(0, 6, (300,), generator=g)
    network = Network(f"def network(x, y, {', '.join(params)}):\n    {lines}", params, (x, y), 32, 0.0)
    source = loop_of(network).source
    assert len(re.findall(r"_one(?:_\d+)? = torch.zeros\(", source)) == 1
    assert source.count("(z_one, ") == layers
    assert compared(network) == "the same"
