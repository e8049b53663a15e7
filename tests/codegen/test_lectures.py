"""The forwards of the makemore lectures and of a small GPT, as the notebooks write them, against autograd."""

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from codegen import generate
from codegen.check import check
from tests.codegen.compare import assert_matches
from tests.codegen.forwards import Draw

DTYPES = [torch.float32, torch.float64]
BATCHES = (32, 1, 5)


def draw(dtype: torch.dtype) -> Draw:
    return Draw(dtype, Generator().manual_seed(2147483647))


def bigram(W, xs, ys):
    xenc = F.one_hot(xs, num_classes=27).to(W.dtype)
    logits = xenc @ W
    counts = logits.exp()
    probs = counts / counts.sum(1, keepdims=True)
    num = xs.nelement()
    loss = -probs[torch.arange(num), ys].log().mean() + 0.01 * (W**2).mean()
    return loss


def bigram_inputs(d: Draw, n: int) -> tuple[Tensor, ...]:
    return d.randn(27, 27), d.ints(27, n), d.ints(27, n)


def mlp(Xb, Yb, C, W1, b1, W2, b2):
    emb = C[Xb]
    h = torch.tanh(emb.view(-1, 30) @ W1 + b1)
    logits = h @ W2 + b2
    loss = F.cross_entropy(logits, Yb)
    return loss


def mlp_inputs(d: Draw, n: int) -> tuple[Tensor, ...]:
    shapes = (27, 10), (30, 20), (20,), (20, 27), (27,)
    return d.ints(27, n, 3), d.ints(27, n), *(d.randn(*s) for s in shapes)


def mlp_with_batchnorm(Xb, Yb, C, W1, W2, b2, bngain, bnbias):
    emb = C[Xb]
    embcat = emb.view(emb.shape[0], -1)
    hpreact = embcat @ W1
    bnmeani = hpreact.mean(0, keepdim=True)
    bnstdi = hpreact.std(0, keepdim=True)
    hpreact = bngain * (hpreact - bnmeani) / bnstdi + bnbias
    h = torch.tanh(hpreact)
    logits = h @ W2 + b2
    loss = F.cross_entropy(logits, Yb)
    return loss


def mlp_with_batchnorm_inputs(d: Draw, n: int) -> tuple[Tensor, ...]:
    shapes = (27, 10), (30, 20), (20, 27), (27,), (1, 20), (1, 20)
    return d.ints(27, n, 3), d.ints(27, n), *(d.randn(*s) for s in shapes)


def backprop_ninja(Xb, Yb, C, W1, b1, W2, b2, bngain, bnbias):
    n = Xb.shape[0]
    emb = C[Xb]
    embcat = emb.view(emb.shape[0], -1)
    hprebn = embcat @ W1 + b1
    bnmeani = 1 / n * hprebn.sum(0, keepdim=True)
    bndiff = hprebn - bnmeani
    bndiff2 = bndiff**2
    bnvar = 1 / (n - 1) * (bndiff2).sum(0, keepdim=True)
    bnvar_inv = (bnvar + 1e-5) ** -0.5
    bnraw = bndiff * bnvar_inv
    hpreact = bngain * bnraw + bnbias
    h = torch.tanh(hpreact)
    logits = h @ W2 + b2
    logit_maxes = logits.max(1, keepdim=True).values
    norm_logits = logits - logit_maxes
    counts = norm_logits.exp()
    counts_sum = counts.sum(1, keepdims=True)
    counts_sum_inv = counts_sum**-1
    probs = counts * counts_sum_inv
    logprobs = probs.log()
    loss = -logprobs[range(n), Yb].mean()
    return loss


NINJA_NODES = [
    "logprobs",
    "probs",
    "counts_sum_inv",
    "counts_sum",
    "counts",
    "norm_logits",
    "logit_maxes",
    "logits",
    "h",
    "W2",
    "b2",
    "hpreact",
    "bngain",
    "bnbias",
    "bnraw",
    "bnvar_inv",
    "bnvar",
    "bndiff2",
    "bndiff",
    "bnmeani",
    "hprebn",
    "embcat",
    "W1",
    "b1",
    "emb",
    "C",
]


def backprop_ninja_inputs(d: Draw, n: int) -> tuple[Tensor, ...]:
    shapes = (27, 10), (30, 64), (64,), (64, 27), (27,), (1, 64), (1, 64)
    params = [d.randn(*s) * 0.1 for s in shapes]
    return d.ints(27, n, 3), d.ints(27, n), *params


def flatten_consecutive(x, n):
    B, T, C = x.shape
    x = x.view(B, T // n, C * n)
    if x.shape[1] == 1:
        x = x.squeeze(1)
    return x


def batch_norm(x, gamma, beta):
    dim = 0 if x.ndim == 2 else (0, 1)
    xmean = x.mean(dim, keepdim=True)
    xvar = x.var(dim, keepdim=True)
    return gamma * ((x - xmean) / torch.sqrt(xvar + 1e-5)) + beta


def wavenet(Xb, Yb, C, w1, g1, b1, w2, g2, b2, w3, g3, b3, w4, b4):
    x = C[Xb]
    x = batch_norm(flatten_consecutive(x, 2) @ w1, g1, b1).tanh()
    x = batch_norm(flatten_consecutive(x, 2) @ w2, g2, b2).tanh()
    x = batch_norm(flatten_consecutive(x, 2) @ w3, g3, b3).tanh()
    logits = x @ w4 + b4
    return F.cross_entropy(logits, Yb)


def wavenet_inputs(d: Draw, n: int) -> tuple[Tensor, ...]:
    h = 12
    layers = [
        t for fan in (2 * 6, 2 * h, 2 * h) for t in (d.randn(fan, h) * fan**-0.5, 1 + 0.1 * d.randn(h), d.randn(h))
    ]
    return d.ints(27, n, 8), d.ints(27, n), d.randn(27, 6), *layers, d.randn(h, 27) * 0.1, d.randn(27)


def gpt_block(x, wq, wk, wv, wo, g1, b1, g2, b2, w_up, b_up, w_down):
    B, T, C = x.shape
    heads = 2

    def split(t):
        return t.view(B, T, heads, C // heads).transpose(1, 2)

    y = F.layer_norm(x, (C,), g1, b1)
    q, k, v = split(y @ wq), split(y @ wk), split(y @ wv)
    wei = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5
    wei = wei.masked_fill(torch.tril(torch.ones(T, T)) == 0, float("-inf"))
    wei = F.softmax(wei, dim=-1)
    att = (wei @ v).transpose(1, 2).contiguous().view(B, T, C)
    x = x + att @ wo
    y = F.layer_norm(x, (C,), g2, b2)
    x = x + F.gelu(y @ w_up + b_up) @ w_down
    return x


def gpt_block_inputs(d: Draw, n: int) -> tuple[Tensor, ...]:
    c = 8
    shapes = (c, c), (c, c), (c, c), (c, c), (c,), (c,), (c,), (c,), (c, 4 * c), (4 * c,), (4 * c, c)
    return d.randn(n, 5, c), *(d.randn(*s) * 0.5 for s in shapes)


LECTURES = [
    (bigram, bigram_inputs, 1),
    (mlp, mlp_inputs, 1),
    (mlp_with_batchnorm, mlp_with_batchnorm_inputs, 2),
    (backprop_ninja, backprop_ninja_inputs, 2),
    (wavenet, wavenet_inputs, 2),
    (gpt_block, gpt_block_inputs, 1),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize(("forward", "make", "least"), LECTURES, ids=lambda v: getattr(v, "__name__", None))
def test_lectures(forward, make, least, dtype) -> None:
    traced = dtype if forward is bigram else torch.float32  # the bigram names its dtype
    program = generate(forward, *make(draw(traced), BATCHES[0]), mode="steps")
    for n in (n for n in BATCHES if n >= least):
        assert_matches(program, forward, make(draw(dtype), n))


def test_every_intermediate_of_backprop_ninja() -> None:
    """The lecture's first exercise: its variables by its names, each gradient checked."""
    inputs = backprop_ninja_inputs(draw(torch.float64), 32)
    program = generate(backprop_ninja, *inputs, mode="steps")
    report = check(program, *inputs, forward=backprop_ninja, truth=False)
    assert report.ok, report.failures
    assert {*NINJA_NODES} <= {r.name for r in report.rows}
    truly_zero = {"logit_maxes", "b1"}  # both sides are rounding there
    assert {n for n in NINJA_NODES if not report[n].allclose} <= truly_zero


class BigramModel(nn.Module):
    """The smallest module with a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 11)

    def forward(self, idx: Tensor, targets: Tensor) -> Tensor:
        x = self.norm(self.table(idx))
        logits = self.head(x)
        B, T, C = logits.shape
        return F.cross_entropy(logits.view(B * T, C), targets.view(B * T))


def test_a_module_as_it_is() -> None:
    torch.manual_seed(0)
    model = BigramModel()
    idx, targets = torch.randint(11, (4, 3)), torch.randint(11, (4, 3))
    program = generate(model, idx, targets, mode="steps")
    report = check(program, idx, targets, truth=False)
    assert report.ok, report.failures
    wanted = {name for name, _ in model.named_parameters()}
    assert wanted <= {r.name for r in report.rows}
    model(idx, targets).backward()
    _, grads = program.value_and_grad(idx, targets)
    for name, p in model.named_parameters():
        torch.testing.assert_close(grads[name], p.grad)
