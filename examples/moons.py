"""Two moons told apart by a small network: micrograd's demo, on `engine.Value` and on tensors.

    python -m examples.moons

Trains a network on a hinge loss with every sum and product a `Value`, prints loss and accuracy, and draws the points
and the boundary it found as text.

    codegen train moons

Trains the same network, the same loss, written as `forward` below for tensors, through the emitted loop.
"""

import math
import random
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from engine.value import Value

Point = tuple[float, float]
DEFAULTS = {"steps": 1_000, "batch": 50, "lr": 1.0}
decay = 1e-4
n_hidden = 16


class Neuron:
    """A weighted sum of its inputs and a bias, through relu unless `linear`."""

    def __init__(self, inputs: int, generator: random.Random, linear: bool = False) -> None:
        self.w = [Value(generator.uniform(-1, 1)) for _ in range(inputs)]
        self.b = Value(0.0)
        self.linear = linear

    def __call__(self, x: Sequence[Value | float]) -> Value:
        total = sum((w * xi for w, xi in zip(self.w, x, strict=True)), self.b)
        return total if self.linear else total.relu()

    def parameters(self) -> list[Value]:
        return [*self.w, self.b]


class Layer:
    """Neurons that see the same inputs."""

    def __init__(self, inputs: int, outputs: int, generator: random.Random, linear: bool = False) -> None:
        self.neurons = [Neuron(inputs, generator, linear) for _ in range(outputs)]

    def __call__(self, x: Sequence[Value | float]) -> list[Value]:
        return [neuron(x) for neuron in self.neurons]

    def parameters(self) -> list[Value]:
        return [p for neuron in self.neurons for p in neuron.parameters()]


class MLP:
    """Layers of the given sizes, then a linear one with a single output, the score."""

    def __init__(self, inputs: int, hidden: Sequence[int], generator: random.Random) -> None:
        sizes = [inputs, *hidden]
        self.layers = [Layer(a, b, generator) for a, b in pairwise(sizes)]
        self.layers.append(Layer(sizes[-1], 1, generator, linear=True))

    def __call__(self, x: Sequence[Value | float]) -> Value:
        *hidden, last = self.layers
        for layer in hidden:
            x = layer(x)
        (score,) = last(x)
        return score

    def parameters(self) -> list[Value]:
        return [p for layer in self.layers for p in layer.parameters()]


def make_moons(count: int, noise: float, generator: random.Random) -> tuple[list[Point], list[int]]:
    """Two interleaved half circles: `count` points with Gaussian noise, labelled -1 in the upper and 1 in the lower."""
    points: list[Point] = []
    labels: list[int] = []
    for k in range(count):
        label = 1 if k % 2 else -1
        angle = generator.uniform(0, math.pi)
        x, y = math.cos(angle), math.sin(angle)
        if label == 1:
            x, y = 1 - x, 0.5 - y
        points.append((x + generator.gauss(0, noise), y + generator.gauss(0, noise)))
        labels.append(label)
    return points, labels


def loss_of(model: MLP, points: Sequence[Point], labels: Sequence[int]) -> tuple[Value, float]:
    """The mean hinge loss with weight decay, and the share of points on the right side."""
    scores = [model(p) for p in points]
    hinge = sum(((1 - label * score).relu() for label, score in zip(labels, scores, strict=True)), Value(0.0))
    weights = sum((p * p for p in model.parameters()), Value(0.0))
    right = sum((score.data > 0) == (label > 0) for label, score in zip(labels, scores, strict=True))
    return hinge / len(points) + decay * weights, right / len(points)


def train(model: MLP, points: Sequence[Point], labels: Sequence[int], steps: int, verbose: bool = True) -> float:
    """Gradient descent on all points with a falling learning rate; the accuracy afterwards."""
    for step in range(steps):
        loss, accuracy = loss_of(model, points, labels)
        for p in model.parameters():
            p.grad = 0.0
        loss.backward()
        rate = 1.0 - 0.9 * step / steps
        for p in model.parameters():
            p.data -= rate * p.grad
        if verbose and step % 10 == 0:
            print(f"step {step:3d}  loss {loss.data:.4f}  accuracy {accuracy:.0%}")
    return loss_of(model, points, labels)[1]


def picture(model: MLP, points: Sequence[Point], labels: Sequence[int]) -> str:
    """The plane as text: `.` where the model says upper moon, `:` where lower; points as `o` and `x`."""
    columns, rows = 64, 22
    (left, right), (low, high) = (-1.6, 2.6), (-1.1, 1.6)

    def at(column: int, row: int) -> Point:
        return left + (right - left) * (column + 0.5) / columns, high - (high - low) * (row + 0.5) / rows

    grid = [[":" if model(at(c, r)).data > 0 else "." for c in range(columns)] for r in range(rows)]
    for (x, y), label in zip(points, labels, strict=True):
        c, r = int((x - left) / (right - left) * columns), int((high - y) / (high - low) * rows)
        if 0 <= c < columns and 0 <= r < rows:
            grid[r][c] = "x" if label > 0 else "o"
    return "\n".join("".join(row) for row in grid)


def forward(x: Tensor, y: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor) -> Tensor:
    """The mean hinge loss of points `x` (n, 2) with labels `y` (n,) of -1 and 1, and weight decay."""
    h1 = (x @ w1 + b1).relu()
    h2 = (h1 @ w2 + b2).relu()
    score = (h2 @ w3 + b3).squeeze(1)
    hinge = (1 - y * score).relu().mean()
    weights = sum(p.square().sum() for p in (w1, b1, w2, b2, w3, b3))
    loss = hinge + decay * weights
    return loss


def example_inputs(generator: torch.Generator) -> dict[str, Tensor]:
    """Fifty points and freshly drawn float32 parameters."""
    x = torch.randn(50, 2, generator=generator)
    y = torch.randint(2, (50,), generator=generator) * 2.0 - 1.0
    return {"x": x, "y": y, **init(generator, torch.float32)}


def init(generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
    """Initial parameters by name, in the forward's order, as micrograd draws them: weights between -1 and 1, no bias."""
    params: dict[str, Tensor] = {}
    for k, (a, b) in enumerate(pairwise([2, n_hidden, n_hidden, 1]), 1):
        params[f"w{k}"] = torch.rand(a, b, generator=generator, dtype=dtype) * 2 - 1
        params[f"b{k}"] = torch.zeros(b, dtype=dtype)
    return params


def data(generator: torch.Generator) -> dict[str, tuple[Tensor, Tensor]]:
    """Points (n, 2) of both moons with their labels (n,): 800 to train with, 100 to validate and 100 to test."""
    seed = int(torch.randint(2**31, (), generator=generator))
    points, labels = make_moons(1_000, 0.1, random.Random(seed))
    x, y = torch.tensor(points, dtype=torch.float64), torch.tensor(labels, dtype=torch.float64)
    parts = zip(x.split([800, 100, 100]), y.split([800, 100, 100]), strict=True)
    return dict(zip(("train", "val", "test"), parts, strict=True))


def metrics(
    x: Tensor, y: Tensor, params: dict[str, Tensor], buffers: dict[str, Tensor], batch_stats: bool
) -> dict[str, Tensor]:
    """For every point: the hinge loss without weight decay, and whether it is on the right side."""
    w1, b1, w2, b2, w3, b3 = params.values()
    score = (((x @ w1 + b1).relu() @ w2 + b2).relu() @ w3 + b3).squeeze(1)
    return {"loss": (1 - y * score).relu(), "accuracy": (score * y > 0).double()}


def main(seed: int = 42, count: int = 100, steps: int = 70) -> float:
    """Draw the data, train, print; returns the accuracy."""
    generator = random.Random(seed)
    points, labels = make_moons(count, 0.1, generator)
    model = MLP(2, [8, 8], generator)
    accuracy = train(model, points, labels, steps)
    print(f"\naccuracy {accuracy:.0%} on {count} points, {len(model.parameters())} parameters\n")
    print(picture(model, points, labels))
    return accuracy


if __name__ == "__main__":
    main()
