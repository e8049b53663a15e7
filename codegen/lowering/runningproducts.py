"""Running products in index notation, `Prod_j (f_j if j <= i else 1)`, and what they pass back to their factors."""

from __future__ import annotations

from typing import Any, cast

import sympy as sp

from codegen.lowering import tensors as tt
from codegen.lowering.values import LowererBase, Val, broadcast, to_axes
from engine.errors import DerivationError
from engine.indexed import Indexed
from engine.notation import Equal, Index, Less, LessEqual, Product, Sigma, Where


class RunningMixin(LowererBase):
    """Lowers running products and what they pass back."""

    def running_product(self, e: Product) -> Val:
        """`Prod_j f_j` over all j up to i as the cumprod that it is, and over all j before i as ones and the cumprod of the rest.

        Raises DerivationError for any other product.
        """
        ((j, n),) = e.limits
        found = running_factor(e)
        if found is None or sp.expand(self.ranges.get(found[1], 0) - n) != 0:
            raise DerivationError(f"no torch form for the product {e}")
        factor, i, whole = found
        with self.inside(factor, e.limits):
            v = self.typed(self.value(factor))
        d = v.axes.index(j)
        axes = tuple(i if a == j else a for a in v.axes)
        if whole:
            return Val(tt.method(v.t, "cumprod", d), axes)
        like = v.t if v.t.kind == "name" or self.like is None else tt.name(self.like)
        sizes = tuple(1 if a in (j, None) else self.ranges[a] for a in v.axes)
        ones = tt.method(like, "new_ones", sizes)
        rest = tt.method(tt.method(v.t, "narrow", d, 0, n - 1), "cumprod", d)
        return Val(tt.call("torch.cat", (ones, rest), d), axes)

    def of_running_product(self, e: Sigma) -> Val | None:
        """`Sum_i [k <= i] g_i Prod_j f_j` over all j up to i but k, which a running product passes back to f_k, by torch's kernel."""
        found = passed_to_factors(e)
        if found is None:
            return None
        g, factor, out, k = found
        values = [self.typed(self.value(x)) for x in (g, factor, out)]
        target = self.target(*values)
        ours = [to_axes(v, target) for v in values]
        axes = broadcast(broadcast(ours[0].axes, ours[1].axes), ours[2].axes)
        if any(v.axes != axes for v in ours):
            return None
        g_t, factor_t, out_t = (v.t for v in ours)
        return Val(tt.call("torch.ops.aten.cumprod_backward", g_t, factor_t, axes.index(k), out_t), axes)


def running_factor(e: Any) -> tuple[Any, Index, bool] | None:
    """(f_j, i, whether f_i is among them) of a product of all f_j up to i, or of all before it; None for any other."""
    if not isinstance(e, Product) or len(e.limits) != 1 or not isinstance(e.body, Where):
        return None
    ((j, _),) = e.limits
    condition, factor, one = e.body.args
    if (
        one != 1
        or not isinstance(condition, Less)
        or condition.args[0] != j
        or not isinstance(condition.args[1], Index)
    ):
        return None
    i = condition.args[1]
    return None if i in factor.free_symbols or i == j else (factor, i, isinstance(condition, LessEqual))


def passed_to_factors(e: Any) -> tuple[Any, Any, Any, Index] | None:
    """(g, f, out at k, k) of `Sum_i [k <= i] g_i Prod_j f_j` over all j up to i but k, with g and `out` at k; None for any other sum.

    The product is said as `out_i / f_k` where f_k is not zero.
    """
    if not isinstance(e, Sigma) or len(e.limits) != 1:
        return None
    ((i, _),) = e.limits
    factors = sp.Mul.make_args(e.body)
    choices = [f for f in factors if isinstance(f, Where) and isinstance(f.args[1], Product)]
    brackets = [f for f in factors if isinstance(f, LessEqual) and f.args[1] == i and isinstance(f.args[0], Index)]
    if len(choices) != 1 or len(brackets) != 1:
        return None
    condition, left, quotient = choices[0].args
    k = brackets[0].args[0]
    whole = left.body.args[2] if isinstance(left.body, Where) else None
    own = running_factor(left.func(whole, *left.args[1:])) if whole is not None else None
    if own is None or own[1:] != (i, True) or not isinstance(condition, Equal):
        return None
    factor = own[0].xreplace({left.limits[0][0]: k})
    out = sp.cancel(quotient * factor)
    rest = sp.Mul(*[f for f in factors if f not in (choices[0], brackets[0])])
    if condition.args != (factor, 0) or not isinstance(out, Indexed) or k in rest.free_symbols:
        return None
    return rest.xreplace({i: k}), factor, cast("Any", out).xreplace({i: k}), cast("Index", k)


__all__ = ["RunningMixin", "passed_to_factors", "running_factor"]
