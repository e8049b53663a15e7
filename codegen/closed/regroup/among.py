# pyright: basic
"""The cells of a graph as they are looked through for products that need not be made: who reads whom, and what is equal."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, cast

from sympy import Expr, Mul

from codegen.closed.regions.cells import Cell, signature
from engine.sizes import evaluate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


class Among:
    """Cells in order. `fixed` ones keep the forward's own arithmetic; sizes are those of the `example`."""

    def __init__(
        self, cells: list[Cell], outputs: Collection[str], fixed: Collection[str], example: Mapping[Any, int]
    ) -> None:
        self.cells, self.outputs, self.fixed, self.example = cells, outputs, fixed, example
        self.known = {c.name: c for c in cells}
        self.place = {c.name: k for k, c in enumerate(cells)}
        self.readers: dict[str, list[Cell]] = {}
        """The cells that read each cell, by a definition or as operands of a call."""
        for c in cells:
            for r in dict.fromkeys((*c.reads, *called_with(c), *c.after)):
                self.readers.setdefault(r, []).append(c)

    @cached_property
    def same(self) -> dict[Any, tuple[Cell, tuple[Any, ...]]]:
        """The first cell of each value, with its indices in the order of the key."""
        found: dict[Any, tuple[Cell, tuple[Any, ...]]] = {}
        for c in self.cells:
            if c.expr is not None and c.kind == "float":
                key, order = signed(c)
                found.setdefault(key, (c, order))
        return found

    def equal(self, key: Any, before: str) -> tuple[Cell, tuple[Any, ...]] | None:
        """A cell of this value that is there before another."""
        found = self.same.get(key)
        return found if found is not None and self.place[found[0].name] < self.place[before] else None

    def size(self, shape: Any) -> int:
        """The size of a dimension, or the elements of a shape, at the example."""
        whole = Mul(*shape) if isinstance(shape, tuple) else shape
        return evaluate(cast("Expr", whole), self.example) if isinstance(whole, Expr) else int(whole)

    def with_instead(self, added: Mapping[str, list[Cell]]) -> list[Cell]:
        """The cells with others in the places of some, without those that no output depends on any more."""
        return alive([d for c in self.cells for d in added.get(c.name, [c])], self.outputs)


@lru_cache(maxsize=2**12)
def signed(c: Cell) -> tuple[Any, tuple[Any, ...]]:
    """What is equal for cells of equal values, and the cell's indices in the order that this speaks of."""
    return signature(c)


def called_with(c: Cell) -> tuple[str, ...]:
    """The operands of a cell that is a call."""
    return c.node.operands if c.node is not None and (c.call or c.expr is None) else ()


def alive(cells: Iterable[Cell], outputs: Collection[str]) -> list[Cell]:
    """The cells that the outputs depend on, and inputs."""
    needed = {*outputs}
    out: list[Cell] = []
    for c in reversed(list(cells)):
        if c.name in needed or (c.node is not None and c.node.is_input):
            out.append(c)
            needed.update((*c.reads, *called_with(c), *c.after))
    return out[::-1]


__all__ = ["Among", "signed"]
