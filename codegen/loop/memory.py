# pyright: basic
"""The names of a loop's values, and the memory that each has."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from codegen.loop.calls import expression
from codegen.loop.constants import literal
from codegen.loop.graph import contiguous
from codegen.loop.layout import Layout, root, size_of
from codegen.loop.names import Names
from codegen.loop.views import shortened, unchanged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codegen.loop.graph import Node
    from codegen.loop.layout import Slot


@dataclass
class Text:
    """The parts of the file. A line of `setup` is empty where what it would make is not asked for."""

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
        self.names = Names(layout)
        self.made: set[Node] = set()
        self.rowed = Rows(self.text.setup)
        self.last: dict[int, list[Node]] = {}
        self.views: dict[Any, str] = {}
        self.numbers: dict[Any, Node] = {}
        self.blocks = layout.blocks
        self.varying = False
        """Whether the inputs are other tensors at every call, so that views of them are made then."""
        self.inside: list[tuple[str, str]] | None = None
        self.passed: list[str] = []
        self.owner: dict[Node, Node] = {}
        if layout.blocks is not None:
            b = layout.blocks
            self.owner = {n.args[0]: n for n in [*b.totals, *b.collected]}

    def name(self, n: Node) -> str:
        """The variable of a value."""
        return self.names[n]

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
            if s.wide is not None:
                self.extended(s.wide)
                continue
            named = {self.name(n): n for n in reversed(users.get(s.name, []))}
            alone = [n for n in users.get(s.name, []) if named[self.name(n)] is n]
            if len(alone) == 1 and contiguous(alone[0]) and not self.handed_out(alone[0]):
                (n,) = alone
                self.text.setup.append(f"{self.name(n)} = torch.empty({self.sizes(n.shape)}, dtype={n.dtype})")
                continue
            self.text.setup.append(f"{s.name} = torch.empty({s.size}, dtype={s.dtype})")
            for n in alone:
                if self.handed_out(n):
                    whole = size_of(self.layout, n) if n in self.across() else n.numel
                    shape = (-1, *n.shape) if n in self.across() else n.shape
                    self.text.setup.append(f"{self.name(n)}_all = {self.run_of(s, whole)}.view({self.sizes(shape)})")
                    self.text.setup.append(f"{self.name(n)}_blocks = {self.name(n)}_all.unbind()")
                    self.rowed[n] = f"{self.name(n)}_blocks"
                elif contiguous(n):
                    shown = "" if len(n.shape) == 1 else f".view({self.sizes(n.shape)})"
                    self.text.setup.append(f"{self.name(n)} = {self.run_of(s, n.numel)}{shown}")
                else:
                    self.text.setup.append(f"{self.name(n)} = {s.name}.as_strided({n.shape}, {n.stride})")

    def run_of(self, s: Slot, size: int) -> str:
        """So many elements of a slot."""
        return s.name if size == s.size else f"{s.name}[:{size}]"

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
        while (same := unchanged(n)) is not None and self.name(same) == self.name(n):
            n = same
        self.make(n)
        if n in self.collecting() and self.inside is None:
            return f"{self.name(n)}_all"
        if n in self.rowed:
            self.row(n)
        return self.name(n)

    def make(self, n: Node) -> None:
        """The statement for a constant or a view, unless it is there: once where its memory stays the same, else in every step."""
        if n in self.made or (n.constant is None and (not n.is_view or n in self.rowed)):
            return
        self.made.add(n)
        if n.constant is not None:
            self.text.setup.append(f"{self.name(n)} = {literal(n.constant)}")
            return
        given = shortened(n, lambda v: v not in self.made and v not in self.rowed and not v.name)
        self.make(given)
        seen, own = replace(n, args=(given, *n.args[1:])), root(n)
        if own in self.rowed:
            rows = f"[{expression(seen, lambda r: 'row')} for row in {self.rowed[given]}]"
            self.rowed.promise(n, f"{self.name(n)}_rows", rows)
            return
        inner = self.ready(given)
        once = (own.op == "input" and not self.varying) or own in self.layout.place
        (self.text.setup if once else self.text.body).append(f"{self.name(n)} = {expression(seen, lambda r: inner)}")


class Rows(dict["Node", str]):
    """What holds a value's rows, by value. Rows are made where they are first asked for."""

    def __init__(self, setup: list[str]) -> None:
        super().__init__()
        self.setup = setup
        self.promised: dict[Node, tuple[int, str]] = {}

    def promise(self, n: Node, name: str, rows: str) -> None:
        """Rows that are made by this expression, at this place."""
        self[n] = name
        self.promised[n] = len(self.setup), rows
        self.setup.append("")

    def __getitem__(self, n: Node) -> str:
        name = super().__getitem__(n)
        if n in self.promised:
            at, rows = self.promised.pop(n)
            self.setup[at] = f"{name} = {rows}"
        return name
