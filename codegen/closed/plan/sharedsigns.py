# pyright: basic
"""A sign that several terms or statements multiply by, of what no tensor holds, as a statement of its own.

The larger of two passes back `(1 + s) g / 2` to one and `(1 - s) g / 2` to the other, with s the sign of their difference.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.algebra.sums import rebuilt
from codegen.closed.plan.backward import Statement
from engine.indexed import Indexed
from engine.notation import BINDERS, Index, Sign, base, canonical, element, fresh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sympy import Expr

SIGN = "sign_"
"""What the names of such statements begin with."""
RULE = "a sign that is read several times is taken once"


def with_signs_once(
    statements: list[Statement], ranges: Callable[[Expr, Statement], dict[Any, Expr]]
) -> list[Statement]:
    """The statements, and before the first that reads it every such sign. `ranges` gives the sizes of indices in one."""
    counts = Counter(key_of(f, s) for s in statements for f in signs_in(s.expr))
    made: dict[Any, str] = {}
    out: list[Statement] = []
    for s in statements:
        change: dict[Any, Expr] = {}
        for f in dict.fromkeys(signs_in(s.expr)):
            key = key_of(f, s)
            if counts[key] < 2:
                continue
            own = [i for i in s.indices if i != 0 and f.has(i)]
            if key not in made:
                made[key] = f"{SIGN}{len(made)}"
                sizes, copy = ranges(f, s), {i: fresh() for i in own}
                e = cast("Expr", f.xreplace(copy))
                shape = tuple(sizes[i] for i in own)
                out.append(Statement(made[key], tuple(copy.values()), shape, e, "", e, (RULE,)))
            change[f] = element(base(made[key]), own)
        out.append(replace(s, expr=put(s.expr, change)) if change else s)
    return out


def key_of(f: Expr, s: Statement) -> Any:
    """A sign in a statement whatever the indices of that are called."""
    own = [i for i in s.indices if i != 0 and f.has(i)]
    return canonical(f, {i: Index(f"_a{k}") for k, i in enumerate(own)})


def signs_in(e: Any) -> Iterator[Any]:
    """The signs in an expression of what is computed, as often as they stand there: not in sums, and not in the size of a number."""
    if isinstance(e, Sign):
        if not isinstance(e.args[0], Indexed):
            yield e
    elif not isinstance(e, (Indexed, *BINDERS)):
        for a in e.args:
            if not is_size(a, e):
                yield from signs_in(a)


def is_size(f: Any, e: Any) -> bool:
    """Whether a factor is the sign of another one."""
    return isinstance(f, Sign) and isinstance(e, sp.Mul) and f.args[0] in e.args


def put(e: Any, change: dict[Any, Expr]) -> Any:
    """An expression with these signs by name, where `signs_in` finds them."""
    if e in change:
        return change[e]
    if isinstance(e, (Indexed, *BINDERS)) or not e.has(Sign):
        return e
    return rebuilt(e, lambda a: a if is_size(a, e) else put(a, change))


__all__ = ["RULE", "SIGN", "with_signs_once"]
