"""Random forwards of products, sums and centred tensors: `python -m tests.closed.products --count 700 --seed 1000`."""

from __future__ import annotations

import argparse
import linecache
import random
from typing import Any

import torch

import codegen

SIZES = [(12, 3, 2), (3, 12, 2), (9, 4, 5), (2, 2, 9), (1, 4, 3), (7, 1, 2)]
"""Rows, columns of x, columns of y: products are cheaper in one order or in the other, and dimensions of one occur."""
Shape = tuple[int, ...]


def shapes(rng: random.Random) -> dict[str, Shape]:
    """The inputs: matrices that fit together, and vectors."""
    n, d, k = rng.choice(SIZES)
    return {"x": (n, d), "y": (n, k), "w": (d, k), "s": (n,), "c": (d,)}


def line(rng: random.Random, known: dict[str, Shape]) -> tuple[str, Shape] | None:
    """One expression and its shape; None where what was drawn does not fit together."""
    matrices = [n for n, s in known.items() if len(s) == 2]
    vectors = [n for n, s in known.items() if len(s) == 1]
    a, b, v, u = rng.choice(matrices), rng.choice(matrices), rng.choice(vectors), rng.choice(vectors)
    (rows, columns), (other_rows, other_columns) = known[a], known[b]
    length, same = known[v][0], known[a] == known[b]
    fitting: list[tuple[bool, str, Shape]] = [
        (columns == other_rows, f"{a} @ {b}", (rows, other_columns)),
        (columns == other_columns, f"{a} @ {b}.T", (rows, other_rows)),
        (rows == other_rows, f"{a}.T @ {b}", (columns, other_columns)),
        (True, f"{a} - {a}.mean(0)", (rows, columns)),
        (True, f"{a} - {a}.mean(1, keepdim=True)", (rows, columns)),
        (length == rows, f"{v}[:, None] * {a}", (rows, columns)),
        (length == columns, f"{a} * {v}", (rows, columns)),
        (length == rows, f"torch.diag({v}) @ {a}", (rows, columns)),
        (True, f"{a}.mean(0)", (columns,)),
        (True, f"{a}.sum(1)", (rows,)),
        (same, f"{a} * {b}", (rows, columns)),
        (same, f"{a} - 0.5 * {b}", (rows, columns)),
        (True, f"{a} ** 2", (rows, columns)),
        (rows == columns, f"{a} @ (torch.eye({a}.shape[0], dtype={a}.dtype) - 1 / {a}.shape[0])", (rows, columns)),
        (True, f"{a} / (1 + ({a} ** 2).sum(1, keepdim=True))", (rows, columns)),
        (True, f"torch.outer({v}, {u})", (length, known[u][0])),
        (True, f"{a}.T", (columns, rows)),
    ]
    fits, text, shape = rng.choice(fitting)
    return (text, shape) if fits else None


def drawn(seed: int) -> tuple[str, dict[str, Shape]]:
    """The text of a forward and the shapes of its inputs."""
    rng = random.Random(seed)
    inputs = shapes(rng)
    known, lines = dict(inputs), list[str]()
    for _ in range(rng.randint(2, 9)):
        found = line(rng, known)
        if found is not None:
            lines.append(f"t{len(lines)} = {found[0]}")
            known[f"t{len(lines) - 1}"] = found[1]
    last = list(known)[-1]
    square = len(known[last]) == 2 and len(set(known[last])) == 1
    ends = [last, f"{last}.sum()", f"({last} ** 2).sum()", f"{last}.mean(0)", *[f"torch.trace({last})"] * square]
    text = "\n    ".join([f"def forward({', '.join(inputs)}):", *lines, f"return {rng.choice(ends)}\n"])
    return text, inputs


def differs(seed: int) -> str:
    """What differs from autograd; "" if nothing does."""
    text, inputs = drawn(seed)
    space: dict[str, Any] = {"torch": torch}
    filename = f"<products {seed}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    exec(compile(text, filename, "exec"), space)
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randn(s, generator=generator, dtype=torch.float64) for s in inputs.values()]
    program = codegen.generate(space["forward"], *values)
    leaves = [v.clone().requires_grad_() for v in values]
    out = space["forward"](*leaves)
    grad_out = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    true: tuple[torch.Tensor | None, ...] = torch.autograd.grad(out, leaves, grad_out, allow_unused=True)
    mine, saved = program.forward(*values)
    grads = program.backward(saved, grad_out)
    pairs = [("the result", mine, out.detach())]
    pairs += [
        (n, grads[n], torch.zeros_like(v) if t is None else t) for n, v, t in zip(inputs, values, true, strict=True)
    ]
    for name, ours, theirs in pairs:
        error, scale = float((ours - theirs).abs().max()), max(1.0, float(theirs.abs().max()))
        if not error <= 1e-9 * scale:
            return f"{name}: {error:.1e} of {scale:.1e} in\n{text}"
    return ""


def main() -> None:
    """Draw and compare."""
    parser = argparse.ArgumentParser(description="Random products of products against autograd.")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = [d for d in map(differs, range(given.seed, given.seed + given.count)) if d]
    print("\n".join([*found, f"{given.count - len(found)} agree, {len(found)} differ"]))


if __name__ == "__main__":
    main()
