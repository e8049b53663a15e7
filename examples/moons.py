"""Two moons told apart by a network of scalars: micrograd's demo on `engine.Value`.

    python -m examples.moons

Trains a network on a hinge loss with every sum and product a `Value`, prints loss and accuracy, and draws the points
and the boundary it found as text.
"""

import math
import random
from collections.abc import Sequence
from itertools import pairwise

from engine.value import Value

Point = tuple[float, float]


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


def loss_of(model: MLP, points: Sequence[Point], labels: Sequence[int], decay: float = 1e-4) -> tuple[Value, float]:
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
