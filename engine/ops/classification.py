"""Losses over classes: negative log-likelihood and cross entropy, with class weights, ignored targets and smoothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch
from sympy import Expr, Integer

from engine.errors import TraceError
from engine.notation import Equal, Index, Less, Where, instantiate, sigma
from engine.ops.losses import reduce_loss, reduction_of
from engine.sizes import exact
from engine.table import Definition, Operand, composite, define, equal, indices_of, op, padded, value_of

if TYPE_CHECKING:
    from collections.abc import Callable

F = torch.nn.functional


@dataclass(frozen=True)
class Scores:
    """Scores with their class dimension set apart: indices of the rest, the number of classes, an element by class."""

    shape: tuple[Expr, ...]
    at: tuple[Expr, ...]
    classes: Expr
    element: Callable[[Expr], Expr]

    def over_classes(self, function: Callable[[Expr], Any]) -> Expr:
        """The sum of a function of the class."""
        (c,) = indices_of((self.classes,))
        limits = [(cast("Index", c), self.classes)] if self.classes != 1 else []
        return instantiate(sigma(sp.sympify(function(c)), *limits), {})


def scores(x: Operand, target_shape: tuple[Expr, ...] | None = None) -> Scores:
    """torch puts the classes at dimension 1, or 0 where there is no batch."""
    if not x.rank:
        raise TraceError("a classification loss needs scores with a class dimension")
    c = 1 if x.rank > 1 else 0
    shape = [s for d, s in enumerate(x.shape) if d != c]
    if target_shape is not None:
        shape = [equal(s, t) for s, t in zip(shape, target_shape, strict=True)]
    at = indices_of(shape)
    return Scores(tuple(shape), at, x.shape[c], lambda k: x.element(*at[:c], k, *at[c:]))


def by_target(s: Scores, t: Expr, each: Any, weight: Any, ignored: int | None, reduction: str) -> Definition:
    """`each` (already weighted) reduced over the targets; a mean divides by the weights of the targets that count.

    torch's default, ignore_index=-100, is taken as no target being ignored unless an integer input of the example holds it.
    """
    limits = [(cast("Index", i), n) for i, n in zip(s.at, s.shape, strict=True) if n != 1]
    left_out = Equal(t, Integer(ignored)) if ignored is not None else sp.S.Zero
    body = Where(left_out, 0, each)
    if reduction != "mean" or (weight is None and left_out == 0):
        return reduce_loss(s.shape, s.at, body, reduction)
    count = sigma(Where(left_out, 0, class_weight(weight, in_bounds(t, ignored, s.classes))), *limits)
    return define((), (), sigma(body, *limits) / instantiate(count, {}))


def ignored_class(ignore_index: int) -> int | None:
    """The target that is left out, if any."""
    return None if ignore_index == NOTHING and not padded() else ignore_index


NOTHING = -100


def in_bounds(t: Expr, ignore_index: int | None, classes: Expr) -> Expr:
    """A target that is a class even where it is ignored; -1 is one, counted from the end."""
    outside = ignore_index is not None and not -1 <= ignore_index < value_of(classes)
    return Where(Equal(t, Integer(ignore_index)), 0, t) if outside else t


def class_weight(weight: Any, c: Expr) -> Any:
    """A class's weight, 1 without weights."""
    return sp.S.One if weight is None else weight.element(c)


@op(targets=(F.nll_loss,))
def nll_loss(
    x: Operand,
    y: Operand,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = NOTHING,
    reduce: Any = None,
    reduction: str = "mean",
) -> Definition:
    s = scores(x, y.shape)
    t = y.element(*s.at)
    ignored = ignored_class(ignore_index)
    k = in_bounds(t, ignored, s.classes)
    each = -class_weight(weight, k) * s.element(k)
    return by_target(s, t, each, weight, ignored, reduction_of(size_average, reduce, reduction))


@op(targets=(F.cross_entropy,))
def cross_entropy(
    x: Operand,
    y: Operand,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = NOTHING,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Definition:
    """Targets are classes (integers), or a distribution over the classes for each row (of the scores' shape)."""
    reduction, smoothing = reduction_of(size_average, reduce, reduction), exact(label_smoothing)
    if y.floating:
        return soft_cross_entropy(x, y, weight, reduction, smoothing)
    s = scores(x, y.shape)
    t = y.element(*s.at)
    normalizer = sp.log(s.over_classes(lambda c: sp.exp(s.element(c))))
    ignored = ignored_class(ignore_index)
    k = in_bounds(t, ignored, s.classes)
    each = class_weight(weight, k) * (normalizer - s.element(k))
    if smoothing != 0:
        spread = s.over_classes(lambda c: class_weight(weight, c) * (normalizer - s.element(c)))
        each = (1 - smoothing) * each + smoothing / s.classes * spread
    return by_target(s, t, each, weight, ignored, reduction)


def soft_cross_entropy(x: Operand, y: Operand, weight: Any, reduction: str, smoothing: Expr) -> Definition:
    """The cross entropy of a distribution over the classes."""
    s, target = scores(x), scores(y)
    shape = [equal(a, b) for a, b in zip(s.shape, target.shape, strict=True)]
    equal(s.classes, target.classes)
    back = dict(zip(target.at, s.at, strict=True))
    normalizer = sp.log(s.over_classes(lambda c: sp.exp(s.element(c))))

    def term(c: Expr) -> Any:
        probability = target.element(c).xreplace(back) * (1 - smoothing) + smoothing / s.classes
        return class_weight(weight, c) * probability * (normalizer - s.element(c))

    return reduce_loss(shape, s.at, s.over_classes(term), reduction)


@op(targets=(F.multi_margin_loss,))
def multi_margin_loss(
    x: Operand,
    y: Operand,
    p: int = 1,
    margin: float = 1.0,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Definition:
    """Sum over the wrong classes of max(0, margin - x[y] + x[c])^p, over the number of classes."""
    s = scores(x, y.shape if x.rank > 1 else ())
    t = y.element(*(s.at if y.rank == len(s.at) else [sp.S.Zero] * y.rank))

    def term(c: Expr) -> Any:
        z = exact(margin) - s.element(t) + s.element(c)
        return Where(Equal(c, t), 0, Where(Less(0, z), z**p, 0))

    each = class_weight(weight, t) * s.over_classes(term) / s.classes
    return reduce_loss(s.shape, s.at, each, reduction_of(size_average, reduce, reduction))


@composite(targets=(F.linear_cross_entropy,))
def linear_cross_entropy(
    x: Any, linear_weight: Any, target: Any, *, linear_bias: Any = None, options: Any = None, **rest: Any
) -> Any:
    """The cross entropy of the scores that a linear layer gives; how torch cuts it up (`options`) changes no value."""
    given = {k: v for k, v in rest.items() if v is not None}
    scored = F.linear(x, linear_weight.reshape(-1, linear_weight.shape[-1]), None)
    if linear_weight.dim() > 2:  # (batch, ..., classes, more): the classes come first among what is scored
        scored = scored.reshape(*x.shape[:-1], *linear_weight.shape[:-1])
    return F.cross_entropy(scored if linear_bias is None else scored + linear_bias, target, **given)
