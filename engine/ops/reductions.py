"""Reductions: sums over dimensions, and what is made of them."""

from __future__ import annotations

from typing import Any

import sympy as sp
import torch
from sympy import Expr

from engine.errors import TraceError
from engine.notation import Equal, Where, instantiate, sigma
from engine.sizes import expression
from engine.table import Definition, Operand, composite, define, op, product, reduced, value_of


@op("sum")
def total(x: Operand, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Definition:
    shape, out, at, limits = reduced(x, dim, keepdim)
    return define(shape, out, sigma(x.element(*at), *limits))


@op("mean")
def mean(x: Operand, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Definition:
    shape, out, at, limits = reduced(x, dim, keepdim)
    return define(shape, out, sigma(x.element(*at), *limits) / product([s for _, s in limits]))


@op("nansum")
def nansum(x: Operand, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Definition:
    shape, out, at, limits = reduced(x, dim, keepdim)
    e = x.element(*at)
    return define(shape, out, sigma(Where(Equal(e, e), e, 0), *limits))


@op("nanmean")
def nanmean(x: Operand, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Definition:
    shape, out, at, limits = reduced(x, dim, keepdim)
    e = x.element(*at)
    count = instantiate(sigma(Equal(e, e), *limits), {})
    return define(shape, out, sigma(Where(Equal(e, e), e, 0), *limits) / count)


def moments(x: Operand, dim: Any, correction: Any, keepdim: bool) -> tuple[Definition, Definition]:
    """The mean and the two-pass variance over `dim`; the latter divides by the count less `correction`."""
    shape, out, at, limits = reduced(x, dim, keepdim)
    e = x.element(*at)
    count = product([s for _, s in limits])
    average = sigma(e, *limits) / count
    if value_of(count) <= correction:
        raise TraceError(
            f"the variance of {value_of(count)} values is not defined with correction={correction}; pass correction=0"
        )
    variance = sigma((e - instantiate(average, {})) ** 2, *limits) / (count - expression(correction))
    return define(shape, out, average), define(shape, out, variance)


def correction_of(dim: Any, unbiased: Any, correction: Any) -> tuple[Any, Any]:
    """torch's two spellings: var(dim, unbiased, keepdim) and var(dim, correction=); var(unbiased) has no dim."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None else int(bool(unbiased))
    return dim, correction


@op("var")
def var(
    x: Operand, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Definition:
    dim, correction = correction_of(dim, unbiased, correction)
    return moments(x, dim, correction, keepdim)[1]


def rooted(d: Definition) -> Definition:
    """The square root of a definition."""
    return define(d.shape, d.indices, sp.sqrt(d.expr))


@op("std")
def std(
    x: Operand, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Definition:
    """At a variance of 0 the slope is 0."""
    dim, correction = correction_of(dim, unbiased, correction)
    return deviation(moments(x, dim, correction, keepdim)[1])


def deviation(variance: Definition) -> Definition:
    """The standard deviation; where it is 0 torch takes its slope as 0."""
    v = variance.expr
    return define(variance.shape, variance.indices, Where(Equal(v, 0), 0, sp.sqrt(v)))


@op("var_mean")
def var_mean(
    x: Operand, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> tuple[Definition, Definition]:
    dim, correction = correction_of(dim, unbiased, correction)
    average, variance = moments(x, dim, correction, keepdim)
    return variance, average


@op("std_mean")
def std_mean(
    x: Operand, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> tuple[Definition, Definition]:
    dim, correction = correction_of(dim, unbiased, correction)
    average, variance = moments(x, dim, correction, keepdim)
    return deviation(variance), average


@op("softmax")
def softmax(x: Operand, dim: Any = None, *_: Any, dtype: Any = None, **__: Any) -> Definition:
    at, e, normalizer = normalized(x, dim)
    return define(x.shape, at, sp.exp(e) / normalizer)


@op("softmin")
def softmin(x: Operand, dim: Any = None, *_: Any, dtype: Any = None, **__: Any) -> Definition:
    at, e, normalizer = normalized(x, dim, -1)
    return define(x.shape, at, sp.exp(-e) / normalizer)


@op("log_softmax")
def log_softmax(x: Operand, dim: Any = None, *_: Any, dtype: Any = None, **__: Any) -> Definition:
    at, e, normalizer = normalized(x, dim)
    return define(x.shape, at, e - sp.log(normalizer))


def normalized(x: Operand, dim: Any, sign: int = 1) -> tuple[tuple[Expr, ...], Expr, Expr]:
    """Indices, element, and the sum of exp(sign * element) along a dimension (for None the one torch guesses)."""
    if dim is None:
        dim = 0 if x.rank in (0, 1, 3) else 1
    _, _, at, limits = reduced(x, dim, True)
    e = x.element(*at)
    return at, e, instantiate(sigma(sp.exp(sign * e), *limits), {})


@op("logsumexp")
def logsumexp(x: Operand, dim: Any, keepdim: bool = False) -> Definition:
    shape, out, at, limits = reduced(x, dim, keepdim)
    return define(shape, out, sp.log(sigma(sp.exp(x.element(*at)), *limits)))


@composite("prod")
def prod(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Neighbours are multiplied until one is left, so that the derivative holds at zeros too. The size gets fixed."""
    if dtype is not None or not x.is_floating_point():
        x = x.to(dtype or torch.int64)
    if dim is None:
        x, dim = x.reshape(-1), 0
    elif x.dim() == 0:
        return x
    count = int(x.shape[dim])
    if count == 0:
        empty = x.sum(dim, keepdim=keepdim)
        return empty + 1
    while count > 1:
        pairs, odd = divmod(count, 2)
        left, right = x.narrow(dim, 0, pairs), x.narrow(dim, pairs, pairs)
        rest = [x.narrow(dim, 2 * pairs, 1)] if odd else []
        x = left * right
        if odd:
            x = torch.cat([x, *rest], dim)
        count = pairs + odd
    return x if keepdim else x.squeeze(dim)
