"""Random small networks as text: `python -m tests.loop.networks --count 500` holds their loops to single steps.

A network has symbols or numbers as inputs, layers with and without a bias and a normalisation, and one of several losses.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

import codegen
from tests.loop.conftest import stepwise

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 150
ACTIVATIONS = (
    "torch.tanh({})", "torch.relu({})", "torch.sigmoid({})", "F.gelu({})", "F.silu({})", "{}", "F.softplus({})",
    "F.leaky_relu({}, 0.1)", "2 * torch.tanh({})", "torch.tanh(2 * {})", "torch.sin({})",
)  # fmt: skip
DEVIATION = "(h - h.mean(-1, keepdim=True))"
VARIANCE = f"({DEVIATION} ** 2).mean(-1, keepdim=True)"
NORMALS = (
    "F.layer_norm(h, h.shape[-1:], {w}, {b}, {eps})", "F.layer_norm(h, h.shape[-1:], {w}, None, {eps})",
    "F.layer_norm(h, h.shape[-1:], None, None, {eps})", "F.layer_norm(h, h.shape[-1:], 1 + {b}, {w}, {eps})",
    f"{DEVIATION} / ({VARIANCE} + {{eps}}).sqrt() * {{w}} + {{b}}", f"{DEVIATION} * ({VARIANCE} + {{eps}}).rsqrt() * (1 + {{b}})",
    f"F.layer_norm({DEVIATION}, h.shape[-1:], {{w}}, {{b}}, {{eps}})",
    f"{DEVIATION} / (h.var(-1, keepdim=True, unbiased=False) + {{eps}}) ** 0.5",
    f"{{w}} * {DEVIATION} / (h.var(-1, keepdim=True, unbiased=size > 1) + {{eps}}).sqrt()",  # of n - 1
    f"{DEVIATION} / ({VARIANCE}.sqrt() + {{eps}} + (size == 1)) + {{b}}",  # eps outside of the root
    "h / ((h ** 2).mean(-1, keepdim=True) + {eps}).sqrt() * {w}",  # without a mean
    "(h - h.mean(0)) / (((h - h.mean(0)) ** 2).mean(0) + {eps}).sqrt() * {w} + {b}",  # of columns
)  # fmt: skip
"""LayerNorm in several spellings, and what looks like it."""
LOSSES = {
    "cross entropy": "F.cross_entropy(h, y)",
    "of soft targets": "F.cross_entropy(h, y, label_smoothing=0.1)",
    "by hand": "-torch.log_softmax(h, 1)[torch.arange(x.shape[0]), y].mean()",
    "squares": "((h - y) ** 2).mean()",
    "two classes": "F.binary_cross_entropy_with_logits(h, y)",
    "of every place": "F.cross_entropy(h.transpose(1, 2), y)",
    "of all places": "F.cross_entropy(h.flatten(0, 1), y.flatten())",
}


@dataclass
class Network:
    """A forward as text, values of what it takes, and how steps are taken."""

    text: str
    params: dict[str, Tensor]
    data: tuple[Tensor, Tensor]
    batch: int
    momentum: float

    def forward(self) -> Callable[..., Any]:
        """The forward."""
        scope: dict[str, Any] = {"torch": torch, "F": F}
        exec(self.text, scope)
        return scope["network"]


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """A network and its data, in float64 or float32."""
    pick = st.sampled_from
    dtype = draw(pick([torch.float32, torch.float64]))
    g = Generator().manual_seed(draw(st.integers(0, 1000)))
    params: dict[str, Tensor] = {}
    lines: list[str] = []

    def parameter(*shape: int, around: float = 0.0) -> str:
        name = f"p{len(params)}"
        scale = max(shape) ** 0.5 if len(shape) > 1 else 3.0
        params[name] = around + torch.randn(shape, generator=g, dtype=dtype) / scale
        return name

    sequence = False
    if draw(st.booleans()):
        symbols, places = draw(pick([2, 5, 10, 27, 40, 65])), draw(pick([0, 1, 2, 3, 5]))
        width = draw(pick([1, 2, 5, 10, 16]))
        x = torch.randint(0, symbols, (ROWS, places) if places else (ROWS,), generator=g)
        looked_up = f"{parameter(symbols, width)}[x]"
        as_rows = draw(pick([".mean(1)", ".view(x.shape[0], -1)", ""])) if places else ""
        sequence = places > 0 and not as_rows
        lines.append(f"h = {looked_up}{as_rows}")
        size = width * places if "view" in as_rows else width
    else:
        size = draw(pick([1, 2, 8, 20, 64]))
        x = torch.randn(ROWS, size, generator=g, dtype=dtype)
        lines.append("h = x")

    def linear(columns: int) -> None:
        if draw(st.integers(0, 4)) == 0:  # a product with each part of one parameter
            w, parts = parameter(3, size, columns), [0, 2, 1][: draw(pick([1, 2, 3]))]
            lines.append(f"h = {' * '.join(f'(1 + h @ {w}[{k}])' for k in parts)}")
            return
        turned = draw(st.booleans())
        w = parameter(columns, size) + ".t()" if turned else parameter(size, columns)
        lines.append(f"h = h @ {w}" + (f" + {parameter(columns)}" if draw(st.booleans()) else ""))

    for _ in range(draw(st.integers(0, 3))):
        columns = draw(pick([1, 3, 8, 10, 16, 20, 31, 32, 47]))
        linear(columns)
        size = columns
        norm = draw(pick(["", "", "batch", "layer", "centred"]))
        if norm == "batch" and not sequence:
            lines.append(
                f"h = F.batch_norm(h, None, None, {parameter(size, around=1)}, {parameter(size)}, True, 0.1, 1e-3)"
            )
        elif norm == "layer":
            given = {"w": parameter(size, around=1), "b": parameter(size), "eps": draw(pick([1e-3, 1e-5, 0.5]))}
            normal = draw(pick(NORMALS)).format(**given).replace("size", str(size))
            lines.append(draw(pick(["h = {}", "h = {}", "h = h + {}", "h = {} * h"])).format(normal))
        elif norm == "centred":
            lines.append("h = h - h.mean(-1, keepdim=True)")
        lines.append("h = " + draw(pick(ACTIVATIONS)).format("h"))
        if draw(st.integers(0, 4)) == 0:
            lines.append("penalised = h")
    loss = draw(pick([k for k in LOSSES if k.endswith(("places", "place"))] if sequence else list(LOSSES)[:5]))
    classes = draw(pick([1, 2, 10] if loss in ("squares", "two classes") else [2, 3, 5, 10, 15, 17, 27, 30]))
    linear(classes)
    if loss == "squares":
        y = torch.randn(ROWS, classes, generator=g, dtype=dtype)
    elif loss == "two classes":
        y = torch.rand(ROWS, classes, generator=g, dtype=dtype).round()
    else:
        y = torch.randint(0, classes, x.shape if sequence else (ROWS,), generator=g)
    lines.append(f"loss = {LOSSES[loss]}")
    if draw(st.integers(0, 3)) == 0:
        lines.append(f"loss = loss + 0.01 * ({draw(pick(list(params)))} ** 2).sum()")
    if "penalised = h" in lines:
        lines.append("loss = loss + 0.1 * penalised.abs().mean()")
    few = (2, 3) if dtype == torch.float64 else ()  # which a normalisation over rows takes apart from rounding
    batch = draw(pick([*few, 7, 16, 32, 48, 130]))
    text = "\n    ".join([f"def network(x, y, {', '.join(params)}):", *lines, "return loss\n"])
    return Network(text, params, (x, y), batch, draw(pick([0.0, 0.0, 0.9])))


def compared(network: Network, steps: int = 6) -> str:
    """What came of taking steps in the loop and one by one. Raises AssertionError where they differ, or there is no loop."""
    dtype = next(iter(network.params.values())).dtype
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        example = [d[: max(network.batch, 4)] for d in network.data]
        program = codegen.generate(network.forward(), *example, *network.params.values())
        trainer = program.trainer(network.params, network.batch, lr=0.05, momentum=network.momentum)
        losses = trainer.run(network.data, steps=steps, generator=Generator().manual_seed(1))
        given = (program, network.params, network.data, network.batch, steps, 0.05, network.momentum)
        expected, after = stepwise(*given, Generator().manual_seed(1))
    finally:
        torch.set_default_dtype(before)
    told = f"{network.text}\nbatch {network.batch}, momentum {network.momentum}, {dtype}\n"
    if not expected.isfinite().all():
        return "not finite"
    assert trainer.path == "the emitted loop", f"{told}{trainer.path}"
    near = 1e-9 if dtype == torch.float64 else 3e-4
    assert torch.allclose(losses, expected, rtol=near, atol=near), f"{told}{losses}\n{expected}"
    for name, value in after.items():
        off = (trainer.params[name] - value).abs().max()
        assert torch.allclose(trainer.params[name], value, rtol=10 * near, atol=near), f"{told}{name} is off by {off}"
    return "the same"


def main() -> int:
    """Compare many."""
    parser = argparse.ArgumentParser(prog="python -m tests.loop.networks", description="Random networks' loops.")
    parser.add_argument("--count", type=int, default=200, help="networks to draw")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes: Counter[str] = Counter()

    @seed(options.seed)
    @settings(
        max_examples=options.count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(networks())
    def run(network: Network) -> None:
        outcomes[compared(network)] += 1

    warnings.simplefilter("ignore")
    run()
    for outcome, count in outcomes.most_common():
        print(f"{count:>7} {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
