"""Sums of elements, in the order that a person would choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr

from codegen.lowering import tensors as tt
from codegen.lowering.functions import FunctionMixin
from codegen.lowering.kernels import log_share
from codegen.lowering.values import Val, to_axes
from engine.fromstart import from_start
from engine.indexed import Indexed
from engine.notation import (
    Delta,
    Equal,
    Index,
    Less,
)

if TYPE_CHECKING:
    from codegen.lowering.tensors import T


def put_into(values: list[tuple[bool, Val]]) -> list[tuple[bool, Val]]:
    """Terms with their signs, of which one that puts values into zeros puts them into another one of its shape instead."""
    put = next((v for minus, v in values if not minus and tt.puts_into_zeros(v.t) and None not in v.axes), None)
    if put is None:
        return values
    for k, (minus, v) in enumerate(values):
        if (
            v is not put
            and not minus
            and v.kind == put.kind == "float"
            and sorted(map(str, v.axes)) == sorted(map(str, put.axes))
        ):
            whole = Val(tt.method(to_axes(v, put.axes).t, "scatter_add", *put.t.args[1:]), put.axes)
            return [(m, whole if n == k else w) for n, (m, w) in enumerate(values) if w is not put]
    return values


class SumMixin(FunctionMixin):
    """Lowers sums of terms."""

    def sum_of(self, e: sp.Add) -> Val:
        """Terms added from left to right, positive ones first."""
        share = log_share(e)
        if share is not None:
            done = self.log_softmax(e, *share)
            if done is not None:
                return done
        terms = list(e.as_ordered_terms())
        numbers = [t for t in terms if not t.free_symbols]
        if 1 < len(numbers) < len(terms):  # as log(2) and log(pi)
            terms = [*(t for t in terms if t.free_symbols), sp.Add(*numbers)]
        if len(terms) == 2 and terms.count(sp.S.One) == 1:
            other = terms[0] if terms[1] == 1 else terms[1]
            if isinstance(-other, (Less, Equal, Delta, Indexed)):
                v = self.value(-other)
                if v.kind == "bool":
                    return self._inverted(v)
        half = {abs(t.as_coeff_Mul()[0]) for t in terms} == {sp.S.Half}
        if half and all(t.has(Indexed) for t in terms):  # exact, and one division for all of them
            return self.join("/", self.value(sp.Add(*[2 * t for t in terms])), self.constant(sp.Integer(2)))
        signed = [(bool(t.is_negative if t.is_number else t.could_extract_minus_sign()), t) for t in terms]
        signed.sort(key=lambda s: (s[0], -len(s[1].atoms(Indexed)) if not s[1].is_number else 1))
        values: list[tuple[bool, Val]] = []
        for minus, t in signed:
            v = self.value(-t if minus else t)
            negated, v = self.unsigned(self.floated(v) if minus else v)
            values.append((minus != negated, v))
        values = self.small_ones_first(values) if self.fills else values
        values.sort(key=lambda v: (v[0], v[1].kind == "bool"))  # torch adds truth values to floats, not to one another
        values = put_into(values)
        all_minus, total = values[0][0], self.floated(values[0][1])
        for minus, v in values[1:]:
            v = v if total.kind == "float" else self.floated(v)
            total = self.join("-" if minus and not all_minus else "+", total, v)
        return self.negative(total) if all_minus else total

    def small_ones_first(self, values: list[tuple[bool, Val]]) -> list[tuple[bool, Val]]:
        """Terms with their signs, of which those over the same indices, fewer than all, are one: the large ones meet them once."""
        whole = {i for _, v in values for i in v.indices}
        groups: dict[Any, list[tuple[bool, Val]]] = {}
        for n, (minus, v) in enumerate(values):
            small = v.kind == "float" and {*v.indices} < whole
            groups.setdefault(frozenset(v.indices) if small else n, []).append((minus, v))
        out: list[tuple[bool, Val]] = []
        for group in groups.values():
            (all_minus, total), *rest = sorted(group, key=lambda t: t[0])
            for minus, v in rest:
                total = self.join("-" if minus and not all_minus else "+", total, v)
            out.append((all_minus, total))
        return out

    def log_softmax(self, e: Expr, one: Expr, other: Expr, c: Expr, share: tuple[Any, ...]) -> Val | None:
        """A sum with `c (f - log(sum(exp f)))` in it, read along the axis or at one place per row; None where it is neither."""
        f, j, n, where = share
        self.ranges[j] = n
        outer = self.order
        self.order = self.natural_order(f, [j if i == where else i for i in outer if i == where or i in f.free_symbols])
        v = self.real(f)
        self.order = outer
        if j not in v.axes:
            return None
        t = tt.method(v.t, "log_softmax", v.axes.index(j))
        if isinstance(where, Index):
            whole = Val(t, tuple(where if a == j else a for a in v.axes))
        elif v.axes == (*where.indices, j):
            at = [tt.call("torch.arange", self.ranges[i]) for i in where.indices]
            whole = Val(self.read_at(t, at[0], where), tuple(where.indices)) if len(at) == 1 else None
        else:
            whole = None
        rest = e - one - other
        if whole is None:
            return None
        minus = bool(c.is_negative)
        whole = whole if abs(c) == 1 else self.join("*", self.value(abs(c)), whole)
        if rest == 0:
            return self.negative(whole) if minus else whole
        return self.join("-" if minus else "+", self.value(rest), whole)

    def read_at(self, t: T, rows: T, where: Indexed) -> T:
        """One element of every row of a matrix, where an integer tensor says."""
        places = self.value(where).t
        if not from_start(where, lambda n: self.tensors[n].from_start):
            return tt.item(t, rows, places)
        return tt.method(tt.method(t, "gather", 1, tt.method(places, "unsqueeze", 1)), "squeeze", 1)
