"""Identities that pay where a step is taken in blocks of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from codegen.loop.batchnorm import batch_norm, batch_norm_backward, by_columns
from codegen.loop.graph import Node, call
from codegen.loop.kernels import column_sums
from codegen.loop.rules import Match, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codegen.loop.graph import Step


def scaled_columns(step: Step) -> Iterator[Match]:
    """k (b + x a) is (k b) + x (k a), with a and b a number for every column."""
    users = step.users()
    for n in step.order:
        if n.op != "mul" or isinstance(n.args[1], Node):
            continue
        inner, k = n.args
        if inner.op != "addcmul" or inner.kwargs or len(users[inner]) != 1:
            continue
        b, x, a = inner.args
        if x.shape != n.shape or any(len(v.shape) != 1 for v in (a, b)):
            continue
        first = call("mul", b, k, shape=b.shape, dtype=n.dtype)
        second = call("mul", a, k, shape=a.shape, dtype=n.dtype)
        new = call("addcmul", first, x, second, shape=n.shape, dtype=n.dtype, name=n.name)
        yield Match([first, second, new], [(n, new)])


def columns_out_of_sums(step: Step) -> Iterator[Match]:
    """Sums of rows of c + a dz + b x, with a, b, c a number for every column, are k c + a S(dz) + b S(x) for k rows each.

    What is summed then need not wait for the column sums that a, b and c come from.
    """
    users = step.users()
    for n in step.order:
        if n.op != "bag":
            continue
        outer, indices, starts = n.args
        if outer.op != "addcmul" or outer.args[0].op != "addcmul" or len(users[outer]) != 1:
            continue
        inner, x, b = outer.args
        c, dz, a = inner.args
        if len(users[inner]) != 1 or any(len(v.shape) != 1 for v in (a, b, c)) or outer.kwargs or inner.kwargs:
            continue
        rows, width = outer.shape
        few = outer.value.shape[0]
        ones = Node(
            "ones",
            (rows, 1),
            {},
            (rows, 1),
            n.dtype,
            torch.ones(few, 1, dtype=n.value.dtype),
            "ones",
            constant=torch.ones(rows, 1, dtype=n.dtype),
        )
        nodes = [ones]

        def bag(
            values: Node,
            columns: int,
            name: str,
            indices: Any = indices,
            starts: Any = starts,
            n: Node = n,
            nodes: list[Node] = nodes,
        ) -> Node:
            value = torch.nn.functional.embedding_bag(indices.value, values.value, starts.value, mode="sum")
            nodes.append(Node("bag", (values, indices, starts), {}, (n.shape[0], columns), n.dtype, value, name))
            return nodes[-1]

        counts = bag(ones, 1, "counts")
        first, second = bag(dz, width, f"{dz.name or 'dz'}_sums"), bag(x, width, f"{x.name or 'x'}_sums")
        many = call("mul", counts, c, shape=n.shape, dtype=n.dtype)
        partly = call("addcmul", many, first, a, shape=n.shape, dtype=n.dtype)
        total = call("addcmul", partly, second, b, shape=n.shape, dtype=n.dtype, name=n.name)
        yield Match([*nodes, many, partly, total], [(n, total)])


STATISTICS: tuple[Rule, ...] = (
    Rule("batch norm", "(x - mean) / sqrt(var + eps) w + b = native_batch_norm(x, w, b)", batch_norm, always=True),
    Rule("batch norm backward", "its derivative = native_batch_norm_backward", batch_norm_backward, always=True),
    Rule("batch norm backward by columns", "dx = a dz + b (x - mean) + c for every column", by_columns, always=True),
)
"""BatchNorm however it was written, so that its statistics can be taken apart."""

BLOCKED: tuple[Rule, ...] = (
    Rule("number into columns", "k (b + x a) = (k b) + x (k a)", scaled_columns, always=True),
    Rule(
        "columns out of sums",
        "sums of rows of c + a dz + b x = k c + a S(dz) + b S(x)",
        columns_out_of_sums,
        always=True,
    ),
    Rule("column sums", "Sum_i x[i,j] = (xT 1)[j]", column_sums, always=True),
)

__all__ = ["BLOCKED", "STATISTICS"]
