"""A contraction moved inside of a gather: `C[x] @ w` is a sum of rows of the table `C w[t]`, looked up instead of computed.

h[i] = Sum_t Sum_e C[x[i,t], e] w[t E + e] = Sum_t T[t, x[i,t]] with T[t] = C w[t]. Rows of the table are as many as symbols
times places, rows of the batch usually many more. Backwards, the cotangents of equal symbols are added up first:
S[t, v] = Sum_i [x[i,t] = v] dh[i]; then dw[t] = CT S[t] and dC = Sum_t S[t] w[t]T.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from codegen.loop.graph import Node, call
from codegen.loop.rules import Match

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.loop.graph import Step


def looked_up(step: Step) -> Iterator[Match]:
    """The product of gathered rows with a matrix, and what it passes back, through the table."""
    for product in step.order:
        if product.op not in ("mm", "addmm") or product.kwargs:
            continue
        gathered, w = product.args[-2:]
        picked = gathered
        while picked.is_view and picked.op == "view":
            picked = picked.args[0]
        if picked.op != "index_select" or picked.args[1] != 0 or w.op != "input" or picked.args[0].op != "input":
            continue
        c, _, flat = picked.args
        x = flat.args[0] if flat.op == "view" else flat
        rows, (symbols, width) = gathered.shape[0], c.shape
        if x.op != "input" or x.shape[0] != rows or len(c.shape) != 2 or flat.numel * width != gathered.numel:
            continue
        yield _match(step, product, gathered, w, c, flat, x, symbols, width)


def _match(
    step: Step, product: Node, gathered: Node, w: Node, c: Node, flat: Node, x: Node, symbols: int, width: int
) -> Match:
    rows, columns = product.shape
    places = flat.numel // rows
    kind = product.dtype
    w3 = call("view", w, [places, width, columns], shape=(places, width, columns), dtype=kind)
    c3 = call("expand", c, [places, symbols, width], shape=(places, symbols, width), dtype=kind)
    table3 = call("bmm", c3, w3, shape=(places, symbols, columns), dtype=kind, name=f"{w.name}_table")
    table = call("view", table3, [places * symbols, columns], shape=(places * symbols, columns), dtype=kind)
    at = Node(
        "places",
        (x, places, symbols),
        {},
        (flat.numel,),
        torch.int64,
        _places(x.value, places, symbols),
        f"{x.name}_places",
    )
    few = x.value.shape[0]
    starts = Node(
        "starts",
        (),
        {},
        (rows,),
        torch.int64,
        torch.arange(few) * places,
        "starts",
        constant=torch.arange(rows) * places,
    )
    out = bag(table, at, starts, product.name)
    nodes = [w3, c3, table3, table, at, starts, out]
    if product.op == "addmm":
        nodes.append(call("add", out, product.args[0], shape=product.shape, dtype=kind, name=product.name))
    early, pairs = len(nodes), [(product, nodes[-1])]
    turned = [n for n in step.order if n.op in ("permute", "t") and n.args[0] is gathered]
    for d in [n for n in step.order if n.op == "mm" and n.args[0] in turned]:
        cotangent = d.args[1]
        three = _summed(cotangent, at, places, symbols, nodes)
        ct = call("permute", c, [1, 0], shape=(width, symbols), dtype=kind)
        ct3 = call("expand", ct, [places, width, symbols], shape=(places, width, symbols), dtype=kind)
        dw3 = call("bmm", ct3, three, shape=(places, width, columns), dtype=kind)
        dw = call("view", dw3, [places * width, columns], shape=w.shape, dtype=kind)
        nodes.extend([ct, ct3, dw3, dw])
        pairs.append((d, dw))
    for g in [
        n
        for n in step.order
        if n.op == "index_add"
        and n.args[2].numel == flat.numel
        and (n.args[2] is flat or (n.args[2].is_view and n.args[2].args[0] is x))
        and n.args[0].constant is not None
        and n.shape == c.shape
    ]:
        back = g.args[3]
        while back.is_view and back.op == "view":
            back = back.args[0]
        if back.op != "mm" or not (back.args[1].op in ("permute", "t") and back.args[1].args[0] is w):
            continue
        three = _summed(back.args[0], at, places, symbols, nodes)
        wt = call("permute", w3, [0, 2, 1], shape=(places, columns, width), dtype=kind)
        each = call("bmm", three, wt, shape=(places, symbols, width), dtype=kind)
        total = call("sum", each, [0], shape=c.shape, dtype=kind)
        nodes.extend([wt, each, total])
        pairs.append((g, total))
    last = max((step.order.index(old) for old, _ in pairs[1:]), default=step.order.index(product))
    step_match = Match(nodes[:early], pairs, at=product)
    step_match.later = (nodes[early:], step.order[last])
    return step_match


def _summed(cotangent: Node, at: Node, places: int, symbols: int, nodes: list[Node]) -> Node:
    """Cotangents of equal symbols added up, (places, symbols, columns); made once for each cotangent."""
    columns = cotangent.shape[1]
    for n in nodes:
        if n.op == "view" and n.args[0].op == "bag" and n.args[0].args[0] is cotangent:
            return n
    order = Node(
        "order",
        (at, places),
        {},
        at.shape,
        torch.int64,
        torch.sort(at.value, stable=True).indices // places,
        f"{at.name}_order",
    )
    sorted_ = torch.sort(at.value, stable=True).values
    begins = Node(
        "begins",
        (at, places * symbols),
        {},
        (places * symbols,),
        torch.int64,
        torch.searchsorted(sorted_, torch.arange(places * symbols)),
        f"{at.name}_begins",
    )
    total = bag(cotangent, order, begins, f"{cotangent.name or 'd'}_sums")
    three = call("view", total, [places, symbols, columns], shape=(places, symbols, columns), dtype=cotangent.dtype)
    nodes.extend([order, begins, total, three])
    return three


def _places(x: Any, places: int, symbols: int) -> Any:
    return (x.reshape(-1, places) + torch.arange(places) * symbols).reshape(-1)


def bag(values: Node, indices: Node, starts: Node, name: str) -> Node:
    """Sums of rows of `values`: bag k has the rows `indices[starts[k]:starts[k + 1]]`."""
    value = torch.nn.functional.embedding_bag(indices.value, values.value, starts.value, mode="sum")
    return Node("bag", (values, indices, starts), {}, (starts.shape[0], values.shape[1]), values.dtype, value, name)


__all__ = ["bag", "looked_up"]
