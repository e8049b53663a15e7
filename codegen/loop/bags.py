# pyright: basic
"""Sums of looked-up rows, `C[x].sum(1)`: added up as they are read, and one row passed back to all places it came from.

Looked up first, every row is written and read once more than it is added, and torch adds over a dimension in the middle row
by row. Backwards, all places of a sum are given the same row: Sum_i Sum_t [x[i,t] = v] g[i] = (nT g)[v], where n[i, v] counts
the symbol v among the places of row i. The counts are the batch's, so that a small table is passed back to by one product.
Where a row at each place is more than the cache holds, the rows of each symbol are a bag again; else a row is added at each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from codegen.loop.cost import FITS
from codegen.loop.graph import Node, Sized, call, constant, lies_in_rows, sizes_of
from codegen.loop.own import counts
from codegen.loop.rules import Match
from codegen.loop.tables import bag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.loop.graph import Step


def summed_rows(step: Step) -> Iterator[Match]:
    """A sum or mean over the places of looked-up rows is a bag of rows, which torch has a vector form for in float32."""
    users = step.users()
    known: dict[tuple[int, int], Node] = {}
    for n in step.order:
        picked = looked_up_at_places(n)
        if picked is None or any(u is not n for u in _readers(picked, users)):
            continue  # what is read elsewhere is looked up anyway
        if n.dtype != torch.float32 and picked.numel * n.dtype.itemsize < FITS:
            continue
        c, _, flat = picked.args
        count = n.args[0].shape[-2]
        rows, few = flat.numel // count, flat.value.numel() // count
        new = (count, rows) not in known
        starts = known.setdefault((count, rows), constant(torch.arange(rows) * count, torch.arange(few) * count))
        out = bag(c, flat, starts, n.name)
        nodes = [starts, out] if new else [out]
        if n.op == "mean":
            out = call("div", out, count, shape=out.shape, dtype=n.dtype)
            nodes.append(out)
        if out.shape != n.shape:
            out = call("view", out, sizes_of(n), shape=n.shape, dtype=n.dtype)
            nodes.append(out)
        yield Match(nodes, [(n, out)])


def looked_up_at_places(n: Node) -> Node | None:
    """The rows that a call adds up over the last dimension but one; None where it does something else."""
    x, dims = (*n.args, None, None)[:2]
    if n.op not in ("sum", "mean") or not isinstance(x, Node) or not dims or len(dims) != 1 or n.kwargs:
        return None
    if len(x.shape) < 3 or dims[0] % len(x.shape) != len(x.shape) - 2 or x.dtype != n.dtype:
        return None
    picked = x
    while picked.op == "view":
        picked = picked.args[0]
    if picked.op != "index_select" or picked.args[1] != 0 or len(picked.args[0].shape) != 2:
        return None
    table, count = picked.args[0], x.shape[-2]
    fits = table.shape[1] == x.shape[-1] and table.value.shape[1] == x.value.shape[-1] and count == x.value.shape[-2]
    return picked if fits and count > 1 and lies_in_rows(table) else None


def _readers(picked: Node, users: dict[Node, list[Node]]) -> Iterator[Node]:
    """What reads a value or a view of it."""
    stack = [picked]
    while stack:
        for u in users[stack.pop()]:
            if u.is_view and not u.write:
                stack.append(u)
            else:
                yield u


def counted_products(step: Step) -> Iterator[Match]:
    """Rows g that are added at all of their row's places x are nT g, with n[i, v] = Sum_t [x[i,t] = v] known from the batch."""
    known: dict[Any, Node] = {}
    for n, given, rows, nodes in added_at_places(step):
        flat, width, count = n.args[2], n.shape[0], given.shape[-2]
        key = flat, count, width, n.dtype
        if key not in known:
            point = counts(flat.value, count, width).to(n.value.dtype)
            name = f"{flat.name.removesuffix('_flat')}_counts"
            known[key] = Node("counts", (flat, count, width), {}, (rows.shape[0], width), n.dtype, point, name)
            nodes.append(known[key])
        turned = call("permute", known[key], [1, 0], shape=(width, rows.shape[0]), dtype=n.dtype)
        new = call("mm", turned, rows, shape=n.shape, dtype=n.dtype)
        yield Match([*nodes, turned, new], [(n, new)], key=key)


def sorted_sums(step: Step) -> Iterator[Match]:
    """Rows g that are added at all of their row's places are sums of rows of g, of those that have each symbol.

    For many of them: the symbols are sorted, which takes as long as to add a row at each place in the cache.
    """
    known: dict[Any, tuple[Node, Node]] = {}
    for n, given, rows, nodes in added_at_places(step):
        flat, width, count = n.args[2], n.shape[0], given.shape[-2]
        if given.numel * n.dtype.itemsize <= FITS:
            continue
        key = flat, count, width, n.dtype
        if key not in known:
            places, order = torch.sort(flat.value, stable=True)
            order, begins = order // count, torch.searchsorted(places, torch.arange(width))
            known[key] = (
                Node("order", (flat, count), {}, flat.shape, torch.int64, order, f"{flat.name}_order"),
                Node("begins", (flat, width), {}, (width,), torch.int64, begins, f"{flat.name}_begins"),
            )
            nodes.extend(known[key])
        new = bag(rows, *known[key], n.name)
        yield Match([*nodes, new], [(n, new)], key=key)


def added_at_places(step: Step) -> Iterator[tuple[Node, Node, Node, list[Node]]]:
    """Calls that add each row at several places of an empty table: what they add, the rows once and the view of these."""
    for n in step.order:
        if n.op != "index_add" or n.kwargs or n.args[1] != 0 or len(n.shape) != 2:
            continue
        table, _, flat, given = n.args
        given, g = repeated_rows(given)
        if g is not None and table.constant is not None and not bool(table.constant.any()) and is_given(flat):
            yield n, given, *in_a_matrix(g)


def repeated_rows(given: Node) -> tuple[Node, Node | None]:
    """What repeats rows along the last dimension but one, and the rows once; None where nothing is repeated there."""
    while given.op in ("view", "reshape", "clone"):
        given = given.args[0]
    g = given.args[0] if given.op == "expand" else given
    if given.op != "expand" or len(g.shape) != len(given.shape) or len(g.shape) < 3:
        return given, None
    count = given.shape[-2]
    once = (*given.shape[:-2], 1, given.shape[-1])
    few = (*given.value.shape[:-2], 1, given.value.shape[-1])
    fits = g.shape == once and tuple(g.value.shape) == few and count == given.value.shape[-2]
    return given, g if fits and count > 1 else None


def is_given(flat: Node) -> bool:
    """Whether these are numbers of the batch as they lie there."""
    while flat.op in ("view", "squeeze", "unsqueeze"):
        flat = flat.args[0]
    return flat.op == "input"


def in_a_matrix(g: Node) -> tuple[Node, list[Node]]:
    """Rows with any number of dimensions in front of them, below one another."""
    width = g.shape[-1]
    many, few = g.numel // width, g.value.numel() // width
    rows = call("reshape", g, [many if many == few else Sized(many, few), width], shape=(many, width), dtype=g.dtype)
    rows.op = "view" if lies_in_rows(g) else "reshape"
    return rows, [rows]


__all__ = ["counted_products", "sorted_sums", "summed_rows"]
