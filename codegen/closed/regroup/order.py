# pyright: basic
"""In which order a product of several tensors is multiplied and summed: two at a time, so that least is moved and computed.

`Sum_jc q[i,c] k[j,c] v[j,d]` is `q (kᵀ v)` where that costs less than `(q kᵀ) v`: found over all subsets of the factors.
With `[j <= i]` among them it is `tril(q kᵀ) v`, or the product of q and a running sum, whichever costs less.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.algebra.terms import indices_of
from codegen.closed.regions.cells import natural
from codegen.closed.regroup.products import is_bracket
from engine.indexed import Indexed
from engine.notation import Index, Sigma, canonical, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sympy import Expr

    from codegen.closed.regroup.products import Product

MOST = 8
"""Factors whose order is looked for: it takes steps as three to the power of their number."""
NEVER = float("inf")
"""What it costs to make a tensor of a bracket by itself, or of one and what has neither of its indices."""
FLOPS = 32.0
"""Additions and multiplications that take about as long as one element that is read or written."""


@dataclass(frozen=True)
class Group:
    """Some factors of a product as one tensor: a factor, summed over what no other has, or two groups, multiplied and summed."""

    indices: frozenset[Index]
    summed: frozenset[Index]
    factor: Expr | None = None
    parts: tuple[Group, Group] | None = None
    cost: float = 0.0


class Order:
    """The cheapest order of a product with these indices left, at the sizes of the example."""

    def __init__(self, product: Product, left: frozenset[Index], size: Callable[[Any], int]) -> None:
        self.product, self.left, self.size = product, left, size
        self.sizes: dict[Index, int] = {}
        self.own = [indices_of(f) for f in product.factors]
        self.names = [name_of(f) if isinstance(f, Indexed) else "" for f in product.factors]
        self.best: dict[frozenset[int], Group] = {}

    def cheapest(self, ranges: dict[Index, Any]) -> Group | None:
        """All factors in the cheapest order; None where there are too many."""
        count = len(self.own)
        if not 0 < count <= MOST:
            return None
        self.sizes = {i: self.size(ranges[i]) for own in self.own for i in own}
        for k in range(count):
            self.best[frozenset((k,))] = self.single(k)
        for length in range(2, count + 1):
            for chosen in combinations(range(count), length):
                self.best[frozenset(chosen)] = self.joined(chosen)
        return self.best[frozenset(range(count))]

    def outside(self, chosen: frozenset[int]) -> frozenset[Index]:
        """The indices that are needed of a group of factors: by the others, or in the end."""
        others = [self.own[k] for k in range(len(self.own)) if k not in chosen]
        return frozenset[Index]().union(self.left, *others)

    def single(self, k: int) -> Group:
        """One factor, summed over what it alone has."""
        kept = self.own[k] & self.outside(frozenset((k,)))
        summed = self.own[k] - kept
        cost = self.count(self.own[k]) + self.count(kept) if summed else 0.0
        if summed and is_bracket(self.product.factors[k]):
            cost = NEVER
        return Group(kept, summed, factor=self.product.factors[k], cost=cost)

    def joined(self, chosen: tuple[int, ...]) -> Group:
        """The cheapest way to make one of several."""
        whole, first = frozenset(chosen), chosen[0]
        outside, best = self.outside(whole), None
        rest = chosen[1:]
        for length in range(len(rest)):
            for others in combinations(rest, length):
                one = self.best[frozenset((first, *others))]
                two = self.best[whole - {first, *others}]
                every = one.indices | two.indices
                kept = every & outside
                moved = self.moved(one, two, kept)
                both = one.cost if self.equal((first, *others), rest, others) else one.cost + two.cost
                cost = both + moved + 2 * self.count(every) * bool(every - kept) / FLOPS
                if best is None or cost < best.cost:
                    best = Group(kept, every - kept, parts=(one, two), cost=cost)
        return cast("Group", best)

    def moved(self, one: Group, two: Group, kept: frozenset[Index]) -> float:
        """The elements that are read and written to make one of two groups, of which one may be a bracket."""
        brackets = [g for g in (one, two) if g.factor is not None and is_bracket(g.factor)]
        if not brackets:
            return self.count(one.indices) + self.count(two.indices) + self.count(kept)
        other = two if brackets[0] is one else one
        both = brackets[0].indices & other.indices
        if len(brackets) == 2 or not both or (len(both) == 1 and both & kept):
            return NEVER
        triangle = 2 * self.count(other.indices) if len(both) == 2 and kept != other.indices else 0.0
        return triangle + self.count(other.indices) + self.count(kept)

    def equal(self, one: tuple[int, ...], rest: tuple[int, ...], others: tuple[int, ...]) -> bool:
        """Whether the other factors are as the first ones, so that both are one tensor."""
        two = [k for k in rest if k not in others]
        if sorted(self.names[k] for k in one) != sorted(self.names[k] for k in two) or "" in self.names:
            return False
        return self.key(one) == self.key(two)

    def key(self, chosen: Sequence[int]) -> Expr:
        """A group, with its sum, up to the names of its indices."""
        own = [self.product.factors[k] for k in chosen]
        kept = frozenset[Index]().union(*[self.own[k] for k in chosen]) & self.outside(frozenset(chosen))
        summed = sorted(frozenset[Index]().union(*[self.own[k] for k in chosen]) - kept, key=str)
        body = sp.Mul(*own)
        whole = Sigma(body, *[sp.Tuple(i, self.sizes[i]) for i in summed]) if summed else body
        order = [i for i in natural(whole) if i in kept]
        return canonical(whole, {i: Index(f"_o{k}") for k, i in enumerate(order)})

    def count(self, indices: frozenset[Index]) -> float:
        """The number of elements over some indices."""
        out = 1.0
        for i in indices:
            out *= self.sizes[i]
        return out


__all__ = ["FLOPS", "MOST", "Group", "Order"]
