# pyright: basic
"""What is drawn for a chunk of steps at once, and rows for what its end reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codegen.loop.calls import expression, number
from codegen.loop.memory import Memory
from codegen.loop.padding import MOST

if TYPE_CHECKING:
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
