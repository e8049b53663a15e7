"""Products that are spelled otherwise than factor by factor: means, one root for two, a number inside of a sum."""

from __future__ import annotations

from typing import Any, cast

import sympy as sp
from sympy import Expr

from codegen.lowering.factors import FactorMixin
from codegen.lowering.tensors import T
from codegen.lowering.values import Val
from engine.indexed import Indexed
from engine.notation import (
    Index,
    Sigma,
    Where,
    bound,
    name_of,
)
from engine.sizes import evaluate


class SpellingMixin(FactorMixin):
    """Lowers products that are more than their factors; None for others."""

    def _cot_first(self, factors: list[Expr]) -> list[Expr]:
        def key(f: Expr) -> tuple[int, int]:
            return (0 if any(name_of(a).startswith("_cot") for a in f.atoms(Indexed)) else 1, factors.index(f))

        return sorted(factors, key=key)

    def one_root(self, e: Expr) -> Val | None:
        """sqrt(a)/sqrt(n) as sqrt(a/n): sympy takes roots of products of positive factors apart."""
        roots = [f for f in e.args if isinstance(f, sp.Pow) and f.exp.is_Rational and not f.exp.is_Integer]
        tied = [f for f in roots if f.atoms(Indexed)]
        roots = [f for f in roots if tied and abs(f.exp) == abs(tied[0].exp)]
        loose = [f for f in roots if not f.atoms(Indexed)]
        if len(tied) != 1 or not loose or ((loose[0].exp * tied[0].exp).is_positive and len(loose) > 1):
            return None
        exponent = tied[0].exp
        v = self.value(sp.Mul(*[f.base if f.exp == exponent else 1 / f.base for f in (*loose, *tied)]))
        root = self.root(v, exponent)
        rest = sp.Mul(*[f for f in e.args if f not in roots])
        return root if rest == 1 else self.join("*", self.value(rest), root)

    def chosen_multiple(self, e: Expr) -> Val | None:
        """A tensor times one of two numbers, as a choice between its multiples: numbers alone would become float32."""
        choices = [
            f for f in e.args if isinstance(f, Where) and not any(x == 0 or x.has(Indexed, Index) for x in f.args[1:])
        ]
        plain = [f for f in e.args if isinstance(f, Indexed) and self.tensors[name_of(f)].kind == "float"]
        if len(choices) != 1 or not plain:
            return None
        condition, a, b = choices[0].args
        factor = self._cot_first([*plain])[0]
        single = [f for f in e.args if not f.has(Index)]
        chosen = single if factor in single else [factor]  # single numbers are multiplied before one of them is chosen
        multiple = Where(condition, a * sp.Mul(*chosen), b * sp.Mul(*chosen))
        return self.value(sp.Mul(multiple, *[f for f in e.args if f not in (choices[0], *chosen)]))

    def mean_of(self, e: Expr) -> Val | None:
        """A sum divided by its count is `mean`."""
        sums = [f for f in e.args if isinstance(f, Sigma)]
        if len(sums) != 1:
            return None
        count = sp.Mul(*[n for _, n in sums[0].limits])
        rest = sp.cancel(sp.Mul(*[f for f in e.args if f is not sums[0]]) * count)
        if rest.free_symbols & count.free_symbols or rest.has(Indexed, Index):
            return None
        if not count.free_symbols and (rest not in (1, -1) or count == 1):  # else it is any number that a sum has
            return None
        total = self.value(sums[0])
        if total.t.kind == "unary" and total.t.head == "neg":
            total, rest = self.negative(total), -rest
        if total.t.kind != "method" or total.t.head != "sum" or total.kind != "float":
            return None
        mean = Val(T("method", "mean", total.t.args, total.t.keywords), total.axes, total.kind, total.kept)
        if rest in (1, -1):
            return mean if rest == 1 else self.negative(mean)
        return self.join("*", self.value(rest), mean)

    def _mean_among(
        self, factors: list[Expr], values: list[Val], scale: Expr
    ) -> tuple[Any, list[Expr], list[Expr], list[Val]] | None:
        """Factors beside a number in which a sum over n is `mean`, for 1/n in the number, and what is left of that."""
        for k, (f, v) in enumerate(zip(factors, values, strict=True)):
            if not isinstance(f, Sigma) or v.t.kind != "method" or v.t.head != "sum" or v.kind != "float":
                continue
            count = sp.Mul(*[n for _, n in f.limits])
            rest = sp.cancel(scale * count)
            number, sizes = rest.as_coeff_Mul()
            if sizes.free_symbols & count.free_symbols or not number.is_positive:
                continue
            if not count.free_symbols and (rest != 1 or count == 1):  # else it is any number that a sum has
                continue
            up, down = sizes.as_numer_denom()
            mean = Val(T("method", "mean", v.t.args, v.t.keywords), v.axes, v.kind, v.kept)
            sides = [[x for x in sp.Mul.make_args(side) if x != 1] for side in (up, down)]
            return number, sides[0], sides[1], [*values[:k], mean, *values[k + 1 :]]
        return None

    def scaled_inside(self, e: Expr) -> Val | None:
        """`c (2 a - w)` for a single number c as `2 c a - c w`, where w is smaller than a: a is multiplied with one number, once."""
        sums = [f for f in e.args if isinstance(f, sp.Add)]
        if not self.fills or len(sums) != 1:
            return None
        scale = sp.Mul(*[f for f in e.args if f is not sums[0]])
        own = [frozenset(i for i in t.free_symbols if isinstance(i, Index) and i in self.ranges) for t in sums[0].args]
        every = frozenset[Any]().union(*own)
        large = [t for t, indices in zip(sums[0].args, own, strict=True) if indices == every]
        single = scale.has(Indexed) and not scale.atoms(Index)
        if not single or len(large) != 1 or abs(cast("Any", large[0]).as_coeff_Mul()[0]) == 1 or len(own) < 2:
            return None
        return self.sum_of(sp.Add(*[scale * t for t in sums[0].args]))

    def scaled_first(self, e: Expr) -> Val | None:
        """`c a @ b` for a number c as `(c a) @ b`, where a has less than half as many elements as the product."""
        sums = [f for f in e.args if isinstance(f, Sigma)]
        if len(sums) != 1 or not self.example:
            return None
        (total,) = sums
        scale = sp.Mul(*[f for f in e.args if f is not total])
        factors = sp.Mul.make_args(total.body)
        plain = all(isinstance(f, Indexed) and all(i == 0 or isinstance(i, Index) for i in f.indices) for f in factors)
        if scale in (1, -1) or scale.atoms(Index) or not plain:
            return None
        sizes = {**self.ranges, **dict(total.limits)}
        groups: set[frozenset[Any]] = {frozenset(i for i in cast("Any", f).indices if i != 0) for f in factors}
        every = frozenset[Any]().union(*groups)
        if not every <= sizes.keys() or any(a < b for a in groups for b in groups) or len(groups) < 2:
            return None
        result, *counts = [
            evaluate(cast("Expr", sp.Mul(*[sizes[i] for i in g])), self.example)
            for g in (every - bound(total), *groups)
        ]
        whole = cast("Expr", total.func(scale * total.body, *total.args[1:]))
        return self.value(whole) if 2 * min(counts) < result else None
