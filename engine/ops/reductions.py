"""Reductions: sums and what is made of them."""

from __future__ import annotations

from typing import Any

import sympy as sp

from engine.notation import Amax, Equal, fresh, instantiate, sigma
from engine.table import Definition, Opaque, Operand, axes, define, op, product, reduced


@op("sum")
def total(x: Operand, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Definition:
    shape, out, at, limits = reduced(x, dim, keepdim)
    return define(shape, out, sigma(x[at], *limits))


@op("mean")
def mean(x: Operand, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Definition:
    shape, out, at, limits = reduced(x, dim, keepdim)
    return define(shape, out, sigma(x[at], *limits) / product([s for _, s in limits]))


def variance(x: Operand, dim: Any, correction: Any, keepdim: bool) -> Definition:
    """The two-pass variance over `dim`, divided by the count less `correction`."""
    shape, out, at, limits = reduced(x, dim, keepdim)
    count = product([s for _, s in limits])
    mean = instantiate(sigma(x[at], *limits), {}) / count
    return define(shape, out, sigma((x[at] - mean) ** 2, *limits) / (count - correction))


def correction_of(dim: Any, unbiased: Any, correction: Any) -> tuple[Any, Any]:
    """torch's two spellings: var(dim, unbiased, keepdim) and var(dim, correction=, keepdim=); var(unbiased) has no dim."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None else int(bool(unbiased))
    return dim, correction


@op("var")
def var(x: Operand, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Definition:
    dim, correction = correction_of(dim, unbiased, correction)
    return variance(x, dim, sp.sympify(correction), keepdim)


@op("std")
def std(x: Operand, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Definition:
    dim, correction = correction_of(dim, unbiased, correction)
    d = variance(x, dim, sp.sympify(correction), keepdim)
    return define(d.shape, d.indices, sp.sqrt(d.expr))


@op("amax")
def amax(x: Operand, dim: Any = (), keepdim: bool = False) -> Definition:
    shape, out, at, limits = reduced(x, dim, keepdim)
    other = {i: fresh() for i, _ in limits}
    largest = Amax(x[at].xreplace(other), *[sp.Tuple(other[i], s) for i, s in limits]) if limits else x[at]
    chosen = Equal(x[at], largest)
    return define(shape, out, sigma(x[at] * chosen, *limits) / instantiate(sigma(chosen, *limits), {}))


@op("softmax")
def softmax(x: Operand, dim: int, *_: Any, dtype: Any = None) -> Definition:
    _, _, at, limits = reduced(x, dim, True)
    return define(x.shape, at, sp.exp(x[at]) / instantiate(sigma(sp.exp(x[at]), *limits), {}))


@op("log_softmax")
def log_softmax(x: Operand, dim: int, *_: Any, dtype: Any = None) -> Definition:
    _, _, at, limits = reduced(x, dim, True)
    return define(x.shape, at, x[at] - sp.log(instantiate(sigma(sp.exp(x[at]), *limits), {})))


@op("logsumexp")
def logsumexp(x: Operand, dim: Any, keepdim: bool = False) -> Definition:
    shape, out, at, limits = reduced(x, dim, keepdim)
    return define(shape, out, sp.log(sigma(sp.exp(x[at]), *limits)))


@op("argmax", "argmin")
def argmax(x: Operand, dim: int | None = None, keepdim: bool = False) -> Opaque:
    dims = axes(dim, x.rank)
    if keepdim:
        return Opaque(tuple(sp.S.One if d in dims else s for d, s in enumerate(x.shape)))
    return Opaque(tuple(s for d, s in enumerate(x.shape) if d not in dims))
