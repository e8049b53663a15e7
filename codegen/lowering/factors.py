"""Factors that are tensors already: which meet first, what they are divided by, and what masks choose."""

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy import Expr

from codegen.formula import LONG
from codegen.lowering import tensors as tt
from codegen.lowering.values import INFINITY, LowererBase, Val, broadcast, fits, scalar, to_axes

Fraction = tuple[list[Val], list[Val]]
"""What is multiplied, and what that is divided by."""


def long_number(c: Any) -> bool:
    """Whether a positive number is written as a decimal: it is irrational, or a fraction of large integers."""
    return not c.is_Rational or (max(c.p, c.q) > LONG and len(repr(float(c))) > 5)


class FactorMixin(LowererBase):
    """Multiplies and divides tensors."""

    def constant(self, e: Expr) -> Val:
        """A number."""
        if e.is_Integer:  # torch takes no whole number beyond its integers, but a float as large
            return scalar(int(e) if abs(int(e)) < 2**63 else float(int(e)))
        if e in (sp.S.Infinity, sp.S.NegativeInfinity):
            return Val(INFINITY if e is sp.S.Infinity else tt.unary("neg", INFINITY), (), "number")
        if e is sp.S.NaN:
            return Val(tt.call("float", '"nan"'), (), "number")
        value = float(sp.N(e, 30))
        if e.is_Rational and len(repr(value)) > 8:
            p, q = e.p, e.q
            if len(f"{p}{q}") <= 6:
                return Val(tt.binary("/", tt.number(p), tt.number(q)), (), "number")
        return scalar(value)

    def floated(self, v: Val) -> Val:
        """A truth value as a number, so that it can be added."""
        return self.typed(v) if v.kind == "bool" else v

    def _scale(self, c: Any) -> tuple[list[Expr], list[Expr]]:
        """What a positive number multiplies with and divides by: a fraction of small integers, else one decimal."""
        if long_number(c):
            up, down = float(sp.N(c, 30)), float(sp.N(1 / c, 30))
            if len(repr(up)) <= len(repr(down)) + 2:
                return [sp.Float(up, 17)], []
            return [], [sp.Integer(int(down)) if down == int(down) else sp.Float(down, 17)]
        if c.p != 1 and not self._short(c) and self._short(1 / c):
            return [], [1 / c]
        up_part: list[Expr] = [] if c.p == 1 else [c] if self._short(c) else [sp.Integer(c.p)]
        return up_part, [] if c.q == 1 or (up_part and up_part[0] == c) else [sp.Integer(c.q)]

    def _short(self, c: Any) -> bool:
        return c.is_Integer or len(repr(float(c))) <= 5

    def _times(self, values: list[Val]) -> Val:
        total = values[0]
        for v in values[1:]:
            both = total.kind == v.kind == "bool"
            total = self.join("&", total, v, "bool") if both else self.join("*", total, v)
        return total

    def _ratio(self, over: list[Val], under: list[Val]) -> Val:
        top = self._times(over) if over else scalar(1)
        if not under:
            return top
        numbers = top.is_number and all(u.is_number for u in under)
        return self.join("/", top, self._times(under), None if numbers else "float")

    def _grouped(self, top: list[Val], bottom: list[Val], up: list[Expr], down: list[Expr]) -> Val:
        """The product; brackets choose between it and zero, so that nothing masked out can be infinite or nan."""
        brackets = [v for v in top if v.kind == "bool"]
        rest = [v for v in top if v.kind != "bool"]
        if brackets and not (rest or bottom or up or down):
            return self._times(brackets)
        if not any(v.indices for v in brackets) or not (rest or bottom):
            return self._multiplied(top, bottom, up, down)
        condition, value = self._times(brackets), self._multiplied(rest, bottom, up, down)
        if value.is_number:
            return self.join("*", condition, value)
        target = self.target(condition, value)
        condition, value = to_axes(condition, target), to_axes(value, target)
        axes = condition.axes if value.is_number else broadcast(condition.axes, value.axes)
        return Val(
            tt.call("torch.where", condition.t, value.t, tt.number(0)),
            axes,
            "float" if value.kind == "number" else value.kind,
        )

    def _multiplied(self, top: list[Val], bottom: list[Val], up: list[Expr], down: list[Expr]) -> Val:
        groups: dict[frozenset[Any], tuple[list[Val], list[Val]]] = {}
        for v in top:
            groups.setdefault(frozenset(v.indices), ([], []))[0].append(v)
        for v in bottom:
            groups.setdefault(frozenset(v.indices), ([], []))[1].append(v)
        single = self.fills and (frozenset() in groups or bool(up) or bool(down))  # it goes into the smallest tensor
        ordered = sorted(groups.items(), key=lambda g: (len(g[0]), self.elements(g[0]) if single else 0))
        scalars = [self.value(x) for x in up], [self.value(x) for x in down]
        if not ordered:
            return self._ratio(*scalars)
        if self.fills and all(scalars) and len(ordered) == 1 and ordered[0][0]:  # one pass over a tensor
            scalars = [self._ratio(*scalars)], list[Val]()
        ordered[0] = (ordered[0][0], ([*scalars[0], *ordered[0][1][0]], [*scalars[1], *ordered[0][1][1]]))
        built: list[tuple[Val | None, Val | None]] = []
        for over, under in self._small_ones_first(ordered):
            if over or len(ordered) == 1:
                built.append((self._ratio(over, under), None))
            else:
                built.append((None, self._times(under)))
        result, divisor = built[-1]
        for other, under in reversed(built[:-1]):
            if other is not None:
                if result is not None and result.kind == other.kind == "bool":
                    result = self.floated(result)
                several = other.t.kind == "binary" and other.t.head == "*"
                first = self.fills and result is not None and several and leads(other, result)
                pair = (other, result) if first else (result, other)  # `a * (2 * g)` is written without parentheses
                result = other if result is None else self.join("*", *pair)  # pyright: ignore[reportArgumentType]
            if under is not None:
                divisor = under if divisor is None else self.join("*", divisor, under)
        if result is None:
            result = scalar(1)
        return result if divisor is None else self.join("/", result, divisor)

    def _small_ones_first(self, groups: list[tuple[frozenset[Any], Fraction]]) -> list[Fraction]:
        """Factors and divisors by their indices, those over few with those over more, as long as these are not over all."""
        every = frozenset[Any]().union(*[indices for indices, _ in groups])
        left = list(groups)
        out: list[Fraction] = []
        while left:
            mine, (over, under) = left.pop(0)
            wider = next((k for k, (theirs, _) in enumerate(left) if mine < theirs < every), None)
            if wider is None:
                out.append((over, under))
                continue
            theirs, (above, below) = left[wider]
            both = ([self._ratio(over, under), *above], below) if over else (above, [self._times(under), *below])
            left[wider] = (theirs, both)
        return out

    def root(self, v: Val, x: Expr) -> Val:
        """A tensor to the power of a fraction; those of two have names."""
        if x in (sp.S.Half, -sp.S.Half):
            return Val(tt.method(v.t, "sqrt" if x == sp.S.Half else "rsqrt"), v.axes, "float", v.kept)
        if x.is_negative:
            return self.join("/", scalar(1), self.root(v, -x), "float")
        return self.join("**", v, self.value(x))

    def _inverted(self, v: Val) -> Val:
        if v.t.kind == "binary" and v.t.head in ("==", "!="):
            return Val(tt.binary("!=" if v.t.head == "==" else "==", *v.t.args), v.axes, "bool")
        plain = v.t.kind == "unary" and v.t.head == "~"
        return Val(v.t.args[0] if plain else tt.unary("~", v.t), v.axes, "bool")

    def masked(self, v: Val, masks: list[Val]) -> Val:
        """A tensor where all masks hold, 0 elsewhere, whatever the tensor is there."""
        mask = self._times(masks)
        target = self.target(mask, v)
        mask, v = to_axes(mask, target), to_axes(v, target)
        inverted = mask.t.head in ("~", "!=")
        holds = self._inverted(mask).t if inverted else mask.t
        chosen = (holds, tt.number(0), v.t) if inverted else (holds, v.t, tt.number(0))
        return Val(tt.call("torch.where", *chosen), broadcast(mask.axes, v.axes), v.kind)


def leads(product: Val, other: Val) -> bool:
    """Whether a product is written before another factor: as it lies beside that, or with an index of its own.

    Behind the other one its factors would be multiplied one by one, from left to right.
    """
    return fits(product.kept or product.axes, other.axes) or not {*product.indices} <= {*other.indices}
