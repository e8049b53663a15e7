"""Random forwards for hypothesis: a few steps, each one torch call on what is there, with shapes that always fit.

A forward is drawn as text and executed, so that a failure prints as a function that a person can read and paste.
"""

import linecache
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

Shape = tuple[int, ...]

UNARY = (
    "{0}.tanh()", "{0}.exp() * 0.1", "{0}.sigmoid()", "{0}.sin()", "{0} * 0.5 - 1", "-{0}", "{0}.relu()", "{0} ** 2",
    "1 / (1 + {0} * {0})", "({0} * {0} + 0.5).log()", "({0}.abs() + 0.5).sqrt()", "torch.where({0} > 0, {0}, {0} * 0.1)",
)  # fmt: skip
ROWWISE = (
    "{0}.softmax({d})",
    "{0}.log_softmax({d})",
    "{0} - {0}.mean({d}, keepdim=True)",
    "{0}.cumsum({d})",
    "{0}.flip({d})",
)
REDUCTIONS = ("{0}.sum({d})", "{0}.mean({d}, keepdim=True)", "{0}.amax({d})", "{0}.square().sum({d}, keepdim=True)")
BINARY = ("{0} * {1}", "{0} + {1}", "{0} - 0.5 * {1}", "{0} / (1.5 + {1}.tanh())", "torch.maximum({0}, {1})")


@dataclass
class Drawing:
    """The lines so far, and the shape of every name."""

    lines: list[str] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)

    def add(self, text: str, shape: Shape) -> None:
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        self.shapes[name] = shape


@dataclass(frozen=True)
class RandomForward:
    """A forward as text, with the shapes of its inputs."""

    source: str
    inputs: tuple[tuple[str, Shape], ...]

    def __repr__(self) -> str:
        return f"{dict(self.inputs)}\n{self.source}"

    def function(self) -> Callable[..., Any]:
        name = f"/random/forward_{abs(hash(self.source))}.py"
        linecache.cache[name] = (len(self.source), None, self.source.splitlines(keepends=True), name)
        space: dict[str, Any] = {"torch": torch, "F": torch.nn.functional}
        exec(compile(self.source, name, "exec"), space)
        return space["forward"]

    def tensors(self, dtype: torch.dtype, seed: int) -> list[Tensor]:
        g = torch.Generator().manual_seed(seed)
        return [
            torch.randint(3, shape, generator=g)
            if name.startswith("i")
            else torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)
            for name, shape in self.inputs
        ]


def broadcast(a: Shape, b: Shape) -> Shape | None:
    try:
        return tuple(torch.broadcast_shapes(a, b))
    except RuntimeError:
        return None


def reduced(shape: Shape, d: int, keep: bool) -> Shape:
    return (*shape[:d], *((1,) if keep else ()), *shape[d + 1 :])


@st.composite
def forwards(draw: Callable[[Any], Any], steps: int = 6) -> RandomForward:
    """A forward of two or three inputs and up to `steps` lines, some of whose results are used more than once."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=3, max_size=3))
    n, m, k = sizes
    inputs: dict[str, Shape] = {
        "x": (n, m),
        "w": (m, k),
        "v": draw(st.sampled_from([(m,), (n, 1), (1, m), (n, m), ()])),
    }
    if draw(st.booleans()):
        inputs["i"] = (draw(st.integers(1, 4)),)
    d = Drawing(shapes={name: shape for name, shape in inputs.items() if name != "i"})
    for _ in range(draw(st.integers(1, steps))):
        names = list(d.shapes)
        a = draw(st.sampled_from(names[-3:] if draw(st.booleans()) else names))
        _step(draw, d, a, d.shapes[a], inputs)
    last = list(d.shapes)[-1]
    body = "\n".join(f"    {line}" for line in d.lines)
    source = f"def forward({', '.join(inputs)}):\n{body}\n    return {last}\n"
    return RandomForward(source, tuple(inputs.items()))


def _step(draw: Callable[[Any], Any], d: Drawing, a: str, shape: Shape, inputs: dict[str, Shape]) -> None:
    kind = draw(st.sampled_from(["unary", "binary", "rowwise", "reduce", "layout", "matmul", "gather"]))
    if kind == "binary":
        others = [(o, s) for o, other in d.shapes.items() if (s := broadcast(shape, other)) is not None]
        b, out = draw(st.sampled_from(others))
        d.add(draw(st.sampled_from(BINARY)).format(a, b), out)
    elif kind in ("rowwise", "reduce") and shape:
        at = draw(st.integers(0, len(shape) - 1))
        text = draw(st.sampled_from(ROWWISE if kind == "rowwise" else REDUCTIONS))
        d.add(text.format(a, d=at), shape if kind == "rowwise" else reduced(shape, at, "keepdim" in text))
    elif kind == "layout" and len(shape) == 2:
        text, out = draw(
            st.sampled_from(
                [
                    (f"{a}.T", shape[::-1]),
                    (f"{a}.reshape(-1)", (shape[0] * shape[1],)),
                    (f"{a}.unsqueeze(1)", (shape[0], 1, shape[1])),
                    (f"{a}[:, -1]", (shape[0],)),
                    (f"torch.cat([{a}, {a} * 2], 1)", (shape[0], 2 * shape[1])),
                    (f"{a}[:, ::2]", (shape[0], -(-shape[1] // 2))),
                ]
            )
        )
        d.add(text, out)
    elif kind == "matmul" and len(shape) == 2:
        fitting = [(o, s) for o, s in d.shapes.items() if len(s) == 2 and s[0] == shape[1]]
        b, other = draw(st.sampled_from(fitting)) if fitting else (f"{a}.T", shape[::-1])
        d.add(f"{a} @ {b}", (shape[0], other[1]))
    elif kind == "gather" and "i" in inputs and shape and shape[0] >= 3:
        d.add(f"{a}[i]", (*inputs["i"], *shape[1:]))
    else:
        d.add(draw(st.sampled_from(UNARY)).format(a), shape)
