# pyright: basic
"""The text of `loop.py`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch

from codegen.loop.blocks import Begin, End
from codegen.loop.calls import argument, changed, expression, has_out, in_place, number, written
from codegen.loop.folds import Update
from codegen.loop.graph import Node, Sized
from codegen.loop.kept import Unpacked, described
from codegen.loop.layout import FEW, Layout, contiguous, ends_of, reads_of, root, size_of, together
from codegen.loop.padding import MOST
from codegen.loop.tidy import SCALARS
from engine.naming import Namer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from codegen.loop.graph import Step

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


ADDED = {"mm": "addmm_", "mv": "addmv_", "bmm": "baddbmm_"}
"""The method that adds a product to what is there."""
LARGE = 1 << 20
"""Bytes from which on a value is let go of before the step ends."""


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


class Writer:
    """Writes the statements of a layout."""

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

    def write(self) -> Text:
        """Everything."""
        self.batch()
        self.stored()
        self.workspace()
        last = len(self.layout.order)
        while last and self.is_small(self.layout.order[last - 1]):
            last -= 1
        few = self.layout.plain or len(self.layout.order) - last < FEW
        for k, x in enumerate(self.layout.order):
            if isinstance(x, Begin):
                self.begin(x)
            elif isinstance(x, End):
                self.finish()
            elif few or k < last:
                self.statement(x)
            self.forget(k)
        if not few:
            self.all_at_once([u for u in self.layout.order[last:] if isinstance(u, Update)])
        self.buffers()
        self.end()
        return self.text

    # -- blocks ----------------------------------------------------------------------------------------------------

    def begin(self, x: Begin) -> None:
        """The statements that follow are those of a block."""
        assert self.blocks is not None
        for n, k in self.blocks.totals.items():
            if k == x.loop:
                self.text.body.append(f"{self.ready(n)}.zero_()")
        self.inside, self.passed, self.text.body = [], self.text.body, []

    def finish(self) -> None:
        """The statements of a block as a loop over blocks."""
        assert self.inside is not None
        names = dict(self.inside)
        one = len(names) == 1
        into = ", ".join(names)
        given = next(iter(names.values())) if one else f"zip({', '.join(names.values())})"
        body = [f"for {into} in {given}:", *[f"    {line}" for line in self.text.body]]
        self.text.body, self.inside = [*self.passed, *body], None

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

    # -- rows ------------------------------------------------------------------------------------------------------

    def batch(self) -> None:
        """What is drawn for many steps at once."""
        layout, chunk = self.layout, self.layout.chunk
        data, count = layout.data, "count"
        if self.blocks is not None:
            data, count, chunk = list(self.blocks.data.values()), "blocks", chunk * self.blocks.count
            self.text.draw.append(f"blocks = count * {self.blocks.count}")
        for n in data:
            if n.op == "input":
                rows = n.shape[0]
                self.text.setup.append(
                    f"{n.name}_all = torch.empty({self.sizes((chunk * rows, *n.shape[1:]))}, dtype={n.dtype})"
                )
                self.text.setup.append(
                    f"{n.name}_rows = {n.name}_all.view({', '.join(map(str, (chunk, *n.shape)))}).unbind()"
                )
                self.text.draw.append(
                    f"torch.index_select(data[{self.step.batch.index(n.name)}], 0, rows, out={n.name}_all[: {count} * {rows}])"
                )
                self.rowed[n] = f"{n.name}_rows"
            elif n.op in ("onehot", "spread"):
                self.put(n, chunk, count)
                self.rowed.update({x: self.rowed[n] for x, row in layout.over.items() if row is n})
            elif n.op == "places":
                name, (x, places, symbols) = self.name(n), n.args
                self.text.setup.append(f"{name}_all = torch.empty({chunk}, {n.numel}, dtype=torch.int64)")
                self.text.setup.append(f"{name}_rows = {name}_all.unbind()")
                self.text.setup.append(f"{name}_first = torch.arange({places}) * {symbols}")
                into = f"{name}_all[:{count}].view(-1, {places})"
                given = f"{self.flat(x, count)}.view(-1, {places})"
                self.text.draw.append(f"torch.add({given}, {name}_first, out={into})")
                self.rowed[n] = f"{name}_rows"
            elif n.op == "turned":
                name, x = self.name(n), n.args[0]
                rows, places = x.shape[0], n.numel // x.shape[0]
                self.text.setup.append(f"{name}_all = torch.empty({chunk}, {places}, {rows}, dtype={n.dtype})")
                self.text.setup.append(f"{name}_rows = {name}_all.view({chunk}, -1).unbind()")
                given = f"{self.flat(x, count)}.view(-1, {rows}, {places})"
                self.text.draw.append(f"{name}_all[:{count}].copy_({given}.transpose(1, 2))")
                self.rowed[n] = f"{name}_rows"
            elif n.op == "order":
                name, inner = self.name(n), self.name(n.args[0])
                self.text.setup.append(f"{name}_all = torch.empty({chunk}, {n.numel}, dtype=torch.int64)")
                self.text.setup.append(f"{name}_rows = {name}_all.unbind()")
                self.text.draw.append(f"{inner}_sorted, {inner}_from = torch.sort({inner}_all[:{count}], stable=True)")
                self.text.draw.append(
                    f'torch.div({inner}_from, {n.args[1]}, rounding_mode="floor", out={name}_all[:{count}])'
                )
                self.rowed[n] = f"{name}_rows"
            elif n.op == "begins":
                name, inner = self.name(n), self.name(n.args[0])
                self.text.setup.append(f"{name}_all = torch.empty({chunk}, {n.numel}, dtype=torch.int64)")
                self.text.setup.append(f"{name}_rows = {name}_all.unbind()")
                self.text.setup.append(f"{name}_of = torch.arange({n.numel}).repeat({chunk}, 1)")
                self.text.draw.append(
                    f"torch.searchsorted({inner}_sorted, {name}_of[:{count}], out={name}_all[:{count}])"
                )
                self.rowed[n] = f"{name}_rows"
            else:
                name = self.name(n)
                self.text.setup.append(
                    f"{name}_rows = [{expression(n, lambda r, n=n: 'row')} for row in {self.rowed[n.args[0]]}]"
                )
                self.rowed[n] = f"{name}_rows"

    def put(self, n: Node, chunk: int, count: str) -> None:
        """A number in one column of every row, zeros elsewhere: as rows of a table if that is small."""
        name, (rows, columns) = self.name(n), n.shape
        hot = n.op == "onehot"
        index, amount, symbols = (n.args[0], 1.0, n.args[2:]) if hot else (n.args[0][1], n.args[1], n.args[3:])
        height = symbols[0] if symbols else columns
        into = f"{name}_all[: {count} * {rows}]"
        self.text.setup.append(f"{name}_all = torch.zeros({chunk * rows}, {columns}, dtype={n.dtype})")
        self.text.setup.append(f"{name}_rows = {name}_all.view({chunk}, {rows}, {columns}).unbind()")
        self.rowed[n] = f"{name}_rows"
        if columns > MOST:
            at = self.flat(index, count, column=True)
            self.text.draw.append(f"{into}.zero_().scatter_(1, {at}, {number(amount)})")
            return
        times = "" if number(amount) == "1.0" else f" * {number(amount)}"
        table = self.namer(f"{name}_table")
        self.text.setup.append(f"{table} = torch.eye({height}, {columns}, dtype={n.dtype}){times}")
        self.text.draw.append(f"torch.index_select({table}, 0, {self.flat(index, count)}, out={into})")

    def flat(self, x: Node, count: str, column: bool = False) -> str:
        """The numbers of a batch input, or of a view of it, in all rows that were drawn, one after or below the other.

        Those of one of its columns are not in one run.
        """
        n = x
        while n.is_view and n.op in ("view", "squeeze", "unsqueeze"):
            n = n.args[0]
        if n.op in ("input", "turned"):
            return f"{self.name(n)}_all.view(-1)[: {count} * {x.numel}{', None' if column else ''}]"
        return f"torch.stack({self.rowed[x]}[:{count}]).view({'-1, 1' if column else '-1'})"

    def stored(self) -> None:
        """Rows of values that are read at the end of a chunk."""
        for n in self.layout.stored:
            name, chunk = self.name(n), self.layout.chunk
            self.text.setup.append(f"{name}_all = torch.empty({self.sizes((chunk, *n.shape))}, dtype={n.dtype})")
            copy = next((c for c, whole in self.blocks.stored.items() if whole is n), None) if self.blocks else None
            if copy is None:
                self.text.setup.append(f"{name}_rows = {name}_all.unbind()")
            else:
                self.names[copy] = name
                self.text.setup.append(f"{name}_rows = {name}_all.view({self.sizes((-1, *copy.shape))}).unbind()")
            self.rowed[copy or n] = f"{name}_rows"

    def sizes(self, shape: Sequence[int]) -> str:
        """A shape as arguments."""
        return ", ".join(map(str, shape)) if shape else "()"

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

    # -- statements ------------------------------------------------------------------------------------------------

    def statement(self, x: Node | Update) -> None:
        """One call, or one update."""
        if isinstance(x, Update):
            self.update(x)
            return
        if x.op in ("total", "collected"):
            return
        if (x.is_view and not x.write) or (x.op == "part" and self.whole(x).op == "native_batch_norm"):
            return
        body = self.text.body
        for r in x.reads:
            self.ready(r)
        for op in OPERATORS:
            if x.op in (op, f"_{op}_data") and op not in self.text.operators:
                self.text.operators.append(op)
        if x in self.owner:
            self.into_total(x, self.owner[x])
        elif x.op == "native_batch_norm":
            outs = [self.out(p) for p in self.parts(x)]
            body.append(f"torch.native_batch_norm({', '.join(self.plain(a) for a in x.args)}, out=({', '.join(outs)}))")
        elif x.write:
            self.in_place(x)
        elif x.dtype is None:
            names = [self.name(p) if p is not None else "_" for p in self.some_parts(x)]
            if x.op == "moments":
                names = [f"{self.name(x)}_{k}" for k in range(2)]
            body.append(f"{', '.join(names)} = {expression(x, self.name)}")
        elif x.op == "part":
            if x in self.rowed:
                body.append(f"{self.ready(x)}.copy_({self.name(x.args[0])}[{x.args[1]}])")
        elif x.op == "spread":
            out = self.out(x)
            amount = x.args[1]
            body.append(f"{out}.zero_()")
            body.append(f"{out}[{', '.join(self.name(i) for i in x.args[0])}] = {self.plain(amount)}")
        elif x.op == "onehot":
            out = self.out(x)
            body.append(f"{out}.zero_().scatter_(1, {self.name(x.args[0])}.view(-1, 1), 1.0)")
        elif self.changes(x):
            body.append(changed(self.operand(x), self.ready))
        elif has_out(x) and (x in self.rowed or x in self.layout.place):
            body.append(written(self.operand(x), self.out(x), self.ready))
        elif x in self.rowed:
            body.append(f"{self.ready(x)}.copy_({expression(x, self.name)})")
        else:
            body.append(f"{self.name(x)} = {expression(x, self.name)}")

    def changes(self, x: Node) -> bool:
        """Whether a call fills the memory that its first argument has all of."""
        first = x.args[0] if x.args else None
        if not isinstance(first, Node) or not in_place(x, first) or self.layout.plain:
            return False
        if self.layout.over.get(x) is first:
            return True
        slots = self.layout.place.get(x), self.layout.place.get(first)
        if x in self.rowed or first in self.rowed:
            return False
        one = slots[0] is not None and slots[0] is slots[1] and slots[0].wide is None
        return one and contiguous(x) and contiguous(first) and not self.handed_out(x) and not self.handed_out(first)

    def into_total(self, x: Node, total: Node) -> None:
        """A block's part of a sum over all rows, or its row of what is collected."""
        into = self.ready(total)
        if total.op == "collected":
            self.text.body.append(f"{into}.copy_({self.name(x.args[0])}_{x.args[1]})")
        elif x.op in ADDED and len(x.args) == 2 and not x.kwargs:
            self.text.body.append(f"{into}.{ADDED[x.op]}({', '.join(self.ready(a) for a in x.args)})")
        else:
            self.text.body.append(f"{into}.add_({expression(x, self.ready)})")

    def forget(self, k: int) -> None:
        """Let go of large values that the statements made, as soon as nothing reads them."""
        if not self.last:
            behind, last = ends_of(self.layout.order), dict[Node, int]()
            for j, x in enumerate(self.layout.order):
                last.update({root(r): behind[j] for r in reads_of(x)})
            for n, j in last.items():
                self.last.setdefault(j, []).append(n)
        dead = [n for n in self.last.get(k, ()) if n.dtype is not None]
        known = {*self.layout.place, *self.rowed, *self.layout.data}
        large = [n for n in dead if not self.local(n) and n.op != "input" and n.numel * n.dtype.itemsize >= LARGE]
        loose = [n for n in large if n.constant is None and n not in known]
        names = [self.names[n] for n in loose if n in self.names and n not in self.made]
        names += [self.names[v] for n in loose for v in self.made if v in self.names and v.is_view and root(v) is n]
        if names:
            self.text.body.append(f"del {', '.join(dict.fromkeys(names))}")

    def plain(self, a: Any) -> str:
        return (
            self.name(a)
            if isinstance(a, Node)
            else number(a)
            if isinstance(a, (int, float, Sized)) and not isinstance(a, bool)
            else str(a)
        )

    def whole(self, part: Node) -> Node:
        return part.args[0]

    def parts(self, whole: Node) -> list[Node]:
        """All results of a call that writes into given tensors; those nothing reads get memory as well."""
        found = {
            n.args[1]: n for n in self.layout.order if isinstance(n, Node) and n.op == "part" and n.args[0] is whole
        }
        out: list[Node] = []
        for k, t in enumerate(whole.value):
            if k not in found:
                shape = tuple(t.shape) if k else whole.args[0].shape
                found[k] = Node("part", (whole, k), {}, shape, whole.args[0].dtype, t, "unused")
            out.append(found[k])
        return out

    def some_parts(self, whole: Node) -> list[Node | None]:
        """The results of a call that makes them, None for those nothing reads."""
        found = {n.args[1]: n for n in self.results.get(whole, ())}
        return [found.get(k) if k not in found or found[k] not in self.rowed else None for k in range(len(whole.value))]

    @cached_property
    def results(self) -> dict[Node, list[Node]]:
        """The results that are read of every call that has several."""
        found: dict[Node, list[Node]] = {}
        for x in self.layout.order:
            for n in [x] if isinstance(x, Node) else reads_of(x):
                if n.op == "part":
                    found.setdefault(n.args[0], []).append(n)
        return found

    def out(self, n: Node) -> str:
        """The variable that a call fills."""
        if n not in self.rowed and n not in self.layout.place and n not in self.made:
            self.made.add(n)
            self.text.setup.append(f"{self.name(n)} = torch.empty({self.sizes(n.shape)}, dtype={n.dtype})")
        return self.ready(n)

    def in_place(self, x: Node) -> None:
        """A call that changes a part of a tensor: on a copy of it."""
        base = x.args[0]
        name = self.name(x)
        self.text.body.append(f"{name} = {self.name(base)}.clone()")
        target = name
        for op, args in x.path:
            view = Node(op, (base, *args), {}, (), x.dtype, None)
            target = expression(view, lambda r, t=target: t)
        given = [argument(a, self.name) for a in x.args[1:]] + [
            f"{k}={argument(v, self.name)}" for k, v in x.kwargs.items()
        ]
        self.text.body.append(f"{target}.{x.op}_({', '.join(given)})")

    def update(self, u: Update) -> None:
        """Into the parameter, or into its velocity."""
        for n in u.args:
            if isinstance(n, Node):
                self.ready(n)
        first = not any(
            isinstance(x, Update) and x.name == u.name for x in self.layout.order[: self.layout.order.index(u)]
        )
        final = not any(
            isinstance(x, Update) and x.name == u.name for x in self.layout.order[self.layout.order.index(u) + 1 :]
        )
        args = ", ".join(self.plain(a) for a in u.args)
        owner = f"{u.name}_velocity" if self.momentum else u.name
        target = self.seen(owner, u.views)
        if self.momentum:
            scale = f"{u.keyword}={u.scale!r}" if u.scale != 1 else ""
            if first and not u.beta:
                self.text.body.append(f"{owner}.mul_(momentum)")
            keywords = ", ".join(k for k in ("beta=momentum" if first and u.beta else "", scale) if k)
            self.text.body.append(f"{target}.{u.method}({args}{', ' + keywords if keywords else ''})")
            if final:
                self.text.body.append(f"{u.name}.add_({owner}, alpha=rate)")
            return
        rate = (
            "rate"
            if u.scale == 1
            else f"{u.scale:g} * rate"
            if u.scale == float(f"{u.scale:g}")
            else f"{u.scale!r} * rate"
        )
        self.text.body.append(f"{target}.{u.method}({args}, {u.keyword}={rate})")

    def is_small(self, x: Any) -> bool:
        """Whether a statement is an update that one call makes together with others."""
        return isinstance(x, Update) and together(
            x, [y for y in self.layout.order if isinstance(y, Update) and y.name == x.name]
        )

    def all_at_once(self, group: list[Update]) -> None:
        """Small updates in one call."""
        for u in group:
            self.ready(u.args[0])
        gradients = f"[{', '.join(self.name(u.args[0]) for u in group)}]"
        self.text.setup.append(f"small = [{', '.join(u.name for u in group)}]")
        if not self.momentum:
            self.text.body.append(f"torch._foreach_add_(small, {gradients}, alpha=rate)")
            return
        self.text.setup.append(f"small_velocity = [{', '.join(f'{u.name}_velocity' for u in group)}]")
        self.text.body += [
            "torch._foreach_mul_(small_velocity, momentum)",
            f"torch._foreach_add_(small_velocity, {gradients})",
            "torch._foreach_add_(small, small_velocity, alpha=rate)",
        ]

    def operand(self, n: Node) -> Node:
        """A call with its number as a tensor, made once: torch makes one at every call otherwise."""
        if (
            self.layout.plain
            or n.op not in SCALARS
            or n.write
            or len(n.args) < 2
            or isinstance(n.args[1], Node)
            or not n.dtype.is_floating_point
        ):
            return n
        value = n.args[1].full if isinstance(n.args[1], Sized) else n.args[1]
        key = (value, n.dtype)
        if key not in self.numbers:
            self.numbers[key] = Node(
                "constant", (), {}, (), n.dtype, None, number_name(value), constant=torch.tensor(value, dtype=n.dtype)
            )
        made = self.numbers[key]
        return replace(n, args=(n.args[0], made, *n.args[2:]))

    def seen(self, owner: str, views: tuple[Any, ...]) -> str:
        """A parameter through views, made once."""
        if not views:
            return owner
        key = (owner, views)
        if key not in self.views:
            text = owner
            for op, sizes in views:
                text = f"{text}.{op}({', '.join(map(str, sizes))})" if sizes else f"{text}.{op}(())"
            self.views[key] = self.namer(f"{owner}_{views[-1][0]}")
            self.text.setup.append(f"{self.views[key]} = {text}")
        return self.views[key]

    def buffers(self) -> None:
        """Next values of the forward's own buffers."""
        body = self.text.body
        averaged = {a.name: a for a in self.layout.averages}
        for key, n in self.step.results.items():
            name = key.removeprefix("buffer.")
            if key.startswith("buffer.") and name not in averaged:
                buffer = self.step.inputs[name]
                value = (
                    self.ready(n) if n.shape == buffer.shape else f"{self.ready(n)}.view({self.sizes(buffer.shape)})"
                )
                body.append(f"{name}.copy_({value})")
        for a in averaged.values():
            if a.value is None:
                body.append(f"{a.name}.add_({self.plain(a.share)})")
            else:
                share = f"alpha={self.plain(a.share)}"
                body.append(f"{a.name}.mul_({self.plain(a.keep)}).add_({self.ready(a.value)}, {share})")

    # -- the end of a chunk ----------------------------------------------------------------------------------------

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
        for n in self.layout.late:
            for r in n.reads:
                if r.constant is not None:
                    self.ready(r)
            self.text.late.append(f"{self.name(n)} = {expression(n, self.name)}")
        self.text.results = [self.name(n) for n in ends.values()]

    def lifted(self) -> list[str] | None:
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


def number_text(value: Any) -> str:
    """A number, or nested lists of them, as Python."""
    if isinstance(value, list):
        return f"[{', '.join(number_text(v) for v in cast('list[Any]', value))}]"
    return number(value)


def loop_source(
    layout: Layout, trained: tuple[str, ...], target: str, name: str, used: Sequence[str], momentum: bool = False
) -> str:
    """The emitted file. `used` are the identities that were used, as text."""
    from codegen.emit import render

    writer = Writer(layout, trained, momentum)
    text = writer.write()
    step = layout.step
    others = [n for n in step.inputs if n not in step.batch]
    batch = step.inputs[step.batch[0]].shape[0]
    dtype = step.results["loss"].dtype
    names = [n for n, _ in text.rows]
    moving = trained if momentum else ()
    copies = copies_of(step, moving)
    kept = [k.removeprefix("keep.") for k in step.results if k.startswith("keep.")]
    ends = [f"{r}_of" for r in text.results]
    late = writer.lifted()
    lifted = None if late is None else [f"{a}_of = {rows}[:count]" for a, rows in text.late_args] + late
    given = given_inputs(step)
    return render(
        "loop.py.j2",
        target=target,
        name=name,
        kind="gradient descent with momentum" if momentum else "gradient descent",
        batch=batch,
        sizes="; ".join(f"{k} {shape} {str(dtype).removeprefix('torch.')}" for k, (shape, dtype) in given.items()),
        signature="{"
        + ", ".join(f'"{k}": ("{dtype}", {", ".join(map(str, shape))})' for k, (shape, dtype) in given.items())
        + "}",
        identities=chosen(used, step),
        operators=[(op, OPERATORS[op]) for op in text.operators],
        momentum=momentum,
        unpack=[line for n in others for line in unpacked(n, n, "params", step)],
        states=[line for n in moving for line in unpacked(n, f"{n}_velocity", "velocities", step)],
        begin=[line for u in copies for line in u.begin()],
        finish=[line for u in copies for line in u.finish()],
        setup=text.setup,
        lifted=lifted,
        late_args=[a for a, _ in text.late_args],
        late_rows=[f"{rows}[:count]" for _, rows in text.late_args],
        late=text.late,
        results=", ".join(text.results) + ("," if len(text.results) == 1 else ""),
        loss_dtype=dtype,
        chunk=layout.chunk,
        draw=text.draw,
        loop_names=", ".join(["_", *names]) if names else "_",
        loop_rows=f"zip({', '.join(['range(count)', *[rows for _, rows in text.rows]])})" if names else "range(count)",
        body=text.body,
        ends=", ".join(ends) + ("," if len(ends) == 1 else ""),
        ends_loss=ends[0],
        kept="{" + ", ".join(f'"{k}": {e}' for k, e in zip(kept, ends[1:], strict=True)) + "}",
    )


SAME = frozenset(["neg", "reciprocal", "exp", "log", "sqrt", "rsqrt", "sigmoid", "tanh", "abs", "square"])


def at_once(n: Node, name: Callable[[Node], str]) -> str | None:
    """A call for many steps at once, with a dimension for the steps in front of all others; None where it has no such form."""
    a: list[Any] = list(n.args)
    if n.write or n.kwargs or not a or not isinstance(a[0], Node):
        return None
    if n.op in SAME:
        return f"{name(a[0])}.{n.op}()"
    if n.op in ("_log_softmax", "_softmax") and a[1] >= 0:
        return f"{name(a[0])}.{n.op[1:]}({a[1] + 1})"
    if n.op in ("mean", "sum") and len(a) == 1:
        return f"{name(a[0])}.flatten(1).{n.op}(1)" if a[0].shape else name(a[0])
    if n.op in ("mul", "div") and len(a) == 2 and not isinstance(a[1], Node):
        return f"{name(a[0])} {'*' if n.op == 'mul' else '/'} {number(a[1])}"
    rest = cast("list[Any]", a[1]) if len(a) > 1 and isinstance(a[1], (list, tuple)) else []
    if n.op == "view" and all(isinstance(s, Sized) or s >= 0 for s in rest):
        return f"{name(a[0])}.view({', '.join(['-1', *map(number, rest)])})" if a[0].numel else None
    if n.op == "index" and len(a[0].shape) == 2 and len(rest) == 2 and None not in rest:
        rows, column = rest
        every = rows.constant is not None and bool((rows.constant == torch.arange(a[0].shape[0])).all())
        if every and rows.numel == a[0].shape[0] and column.dtype == torch.int64 and column.constant is None:
            return f"{name(a[0])}.gather(2, {name(column)}[:, :, None])[:, :, 0]"
    return None


NUMBERS = {2: "two", 0.5: "half", 1: "one", -1: "minus_one_", 3: "three", 4: "four"}


def number_name(value: Any) -> str:
    """What a number is called."""
    return NUMBERS.get(value, f"number_{value}")


def chosen(used: Sequence[str], step: Step) -> list[str]:
    """What the docstring says about how things are computed."""
    lines = (
        ["", "Kernels that were chosen, each equal to what was derived:", *[f"    {u}" for u in used]] if used else []
    )
    if step.kept:
        lines += ["", "Kept in another form while steps are taken, as calls are faster or fewer then:"]
        lines += [f"    {line}" for k, kept in step.kept.items() for line in described(kept, k, step.inputs[k].shape)]
    return lines


def given_inputs(step: Step) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of every input that was given."""
    out: dict[str, tuple[tuple[int, ...], Any]] = {}
    for k, n in step.inputs.items():
        kept = step.kept.get(k)
        out |= {k: (n.shape, n.dtype)} if kept is None else {p.name: (p.shape, n.dtype) for p in kept.parts}
    return out


def unpacked(name: str, variable: str, source: str, step: Step) -> list[str]:
    """A parameter (or its velocity) as a variable: the tensor itself, or one that it is copied into."""
    if name not in step.kept:
        return [f'{variable} = {source}["{name}"]']
    n = step.inputs[name]
    return Unpacked(step.kept[name], variable, source, n.shape, n.dtype).setup()


def copies_of(step: Step, moving: Sequence[str]) -> list[Unpacked]:
    """What is copied into other tensors before the steps and back after them."""
    made = [(k, "params", k) for k in step.kept] + [
        (k, "velocities", f"{k}_velocity") for k in moving if k in step.kept
    ]
    return [Unpacked(step.kept[k], v, s, step.inputs[k].shape, step.inputs[k].dtype) for k, s, v in made]
