# pyright: basic
"""The names of a loop's values, and the memory that each has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch

from codegen.loop.calls import expression, number
from codegen.loop.layout import Layout, contiguous, root, size_of
from engine.naming import Namer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codegen.loop.graph import Node

OPERATORS = {
    "threshold_backward": "torch.ops.aten.threshold_backward.grad_input._op",
    "moments": "torch.ops.aten.batch_norm_update_stats.default._op",
    "bag": "torch.ops.aten._embedding_bag_forward_only.default._op",
    "tanh_backward": "torch.ops.aten.tanh_backward.grad_input._op",
    "gelu": "torch.ops.aten.gelu.out._op",
    "gelu_backward": "torch.ops.aten.gelu_backward.grad_input._op",
    "sigmoid_backward": "torch.ops.aten.sigmoid_backward.grad_input._op",
    "native_batch_norm_backward": "torch.ops.aten.native_batch_norm_backward.default._op",
    "log_softmax_backward": "torch.ops.aten._log_softmax_backward_data.out._op",
}


@dataclass
class Text:
    """The parts of the file."""

    setup: list[str] = field(default_factory=list[str])
    draw: list[str] = field(default_factory=list[str])
    rows: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    body: list[str] = field(default_factory=list[str])
    late: list[str] = field(default_factory=list[str])
    late_args: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    results: list[str] = field(default_factory=list[str])
    operators: list[str] = field(default_factory=list[str])


class Memory:
    """The variables of a layout, made where they are first needed."""

    def __init__(self, layout: Layout, trained: tuple[str, ...], momentum: bool) -> None:
        self.layout, self.trained, self.momentum = layout, trained, momentum
        self.step = layout.step
        self.text = Text()
        self.namer = Namer(
            [
                "torch",
                "params",
                "buffers",
                "velocity",
                "X",
                "Y",
                "steps",
                "lr",
                "generator",
                "losses",
                "rows",
                "count",
                "done",
                "rate",
                "momentum",
                "small",
                "small_velocity",
                *("zip", "range", "len", "min", "float", "enumerate"),
                *OPERATORS,
                *self.step.inputs,
            ]
        )
        self.names: dict[Node, str] = {n: k for k, n in self.step.inputs.items()}
        self.made: set[Node] = set()
        self.rowed: dict[Node, str] = {}
        self.last: dict[int, list[Node]] = {}
        self.views: dict[Any, str] = {}
        self.numbers: dict[Any, Node] = {}
        self.blocks = layout.blocks
        self.varying = False
        """Whether the inputs are other tensors at every call, so that views of them are made then."""
        self.inside: list[tuple[str, str]] | None = None
        self.passed: list[str] = []
        self.owner: dict[Node, Node] = {}
        for n, row in layout.over.items():
            self.names[row] = self.name(n)
        if layout.blocks is not None:
            b = layout.blocks
            self.owner = {n.args[0]: n for n in [*b.totals, *b.collected]}
            self.names.update({copy: k for n, copy in b.data.items() for k, i in self.step.inputs.items() if i is n})

    def name(self, n: Node) -> str:
        """The variable of a value."""
        if n not in self.names:
            self.names[n] = self.namer(n.name or self.label(n))
        return self.names[n]

    def label(self, n: Node) -> str:
        """A name for a value that has none."""
        inner = next((r for r in n.reads), None)
        if n.op in ("permute", "t", "transpose") and inner is not None:
            return f"{self.name(inner)}_T"
        if n.is_view and inner is not None:
            return f"{self.name(inner)}_view"
        return (
            f"{n.op.strip('_')}_{self.name(inner)}"
            if inner is not None and len(self.name(inner)) < 16
            else n.op.strip("_")
        )

    def sizes(self, shape: Sequence[int]) -> str:
        """A shape as arguments."""
        return ", ".join(map(str, shape)) if shape else "()"

    # -- blocks ----------------------------------------------------------------------------------------------------

    def local(self, n: Node) -> bool:
        """Whether a value is one of a block: there is a row of it for every block of every step, or for every block."""
        return self.blocks is not None and (n in self.blocks.local or n in self.blocks.data.values())

    def row(self, n: Node) -> None:
        """Let the loops hand out a row of a value."""
        name, rows = self.name(n), self.rowed[n]
        if self.inside is None or not (self.local(n) or n in self.collecting()):
            if not any(k == name for k, _ in self.text.rows):
                self.text.rows.append((name, rows))
            return
        if any(k == name for k, _ in self.inside):
            return
        base = root(n)
        if base in self.collecting() or base in self.across():
            self.inside.append((name, rows))
            return
        blocks = f"{name}_blocks"
        self.inside.append((name, blocks))
        if not any(k == blocks for k, _ in self.text.rows):
            assert self.blocks is not None
            count = self.blocks.count
            self.text.setup.append(
                f"{name}_steps = [{rows}[k : k + {count}] for k in range(0, {self.layout.chunk * count}, {count})]"
            )
            self.text.rows.append((blocks, f"{name}_steps"))

    def collecting(self) -> Any:
        """What passes collect."""
        return self.blocks.collected if self.blocks is not None else {}

    def across(self) -> Any:
        """What passes leave for later ones."""
        return self.blocks.crossing if self.blocks is not None else {}

    # -- memory ----------------------------------------------------------------------------------------------------

    def workspace(self) -> None:
        """The slots, and each value as a part of one."""
        users: dict[Any, list[Node]] = {}
        for n, s in self.layout.place.items():
            users.setdefault(s.name, []).append(n)
        for s in self.layout.slots:
            alone = list(users.get(s.name, []))
            if s.wide is not None:
                self.extended(s.wide)
                continue
            if len(alone) == 1 and contiguous(alone[0]) and not self.handed_out(alone[0]):
                (n,) = alone
                self.text.setup.append(f"{self.name(n)} = torch.empty({self.sizes(n.shape)}, dtype={n.dtype})")
                continue
            self.text.setup.append(f"{s.name} = torch.empty({s.size}, dtype={s.dtype})")
            for n in alone:
                if self.handed_out(n):
                    whole = size_of(self.layout, n) if n in self.across() else n.numel
                    shape = (-1, *n.shape) if n in self.across() else n.shape
                    self.text.setup.append(f"{self.name(n)}_all = {s.name}[:{whole}].view({self.sizes(shape)})")
                    self.text.setup.append(f"{self.name(n)}_blocks = {self.name(n)}_all.unbind()")
                    self.rowed[n] = f"{self.name(n)}_blocks"
                elif contiguous(n):
                    self.text.setup.append(f"{self.name(n)} = {s.name}[:{n.numel}].view({self.sizes(n.shape)})")
                else:
                    self.text.setup.append(f"{self.name(n)} = {s.name}.as_strided({n.shape}, {n.stride})")

    def extended(self, n: Node) -> None:
        """Memory for rows with a one behind them, and a value as the places in front of it."""
        self.made.add(n)
        x = n.args[0]
        name, inner = self.name(n), x.shape[1]
        self.text.setup.append(f"{name} = torch.zeros({self.sizes(n.shape)}, dtype={n.dtype})")
        self.text.setup.append(f"{name}[:, {inner}] = 1.0")
        self.text.setup.append(f"{self.name(x)} = {name}[:, :{inner}]")

    def handed_out(self, n: Node) -> bool:
        """Whether blocks have a row each of a value."""
        return n in self.across() or n in self.collecting()

    def out(self, n: Node) -> str:
        """The variable that a call fills."""
        if n not in self.rowed and n not in self.layout.place and n not in self.made:
            self.made.add(n)
            self.text.setup.append(f"{self.name(n)} = torch.empty({self.sizes(n.shape)}, dtype={n.dtype})")
        return self.ready(n)

    def ready(self, n: Node) -> str:
        """A value's variable; views and constants are made where they are first needed, once if that is possible."""
        if n.constant is not None:
            if n not in self.made:
                self.made.add(n)
                self.text.setup.append(f"{self.name(n)} = {self.literal(n)}")
            return self.name(n)
        if n.is_view and n not in self.made and n not in self.rowed:
            self.made.add(n)
            inner = self.ready(n.args[0])
            own = root(n)
            text = expression(n, lambda r: inner)
            if own in self.rowed:
                name = self.name(n)
                self.text.setup.append(
                    f"{name}_rows = [{expression(n, lambda r: 'row')} for row in {self.rowed[n.args[0]]}]"
                )
                self.rowed[n] = f"{name}_rows"
            elif (own.op == "input" and not self.varying) or own in self.layout.place:
                self.text.setup.append(f"{self.name(n)} = {text}")
            else:
                self.text.body.append(f"{self.name(n)} = {text}")
        if n in self.collecting() and self.inside is None:
            return f"{self.name(n)}_all"
        if n in self.rowed:
            self.row(n)
        return self.name(n)

    def literal(self, n: Node) -> str:
        """A constant as an expression."""
        t = n.constant
        shape = tuple(t.shape)
        if t.numel() and bool((t == t.reshape(-1)[0]).all()):
            value = t.reshape(-1)[0].item()
            kind = "zeros" if value == 0 else "ones" if value == 1 else "full"
            inside = f"{shape}" + (f", {number_text(value)}" if kind == "full" else "")
            return f"torch.{kind}({inside}, dtype={t.dtype})"
        if t.dim() == 1 and t.dtype == torch.int64 and t.numel() > 1 and bool((t.diff() == t[1] - t[0]).all()):
            start, by = int(t[0]), int(t[1] - t[0])
            if start == 0 and by > 0:
                return f"torch.arange({t.numel()})" if by == 1 else f"torch.arange(0, {by * t.numel()}, {by})"
        return f"torch.tensor({number_text(t.tolist())}, dtype={t.dtype})"


def number_text(value: Any) -> str:
    """A number, or nested lists of them, as Python."""
    if isinstance(value, list):
        return f"[{', '.join(number_text(v) for v in cast('list[Any]', value))}]"
    return number(value)
