"""The lecture notebook's MLP trained the way the notebook does it: every gradient written out and begun as zeros, every step.

What `codegen train mlp` is compared with, from process start to the last step:

    time python benchmarks/manual_loop.py
    time codegen train mlp --samples 0
"""

import argparse
import random
from pathlib import Path

import torch
import torch.nn.functional as F

NAMES = Path(__file__).parent.parent / "examples" / "data" / "ssa2017.txt"
CONTEXT, EMBEDDING, HIDDEN, BATCH = 3, 10, 200, 32


def pairs(words: list[str]) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Contexts of three symbols, the symbol after each, and how many symbols there are."""
    symbols = sorted({c for w in words for c in w} | {"."})
    number = {c: i for i, c in enumerate(symbols)}
    contexts: list[list[int]] = []
    targets: list[int] = []
    for w in words:
        before = [number["."]] * CONTEXT
        for c in w + ".":
            contexts.append(before)
            targets.append(number[c])
            before = [*before[1:], number[c]]
    return torch.tensor(contexts), torch.tensor(targets), len(symbols)


def main(steps: int) -> float:
    """Train; the mean loss of the last hundred steps."""
    words = sorted(set(NAMES.read_text(encoding="utf-8").split()))
    random.Random(42).shuffle(words)
    xs, ys, symbols = pairs(words)
    first, second = int(0.8 * len(xs)), int(0.9 * len(xs))
    xs, held_xs, _ = xs.tensor_split([first, second])
    ys, held_ys, _ = ys.tensor_split([first, second])
    torch.manual_seed(42)
    fan_in = CONTEXT * EMBEDDING
    C = torch.randn(symbols, EMBEDDING)
    w1 = torch.randn(fan_in, HIDDEN) * fan_in**-0.5
    w2 = torch.randn(HIDDEN, symbols) * (5 / 3) * HIDDEN**-0.5 * 0.1
    b2, bnw, bnb = torch.zeros(symbols), torch.ones(HIDDEN), torch.zeros(HIDDEN)
    running_mean, running_std = torch.zeros(HIDDEN), torch.ones(HIDDEN)
    averaging = torch.ones(1, BATCH) / BATCH
    centring = torch.eye(BATCH) - averaging
    losses: list[float] = []
    for step in range(steps):
        lr = 1.0 if step < steps // 2 else 0.1
        chosen = torch.randint(0, len(xs), (BATCH,))
        x, y = xs[chosen], ys[chosen]
        at = torch.arange(BATCH), y

        emb = C[x].view(BATCH, -1)
        pre = emb @ w1
        mean = averaging @ pre
        std = (centring @ pre).square().mean(0, keepdim=True).sqrt()
        normal = (pre - mean) / std
        h = (normal * bnw + bnb).tanh()
        logits = h @ w2 + b2
        exps = logits.exp()
        count = exps.sum(1, keepdim=True)
        probs = exps / count
        losses.append((-probs.log())[at].mean().item())

        zeros = [torch.zeros(BATCH, n) for n in (symbols, symbols, 1, symbols, symbols, HIDDEN, HIDDEN, HIDDEN, fan_in)]
        zeros += [torch.zeros(1, HIDDEN) for _ in range(3)] + [torch.zeros_like(p) for p in (C, w1, w2, b2, bnw, bnb)]
        dprobs, dC = zeros[0], zeros[12]
        dprobs[at] = -1 / (BATCH * probs[at])
        dcount = -(exps * dprobs).sum(1, keepdim=True) / count**2
        dlogits = exps * (dprobs / count + dcount)
        dz = (dlogits @ w2.T) * (1 - h**2)
        dmean = (-bnw / std * dz).sum(0, keepdim=True)
        dstd = (-(pre - mean) * bnw / std**2 * dz).sum(0, keepdim=True)
        dpre = dz * bnw / std + dmean / BATCH + dstd / (std * BATCH) * (centring @ pre)
        demb = dpre @ w1.T
        dC.index_add_(0, x.view(-1), demb.view(-1, EMBEDDING))
        gradients = dC, emb.T @ dpre, h.T @ dlogits, dlogits.sum(0), (normal * dz).sum(0), dz.sum(0)

        for p, g in zip((C, w1, w2, b2, bnw, bnb), gradients, strict=True):
            p -= lr * g
        running_mean = 0.999 * running_mean + 0.001 * mean[0]
        running_std = 0.999 * running_std + 0.001 * std[0]
        if step % 1000 == 0 or step == steps - 1:
            pre = C[held_xs].view(len(held_xs), -1) @ w1
            scores = ((pre - running_mean) / running_std * bnw + bnb).tanh() @ w2 + b2
            print(f"step {step}: {losses[-1]:.4f}, held out {F.cross_entropy(scores, held_ys).item():.4f}")
    return sum(losses[-100:]) / len(losses[-100:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    print(f"mean loss of the last steps: {main(parser.parse_args().steps):.4f}")
