"""A derivative written with the op's own output where that is cheaper: 1 - tanh(x)^2 is 1 - o^2."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr

from engine.indexed import Indexed
from engine.notation import Delta, Equal, Head, Largest, Product, Where, base, element, name_of
from engine.positive import positive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.table import Definition

OUT = "_out"
"""In a template, the output itself."""


def weight(e: Expr) -> tuple[int, int]:
    """What an elementwise expression costs: transcendental functions first, then operations."""
    parts = list(sp.preorder_traversal(e))
    functions = sum(1 for f in parts if isinstance(f, (sp.Function, sp.exp)) and not isinstance(f, Head))
    roots = sum(1 for p in parts if isinstance(p, sp.Pow) and not p.exp.is_Integer)
    return 10 * functions + 4 * roots + sp.count_ops(e), len(e.atoms(Indexed))


def denominators(e: Expr) -> dict[Expr, Expr]:
    """The bases that an expression divides by, with the largest power of each."""
    out: dict[Expr, Expr] = {}
    for p in e.atoms(sp.Pow):
        b, x = p.args
        if x.could_extract_minus_sign() and not b.is_number and not isinstance(b, sp.exp):
            out[b] = max(out.get(b, sp.S.Zero), -x, key=lambda v: float(v) if v.is_number else 1.0)
    return out


def safe(new: Expr, old: Expr, out: Expr, definition: Expr) -> bool:
    """Whether `new` divides by nothing that `old` (or the definition itself) did not already divide by."""
    before = denominators(old)
    after = denominators(new)
    if out in after and not definition.is_positive:
        power = after.pop(out)
        for factor in sp.Mul.make_args(definition):
            b, x = factor.as_base_exp()
            if x.is_positive and not b.is_number:
                after[b] = after.get(b, sp.S.Zero) + power * x
    after.pop(out, None)
    return all(b in before and (before[b] - x).is_nonnegative for b, x in after.items())


def with_output(derivative: Expr, template: Definition, there: Mapping[Expr, Expr] | None) -> Expr:
    """A derivative by the op's output, at the output's own place and, where `there` is given, at the place it says, too.

    Of an output that is 0 under a condition and `d` elsewhere, a derivative that is 0 there, too, is taken by `d` if it has the
    output as a factor then, and needs no condition of its own any more. That must be the same at both places. What is compared with
    the largest of all is compared with the output.
    """
    definition = template.expr
    if isinstance(definition, Largest):
        return derivative.xreplace({definition: element(base(OUT), template.indices)})
    if isinstance(definition, Product):
        return by_product(derivative, definition, template)
    if isinstance(definition, Where) and definition.args[1] == 0:
        condition, zero, elsewhere = definition.args
        factors = sp.Mul.make_args(derivative)
        guard = next((f for f in factors if isinstance(f, Where) and f.args[:2] == (condition, zero)), None)
        if guard is not None and (there is None or condition.xreplace(dict(there)) == condition):
            inside = sp.Mul(*[f for f in factors if f is not guard], guard.args[2])
            found = _at_places(inside, replace(template, expr=elsewhere), there, bool(positive(definition)))
            if any(isinstance(f, Indexed) and name_of(f) == OUT for f in sp.Mul.make_args(found)):
                return found
    return _at_places(derivative, template, there, bool(positive(definition)))


def by_product(derivative: Expr, definition: Product, template: Definition) -> Expr:
    """A product without one of its factors is the product over that factor, where the factor is not zero."""
    others = [f for f in sp.Mul.make_args(derivative) if isinstance(f, Product)]
    if len(others) != 1 or not isinstance(others[0].body, Where):
        return derivative
    left, (place, one, body) = others[0], others[0].body.args
    own = {i: j for (i, _), (j, _) in zip(definition.limits, left.limits, strict=True)}
    whole: Any = definition.body
    if one != 1 or whole.xreplace(own) != body or not isinstance(place, Delta) or len(own) != 1:
        return derivative
    (j,) = own.values()
    (k,) = {*place.args} - {j}
    factor = whole.args[1] if isinstance(whole, Where) and whole.args[2] == 1 else whole
    factor = factor.xreplace({i: k for i, _ in definition.limits})
    out = element(base(OUT), template.indices)
    return derivative / left * Where(Equal(factor, 0), left, out / factor)


def _at_places(e: Expr, template: Definition, there: Mapping[Expr, Expr] | None, sign: bool) -> Expr:
    """A derivative by the output at its own place, and then at another."""
    found = by_output(e, template, sign)
    if there is None:
        return found
    moved = template.expr.xreplace(dict(there))
    return by_output(found, replace(template, indices=tuple(there.values()), expr=moved), sign)


def by_output(derivative: Expr, template: Definition, sign: bool | None = None) -> Expr:
    """The cheapest of the derivative and its rewrites by `out = definition`: as a part, a factor, or by elimination.

    A rewrite is taken only where it divides by nothing that was not divided by before, so it holds at every point. `sign`
    says whether the output is positive; by default it is as the definition says.
    """
    definition = template.expr
    sign = positive(definition) if sign is None else sign
    if definition.is_Atom or isinstance(definition, Indexed) or definition.has(sp.S.Infinity, sp.S.NegativeInfinity):
        return derivative
    if is_polynomial(definition) and is_polynomial(
        derivative
    ):  # of a lower degree, so that no quotient of them is safe
        return derivative
    out = element(base(OUT, positive=sign), template.indices)
    candidates = [derivative, derivative.subs(definition, out)]
    if not derivative.has(Head) and not definition.has(Head):
        candidates.append(out * sp.powsimp(sp.cancel(derivative / definition)))
    candidates.extend(_eliminated(derivative, definition, out))
    good = [c for c in candidates if safe(c, derivative, out, definition)]
    return min(good, key=lambda c: (weight(c), candidates.index(c)), default=derivative)


def is_polynomial(e: Expr) -> bool:
    """Whether an expression is made of elements, sizes and numbers by sums, products and whole powers alone."""
    if e.is_Atom or isinstance(e, Indexed):
        return True
    if isinstance(e, sp.Pow):
        return bool(e.exp.is_Integer and e.exp.is_positive) and is_polynomial(e.base)
    return isinstance(e, (sp.Add, sp.Mul)) and all(map(is_polynomial, e.args))


def _eliminated(derivative: Expr, definition: Expr, out: Expr) -> list[Expr]:
    """The derivative as a polynomial in the output alone, where the definition can be solved for its only function."""
    if definition.has(Head) or derivative.has(Head):
        return []
    functions = [f for f in definition.atoms(sp.Function) | definition.atoms(sp.exp) if f.has(Indexed)]
    if len(functions) != 1:
        return []
    kernel, slot = functions[0], sp.Dummy("t", positive=functions[0].is_positive)
    flat = definition.subs(kernel, slot)
    if flat.has(Indexed) or not flat.is_rational_function(slot):
        return []
    solutions = sp.solve(sp.Eq(flat, out), slot)
    if len(solutions) != 1:
        return []
    value = derivative.subs(kernel, slot)
    if isinstance(kernel, sp.exp):
        value = value.subs(sp.exp(-kernel.args[0]), 1 / slot)
    value = sp.factor(sp.cancel(value.subs(slot, solutions[0])))
    return [value] if value.is_polynomial(out) else []
