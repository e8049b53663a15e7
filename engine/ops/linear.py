"""Contractions: matrix products in all of torch's spellings."""

from __future__ import annotations

from typing import Any, cast

import torch
from sympy import Expr

from engine.errors import TraceError
from engine.notation import fresh, sigma
from engine.table import Definition, Operand, aligned, broadcast_shape, define, equal, indices_of, op

Tensor = torch.Tensor


@op("matmul", "mm", "bmm", "mv", "dot", "vdot", "inner", targets=(Tensor.__matmul__,))
def matmul(x: Operand, y: Operand) -> Definition:
    if x.rank == 0 or y.rank == 0:
        raise TraceError("matmul needs tensors of rank 1 or more")
    j = fresh()
    n = equal(x.shape[-1], y.shape[-2] if y.rank > 1 else y.shape[0])
    batch = broadcast_shape(x.shape[:-2], y.shape[:-2])
    at = list(indices_of(batch))
    rows, columns = list(indices_of(x.shape[-2:-1])), list(indices_of(y.shape[-1:] if y.rank > 1 else ()))
    left = _element(x, at, [*rows, j])
    right = _element(y, at, [j, *columns] if y.rank > 1 else [j])
    shape = (*batch, *x.shape[-2:-1], *(y.shape[-1:] if y.rank > 1 else ()))
    return define(shape, (*at, *rows, *columns), sigma(left * right, (j, n)))


def _element(x: Operand, batch: list[Expr], last: list[Expr]) -> Expr:
    lead = x.rank - len(last)
    return x[tuple([*batch[len(batch) - lead :], *last])]


@op(targets=(Tensor.__rmatmul__,))
def rmatmul(y: Operand, x: Operand) -> Definition:
    return matmul(x, y)


@op("linear")
def linear(x: Operand, weight: Operand, bias: Operand | None = None) -> Definition:
    j = fresh()
    n = equal(x.shape[-1], weight.shape[-1])
    rows, columns = list(indices_of(x.shape[:-1])), list(indices_of(weight.shape[:-1]))
    out = sigma(x[tuple([*rows, j])] * weight[tuple([*columns, j])], (j, n))
    shape = (*x.shape[:-1], *weight.shape[:-1])
    if bias is not None:
        out = cast("Expr", out + aligned(bias, (*rows, *columns)))
        broadcast_shape(shape, bias.shape)
    return define(shape, (*rows, *columns), out)


@op("addmm", "addmv", "baddbmm")
def addmm(bias: Operand, x: Operand, y: Operand, *, beta: Any = 1, alpha: Any = 1) -> Definition:
    from engine.sizes import expression

    d = matmul(x, y)
    broadcast_shape(d.shape, bias.shape)
    return define(d.shape, d.indices, expression(beta) * aligned(bias, d.indices) + expression(alpha) * d.expr)


@op("outer", "ger")
def outer(x: Operand, y: Operand) -> Definition:
    i, j = fresh(), fresh()
    return define((x.shape[0], y.shape[0]), (i, j), x[i] * y[j])


@op("einsum")
def einsum(equation: str, *given: Any) -> Definition:
    operands: list[Operand] = list(given[0]) if len(given) == 1 and isinstance(given[0], (tuple, list)) else list(given)
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise TraceError(f"einsum {equation!r} names {len(terms)} operands and was given {len(operands)}")
    rank = max((x.rank - len(t.replace("...", "")) for t, x in zip(terms, operands, strict=True) if "..." in t), default=0)
    dots = "".join(chr(0x2460 + k) for k in range(rank))
    terms = [
        t.replace("...", dots[rank - (x.rank - len(t.replace("...", ""))) :] if "..." in t else "") for t, x in zip(terms, operands, strict=True)
    ]
    if arrow:
        out = right.replace("...", dots)
    else:
        letters = sorted(set("".join(terms)) - set(dots))
        out = dots + "".join(c for c in letters if "".join(terms).count(c) == 1)
    sizes: dict[str, Expr] = {}
    for term, x in zip(terms, operands, strict=True):
        for letter, size in zip(term, x.shape, strict=True):
            known = sizes.get(letter)
            sizes[letter] = size if known is None or known == 1 else known if size == 1 else equal(known, size)
    at: dict[str, Any] = {c: fresh() if s != 1 else 0 for c, s in sizes.items()}
    body: Any = 1
    for term, x in zip(terms, operands, strict=True):
        body = body * x.element(*[at[c] for c in term])
    summed = [(at[c], sizes[c]) for c in dict.fromkeys("".join(terms)) if c not in out and sizes[c] != 1]
    return define([sizes[c] for c in out], [at[c] for c in out], sigma(body, *summed))
