# pyright: basic
"""The losses of a chunk of steps, and what is kept of them, at its end and all at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from codegen.loop.calls import expression, number
from codegen.loop.drawing import Drawing
from codegen.loop.graph import Node, Sized
from codegen.loop.layout import root

if TYPE_CHECKING:
    from collections.abc import Callable


class Ending(Drawing):
    """Writes what comes after the steps of a chunk."""

    lifted: list[str] | None = None
    """The statements of `at_end` for all steps of a chunk at once, where they have such a form."""

    def end(self) -> None:
        """The losses, and what is kept, of all steps of a chunk at once."""
        ends = {k: n for k, n in self.step.results.items() if k == "loss" or k.startswith("keep.")}
        reads: dict[Node, None] = {}
        late = set(self.layout.late)
        for n in [*self.layout.late, *ends.values()]:
            for r in n.reads if n in late else [n]:
                if r not in late and r.constant is None:
                    reads[r] = None
        local: dict[Node, str] = {}
        for r in reads:
            if r.is_view and r not in self.layout.data:
                owner = root(r)
                local[r] = self.name(r)
                self.text.late.append(f"{self.name(r)} = {self.through(r)}")
                reads_owner = owner
            else:
                reads_owner = r
                local[r] = self.name(r)
            if all(k != self.name(reads_owner) for k, _ in self.text.late_args):
                self.text.late_args.append((self.name(reads_owner), self.whole_rows(reads_owner)))
        self.lifted = self.over_steps()
        for n in self.layout.late:
            for r in n.reads:
                if r.constant is not None and self.lifted is None:
                    self.ready(r)
            self.text.late.append(f"{self.name(n)} = {expression(n, self.name)}")
        self.text.results = [self.name(n) for n in ends.values()]

    def over_steps(self) -> list[str] | None:
        """The statements of `at_end` for all steps of a chunk at once; None where one has no such form."""
        out: list[str] = []
        names: dict[Node, str] = {}

        def name(n: Node) -> str:
            if n in names:
                return names[n]
            if n.constant is not None or (n.is_view and n not in self.layout.data):
                raise KeyError(n)
            return f"{self.name(n)}_of"

        for n in self.layout.late:
            try:
                text = at_once(n, name)
            except KeyError:
                return None
            if text is None:
                return None
            names[n] = f"{self.name(n)}_of"
            out.append(f"{names[n]} = {text}")
        for key, n in self.step.results.items():
            if n.constant is not None and (key == "loss" or key.startswith("keep.")):  # the same at every step
                sizes = ", ".join(["count", *map(str, n.shape)])
                out.append(f"{self.name(n)}_of = {self.ready(n)}.expand({sizes})")
        return out

    def through(self, n: Node) -> str:
        """A view of a stored value, from that value."""
        return expression(n, self.name if not n.args[0].is_view else self.through)

    def whole_rows(self, n: Node) -> str:
        """All rows of a value as one tensor, a step in each."""
        if n in self.layout.data and n.op == "input":
            return f"{n.name}_all.view({', '.join(map(str, (self.layout.chunk, *n.shape)))})"
        if n in self.layout.data:
            return f"torch.stack({self.rowed[n]})"
        return f"{self.name(n)}_all"


SAME = frozenset(["neg", "reciprocal", "exp", "log", "sqrt", "rsqrt", "sigmoid", "tanh", "abs", "square"])
SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


def at_once(n: Node, name: Callable[[Node], str]) -> str | None:
    """A call for many steps at once, with a dimension for the steps in front of all others; None where it has no such form."""
    a: list[Any] = list(n.args)
    if n.write or not a or not isinstance(a[0], Node):
        return None
    if any(len(r.shape) != len(n.shape) for r in n.reads) and n.op in ("addcmul", *SIGNS):
        return None
    if n.op == "addcmul" and n.kwargs.get("value", 1) in (1, -1):
        sign = "+" if n.kwargs.get("value", 1) == 1 else "-"
        return f"{name(a[0])} {sign} {name(a[1])} * {name(a[2])}"
    if n.kwargs:
        return None
    if n.op in SAME:
        return f"{name(a[0])}.{n.op}()"
    if n.op in ("_log_softmax", "_softmax") and a[1] >= 0:
        return f"{name(a[0])}.{n.op[1:]}({a[1] + 1})"
    if n.op in ("mean", "sum") and len(a) == 1:
        return f"{name(a[0])}.flatten(1).{n.op}(1)" if a[0].shape else name(a[0])
    if n.op in SIGNS and len(a) == 2:
        return f"{name(a[0])} {SIGNS[n.op]} {name(a[1]) if isinstance(a[1], Node) else number(a[1])}"
    if n.op in ("pow", "clamp_min") and not isinstance(a[1], Node):
        return f"{name(a[0])}.{n.op}({number(a[1])})"
    if n.op == "softplus":
        return f"torch.nn.functional.softplus({', '.join([name(a[0]), *map(number, a[1:])])})"
    rest = cast("list[Any]", a[1]) if len(a) > 1 and isinstance(a[1], (list, tuple)) else []
    if n.op in ("mean", "sum", "amax", "amin", "logsumexp") and len(a) == 2 and rest and min(rest) >= 0:
        dims = [d + 1 for d in rest]
        return f"{name(a[0])}.{n.op}({dims[0] if len(dims) == 1 else tuple(dims)})"
    if n.op == "view" and all(isinstance(s, Sized) or s >= 0 for s in rest):
        return f"{name(a[0])}.view({', '.join(['-1', *map(number, rest)])})" if a[0].numel else None
    if n.op == "index" and len(a[0].shape) == 2 and len(rest) == 2 and None not in rest:
        rows, column = rest
        every = rows.constant is not None and bool((rows.constant == torch.arange(a[0].shape[0])).all())
        if every and rows.numel == a[0].shape[0] and column.dtype == torch.int64 and column.constant is None:
            return f"{name(a[0])}.gather(2, {name(column)}[:, :, None])[:, :, 0]"
    return None
