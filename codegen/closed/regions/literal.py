"""Which nodes of a graph keep the forward's own arithmetic: where it is rounded or compared, the last bit decides.

`x / 0.1` and `10 * x` are one number, and not always one float: `floor` gives 2 of 0.3 / 0.1 and 3 of 0.3 * 10.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from torch.utils import _pytree as pytree

from engine.indexed import Indexed
from engine.notation import BINDERS, BRACKETS, Floor, Head, Less, Sign, Where, accesses, name_of

if TYPE_CHECKING:
    from sympy import Expr

    from engine.graph import Graph, Node

ROUNDING = frozenset(("round", "floor_divide", "heaviside", "bucketize", "searchsorted"))
CASTS = frozenset(("long", "int", "short", "char", "byte", "to", "type", "type_as"))

SEAM = 1e-8
"""What two functions are apart at most where one takes over from the other unseen."""


def literal_nodes(graph: Graph) -> frozenset[str]:
    """Nodes that are rounded to whole numbers, and the arithmetic that leads to their operands.

    That is followed back to tensors that are more than sums, products and quotients, entry by entry, of others; what
    reads no input is followed to its factories. It is the same for what is compared, where the arithmetic has a factor
    that no float is equal to, and for results that read no input, whose precision is the forward's.
    """
    fixed: set[str] = set()
    for n in graph.nodes:
        if not n.is_input and all(o in fixed for o in n.operands):
            fixed.add(n.name)
    found: set[str] = set()
    for n in graph.nodes:
        if rounds(n):
            found |= {n.name, *chain(graph, n.operands, fixed)}
        elif n.template is not None:
            before = set[str]() if told_apart(graph, n) else chain(graph, compared(n), fixed)
            if any(has_inexact_factor(graph[m]) for m in before):
                exact = {m for m in before if is_exact(graph[m]) and m not in fixed}
                found |= before - exact | ({n.name} if not n.dtype.is_floating_point and not exact else set())
    for o in fixed.intersection(graph.outputs):
        found |= {o, *chain(graph, graph[o].operands, fixed)}
    return frozenset(n for n in found if graph[n].call is not None and graph[n].output is None)


def exact_nodes(graph: Graph, literal: frozenset[str]) -> frozenset[str]:
    """Those of the literal nodes whose definition, as it stands, is one operation of torch: the algebra may know it.

    They are products and quotients of tensors, and bounds of one: no number in them is rounded, and nothing is added, which
    might be put together with a product. Their statements stay what the definition says.
    """
    known = (graph[n] for n in literal)
    return frozenset(
        n.name
        for n in known
        if n.differentiable
        and n.template is not None
        and is_one_operation(n.template.expr)
        and not has_inexact_factor(n)
    )


@lru_cache(maxsize=2**12)
def is_one_operation(e: Expr) -> bool:
    """Whether a definition is a product or a quotient of two entries, or an entry within bounds that are whole numbers."""
    if isinstance(e, Where):
        bounds: set[Any] = e.atoms(sp.Number)
        return len(accesses(e)) == 1 and not e.has(sp.Add, sp.Mul) and all(b.is_Integer for b in bounds)
    factors = [f.as_base_exp() for f in sp.Mul.make_args(e)]
    return len(factors) == 2 and all(isinstance(b, Indexed) and p in (1, -1) for b, p in factors)


def chain(graph: Graph, operands: tuple[str, ...], fixed: set[str]) -> set[str]:
    """The arithmetic that leads to these tensors, themselves included."""
    found: set[str] = set()
    stack = list(operands)
    while stack:
        n = graph[stack.pop()]
        if n.name not in found and n.dtype.is_floating_point and (n.name in fixed or is_arithmetic(n)):
            found.add(n.name)
            stack.extend(n.operands)
    return found


def rounds(n: Node) -> bool:
    """Whether a node's values are whole numbers below, or next to, its operands'."""
    if n.template is not None:
        return has_floor(n.template.expr)
    return n.op in ROUNDING or (n.op in CASTS and not n.dtype.is_floating_point)


def compared(n: Node) -> tuple[str, ...]:
    """The operands of which a node compares entries."""
    assert n.template is not None
    return tuple(n.operands[k] for k in places_compared(n.template.expr))


def told_apart(graph: Graph, n: Node) -> bool:
    """Whether what a node compares is two multiples of one tensor, by numbers of different sign: rounding changes nothing there."""
    operands = compared(n)
    if len(operands) != 2 or len(n.operands) != 2:
        return False
    (one, a), (other, b) = (multiple(graph, o) for o in operands)
    return one == other and bool(a * b < 0)


def multiple(graph: Graph, name: str) -> tuple[str, Expr]:
    """The tensor that another one is a multiple of, entry by entry, and the number; itself where there is none."""
    number: Any = sp.S.One
    while (template := graph[name].template) is not None and len(graph[name].operands) == 1:
        factor, access = cast("Any", template.expr).as_coeff_Mul()
        if not isinstance(access, Indexed) or tuple(access.indices) != tuple(template.indices) or factor == 0:
            break
        number, name = number * factor, graph[name].operands[0]
    return name, number


def is_arithmetic(n: Node) -> bool:
    """Whether a node adds, multiplies, divides, chooses between or moves entries of its operands."""
    return n.template is not None and is_rational(n.template.expr)


@lru_cache(maxsize=2**12)
def has_floor(e: Expr) -> bool:
    """Whether a definition rounds to whole numbers."""
    return e.has(Floor)


@lru_cache(maxsize=2**12)
def places_compared(e: Expr) -> tuple[int, ...]:
    """Which operands of a definition are compared, or asked for their sign, where a last bit decides anything."""
    if is_seamless(e):
        return ()
    inside = (a for part in e.atoms(*BRACKETS, Sign) for a in accesses(part))
    return tuple(sorted({int(name_of(a)[1:]) for a in inside}))


def is_seamless(e: Expr) -> bool:
    """Whether all choices in a definition are by one entry, between what has one value and slope where the choice changes.

    So it is for softplus, which is the identity from 20 on.
    """
    choices: list[Any] = [*e.atoms(Where)]
    read = accesses(e)
    brackets = {b for b in e.atoms(*BRACKETS) if b.has(Indexed)}
    if not choices or e.has(Sign) or len(read) != 1 or brackets != {w.args[0] for w in choices}:
        return False
    x = sp.Dummy("x", real=True)
    there = [w.xreplace({read[0]: x}).args for w in choices]
    return all(meets(condition, one, other, x) for condition, one, other in there)


def meets(condition: Any, one: Any, other: Any, x: Any) -> bool:
    """Whether two functions of x have one value and slope where a condition on x changes."""
    change = sp.Poly(condition.args[0] - condition.args[1], x) if isinstance(condition, Less) else None
    if change is None or change.degree() != 1 or sp.sympify(one - other).has(Head):
        return False
    place = -change.nth(0) / change.nth(1)
    apart = (sp.N(sp.sympify(f).subs(x, place)) for f in (one - other, sp.diff(one - other, x)))
    return bool(place.is_number) and all(bool(abs(a) < SEAM) for a in apart)


@lru_cache(maxsize=2**12)
def is_rational(e: Expr) -> bool:
    """Whether a definition has nothing but sums, products, quotients and choices of entries."""
    functions = (f for f in e.atoms(sp.Function) if not isinstance(f, Head))
    return not e.has(*BINDERS) and not any(functions) and all(p.exp.is_Integer for p in e.atoms(sp.Pow))


def has_inexact_factor(n: Node) -> bool:
    """Whether a node multiplies or divides by a number that is taken for a decimal which no float is equal to."""
    if n.call is None or n.template is None or not scales(n.template.expr):
        return False
    return any(isinstance(v, float) and is_inexact(v) for v in pytree.tree_leaves(n.call.args))


def is_exact(n: Node) -> bool:
    """Whether a node's entries are those of one tensor up to their sign, so that nothing is rounded."""
    return n.template is not None and len(n.operands) == 1 and turns(n.template.expr)


@lru_cache(maxsize=2**12)
def turns(e: Expr) -> bool:
    """Whether a definition is an entry times one, minus one or its own sign."""
    factors = [f for f in sp.Mul.make_args(e) if not isinstance(f, Sign)]
    rest = sp.Mul(*factors)
    return isinstance(rest, Indexed) or isinstance(-rest, Indexed)


@lru_cache(maxsize=2**12)
def scales(e: Expr) -> bool:
    """Whether a definition multiplies entries by numbers, and does not just add or choose them."""
    products: Any = e.atoms(sp.Mul)
    return not e.is_Add and any(abs(m.as_coeff_Mul()[0]) != 1 for m in products)


def is_inexact(value: float) -> bool:
    """Whether the decimal that a float is written as is another number than the float."""
    exact: Any = sp.Rational(repr(value)) if value == value and abs(value) != float("inf") else 0
    return bool(exact.q & (exact.q - 1)) if exact else False


__all__ = ["exact_nodes", "literal_nodes"]
