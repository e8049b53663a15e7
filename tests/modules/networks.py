"""Modules as people write them, in one file of their own: blocks, small networks, losses inside of the forward."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tests.modules.layers import Case, Draw, rows, whole

F = torch.nn.functional


class Residual(nn.Module):
    """A ResNet block with a projected shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.shortcut = nn.Sequential(nn.Conv2d(2, 4, 1, stride=2, bias=False), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class MixerBlock(nn.Module):
    """Two MLPs, one over tokens and one over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(4), nn.LayerNorm(4)
        self.tokens = nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 5))
        self.channels = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class PatchTransformer(nn.Module):
    """Patches by a strided convolution, a class token, positions, one attention block."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 6, 2, stride=2)
        self.cls = nn.Parameter(torch.randn(1, 1, 6))
        self.pos = nn.Parameter(torch.randn(1, 5, 6) * 0.1)
        self.attn = nn.MultiheadAttention(6, 2, batch_first=True)
        self.norm1, self.norm2, self.head = nn.LayerNorm(6), nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.pos
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return self.head(self.norm2(x)[:, 0])


class GPT(nn.Module):
    """Token and position embeddings, causal blocks with the mask in a buffer, tied output, loss or logits."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(7, 6), nn.Embedding(8, 6)
        self.ln1, self.ln2, self.lnf = nn.LayerNorm(6), nn.LayerNorm(6), nn.LayerNorm(6)
        self.qkv, self.proj = nn.Linear(6, 18, bias=False), nn.Linear(6, 6)
        self.mlp = nn.Sequential(nn.Linear(6, 12), nn.GELU(approximate="tanh"), nn.Linear(12, 6))
        self.head = nn.Linear(6, 7, bias=False)
        self.head.weight = self.tokens.weight
        self.register_buffer("mask", torch.tril(torch.ones(8, 8)).view(1, 1, 8, 8), persistent=False)

    def attend(self, x: Tensor) -> Tensor:
        b, t, c = x.size()
        q, k, v = self.qkv(x).split(c, dim=2)
        q, k, v = (u.view(b, t, 2, c // 2).transpose(1, 2) for u in (q, k, v))
        att = (q @ k.transpose(-2, -1)) / math.sqrt(k.size(-1))
        att = att.masked_fill(self.mask[:, :, :t, :t] == 0, float("-inf"))
        y = F.softmax(att, dim=-1) @ v
        return self.proj(y.transpose(1, 2).contiguous().view(b, t, c))

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        t = idx.shape[1]
        x = self.tokens(idx) + self.positions(torch.arange(t))
        x = x + self.attend(self.ln1(x))
        x = x + self.mlp(self.ln2(x))
        logits = self.head(self.lnf(x))
        if targets is None:
            return logits
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=0)
        return logits, loss


class Autoencoder(nn.Module):
    """An encoder, a decoder, and their loss."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 2))
        self.decoder = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 6), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return F.mse_loss(self.decoder(self.encoder(x)), x.view(x.size(0), -1))


class VAE(nn.Module):
    """Reparameterised with noise that is an input, or drawn in the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.mu, self.logvar, self.dec = nn.Linear(5, 4), nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(2, 5)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        h = torch.tanh(self.enc(x))
        mu, logvar = self.mu(h), self.logvar(h)
        std = torch.exp(0.5 * logvar)
        z = mu + std * (torch.randn_like(std) if noise is None else noise)
        recon = torch.sigmoid(self.dec(z))
        kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        bce = F.binary_cross_entropy(recon, x.sigmoid(), reduction="sum")
        return {"loss": bce + kld, "recon": recon, "kld": kld}


class Siamese(nn.Module):
    """Two inputs through one encoder, and a contrastive loss."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))

    def forward(self, a: Tensor, b: Tensor, same: Tensor) -> Tensor:
        d = F.pairwise_distance(self.encoder(a), self.encoder(b))
        return (same * d.pow(2) + (1 - same) * F.relu(1.5 - d).pow(2)).mean()


class Contrastive(nn.Module):
    """CLIP's loss: two projections, normalised, a learned temperature, both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(5, 3)
        self.scale = nn.Parameter(torch.tensor(1.2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        a, b = F.normalize(self.a(x), dim=-1), F.normalize(self.b(y), dim=-1)
        logits = self.scale.exp() * a @ b.t()
        labels = torch.arange(x.shape[0])
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.t(), labels)) / 2


class CharLSTM(nn.Module):
    """An embedding, an LSTM written out with one matrix, a loss over all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gates, self.out = nn.Embedding(5, 3), nn.Linear(3 + 4, 16), nn.Linear(4, 5)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h, c = torch.zeros(x.shape[0], 4), torch.zeros(x.shape[0], 4)
        losses = []
        for t in range(x.size(1)):
            i, f, o, g = self.gates(torch.cat([self.embed(x[:, t]), h], 1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            losses.append(F.cross_entropy(self.out(h), y[:, t]))
        return torch.stack(losses).mean()


class Digits(nn.Module):
    """A small convolutional classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Dropout(0.3), nn.Linear(16, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return F.log_softmax(self.classifier(x.view(-1, 16)), dim=1)


class DenseBlock(nn.Module):
    """Every layer reads all that came before it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(2 + 2 * k), nn.ReLU(), nn.Conv2d(2 + 2 * k, 2, 3, padding=1)) for k in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)))
        return F.avg_pool2d(torch.cat(found, 1), 2)


class SqueezeExcite(nn.Module):
    """Channels weighed by what a global average says."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 4), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        return x * self.fc(self.pool(x).view(b, c)).view(b, c, 1, 1).expand_as(x)


class SwiGLU(nn.Module):
    """The gated feed-forward block of recent language models, behind an RMSNorm written out."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.w1, self.w2, self.w3 = (
            nn.Linear(4, 6, bias=False),
            nn.Linear(6, 4, bias=False),
            nn.Linear(4, 6, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight
        return x + self.w2(F.silu(self.w1(y)) * self.w3(y))


class Highway(nn.Module):
    """A gate between a layer and its input, over several layers of a list."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.gate = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for plain, gate in zip(self.plain, self.gate, strict=True):
            t = gate(x).sigmoid()
            x = t * F.relu(plain(x)) + (1 - t) * x
        return x


class FiLM(nn.Module):
    """Feature maps scaled and shifted by a condition."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.film = nn.Conv1d(2, 4, 3, padding=1), nn.InstanceNorm1d(4), nn.Linear(3, 8)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gamma, beta = self.film(condition).chunk(2, dim=-1)
        return F.relu(self.norm(self.conv(x)) * (1 + gamma.unsqueeze(-1)) + beta[..., None])


class Experts(nn.Module):
    """A soft mixture of experts, weights in one tensor, mixed by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(4, 3)
        self.experts = nn.Parameter(torch.randn(3, 4, 5) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x).softmax(-1)
        return torch.einsum("be,beo->bo", weights, torch.einsum("bi,eio->beo", x, self.experts).tanh())


class HyperNetwork(nn.Module):
    """A layer whose weights another layer makes, one matrix for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Linear(3, 4 * 2 + 2)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        made = self.make(z)
        w, b = made[:, :8].view(-1, 2, 4), made[:, 8:]
        return torch.bmm(w, x.unsqueeze(2)).squeeze(2) + b


class Sinusoids(nn.Module):
    """Positional encodings in a buffer, made when the module is."""

    pe: Tensor

    def __init__(self) -> None:
        super().__init__()
        position = torch.arange(8).unsqueeze(1)
        div = torch.exp(torch.arange(0, 4, 2) * (-math.log(10000.0) / 4))
        pe = torch.zeros(1, 8, 4)
        pe[0, :, 0::2], pe[0, :, 1::2] = torch.sin(position * div), torch.cos(position * div)
        self.register_buffer("pe", pe)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x * math.sqrt(4) + self.pe[:, : x.size(1)])


class Rotary(nn.Module):
    """Rotary positions computed in the forward."""

    def forward(self, x: Tensor) -> Tensor:
        t, d = x.shape[1], x.shape[2]
        freq = 1.0 / (10000 ** (torch.arange(0, d, 2) / d))
        angles = torch.outer(torch.arange(t), freq)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        a, b = x[..., ::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


class WeightNorm(nn.Module):
    """A linear layer whose weight is a direction and a length."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.g, self.b = (
            nn.Parameter(torch.randn(3, 4)),
            nn.Parameter(torch.rand(3, 1)),
            nn.Parameter(torch.zeros(3)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.g * self.v / self.v.norm(dim=1, keepdim=True), self.b)


class Smoothed(nn.Module):
    """Label smoothing written out."""

    def __init__(self, smoothing: float = 0.1) -> None:
        super().__init__()
        self.smoothing, self.linear = smoothing, nn.Linear(4, 5)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        logp = F.log_softmax(self.linear(x), dim=-1)
        nll = -logp.gather(dim=-1, index=target.unsqueeze(1)).squeeze(1)
        return ((1 - self.smoothing) * nll - self.smoothing * logp.mean(dim=-1)).mean()


class Focal(nn.Module):
    """Focal loss over a linear classifier."""

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma, self.linear = gamma, nn.Linear(4, 5)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        ce = F.cross_entropy(self.linear(x), target, reduction="none")
        return ((1 - torch.exp(-ce)) ** self.gamma * ce).mean()


class Several(nn.Module):
    """A tuple with a dictionary and a list in it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Any:
        a, b = self.a(x), self.b(x)
        return a.sum(), {"logits": a, "features": [b.tanh(), b.relu()]}


class OverTwo(nn.Module):
    """BatchNorm over the batch, and over the positions where there are any; its buffers are bound anew in every call."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            dims = 0 if x.ndim == 2 else (0, 1)
            mean, var = x.mean(dims), x.var(dims)
            with torch.no_grad():
                self.running_mean = 0.9 * self.running_mean + 0.1 * mean
                self.running_var = 0.9 * self.running_var + 0.1 * var
        else:
            mean, var = self.running_mean, self.running_var
        return self.gamma * (x - mean) / torch.sqrt(var + 1e-5) + self.beta


class Pairwise(nn.Module):
    """A tree over a context: two neighbours at a time are joined, until one is left."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 3)
        self.layers = nn.ModuleList([nn.Linear(6, 5, bias=False), nn.Linear(10, 5, bias=False)])
        self.norms = nn.ModuleList([OverTwo(5), OverTwo(5)])
        self.head = nn.Linear(5, 7)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.embed(x)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            n, length, features = h.shape
            h = h.view(n, length // 2, features * 2)
            if h.shape[1] == 1:
                h = h.squeeze(1)
            h = torch.tanh(norm(layer(h)))
        return F.cross_entropy(self.head(h), y)


class Encoder(nn.Module):
    """`nn.TransformerEncoder` with a causal mask that it makes, and a mask of what is padding."""

    def __init__(self, padded: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
        self.embed, self.encoder = nn.Embedding(7, 4), nn.TransformerEncoder(layer, 2)
        self.padded = padded

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=h.dtype)
        return self.encoder(h, src_key_padding_mask=x == 0) if self.padded else self.encoder(h, mask=mask)


class NoLoss(nn.Module):
    """What language models return: logits, and a loss where there are targets."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor, target: Tensor | None = None) -> Any:
        logits = self.linear(x)
        return None, logits, None if target is None else F.cross_entropy(logits, target), {"training": self.training}


class Given(nn.Module):
    """Inputs in a dictionary and a list, an optional one left out, a default."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(
        self, batch: dict[str, Tensor], more: list[Tensor], mask: Tensor | None = None, scale: float = 2.0
    ) -> Any:
        out = self.linear(batch["x"]) * scale + more[0]
        if mask is not None:
            out = out * mask
        return (out - batch["y"]).square().mean()


class Changed(nn.Module):
    """Attributes written in the forward: a count, the last activation; a buffer that is assigned."""

    last_mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.calls = 0
        self.register_buffer("last_mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        h = self.linear(x)
        self.last_mean = h.detach().mean(0)
        return (h - self.last_mean).tanh()


class ScalarGate(nn.Module):
    """A parameter without dimensions, one of size one, and a branch on a Python attribute."""

    def __init__(self, skip: bool = True) -> None:
        super().__init__()
        self.alpha, self.beta, self.skip = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.ones(1)), skip
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.alpha * self.linear(x) + self.beta
        return x + y if self.skip else y


class DeepSets(nn.Module):
    """A set reduced by sum, mean and max."""

    def __init__(self) -> None:
        super().__init__()
        self.phi, self.rho = nn.Sequential(nn.Linear(3, 4), nn.ELU()), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.phi(x)
        return self.rho(torch.cat([h.sum(1), h.mean(dim=1), h.max(dim=1).values], dim=-1))


class GraphConv(nn.Module):
    """Neighbours averaged by a normalised adjacency matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(3, 4)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        a = adjacency + torch.eye(adjacency.shape[0])
        d = a.sum(1).rsqrt()
        return F.relu(d[:, None] * a * d[None, :] @ self.w(x)).mean(0)


class UNet(nn.Module):
    """Down, up, and across."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.mid = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(3, 2, 2, stride=2), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.leaky_relu(self.down(x), 0.1)
        b = F.leaky_relu(self.mid(F.max_pool2d(a, 2)), 0.1)
        return self.out(torch.cat([a, self.up(b)], dim=1))


class PINN(nn.Module):
    """A Fourier feature network."""

    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", torch.randn(2, 3))
        self.net = nn.Sequential(nn.Linear(6, 4), nn.Softplus(beta=2), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        p = 2 * math.pi * x @ self.basis
        return self.net(torch.cat((p.sin(), p.cos()), -1)).squeeze(-1)


class Quantile(nn.Module):
    """Pinball loss at several quantiles kept in a buffer."""

    q: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("q", torch.tensor([0.1, 0.5, 0.9]))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        e = y.unsqueeze(1) - self.linear(x)
        return torch.maximum(self.q * e, (self.q - 1) * e).mean()


class ActorCritic(nn.Module):
    """Policy gradient with a baseline and an entropy bonus."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.policy, self.value = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 1)

    def forward(self, obs: Tensor, action: Tensor, ret: Tensor) -> Tensor:
        h = self.body(obs).tanh()
        logp = self.policy(h).log_softmax(-1)
        v = self.value(h).squeeze(-1)
        chosen = logp.gather(1, action[:, None]).squeeze(1)
        entropy = -(logp.exp() * logp).sum(-1)
        return (-(chosen * (ret - v.detach())) + 0.5 * (ret - v) ** 2 - 0.01 * entropy).mean()


class Cnn1d(nn.Module):
    """A dilated causal convolution, as in WaveNet."""

    def __init__(self) -> None:
        super().__init__()
        self.filter, self.gate = nn.Conv1d(2, 3, 2, dilation=2), nn.Conv1d(2, 3, 2, dilation=2)
        self.out = nn.Conv1d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (2, 0))
        return x + self.out(torch.tanh(self.filter(padded)) * torch.sigmoid(self.gate(padded)))


class SpatialGate(nn.Module):
    """Channel statistics as a mask: mean and max over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * self.conv(mask).sigmoid()


def sentences(n: int, _: Draw) -> tuple[Tensor, Tensor]:
    return whole(n, 4, below=7), whole(n, 4, below=6)


NETWORKS: list[Case] = [
    Case("residual block", Residual, rows(2, 4, 6)),
    Case("residual block, eval", Residual, rows(2, 4, 6), train=False),
    Case("mixer block", MixerBlock, rows(5, 4)),
    Case("patch transformer", PatchTransformer, rows(1, 4, 4)),
    Case("gpt", GPT, lambda n, _: (whole(n, 4, below=7),)),
    Case("gpt with loss", GPT, sentences),
    Case("autoencoder", Autoencoder, rows(2, 3)),
    Case("vae", VAE, rows(5)),
    Case("vae with noise given", VAE, lambda n, draw: (draw(n, 5), draw(n, 2))),
    Case("siamese", Siamese, lambda n, draw: (draw(n, 4), draw(n, 4), whole(n, below=2))),
    Case("contrastive", Contrastive, lambda n, draw: (draw(n, 4), draw(n, 5))),
    Case("char lstm", CharLSTM, lambda n, _: (whole(n, 3, below=5), whole(n, 3, below=4))),
    Case("digits", Digits, rows(1, 8, 8)),
    Case("digits, eval", Digits, rows(1, 8, 8), train=False),
    Case("dense block", DenseBlock, rows(2, 4, 4)),
    Case("squeeze and excite", SqueezeExcite, rows(4, 3, 2)),
    Case("swiglu", SwiGLU, rows(3, 4)),
    Case("highway", Highway, rows(4)),
    Case("film", FiLM, lambda n, draw: (draw(n, 2, 5), draw(n, 3))),
    Case("experts", Experts, rows(4)),
    Case("hypernetwork", HyperNetwork, lambda n, draw: (draw(n, 4), draw(n, 3))),
    Case("sinusoids", Sinusoids, rows(5, 4)),
    Case("rotary", Rotary, rows(5, 4)),
    Case("weight norm", WeightNorm, rows(4)),
    Case("smoothed", Smoothed, lambda n, draw: (draw(n, 4), whole(n, below=5))),
    Case("focal", Focal, lambda n, draw: (draw(n, 4), whole(n, below=5))),
    Case("several results", Several, rows(3)),
    Case("encoder", Encoder, lambda n, _: (whole(n, 5, below=7),)),
    Case("encoder, eval", Encoder, lambda n, _: (whole(n, 5, below=7),), train=False),
    Case("encoder of padded rows", lambda: Encoder(True), lambda n, _: (whole(n, 5, below=7),)),
    Case("encoder of padded rows, eval", lambda: Encoder(True), lambda n, _: (whole(n, 5, below=7),), train=False),
    Case("pairwise", Pairwise, lambda n, _: (whole(n, 4, below=7), whole(n, below=7)), alone=False),
    Case("pairwise, eval", Pairwise, lambda n, _: (whole(n, 4, below=7), whole(n, below=7)), train=False),
    Case("no loss without targets", NoLoss, rows(3)),
    Case("a loss with targets", NoLoss, lambda n, draw: (draw(n, 3), whole(n, below=4))),
    Case("inputs in structures", Given, lambda n, draw: ({"x": draw(n, 3), "y": draw(n, 2)}, [draw(n, 2)])),
    Case("an optional input", Given, lambda n, draw: ({"x": draw(n, 3), "y": draw(n, 2)}, [draw(n, 2)], draw(n, 2))),
    Case("None and a number", Given, lambda n, draw: ({"x": draw(n, 3), "y": draw(n, 2)}, [draw(n, 2)], None, 3.0)),
    Case("changed attributes", Changed, rows(3)),
    Case("scalar gate", ScalarGate, rows(4)),
    Case("scalar gate without skip", lambda: ScalarGate(skip=False), rows(4)),
    Case("deep sets", DeepSets, rows(5, 3)),
    Case(
        "graph convolution", GraphConv, lambda n, draw: (draw(n, 3), torch.eye(n).to(draw(1).dtype) + draw(n, n).abs())
    ),
    Case("unet", UNet, rows(1, 4, 6)),
    Case("fourier features", PINN, rows(2)),
    Case("quantile", Quantile, lambda n, draw: (draw(n, 4), draw(n))),
    Case("actor critic", ActorCritic, lambda n, draw: (draw(n, 4), whole(n, below=3), draw(n))),
    Case("causal convolution", Cnn1d, rows(2, 6)),
    Case("spatial gate", SpatialGate, rows(3, 4, 3)),
]
