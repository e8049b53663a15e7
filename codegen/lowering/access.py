"""Accesses as views and gathers: `x[i, j*B + k]` is a reshape, `x[j + 1]` a slice, `C[x[i, t], e]` an indexing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.lowering import tensors as tt
from codegen.lowering.ranges import digit_of, extreme, nonnegative, radix, shift_of
from codegen.lowering.values import LowererBase, Val, permute, to_axes
from engine.fromstart import from_start
from engine.indexed import Indexed
from engine.notation import Index, Quo, Rem, free_indices, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codegen.lowering.ranges import Digit
    from codegen.lowering.tensors import T


@dataclass
class Dim:
    """One dimension on the way: where it is read, and how large it is."""

    at: Expr
    size: Expr


class AccessMixin(LowererBase):
    """Lowers `Indexed`."""

    def access(self, e: Indexed) -> Val:
        """A named tensor read at index expressions, as a tensor over the indices of those."""
        name = name_of(e)
        info = self.tensors[name]
        t = tt.name(name)
        dims = [Dim(sp.sympify(at), n) for at, n in zip(e.indices, info.shape, strict=False)]
        if self._plain(dims):
            return Val(t, tuple(None if d.size == 1 else cast("Index", d.at) for d in dims), info.kind)
        t, dims = self._merged(*self._neighbours(t, dims))
        t, dims = self._split(t, dims)
        t, dims = self._basic_items(t, dims)
        t, dims = self._rolled(t, dims)
        if self.guarded:
            t, dims = self._padded(t, dims)
        if not all(self._whole(d) for d in dims):
            return self._gathered(t, dims, info.kind)
        return self._diagonals(t, [cast("Index", d.at) for d in dims], info.kind)

    def _plain(self, dims: list[Dim]) -> bool:
        seen: set[Expr] = set()
        for d in dims:
            if d.size == 1 and d.at == 0:
                continue
            if not isinstance(d.at, Index) or d.at in seen or sp.expand(self.ranges.get(d.at, d.size) - d.size) != 0:
                return False
            seen.add(d.at)
        return True

    def _whole(self, d: Dim) -> bool:
        """Whether an index runs over exactly the dimension it reads, so that the dimension is an axis as it is."""
        return isinstance(d.at, Index) and sp.expand(self.ranges.get(d.at, d.size) - d.size) == 0

    def _reshaped(self, t: T, old: list[Dim], new: list[Dim]) -> T:
        """`reshape`, or `flatten` where neighbours are joined and nothing else happens."""
        before, after = [d.size for d in old], [d.size for d in new]
        run = len(before) - len(after) + 1
        for k in range(len(after) if run > 1 else 0):
            joined = sp.expand(sp.Mul(*before[k : k + run]) - after[k]) == 0
            if joined and before[:k] == after[:k] and before[k + run :] == after[k + 1 :]:
                return tt.method(t, "flatten", *(() if run == len(before) else (k, k + run - 1)))
        return tt.method(t, "reshape", *after)

    def _neighbours(self, t: T, dims: list[Dim]) -> tuple[T, list[Dim]]:
        """Dimensions in an order in which the digits of one position stand side by side, most significant first."""
        positions: dict[Expr, list[int]] = {}
        for k, d in enumerate(dims):
            digit = digit_of(d.at)
            if digit is not None:
                positions.setdefault(digit.position, []).append(k)
        order = list(range(len(dims)))
        for group in positions.values():
            if len(group) < 2:
                continue
            ranked = sorted(group, key=lambda k: cast("Digit", digit_of(dims[k].at)).modulus is not None)
            at = order.index(group[-1]) + 1
            before = [k for k in order[:at] if k not in group]
            order = [*before, *ranked, *order[at:]]
        return permute(t, order), [dims[k] for k in order]

    def _merged(self, t: T, dims: list[Dim]) -> tuple[T, list[Dim]]:
        """Neighbours that are the digits of one position become one dimension."""
        out: list[Dim] = []
        changed = False
        k = 0
        while k < len(dims):
            run = self._run(dims, k)
            if run > 1:
                digit = cast("Digit", digit_of(dims[k].at))
                out.append(Dim(digit.position, sp.Mul(*[d.size for d in dims[k : k + run]])))
                changed = True
            else:
                out.append(dims[k])
            k += run
        return (self._reshaped(t, dims, out), out) if changed else (t, dims)

    def _run(self, dims: list[Dim], start: int) -> int:
        """How many dimensions from `start` are the digits of one position, most significant first."""
        first = digit_of(dims[start].at)
        if first is None:
            return 1
        run, stride = 1, first.stride
        for d in dims[start + 1 :]:
            digit = digit_of(d.at)
            if stride == 1 or digit is None or digit.position != first.position or digit.modulus is None:
                break
            if sp.expand(digit.stride * digit.modulus - stride) != 0 or sp.expand(digit.modulus - d.size) != 0:
                break
            run, stride = run + 1, digit.stride
        return run if stride == 1 else 1

    def _split(self, t: T, dims: list[Dim]) -> tuple[T, list[Dim]]:
        """A dimension read at `a*B + b`, all of it (but for a rest that is less than B), becomes two."""
        out: list[Dim] = []
        changed = False
        for k, d in enumerate(dims):
            parts = radix(d.at, self.ranges, d.size, rest=True)
            if parts is None:
                out.append(d)
            else:
                read = sp.expand(sp.Mul(*[self.ranges[j] for j, _ in parts]))
                if sp.expand(read - d.size) != 0:
                    t = tt.item(t, *[tt.EVERYTHING] * k, tt.slice_(None, read, None))
                    dims = [*dims[:k], Dim(d.at, read), *dims[k + 1 :]]
                out.extend(Dim(j, self.ranges[j]) for j, _ in reversed(parts))
                changed = True
        return (self._reshaped(t, dims, out), out) if changed else (t, dims)

    def _basic_items(self, t: T, dims: list[Dim]) -> tuple[T, list[Dim]]:
        """Constants and slices in one pair of brackets."""
        items: list[T] = []
        out: list[Dim] = []
        used = False
        flipped: list[int] = []
        for d in dims:
            if not d.at.atoms(Index, Indexed):
                items.append(tt.size(d.at))
                used = True
                continue
            found = self._slice(d)
            if found is None:
                items.append(tt.EVERYTHING)
                out.append(d)
                continue
            (j,) = d.at.atoms(Index)
            run, backwards = found
            if backwards:
                flipped.append(len(out))
            used = used or run != tt.EVERYTHING
            items.append(run)
            out.append(Dim(j, self.ranges[j]))
        while items and items[-1] == tt.EVERYTHING:
            items.pop()
        if used:
            t = tt.item(t, *items)
        if flipped:
            t = tt.method(t, "flip", *flipped)
        return t, out

    def _rolled(self, t: T, dims: list[Dim]) -> tuple[T, list[Dim]]:
        """All of a dimension read at `(j + c) mod n`, which is a cyclic shift by -c."""
        out: list[Dim] = []
        shifts: dict[int, Expr] = {}
        for k, d in enumerate(dims):
            by = shift_of(d.at)
            whole = by is not None and all(sp.expand(m - by[2]) == 0 for m in (d.size, self.ranges.get(by[0], 0)))
            if by is None or not whole:
                out.append(d)
                continue
            j, c, n = by
            shifts[k] = -c
            out.append(Dim(j, n))
        if not shifts:
            return t, dims
        one = len(shifts) == 1
        by_all, at_all = tuple(tt.size(s) for s in shifts.values()), tuple(shifts)
        return tt.method(t, "roll", *((by_all[0], at_all[0]) if one else (by_all, at_all))), out

    def _padded(self, t: T, dims: list[Dim]) -> tuple[T, list[Dim]]:
        """A dimension that may be empty, read at `j + c` beyond its ends, with zeros there: where a condition guards it, any will do.

        A gather that is held inside of the dimension has nothing to read in an empty one.
        """
        ends: list[tuple[Expr, Expr]] = []
        out: list[Dim] = []
        for d in dims:
            (j,) = d.at.free_symbols if len(d.at.free_symbols) == 1 else (None,)
            start = sp.expand(d.at - j) if isinstance(j, Index) and j in self.ranges and not self._whole(d) else None
            if start is None or not start.is_Integer or nonnegative(d.size - 1):
                ends.append((sp.S.Zero, sp.S.Zero))
                out.append(d)
                continue
            count = self.ranges[cast("Index", j)]
            ends.append((-start, sp.expand(start + count - d.size)))
            out.append(Dim(cast("Index", j), count))
        if ends == [(0, 0)] * len(dims) or not all(nonnegative(n) for pair in ends for n in pair):
            return t, dims
        while ends[0] == (0, 0):  # the last dimensions come first
            ends.pop(0)
        sizes = tuple(tt.size(n) for pair in reversed(ends) for n in pair)
        return tt.call("torch.nn.functional.pad", t, sizes), out

    def _slice(self, d: Dim) -> tuple[T, bool] | None:
        """The slice that reads a dimension at `s*j + c`, and whether it is read backwards; None if it is no slice."""
        inside = d.at.atoms(Index)
        if len(inside) != 1 or d.at.has(Indexed) or any(q.atoms(Index) for q in d.at.atoms(Quo, Rem)):
            return None
        (j,) = inside
        if j not in self.ranges:
            return None
        count = self.ranges[j]
        slope = sp.diff(d.at, j)
        if not slope.is_Integer or slope == 0:
            return None
        start = sp.expand(d.at - slope * j)
        backwards = bool(slope < 0)
        if backwards:
            start, slope = sp.expand(start + slope * (count - 1)), -slope
        stop = sp.expand(start + slope * (count - 1) + 1)
        within = nonnegative(sp.expand(d.size - stop)) or (d.at == j and not self.guarded)
        if not (nonnegative(start) and within):  # where no condition guards it, torch refuses what is out of range
            return None
        first = None if start == 0 else start
        last = None if sp.expand(stop - d.size) == 0 else stop
        return tt.slice_(first, last, None if slope == 1 else slope), backwards

    def stays_within(self, at: Expr, size: Expr) -> bool:
        """Whether an index expression certainly stays within a dimension. Values of integer tensors do, or torch refuses them."""
        if isinstance(at, Indexed):
            return True
        low, high = extreme(at, self.ranges, largest=False), extreme(at, self.ranges, largest=True)
        return low is not None and high is not None and nonnegative(low) and nonnegative(sp.expand(size - 1 - high))

    def bounded(self, at: Expr, size: Expr) -> Val:
        """An index expression as a tensor; where it may leave the dimension (in a branch not taken) it is held inside."""
        outer, self.counting = self.counting, True
        v = self.value(at)
        self.counting = outer
        return (
            v
            if self.stays_within(at, size) or v.is_number
            else Val(tt.method(v.t, "clamp", 0, size - 1), v.axes, v.kind)
        )

    def _diagonals(self, t: T, axes: list[Index], kind: str) -> Val:
        """Repeated indices as diagonals."""
        while len(set(axes)) < len(axes):
            i = next(a for a in axes if axes.count(a) > 1)
            first = axes.index(i)
            second = axes.index(i, first + 1)
            t = tt.method(t, "diagonal", *(() if (first, second) == (0, 1) else (0, first, second)))
            axes = [a for d, a in enumerate(axes) if d not in (first, second)] + [i]
        return Val(t, tuple(axes), kind)

    def _picked(self, t: T, dims: list[Dim], kind: str) -> Val | None:
        """One dimension read at places that torch refuses below zero, by a call that does; None for anything else."""
        placed = [k for k, d in enumerate(dims) if not self._whole(d)]
        if len(placed) != 1 or not from_start(dims[placed[0]].at, lambda n: self.tensors[n].from_start):
            return None
        (p,) = placed
        at = dims[p].at
        own = self.ranked(free_indices(at))
        others = [cast("Index", d.at) for k, d in enumerate(dims) if k != p]
        extra = [i for i in own if i not in others]
        if len(set(others)) < len(others):
            return None
        if not own:
            return Val(tt.method(tt.method(t, "index_select", p, self.value(at).t), "squeeze", p), tuple(others), kind)
        if len(extra) < len(own):
            return self._gathered_along(t, p, at, others, extra, kind) if len(extra) < 2 else None
        v = to_axes(self.value(at), own).t
        if len(own) == 1:
            t = tt.method(t, "index_select", p, v)
        elif p == 0 and len(dims) == 2:
            t = tt.call("torch.nn.functional.embedding", v, t)
        else:
            t = tt.method(tt.method(t, "index_select", p, tt.method(v, "flatten")), "unflatten", p, self._sizes(own))
        return Val(t, (*others[:p], *own, *others[p:]), kind)

    def _gathered_along(self, t: T, p: int, at: Expr, others: list[Index], extra: list[Index], kind: str) -> Val:
        """`gather` along a dimension, with places that differ along others."""
        along = [*others[:p], *(extra or [None]), *others[p:]]
        v = to_axes(self.value(at), along)
        index = v.t
        for _ in range(len(along) - len(v.axes)):
            index = tt.method(index, "unsqueeze", 0)
        if not set(others) <= {*v.axes}:
            index = tt.method(index, "expand", *[tt.size(self.ranges[i]) if i else tt.number(-1) for i in along])
        t = tt.method(t, "gather", p, index)
        if not extra:
            t = tt.method(t, "squeeze", p)
        return Val(t, (*others[:p], *extra, *others[p:]), kind)

    def _sizes(self, indices: Sequence[Index]) -> tuple[T, ...]:
        """The sizes of indices, as arguments."""
        return tuple(tt.size(self.ranges[i]) for i in indices)

    def _gathered(self, t: T, dims: list[Dim], kind: str) -> Val:
        """Integer tensors as indices. Dimensions whose index a gather also uses are gathered along with it."""
        picked = self._picked(t, dims, kind)
        if picked is not None:
            return picked
        gathers = [k for k, d in enumerate(dims) if not self._whole(d)]
        joint: list[Index] = []
        for k in gathers:
            at = dims[k].at
            plain = isinstance(at, Indexed)
            own = [i for i in at.indices if isinstance(i, Index)] if plain else self.ranked(free_indices(at))
            joint.extend(i for i in own if i not in joint)
        repeated = [d.at for k, d in enumerate(dims) if k not in gathers]
        gathers = [k for k, d in enumerate(dims) if k in gathers or d.at in joint or repeated.count(d.at) > 1]
        for k in gathers:
            joint.extend(i for i in self.ranked(free_indices(dims[k].at)) if i not in joint)
        together = gathers == list(range(gathers[0], gathers[-1] + 1))
        if not together:
            order = [*gathers, *[k for k in range(len(dims)) if k not in gathers]]
            t = permute(t, order)
            dims = [dims[k] for k in order]
            gathers = list(range(len(gathers)))
        items: list[Any] = [tt.EVERYTHING] * gathers[0]
        for k in gathers:
            v = self.bounded(dims[k].at, dims[k].size)
            items.append(to_axes(v, joint).t)
        before, after = dims[: gathers[0]], dims[gathers[-1] + 1 :]
        axes = [*(d.at for d in before), *joint, *(d.at for d in after)]
        return Val(tt.item(t, *items), cast("tuple[Index, ...]", tuple(axes)), kind)
