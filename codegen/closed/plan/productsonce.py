# pyright: basic
"""A product that several sums add up, along its rows and along its columns, is multiplied once: it is a statement of its own.

What passes back through `s_ij / (a_i b_j)` sums `s g` over i for b and over j for a.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from sympy import Mul

from codegen.closed.plan.backward import Statement
from codegen.closed.plan.prices import sums_of
from engine.indexed import Indexed
from engine.notation import Delta, Index, base, canonical, element, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sympy import Expr

RULE = "a product that several sums add up is multiplied once"
PRODUCT = "product_"
"""What the names of such statements begin with."""


def with_products_once(
    statements: list[Statement], ranges: Callable[[Expr, Statement], dict[Any, Expr]]
) -> list[Statement]:
    """The statements, and before the first that sums it every such product. `ranges` gives the sizes of indices in a statement."""
    found = [(s, x, product_in(x)) for s in statements for x in dict.fromkeys(sums_of(s.expr))]
    often = Counter(key_of(p) for _, _, p in found if p)
    names: dict[Any, str] = {}
    out: list[Statement] = []
    for s in statements:
        change: dict[Any, Any] = {}
        for x, product in ((x, p) for t, x, p in found if t is s and p and often[key_of(p)] > 1):
            key = key_of(product)
            own = indices_in(product)
            if key not in names:
                names[key] = f"{PRODUCT}{len(names)}"
                sizes, copy = ranges(s.expr, s) | dict(x.limits), {i: fresh() for i in own}
                e = cast("Expr", Mul(*product).xreplace(copy))
                shape = tuple(sizes[i] for i in own)
                out.append(Statement(names[key], tuple(copy.values()), shape, e, "", e, (RULE,)))
            change[x] = x.func(x.body / Mul(*product) * element(base(names[key]), list(own)), *x.limits)
        out.append(replace(s, expr=cast("Expr", s.expr.xreplace(change))) if change else s)
    return out


def product_in(x: Any) -> list[Any]:
    """The factors of what a sum adds up that are over all indices there, if they are several tensors; [] elsewhere."""
    factors = Mul.make_args(x.body)
    every = {i for f in factors for i in f.atoms(Index)}
    whole = [
        f
        for f in factors
        if isinstance(f, Indexed) and sorted(map(str, every)) == sorted(str(i) for i in f.indices if i != 0)
    ]
    return sorted(whole, key=name_of) if len(whole) > 1 and len(every) > 1 and not x.body.has(Delta) else []


def indices_in(product: list[Any]) -> tuple[Any, ...]:
    """The indices of a product, as the first of its factors has them."""
    return tuple(i for i in product[0].indices if i != 0)


def key_of(product: list[Any]) -> Any:
    """A product whatever its indices are called."""
    return canonical(Mul(*product), {i: Index(f"_p{k}") for k, i in enumerate(indices_in(product))})


__all__ = ["PRODUCT", "RULE", "with_products_once"]
