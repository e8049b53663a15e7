# pyright: basic
"""Rows that are added at places of a table, where the loop is not taken in blocks.

`scatter_add` with the place of a row given for every column of it adds whole rows, each in one run: from a few hundred rows
on it takes half of the time of `index_add` and less, as that makes a call for every row. It sorts the places first, which is
what fewer rows do not make up for, and it knows no multiple of what it adds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from codegen.loop.graph import call, sizes_of
from codegen.loop.rules import Match, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.loop.graph import Step

FROM = 128
"""Rows from which on that is faster."""


def by_entries(step: Step) -> Iterator[Match]:
    """Rows v added to x at i are scatter_add(x, 0, I, v) with I[k, c] = i[k]."""
    for n in step.order:
        if n.op != "index_add" or n.kwargs or len(n.shape) != 2:
            continue
        x, _, flat, rows = n.args
        if rows.shape[0] < FROM:
            continue
        column = call("unsqueeze", flat, 1, shape=(*flat.shape, 1), dtype=flat.dtype)
        index = call("expand", column, sizes_of(rows), shape=rows.shape, dtype=flat.dtype)
        new = call("scatter_add", x, 0, index, rows, shape=n.shape, dtype=n.dtype)
        yield Match([column, index, new], [(n, new)])


PLACES = (
    Rule("rows at places", "index_add(x, 0, i, v) = scatter_add(x, 0, i for every column, v)", by_entries, always=True),
)

__all__ = ["PLACES"]
