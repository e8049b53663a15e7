"""Sums over Kronecker deltas: index equations are solved for the indices that are summed over."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import sympy as sp
from sympy import Expr

from codegen.lowering.ranges import Digit, digit_of, extreme, nonnegative, radix, shift_of, simplified
from engine.indexed import Indexed
from engine.notation import Index, Quo, Rem, fresh, ordered

if TYPE_CHECKING:
    from collections.abc import Mapping


class Solver:
    """Sums deltas out: solves equations `e = k` for indices that are summed over.

    `limits` are the summed indices that are left, `ranges` all others, `substitution` what the solved ones are.
    """

    def __init__(self, limits: Mapping[Index, Expr], ranges: Mapping[Index, Expr]) -> None:
        self.limits = dict(limits)
        self.ranges = dict(ranges)
        self.substitution: dict[Index, Expr] = {}

    @property
    def known(self) -> dict[Index, Expr]:
        """The ranges of all indices."""
        return {**self.ranges, **self.limits}

    def put(self, index: Index, value: Expr) -> None:
        """Replace a summed index by its value."""
        del self.limits[index]
        self.substitution = {i: v.xreplace({index: value}) for i, v in self.substitution.items()}
        self.substitution[index] = value

    def solve(self, equations: list[tuple[Expr, Expr, Expr]]) -> list[tuple[Expr, Expr]]:
        """Equations (e, k, size of k); what could not be summed out comes back as (e, k)."""
        left = [(e, k, n) for e, k, n in equations if not (e == 0 and n == 1)]
        changed = True
        while changed:
            changed = False
            left = [(simplified(e.xreplace(self.substitution), self.known), k, n) for e, k, n in left]
            for number, (e, k, n) in enumerate(left):
                if self._linear(e, k, n) or self._cyclic(e, k, n) or self._mixed(e, k, n):
                    del left[number]
                    changed = True
                    break
            else:
                used = self._digits(left)
                if used:
                    left = [x for m, x in enumerate(left) if m not in used]
                    changed = True
        return [(e, k) for e, k, _ in left]

    def _linear(self, e: Expr, k: Expr, n: Expr) -> bool:
        """e = +-j + c: j = +-(k - c), if that lies in j's range for every k."""
        for j in ordered(e.atoms(Index) & set(self.limits)):
            digits = any(q.atoms(Index) for q in e.atoms(Quo, Rem))
            slope = sp.diff(e, j) if not (digits or e.has(Indexed)) else None
            if slope not in (1, -1):
                continue
            offset = sp.expand(e - slope * j)
            if offset.atoms(Index) & set(self.limits):
                continue
            value = sp.expand(slope * (k - offset))
            ranges = {**self.known, k: n} if isinstance(k, Index) else self.known
            low, high = extreme(value, ranges, False), extreme(value, ranges, True)
            if low is None or high is None or not nonnegative(low) or not nonnegative(self.limits[j] - 1 - high):
                continue
            self.put(j, value)
            return True
        return False

    def _cyclic(self, e: Expr, k: Expr, n: Expr) -> bool:
        """e = (j + c) mod n with j in [0, n): a cyclic shift, undone by the opposite one, j = (k - c) mod n."""
        by = shift_of(e)
        if by is None or by[0] not in self.limits:
            return False
        j, c, modulus = by
        if any(sp.expand(m - modulus) != 0 for m in (self.limits[j], n)) or c.atoms(Index) & set(self.limits):
            return False
        self.put(j, cast("Expr", Rem(k - c, modulus)))
        return True

    def _mixed(self, e: Expr, k: Expr, n: Expr) -> bool:
        """e = a*B + b with b < B, a*B + b covering all of k: the digits of k."""
        found = radix(e, self.limits, n)
        if found is None:
            return False
        most_significant = found[-1][0]
        for j, stride in found:
            digit: Expr = Quo(k, stride)
            self.put(j, digit if j == most_significant else Rem(digit, self.limits[j]))
        return True

    def _digits(self, left: list[tuple[Expr, Expr, Expr]]) -> set[int]:
        """Equations for digits of one position give the position; its other digits stay summed.

        Quo(P, s) = a, Rem(Quo(P, t), n) = b, ... is P = a*s + b*t + ... Returns the numbers of the equations used.
        """
        found: dict[Expr, list[tuple[int, Digit, Expr]]] = {}
        for number, (e, k, _) in enumerate(left):
            digit = digit_of(e)
            if digit is not None:
                found.setdefault(digit.position, []).append((number, digit, k))
        for position, parts in found.items():
            mine = position.atoms(Index)
            if position.has(Indexed) or not mine or not mine <= set(self.limits):
                continue
            top = extreme(position, self.known, True)
            if top is None:
                continue
            total = sp.expand(top + 1)
            value = self._compose([(digit, k) for _, digit, k in parts], total)
            if value is None:
                continue
            composed, extra = value
            self.limits.update(extra)
            used = {number for number, _, _ in parts}
            if isinstance(position, Index):
                self.put(position, composed)
                return used
            marker = fresh()
            self.limits[marker] = total
            if self._mixed(position, marker, total):
                self.put(marker, composed)
                return used
            for i in (marker, *extra):
                del self.limits[i]
        return set()

    def _compose(self, parts: list[tuple[Digit, Expr]], total: Expr) -> tuple[Expr, dict[Index, Expr]] | None:
        """The position whose digits are given; digits that no equation fixes become new summed indices."""
        expected: Expr = sp.S.One
        value: Expr = sp.S.Zero
        extra: dict[Index, Expr] = {}
        rest = list(parts)
        while rest:
            here = next((p for p in rest if sp.expand(p[0].stride - expected) == 0), None)
            if here is None:
                ratios = [sp.cancel(digit.stride / expected) for digit, _ in rest]
                ratio = next((r for r in ratios if sp.fraction(r)[1] == 1), None)
                if ratio is None or not ratio.is_integer:
                    return None
                q = fresh()
                extra[q] = ratio
                value, expected = value + q * expected, sp.expand(expected * ratio)
                continue
            rest.remove(here)
            digit, k = here
            value = value + k * digit.stride
            size = digit.modulus if digit.modulus is not None else sp.cancel(total / digit.stride)
            expected = sp.expand(expected * size)
        if sp.expand(expected - total) != 0:
            ratio = sp.cancel(total / expected)
            if not ratio.is_integer or sp.fraction(ratio)[1] != 1:
                return None
            q = fresh()
            extra[q] = ratio
            value = value + q * expected
        return value, extra
