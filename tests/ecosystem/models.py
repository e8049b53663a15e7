"""Forwards of several kinds, with inputs: what the emitted functions and modules are tried on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Case:
    """How to make a forward and its arguments in float64, and whether it draws random numbers."""

    make: Callable[[], tuple[Any, tuple[Any, ...]]]
    random: bool = False


def gathers(x: Tensor, y: Tensor, C: Tensor, w: Tensor, b: Tensor) -> Tensor:
    hidden = (C[x].view(x.shape[0], -1) @ w + b).tanh()
    probs = hidden.exp() / hidden.exp().sum(1, keepdim=True)
    return -probs.log()[torch.arange(y.shape[0]), y].mean()


def several(x: Tensor, w: Tensor) -> dict[str, Any]:
    h = (x @ w).tanh()
    return {"loss": h.square().sum(), "best": h.argmax(1), "parts": (h, h.T)}


def normalised(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w + b


def handed_back(x: Tensor, w: Tensor, i: Tensor) -> tuple[Tensor, ...]:
    """Inputs among the results, as they are, in another dtype that is theirs, and with nothing added."""
    same = F.dropout(x, 0.5, False).contiguous()
    return x, same.to(w), torch.zeros_like(x) + x, i, (same * w).tanh()


class WithBatchNorm(nn.Module):
    """Running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 7)
        self.bn = nn.BatchNorm1d(7)
        self.fc2 = nn.Linear(7, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.fc2(self.bn(self.fc1(x)).tanh()), y)


class WithDropout(nn.Module):
    """Random masks, and names that are numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Dropout(0.4), nn.Linear(6, 4), nn.Dropout(0.2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).square().mean()


class Attending(nn.Module):
    """Attention, and a buffer that no state dict holds."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.qkv = nn.Linear(6, 18, bias=False)
        self.register_buffer("scale", torch.tensor(0.5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        weights = (q @ k.transpose(-2, -1) * self.scale).softmax(-1)
        return F.gelu(x + weights @ v)


class Tied(nn.Module):
    """An embedding that is the output layer too, a parameter that nothing reads and one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6)
        self.head.weight = self.emb.weight
        self.unread = nn.Parameter(torch.zeros(2))
        self.frozen = nn.Parameter(torch.full((4,), 2.0), requires_grad=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.head(self.emb(x).mean(1) * self.frozen), y)


def floats(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def ints(bound: int, *shape: int) -> Tensor:
    return torch.randint(bound, shape)


CASES = {
    "gathers": Case(lambda: (gathers, (ints(5, 6, 2), ints(4, 6), floats(5, 3), floats(6, 4), floats(4)))),
    "several": Case(lambda: (several, (floats(4, 3), floats(3, 2)))),
    "handed back": Case(lambda: (handed_back, (floats(4, 3), floats(3), ints(5, 4)))),
    "normalised": Case(lambda: (normalised, (floats(4, 5), floats(5), floats(5)))),
    "batch norm": Case(lambda: (WithBatchNorm().double(), (floats(8, 5), ints(3, 8)))),
    "batch norm, evaluating": Case(lambda: (WithBatchNorm().double().eval(), (floats(8, 5), ints(3, 8)))),
    "dropout": Case(lambda: (WithDropout().double(), (floats(6, 5),)), random=True),
    "attention": Case(lambda: (Attending().double(), (floats(2, 4, 6),))),
    "tied": Case(lambda: (Tied().double(), (ints(6, 5, 3), ints(6, 5)))),
}


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors of a result, in order."""
    return [t for t in pytree.tree_leaves(value) if isinstance(t, Tensor)]


def loss_of(value: Any) -> Tensor:
    """One number from a result: a fixed combination of all its floating-point entries."""
    parts = [t for t in tensors_of(value) if t.is_floating_point()]
    return sum(((t * torch.arange(1, t.numel() + 1).view(t.shape).to(t)).cos().sum() for t in parts), torch.zeros(()))
