"""Vector products: a sum over two of the indices of a permutation's sign is one call of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import sympy as sp

from codegen.lowering import tensors as tt
from codegen.lowering.values import Axes, LowererBase, Val, to_axes
from engine.notation import Index, Parity, Sigma, accesses

if TYPE_CHECKING:
    from sympy import Expr


def vector_factors(e: Sigma) -> tuple[Index, Index, Index, Expr, Expr, Expr] | None:
    """`Sum_jk ε[i,j,k] x_j y_k f` as i, j, k, x, y and the factors f, which depend on neither j nor k; None for others.

    An even permutation of three indices has the same sign, so that the index that is left is put first.
    """
    factors = sp.Mul.make_args(e.body)
    signs = [f for f in factors if isinstance(f, Parity)]
    if len(signs) != 1 or not all(isinstance(a, Index) for a in signs[0].args):
        return None
    summed = {i for i, _ in e.limits}
    turns = cast("tuple[Index, ...]", signs[0].args)
    left = [n for n, a in enumerate(turns) if a not in summed]
    if len(left) != 1:
        return None
    i, j, k = (*turns[left[0] :], *turns[: left[0]])
    parts: dict[frozenset[Index], Expr] = {}
    for f in factors:
        if f is not signs[0]:
            own = frozenset(x for x in (j, k) if f.has(x))
            parts[own] = parts.get(own, sp.S.One) * f
    x, y = (parts.get(frozenset((a,)), sp.S.One) for a in (j, k))
    both = frozenset((j, k)) in parts or not accesses(x) or not accesses(y) or x.has(i) or y.has(i)
    return None if both else (i, j, k, x, y, parts.get(frozenset(), sp.S.One))


class VectorMixin(LowererBase):
    """Lowers sums over the sign of a permutation."""

    def vector_product(self, e: Sigma) -> Val | None:
        """A vector product, times what does not depend on its summed indices, summed over what else there is."""
        found = vector_factors(e)
        if found is None:
            return None
        i, j, k, x, y, rest = found
        with self.inside(e.body, e.limits):
            one, other = self.typed(self.value(x)), self.typed(self.value(y))
            shared = [a for a in self.sorted_indices(one, other) if a not in (j, k)]
            whole, own = max(((one, j), (other, k)), key=lambda v: len(v[0].indices))
            inner = [a for a in whole.indices if a == own or a in shared]
            axes = [*(a for a in shared if a not in inner), *inner]
            place = axes.index(own)
            operands: list[tt.T] = []
            for v, a in ((one, j), (other, k)):
                at = [a if d == place else b for d, b in enumerate(axes)]
                v = to_axes(v, at)
                operands.append(
                    v.t if len(v.axes) == len(at) else tt.item(v.t, *["None"] * (len(at) - len(v.axes)), "...")
                )
            keywords = {} if place == len(axes) - 1 else {"dim": place}
            out: Axes = tuple(i if d == place else a for d, a in enumerate(axes))
            product = Val(tt.call("torch.linalg.cross", *operands, **keywords), out)
            others = [a for a, _ in e.limits if a not in (j, k)]
            factored = product if rest == 1 else self.join("*", product, self.value(rest))
            return self.reduce(factored, others) if others else factored

    def reduce(self, v: Val, summed: list[Index], how: str = "sum") -> Val:
        """A reduction over dimensions."""
        raise NotImplementedError(type(self).__name__)

    def sign_of_permutation(self, e: Parity) -> Val:
        """The sign as a tensor over its indices."""
        return self.value(Parity.polynomial(*e.args))
