"""Modules made of torch.nn's layers, each with inputs for any batch size: what the tests compare with autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

F = torch.nn.functional
Draw = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """A module and its inputs for a batch size, from a function that draws normal numbers of the dtype under test."""

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int, Draw], tuple[Any, ...]]
    train: bool = True
    alone: bool = True
    truth: Callable[[Tensor], Tensor] | None = None
    """The same function by other means, where torch's own backward uses a float32 constant in float64."""
    constants: int = 0
    """How many inputs at the end get no gradient in torch."""


def rows(*shape: int) -> Callable[[int, Draw], tuple[Any, ...]]:
    """Normal numbers, (batch, *shape)."""
    return lambda n, draw: (draw(n, *shape),)


def whole(n: int, *shape: int, below: int) -> Tensor:
    """Integers in [0, below)."""
    return torch.randint(0, below, (n, *shape), generator=torch.Generator().manual_seed(n + below))


def frozen(module: nn.Module, *names: str) -> nn.Module:
    """The module with some parameters that want no gradient."""
    for name in names:
        module.get_parameter(name).requires_grad_(False)
    return module


class Tied(nn.Module):
    """An embedding that is also the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x).mean(1))


class Unused(nn.Module):
    """A layer that the forward does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class Lists(nn.Module):
    """ModuleList, ModuleDict, ParameterList and ParameterDict."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.acts = nn.ModuleDict({"tanh": nn.Tanh(), "gelu": nn.GELU()})
        self.scales = nn.ParameterList([nn.Parameter(torch.rand(4) + k) for k in range(3)])
        self.shifts = nn.ParameterDict({"a": nn.Parameter(torch.randn(4)), "b": nn.Parameter(torch.randn(1))})

    def forward(self, x: Tensor) -> Tensor:
        for k, (layer, scale) in enumerate(zip(self.layers, self.scales, strict=True)):
            x = self.acts["tanh" if k % 2 else "gelu"](layer(x)) * scale
        for shift in self.shifts.values():
            x = x + shift
        return x


class Attend(nn.Module):
    """`nn.MultiheadAttention` of a sequence with itself, or with another one."""

    def __init__(self, weights: bool = False, causal: bool = False, padding: bool = False, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, **options)
        self.weights, self.causal, self.padding = weights, causal, padding

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Any:
        other = x if memory is None else memory
        mask = torch.ones(x.shape[1], other.shape[1], dtype=torch.bool).triu(1) if self.causal else None
        out, weights = self.attention(x, other, other, attn_mask=mask, need_weights=self.weights)
        return (out, weights) if self.weights else out


class Alone(Attend):
    """Attention of a sequence that has no batch dimension, (time, features)."""

    def forward(self, x: Tensor) -> Any:
        return self.attention(x, x, x)


class Padded(nn.Module):
    """`nn.MultiheadAttention` with a key padding mask."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor, left_out: Tensor) -> Tensor:
        return self.attention(x, x, x, key_padding_mask=left_out, need_weights=False)[0]


class ByHand(nn.Module):
    """Causal attention as it is usually written out, with the mask in a buffer."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(6, 18), nn.Linear(6, 6)
        self.register_buffer("mask", torch.tril(torch.ones(8, 8)).view(1, 1, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.size()
        q, k, v = (u.view(b, t, 2, c // 2).transpose(1, 2) for u in self.qkv(x).split(c, dim=2))
        scores = (q @ k.transpose(-2, -1)) * (1.0 / k.size(-1) ** 0.5)
        scores = scores.masked_fill(self.mask[:, :, :t, :t] == 0, float("-inf"))
        return self.out((F.softmax(scores, dim=-1) @ v).transpose(1, 2).contiguous().view(b, t, c))


class Dot(nn.Module):
    """`scaled_dot_product_attention` of three inputs."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **self.options)


class Steps(nn.Module):
    """A recurrent cell over the time steps of a sequence."""

    def __init__(self, cell: nn.Module, states: int) -> None:
        super().__init__()
        self.cell, self.states = cell, states

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        state: Any = h if self.states == 1 else (h, h * 0.5)
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return state if self.states == 1 else state[0] + state[1]


class Of(nn.Module):
    """The first result of a layer that returns several."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Any) -> Any:
        return self.layer(*inputs)[0]


def qkv(n: int, draw: Draw) -> tuple[Tensor, ...]:
    return draw(n, 2, 5, 4), draw(n, 2, 5, 4), draw(n, 2, 5, 4)


def layer(name: str, make: Callable[[], nn.Module], *shape: int, train: bool = True, alone: bool = True) -> Case:
    return Case(name, make, rows(*shape), train, alone)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu in place": lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)),
    "relu6": nn.ReLU6,
    "leaky relu": lambda: nn.LeakyReLU(0.2),
    "prelu": nn.PReLU,
    "prelu per channel": lambda: nn.PReLU(3),
    "elu": lambda: nn.ELU(0.7),
    "celu": lambda: nn.CELU(1.3),
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "gelu by tanh": lambda: nn.GELU(approximate="tanh"),
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "sigmoid": nn.Sigmoid,
    "log sigmoid": nn.LogSigmoid,
    "tanh": nn.Tanh,
    "softplus": lambda: nn.Softplus(2.0, 1.5),
    "softsign": nn.Softsign,
    "softshrink": nn.Softshrink,
    "hardshrink": nn.Hardshrink,
    "tanhshrink": nn.Tanhshrink,
    "hardtanh": lambda: nn.Hardtanh(-0.5, 0.8),
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "threshold": lambda: nn.Threshold(0.1, 0.3),
    "glu": lambda: nn.GLU(-1),
    "softmax": lambda: nn.Softmax(-1),
    "softmin": lambda: nn.Softmin(1),
    "log softmax": lambda: nn.LogSoftmax(-1),
    "identity": nn.Identity,
}

TRUTHS: dict[str, Callable[[Tensor], Tensor]] = {
    "celu": lambda x: torch.where(x > 0, x, 1.3 * torch.expm1(x / 1.3)),
    "hardsigmoid": lambda x: (x + 3).clamp(0, 6) / 6,
}
"""torch's slopes of these two are those of float32 (1/6 and 1/alpha), off by 1e-8."""

CONVOLUTIONS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(2, 3, 3), (2, 7)),
    "conv1d stride padding": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1), (2, 7)),
    "conv1d same": (lambda: nn.Conv1d(2, 3, 4, padding="same"), (2, 7)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3), (2, 6, 5)),
    "conv2d without bias": (lambda: nn.Conv2d(2, 3, 3, bias=False), (2, 6, 5)),
    "conv2d one by one": (lambda: nn.Conv2d(2, 3, 1), (2, 4, 5)),
    "conv2d stride": (lambda: nn.Conv2d(2, 3, 3, stride=2), (2, 7, 8)),
    "conv2d padding": (lambda: nn.Conv2d(2, 3, (3, 5), padding=(1, 2)), (2, 5, 6)),
    "conv2d same": (lambda: nn.Conv2d(2, 3, (3, 2), padding="same"), (2, 5, 6)),
    "conv2d valid": (lambda: nn.Conv2d(2, 3, 2, padding="valid"), (2, 4, 4)),
    "conv2d dilation": (lambda: nn.Conv2d(2, 3, 2, dilation=2, padding=1), (2, 6, 5)),
    "conv2d groups": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), (4, 5, 4)),
    "conv2d depthwise": (lambda: nn.Conv2d(3, 6, 3, groups=3, stride=2, padding=1), (3, 6, 6)),
    "conv2d one channel": (lambda: nn.Conv2d(1, 2, 3, padding=1), (1, 4, 4)),
    "conv2d reflected": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 4, 5)),
    "conv2d circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 4, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 2, 2), (2, 3, 4, 3)),
    "transposed conv1d": (lambda: nn.ConvTranspose1d(2, 3, 3, stride=2), (2, 5)),
    "transposed conv2d": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), (2, 4, 3)),
    "transposed conv2d without bias": (lambda: nn.ConvTranspose2d(3, 2, 2, bias=False), (3, 4, 3)),
}

POOLINGS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "max pool 1d": (lambda: nn.MaxPool1d(2), (2, 7)),
    "max pool 2d": (lambda: nn.MaxPool2d(2), (2, 6, 5)),
    "max pool 2d overlapping": (lambda: nn.MaxPool2d(3, stride=2, padding=1), (2, 6, 7)),
    "avg pool 1d": (lambda: nn.AvgPool1d(3, 2, 1), (2, 7)),
    "avg pool 2d": (lambda: nn.AvgPool2d(2), (2, 6, 4)),
    "avg pool 2d padded": (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), (2, 6, 5)),
    "adaptive avg pool 1d": (lambda: nn.AdaptiveAvgPool1d(3), (2, 7)),
    "adaptive avg pool 2d": (lambda: nn.AdaptiveAvgPool2d((2, 3)), (2, 5, 6)),
    "global avg pool": (lambda: nn.AdaptiveAvgPool2d(1), (2, 5, 6)),
    "adaptive max pool": (lambda: nn.AdaptiveMaxPool2d(2), (2, 4, 6)),
    "lp pool": (lambda: nn.LPPool1d(2, 2), (2, 6)),
    "flatten": (nn.Flatten, (2, 3, 4)),
    "unflatten": (lambda: nn.Unflatten(1, (2, 3)), (6, 2)),
    "upsample nearest": (lambda: nn.Upsample(scale_factor=2), (2, 3, 4)),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), (4, 3, 2)),
    "pixel unshuffle": (lambda: nn.PixelUnshuffle(2), (1, 4, 2)),
    "channel shuffle": (lambda: nn.ChannelShuffle(2), (4, 2, 2)),
    "zero pad": (lambda: nn.ZeroPad2d(1), (2, 3, 4)),
    "reflection pad": (lambda: nn.ReflectionPad1d(2), (2, 5)),
    "replication pad": (lambda: nn.ReplicationPad2d((1, 0, 2, 1)), (2, 3, 4)),
    "unfold": (lambda: nn.Unfold(2, padding=1), (2, 4, 3)),
}

NORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "batch norm": (lambda: nn.BatchNorm1d(4), (4,)),
    "batch norm of a sequence": (lambda: nn.BatchNorm1d(4), (4, 3)),
    "batch norm not affine": (lambda: nn.BatchNorm1d(4, affine=False), (4,)),
    "batch norm of momentum 0.3": (lambda: nn.BatchNorm1d(4, momentum=0.3, eps=1e-3), (4,)),
    "batch norm cumulative": (lambda: nn.BatchNorm1d(4, momentum=None), (4,)),
    "batch norm without statistics": (lambda: nn.BatchNorm1d(4, track_running_stats=False), (4,)),
    "batch norm 2d": (lambda: nn.BatchNorm2d(3), (3, 4, 2)),
    "batch norm 2d not affine": (lambda: nn.BatchNorm2d(3, affine=False), (3, 4, 2)),
    "batch norm 2d without statistics": (lambda: nn.BatchNorm2d(3, track_running_stats=False), (3, 4, 2)),
    "batch norm 3d": (lambda: nn.BatchNorm3d(2), (2, 2, 3, 2)),
    "batch norms": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2), nn.BatchNorm1d(2)),
        (3,),
    ),
}

LAYERS: list[Case] = [
    layer("linear", lambda: nn.Linear(3, 4), 3),
    layer("linear without bias", lambda: nn.Linear(3, 4, bias=False), 3),
    layer("linear to one", lambda: nn.Linear(3, 1), 3),
    layer("linear of a sequence", lambda: nn.Linear(3, 4), 5, 3),
    layer("frozen weight", lambda: frozen(nn.Linear(3, 4), "weight"), 3),
    layer("frozen bias", lambda: frozen(nn.Linear(3, 4), "bias"), 3),
    layer("unused", Unused, 3),
    layer("lists", Lists, 4),
    layer("sequential", lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2), nn.Sigmoid()), 3),
    Case("tied", Tied, lambda n, _: (whole(n, 3, below=7),)),
    Case("embedding", lambda: nn.Embedding(7, 4), lambda n, _: (whole(n, 3, below=7),)),
    Case("embedding with padding", lambda: nn.Embedding(5, 4, padding_idx=2), lambda n, _: (whole(n, 6, below=5),)),
    Case(
        "embedding with the last row as padding",
        lambda: nn.Embedding(5, 4, padding_idx=-1),
        lambda n, _: (whole(n, 6, below=5),),
    ),
    Case("embedding bag", lambda: nn.EmbeddingBag(7, 4, mode="mean"), lambda n, _: (whole(n, 3, below=7),)),
    Case("bilinear", lambda: nn.Bilinear(3, 4, 2), lambda n, draw: (draw(n, 3), draw(n, 4))),
    Case("cosine similarity", lambda: nn.CosineSimilarity(1), lambda n, draw: (draw(n, 4), draw(n, 4))),
    Case(
        "weight norm of a layer",
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
        lambda n, draw: (draw(n, 4),),
    ),
    Case(
        "weight norm of a convolution",
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 3, 2)),
        lambda n, draw: (draw(n, 2, 5),),
    ),
    Case("pairwise distance", nn.PairwiseDistance, lambda n, draw: (draw(n, 4), draw(n, 4))),
    layer("layer norm", lambda: nn.LayerNorm(4), 3, 4),
    layer("layer norm not affine", lambda: nn.LayerNorm(4, elementwise_affine=False), 4),
    layer("layer norm without bias", lambda: nn.LayerNorm(4, bias=False), 4),
    layer("layer norm over two dimensions", lambda: nn.LayerNorm((3, 4)), 3, 4),
    layer("rms norm", lambda: nn.RMSNorm(4), 3, 4),
    layer("rms norm with eps", lambda: nn.RMSNorm(4, eps=1e-3), 4),
    layer("rms norm not affine", lambda: nn.RMSNorm(4, elementwise_affine=False), 4),
    layer("group norm", lambda: nn.GroupNorm(2, 4), 4, 3),
    layer("group norm of images", lambda: nn.GroupNorm(2, 4), 4, 3, 2),
    layer("group norm of one group", lambda: nn.GroupNorm(1, 4, affine=False), 4, 3),
    layer("group norm of rows", lambda: nn.GroupNorm(2, 4), 4),
    layer("instance norm", lambda: nn.InstanceNorm1d(3), 3, 5),
    layer("instance norm 2d affine", lambda: nn.InstanceNorm2d(3, affine=True), 3, 4, 2),
    layer("instance norm with statistics", lambda: nn.InstanceNorm1d(3, track_running_stats=True), 3, 5),
    layer(
        "instance norm with statistics, eval", lambda: nn.InstanceNorm1d(3, track_running_stats=True), 3, 5, train=False
    ),
    layer("local response norm", lambda: nn.LocalResponseNorm(2), 4, 3),
    *[layer(name, make, *shape, alone=len(shape) > 1) for name, (make, shape) in NORMS.items()],
    *[layer(f"{name}, eval", make, *shape, train=False, alone=len(shape) > 1) for name, (make, shape) in NORMS.items()],
    layer("dropout", lambda: nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.4), nn.Linear(5, 3), nn.Dropout(0.2)), 4),
    layer("dropout, eval", lambda: nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.4)), 4, train=False),
    layer("dropout in place", lambda: nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.4, inplace=True)), 4),
    layer("dropout 1d", lambda: nn.Dropout1d(0.4), 4, 3),
    layer("dropout 2d", lambda: nn.Dropout2d(0.4), 4, 3, 2),
    layer("alpha dropout, eval", lambda: nn.AlphaDropout(0.4), 4, train=False),
    *[Case(name, make, rows(3, 4), truth=TRUTHS.get(name)) for name, make in ACTIVATIONS.items()],
    layer("rrelu, eval", nn.RReLU, 3, 4, train=False),
    layer("softmax over channels", nn.Softmax2d, 3, 4, 2),
    *[layer(name, make, *shape) for name, (make, shape) in CONVOLUTIONS.items()],
    *[layer(name, make, *shape) for name, (make, shape) in POOLINGS.items()],
    layer("attention", lambda: Attend(batch_first=True), 5, 6),
    layer("attention, time first", Attend, 5, 6),
    layer("attention with weights", lambda: Attend(weights=True, batch_first=True), 5, 6),
    layer("attention, causal", lambda: Attend(causal=True, batch_first=True), 5, 6),
    layer("attention, no bias", lambda: Attend(batch_first=True, bias=False), 5, 6),
    layer("attention, dropout", lambda: Attend(batch_first=True, dropout=0.3), 5, 6),
    layer("attention, eval", lambda: Attend(batch_first=True, dropout=0.3), 5, 6, train=False),
    Case(
        "cross attention",
        lambda: Attend(batch_first=True, kdim=4, vdim=4),
        lambda n, draw: (draw(n, 5, 6), draw(n, 3, 4)),
    ),
    Case("attention, padding", Padded, lambda n, draw: (draw(n, 5, 6), torch.arange(5).expand(n, 5) > 2)),
    layer("attention, added keys", lambda: Attend(batch_first=True, add_bias_kv=True, add_zero_attn=True), 5, 6),
    layer("attention, added keys, causal", lambda: Attend(causal=True, add_bias_kv=True, batch_first=True), 5, 6),
    Case("attention without a batch", lambda: Alone(batch_first=True), lambda n, draw: (draw(n, 6),)),
    layer("attention by hand", ByHand, 5, 6),
    Case("dot product attention", Dot, qkv),
    Case("dot product attention, causal", lambda: Dot(is_causal=True), qkv),
    Case("dot product attention, scale", lambda: Dot(scale=0.3), qkv),
    Case(
        "dot product attention, boolean mask",
        Dot,
        lambda n, draw: (*qkv(n, draw), torch.eye(5) + torch.ones(5, 5).tril(-1) > 0),
    ),
    Case("dot product attention, added mask", Dot, lambda n, draw: (*qkv(n, draw), draw(5, 5))),
    layer("transformer layer", lambda: nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True), 5, 6),
    layer("transformer layer, dropout", lambda: nn.TransformerEncoderLayer(6, 2, 8, 0.2, batch_first=True), 5, 6),
    layer(
        "transformer layer, norm first", lambda: nn.TransformerEncoderLayer(6, 2, 8, 0.0, "gelu", norm_first=True), 5, 6
    ),
    layer("transformer layer, eval", lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), 5, 6, train=False),
    layer(
        "transformer",
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True), 2),
        5,
        6,
    ),
    Case(
        "transformer decoder layer",
        lambda: nn.TransformerDecoderLayer(6, 2, 8, 0.0, batch_first=True),
        lambda n, draw: (draw(n, 4, 6), draw(n, 5, 6)),
    ),
    Case("rnn cell", lambda: Steps(nn.RNNCell(3, 4), 1), lambda n, draw: (draw(n, 3, 3), draw(n, 4))),
    Case(
        "rnn cell, relu",
        lambda: Steps(nn.RNNCell(3, 4, nonlinearity="relu"), 1),
        lambda n, draw: (draw(n, 3, 3), draw(n, 4)),
    ),
    Case("lstm cell", lambda: Steps(nn.LSTMCell(3, 4), 2), lambda n, draw: (draw(n, 3, 3), draw(n, 4))),
    Case("gru cell", lambda: Steps(nn.GRUCell(3, 4), 1), lambda n, draw: (draw(n, 3, 3), draw(n, 4))),
    Case("lstm", lambda: Of(nn.LSTM(3, 4, batch_first=True)), rows(4, 3)),
    Case("gru", lambda: Of(nn.GRU(3, 4, batch_first=True)), rows(4, 3)),
    Case("rnn", lambda: Of(nn.RNN(3, 4, 2, batch_first=True)), rows(4, 3)),
]
