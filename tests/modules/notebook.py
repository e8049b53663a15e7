"""The lecture notebook's second half as modules: its linear layer, and its BatchNorm by projection matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Linear(nn.Module):
    """x @ weight, with weights of variance 1/fan_in; no bias in front of a BatchNorm."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_in, fan_out, dtype=torch.float64) * fan_in**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class BatchNorm(nn.Module):
    """Mean by a vector of 1/n, variance by the diagonal of x' P x; running statistics kept."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.001) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(features, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(features, dtype=torch.float64))
        self.register_buffer("running_mean", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("running_var", torch.ones(features, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            n = x.shape[0]
            means = torch.ones(n, dtype=torch.float64) / n
            centre = torch.eye(n, dtype=torch.float64) - means
            m = means @ x
            v = (x.T @ centre @ x).diag() / n
            with torch.no_grad():
                self.running_mean = self.running_mean * (1 - self.momentum) + m * self.momentum
                self.running_var = self.running_var * (1 - self.momentum) + v * self.momentum
        else:
            m, v = self.running_mean, self.running_var
        return self.weight * (x - m) / (v + self.eps).sqrt() + self.bias


def stack(depth: int, fan_in: int, hidden: int) -> nn.Sequential:
    """`depth` times Linear, BatchNorm, Tanh."""
    layers: list[nn.Module] = []
    for k in range(depth):
        layers += [Linear(fan_in if k == 0 else hidden, hidden), BatchNorm(hidden), nn.Tanh()]
    return nn.Sequential(*layers)
