# pyright: basic
"""What is drawn for a chunk of steps at once, and rows for what its end reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from codegen.loop.calls import expression, number
from codegen.loop.memory import Memory
from codegen.loop.padding import MOST

if TYPE_CHECKING:
    from collections.abc import Callable

    from codegen.loop.graph import Node


class Drawing(Memory):
    """Writes what comes before the steps of a chunk."""

    def batch(self) -> None:
        """What is drawn for many steps at once."""
        layout, chunk = self.layout, self.layout.chunk
        data, count = layout.data, "count"
        if self.blocks is not None:
            data, count, chunk = list(self.blocks.data.values()), "blocks", chunk * self.blocks.count
            self.text.draw.append(f"blocks = count * {self.blocks.count}")
        for n in data:
            self.DRAWN.get(n.op, Drawing.seen)(self, n, chunk, count)

    def rows(self, n: Node, name: str, sizes: tuple[int, ...], seen: str = "", filled: str = "empty") -> None:
        """Memory for the rows of many steps, each as it is or as it is `seen`."""
        self.text.setup.append(f"{name}_all = torch.{filled}({self.sizes(sizes)}, dtype={n.dtype})")
        self.rowed.promise(n, f"{name}_rows", f"{name}_all{seen}.unbind()")

    def given(self, n: Node, chunk: int, count: str) -> None:
        """Rows of the data."""
        name, rows = self.name(n), n.shape[0]
        self.rows(n, name, (chunk * rows, *n.shape[1:]), f".view({self.sizes((chunk, *n.shape))})")
        which = f"data[{self.step.batch.index(name)}]"
        self.text.draw.append(f"torch.index_select({which}, 0, rows, out={name}_all[: {count} * {rows}])")

    def places(self, n: Node, chunk: int, count: str) -> None:
        """The symbols at each place, numbered apart from those at other places."""
        name, (x, places, symbols) = self.name(n), n.args
        self.rows(n, name, (chunk, n.numel))
        self.text.setup.append(f"{name}_first = torch.arange({places}) * {symbols}")
        into = f"{name}_all[:{count}].view(-1, {places})"
        self.text.draw.append(f"torch.add({self.flat(x, count)}.view(-1, {places}), {name}_first, out={into})")

    def turned(self, n: Node, chunk: int, count: str) -> None:
        """The symbols place by place instead of row by row."""
        name, x = self.name(n), n.args[0]
        rows, places = x.shape[0], n.numel // x.shape[0]
        self.rows(n, name, (chunk, places, rows), f".view({chunk}, -1)")
        given = f"{self.flat(x, count)}.view(-1, {rows}, {places})"
        self.text.draw.append(f"{name}_all[:{count}].copy_({given}.transpose(1, 2))")

    def ordered(self, n: Node, chunk: int, count: str) -> None:
        """The rows in the order of their symbols."""
        name, inner = self.name(n), self.name(n.args[0])
        self.rows(n, name, (chunk, n.numel))
        at = (
            f"{inner}_all[:{count}]" if n.args[0].op == "places" else f"{self.flat(n.args[0], count)}.view({count}, -1)"
        )
        self.text.draw.append(f"{inner}_sorted, {inner}_from = torch.sort({at}, stable=True)")
        self.text.draw.append(f'torch.div({inner}_from, {n.args[1]}, rounding_mode="floor", out={name}_all[:{count}])')

    def begins(self, n: Node, chunk: int, count: str) -> None:
        """Where the rows of each symbol begin in that order."""
        name, inner = self.name(n), self.name(n.args[0])
        self.rows(n, name, (chunk, n.numel))
        self.text.setup.append(f"{name}_of = torch.arange({n.numel}).repeat({chunk}, 1)")
        self.text.draw.append(f"torch.searchsorted({inner}_sorted, {name}_of[:{count}], out={name}_all[:{count}])")

    def seen(self, n: Node, chunk: int, count: str) -> None:
        """A view of each row of what was drawn."""
        rows = f"[{expression(n, lambda r: 'row')} for row in {self.rowed[n.args[0]]}]"
        self.rowed.promise(n, f"{self.name(n)}_rows", rows)

    def put(self, n: Node, chunk: int, count: str) -> None:
        """A number in one column of every row, zeros elsewhere: as rows of a table if that is small."""
        name, (rows, columns) = self.name(n), n.shape
        hot = n.op == "onehot"
        index, amount, symbols = (n.args[0], 1.0, n.args[2:]) if hot else (n.args[0][1], n.args[1], n.args[3:])
        height = symbols[0] if symbols else columns
        into = f"{name}_all[: {count} * {rows}]"
        self.rows(n, name, (chunk * rows, columns), f".view({chunk}, {rows}, {columns})", "zeros")
        for row in [x for x, row in self.layout.over.items() if row is n]:
            self.rowed[row] = f"{name}_rows"
        if columns > MOST:
            at = self.flat(index, count, column=True)
            self.text.draw.append(f"{into}.zero_().scatter_(1, {at}, {number(amount)})")
            return
        times = "" if number(amount) == "1.0" else f" * {number(amount)}"
        table = f"{name}_table"
        self.text.setup.append(f"{table} = torch.eye({height}, {columns}, dtype={n.dtype}){times}")
        self.text.draw.append(f"torch.index_select({table}, 0, {self.flat(index, count)}, out={into})")

    def counted(self, n: Node, chunk: int, count: str) -> None:
        """How often each symbol is among the places of a row."""
        name, (x, places, symbols), rows = self.name(n), n.args, n.shape[0]
        self.rows(n, name, (chunk * rows, symbols), f".view({chunk}, {rows}, {symbols})", "zeros")
        self.text.setup.append(f"{name}_one = torch.ones((), dtype={n.dtype}).expand({chunk} * {rows}, {places})")
        into, times = f"{name}_all[: {count} * {rows}]", f"{name}_one[: {count} * {rows}]"
        self.text.draw.append(f"{into}.zero_().scatter_add_(1, {self.flat(x, count)}.view(-1, {places}), {times})")

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
            copy = next((c for c, whole in self.blocks.stored.items() if whole is n), None) if self.blocks else None
            seen = "" if copy is None else f".view({self.sizes((-1, *copy.shape))})"
            self.rows(copy or n, self.name(n), (self.layout.chunk, *n.shape), seen)

    DRAWN: ClassVar[dict[str, Callable[[Drawing, Node, int, str], None]]] = {
        "input": given, "onehot": put, "counts": counted, "spread": put, "places": places, "turned": turned, "order": ordered, "begins": begins,
    }  # fmt: skip
    """What writes the rows of each kind of value; views of others are written as such."""
