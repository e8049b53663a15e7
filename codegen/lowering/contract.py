"""Sums: products that are summed become `@`, `sum` or `einsum`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.lowering import tensors as tt
from codegen.lowering.convolve import convolution
from codegen.lowering.distances import NAME, rows
from codegen.lowering.kernels import stable
from codegen.lowering.pick import picked
from codegen.lowering.runningproducts import RunningMixin
from codegen.lowering.values import INFINITY, Axes, Val, permute, to_axes
from codegen.lowering.vectors import VectorMixin
from engine.notation import Amax, Delta, Index, Less, LessEqual, Sigma, Smallest, Where
from engine.sizes import evaluate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sympy import Expr


class ContractMixin(RunningMixin, VectorMixin):
    """Lowers `Sigma` and `Amax`."""

    def contraction(self, e: Sigma) -> Val:
        """A sum over products of tensors."""
        known = (
            self.kernel_sum(e)
            or self.running_sum(e)
            or self.of_running_product(e)
            or self.distances(e)
            or self.vector_product(e)
        )
        if known is not None:
            return known
        summed, outer = [i for i, _ in e.limits], self.order
        with self.inside(e.body, e.limits):
            if isinstance(e.body, sp.Add):
                return self.reduce(self.value(e.body), summed)
            factors, summed = self._products_first(self._groups(e.body), summed, outer)
            groups: list[Val] | None = factors
            left = factors
            while groups is not None and len(groups) > 2:
                left, groups = groups, self._fewer(groups)
            if groups is None:
                return self._chained(left, factors, summed, outer)
            if len(groups) == 1:
                return self.reduce(groups[0], summed)
            return self._two(groups[0], groups[1], summed, outer)

    def kernel_sum(self, e: Sigma) -> Val | None:
        """A sum that torch has a kernel for: a convolution, or values put back to where they were picked."""
        known = convolution(e, self.ranges, self.tensors)
        found = picked(e, self.ranges) if known is None else None
        if found is None:
            return known
        at, places, rest = found
        own = [cast("Index", i) for i in at.indices if i != 0]
        inner = [i for i, _ in e.limits]
        outer: list[Any] = [i for i in own if i not in inner]
        with self.inside(e.body, e.limits):
            self.order = [*own, *[i for i in self.order if i not in own]]
            index, value = self.value(at), self.arranged(self.value(rest), own)
        if index.axes != tuple(own) or value.axes != tuple(own) or value.kind != "float":
            return None
        several = len(inner) > 1
        flat, put = (tt.method(x.t, "flatten", -len(inner)) if several else x.t for x in (index, value))
        sizes = [self.ranges[k] for k in places]
        total = sp.Mul(*sizes)
        like = value.t if value.t.kind == "name" or self.like is None else tt.name(self.like)
        zeros = tt.method(like, "new_zeros", (*[self.ranges[i] for i in outer], total))
        t = tt.method(zeros, "scatter_add", -1, flat, put)
        if len(places) > 1:
            t = tt.method(t, "unflatten", -1, tuple(sizes))
        return Val(t, (*outer, *places))

    def distances(self, e: Sigma) -> Val | None:
        """Squared distances of rows from rows, in a closed form, whose file has the function."""
        found = rows(e) if self.fills else None
        if found is None:
            return None
        x, y, shared, i, j, d = found
        with self.inside(e.body, e.limits):
            one, other = (self.arranged(self.value(a), [*shared, k, d]) for a, k in ((x, i), (y, j)))
        if one.kind != "float" or other.kind != "float":
            return None
        return Val(tt.call(NAME, one.t, other.t), (*shared, i, j))

    def running_sum(self, e: Sigma) -> Val | None:
        """`Sum_j [j <= i] f_j` as the cumsum that it is, and `Sum_j [i <= j] f_j` as one from the end; without f_i for `<`."""
        j = e.limits[0][0]
        factors = sp.Mul.make_args(e.body)
        brackets = [f for f in factors if isinstance(f, Less) and j in f.args]
        if len(e.limits) != 1 or len(brackets) != 1:
            return None
        i = next((a for a in brackets[0].args if a != j), None)
        rest = sp.Mul(*[f for f in factors if f is not brackets[0]])
        if not isinstance(i, Index) or i in rest.free_symbols or not rest.has(sp.Indexed):
            return None
        with self.inside(rest, e.limits):
            v = self.typed(self.value(rest))
        if v.axes.count(j) != 1 or sp.expand(self.ranges.get(i, 0) - e.limits[0][1]) != 0:
            return None
        d = v.axes.index(j)
        last_first = brackets[0].args[0] == i
        t = tt.method(tt.method(v.t, "flip", d) if last_first else v.t, "cumsum", d)
        total = Val(tt.method(t, "flip", d) if last_first else t, tuple(i if a == j else a for a in v.axes))
        if isinstance(brackets[0], LessEqual):
            return total
        return self.join("-", total, Val(v.t, total.axes, v.kind, v.kept))

    def largest(self, e: Amax) -> Val:
        """A maximum over indices."""
        known = None if isinstance(e, Smallest) else self.largest_at_places(e)
        if known is not None:
            return known
        with self.inside(e.body, e.limits):
            return self.reduce(
                self.value(e.body), [i for i, _ in e.limits], "amin" if isinstance(e, Smallest) else "amax"
            )

    def largest_at_places(self, e: Amax) -> Val | None:
        """The largest of what an integer tensor puts at each place, `max_j (f_j if i = at_j else -oo)`; None for any other maximum."""
        body = e.body
        if not isinstance(body, Where) or not isinstance(body.args[0], Delta) or body.args[2] != -sp.oo:
            return None
        found = picked(Sigma(body.args[0], *e.args[1:]), self.ranges)
        if found is None or len(found[1]) != 1 or found[1][0] in body.args[1].free_symbols:
            return None
        at, (place,), _ = found
        own = [cast("Index", i) for i in at.indices if i != 0]
        with self.inside(body, e.limits):
            index, value = self.value(at), self.typed(self.value(body.args[1]))
            if len(own) > 1:
                value = self.arranged(value, [*(i for i in value.indices if i not in own), *own])
        inner = [i for i, _ in e.limits]
        if index.axes != tuple(own) or not {*own} <= {*value.axes} or None in value.axes or own[-1:] != inner:
            return None
        outer = [place if i == inner[0] else i for i in value.axes]
        axis = -1 if outer[-1] == place else outer.index(place)
        whole = index.axes == value.axes
        indices = index.t if whole else tt.method(to_axes(index, value.axes).t, "expand_as", value.t)
        size = tuple(self.ranges[cast("Index", i)] for i in outer)
        start = tt.method(value.t, "new_full", size, tt.unary("neg", INFINITY))
        return Val(tt.method(start, "scatter_reduce", axis, indices, value.t, '"amax"'), tuple(outer))

    def _groups(self, body: Expr) -> list[Val]:
        """The factors of a body, those over the same indices multiplied. Numbers go into the smallest group."""
        share = stable(body) if isinstance(body, sp.Mul) else None
        if share is not None and share[0] == "scaled" and share[1][0][0] in ("softmax", "share"):
            rest = share[1][1]
            return [*([] if rest == 1 else self._groups(rest)), self.kernel(share[1][0])]
        by: dict[frozenset[Index], list[Expr]] = {}
        for f in sp.Mul.make_args(body):
            found = frozenset(s for s in f.free_symbols if isinstance(s, Index) and s in self.ranges and _is_free(f, s))
            by.setdefault(found, []).append(f)
        for found in [k for k, fs in by.items() if len(k) == 2 and all(isinstance(f, Less) for f in fs)]:
            whole = next((k for k, fs in by.items() if k > found and any(isinstance(f, sp.Indexed) for f in fs)), None)
            if whole is not None:  # a triangle of that tensor
                by[whole] += by.pop(found)
        loose = by.pop(frozenset(), [])
        keys = sorted(by, key=lambda k: (self.elements(k), len(k), str(sorted(map(str, k)))))
        if not keys:
            return [self.value(body)]
        by[keys[0]] = [*loose, *by[keys[0]]]
        return [self.value(sp.Mul(*by[k])) for k in keys]

    def _products_first(
        self, groups: list[Val], summed: list[Index], outer: list[Index]
    ) -> tuple[list[Val], list[Index]]:
        """Of three or more factors those two multiplied by a kernel that alone have an index which is summed over.

        `Sum_ij q_j C_ij g_i` reads C once as `q (g @ C)`; `q * (C * g).sum(0)` would write it, too. What is left is also told.
        """
        while len(groups) > 2:
            found = [(a, b, alone(a, b, groups, summed)) for a in groups for b in groups if a is not b]
            pair = next((p for p in found if set(p[0].indices) < set(p[1].indices) and self._is_product(*p)), None)
            if pair is None:
                break
            a, b, own = pair
            groups = [self._two(a, b, own, outer), *(g for g in groups if g is not a and g is not b)]
            summed = [i for i in summed if i not in own]
        return groups, summed

    def _is_product(self, small: Val, large: Val, own: list[Index]) -> bool:
        """Whether torch multiplies a matrix with a vector, or many with one each, as they lie in memory."""
        if not own or not small.kind == large.kind == "float":
            return False
        batch = [i for i in small.indices if i not in own]
        left = [i for i in large.indices if i not in small.indices]
        if batch:
            return self._in_rows(large, small, batch, own, left)
        return len(own) == len(small.axes) == 1 and (len(large.axes) == 2 or large.axes[-1] == own[0])

    def _chained(self, groups: list[Val], factors: list[Val], summed: list[Index], outer: list[Index]) -> Val:
        """A sum over several tensors, two at a time: first those that have an index which no other one has.

        As one call of einsum where there are no such, of all factors.
        """
        left = list(summed)
        while len(groups) > 2:
            found = [(a, b, alone(a, b, groups, left)) for k, a in enumerate(groups) for b in groups[k + 1 :]]
            pairs = [pair for pair in found if pair[2]]
            if not pairs:
                return self._einsum(factors, summed, outer)
            a, b, own = pairs[0]
            groups = [*(g for g in groups if g is not a and g is not b), self._two(a, b, own, outer)]
            left = [i for i in left if i not in own]
        return self._two(groups[0], groups[1], left, outer)

    def elements(self, indices: Iterable[Index]) -> int:
        """The number of elements over indices at the sizes of the example; 0 where there is none."""
        whole = sp.Mul(*[self.ranges[i] for i in indices])
        return evaluate(cast("Expr", whole), self.example) if self.example else 0

    def _fewer(self, groups: list[Val]) -> list[Val] | None:
        """One group less: a factor whose indices another one has is multiplied into it; None where there is none."""
        for a in groups:
            for b in groups:
                if a is not b and set(a.indices) <= set(b.indices):
                    rest = [g for g in groups if g is not a and g is not b]
                    return [*rest, self.join("*", b, a)]
        return None

    def reduce(self, v: Val, summed: list[Index], how: str = "sum") -> Val:
        """`sum` or `amax` over dimensions. A sum over an index that no dimension has multiplies by its size."""
        present = [d for d, a in enumerate(v.axes) if a in summed]
        plain, minus = without_sign(v.t)
        if minus and present and how == "sum" and v.kind == "float":
            return self.negative(self.reduce(Val(plain, v.axes, v.kind, v.kept), summed))
        out = v
        if present:
            axes: Axes = tuple(a for a in v.axes if a not in summed)
            whole = not any(axes) and (not axes or (self.fills and None not in self.result))
            kept: Axes | None = tuple(None if a in summed else a for a in v.axes)
            if whole and not (self.fills and kept == self.result):
                present, axes, kept = [], (), None
            dims = () if not present else (present[0] if len(present) == 1 else tuple(present),)
            kind = "int" if how == "sum" and v.kind == "bool" else v.kind
            out = Val(tt.method(v.t, how, *dims), axes, kind, kept)
        for i in summed if how == "sum" else []:
            if i not in v.axes:
                out = self.join("*", out, Val(tt.size(self.ranges[i]), (), "number"))
        return out

    def _two(self, a: Val, b: Val, summed: list[Index], outer: list[Index]) -> Val:
        """A contraction of two tensors."""
        common = [i for i in a.indices if i in b.indices]
        contracted = [i for i in common if i in summed]
        batch = [i for i in common if i not in summed]
        for side in (a, b):
            alone = [i for i in side.indices if i in summed and i not in common]
            if alone:
                shorter = self.reduce(side, alone)
                rest = [i for i in summed if i not in alone]
                pair = (shorter, b) if side is a else (a, shorter)
                return self._two(*pair, rest, outer) if rest else self.join("*", *pair)
        left, right = [i for i in a.indices if i not in common], [i for i in b.indices if i not in common]
        if not left and not right:
            if not batch and len(contracted) == 1 and a.kind == b.kind == "float":
                return Val(tt.binary("@", self.squeezed(a).t, self.squeezed(b).t), ())
            return self.reduce(self.join("*", a, b), summed)
        ranks = {i: k for k, i in enumerate(outer)}
        if left and right and min(ranks.get(i, 99) for i in right) < min(ranks.get(i, 99) for i in left):
            a, b, left, right = b, a, right, left
        if not left:
            a, b, left, right = b, a, right, left
        if len(contracted) == 1 and all(x.kind == "float" for x in (a, b)):
            line = None if batch or right else self._as_line(a, b, left, contracted[0])
            if line is not None:
                return line
            a, b = self.squeezed(a), self.squeezed(b)
            (s,) = contracted
            if not batch and (len(left) <= 1 or not right or len(b.axes) <= 2) and len(right) <= 1:
                product = self._matmul(a, b, left, right, s, outer)
                if product is not None:
                    return product
            if batch and len(left) == 1 and len(right) == 1:
                product = self._batched(a, b, batch, left[0], right[0], s)
                if product is not None:
                    return product
        if not right and not self._in_rows(a, b, batch, contracted, left):
            return self.reduce(self.join("*", a, b), summed)
        return self._einsum([a, b], summed, outer)

    def _in_rows(self, a: Val, b: Val, batch: list[Index], contracted: list[Index], left: list[Index]) -> bool:
        """Whether a product with a smaller tensor is one of matrices and vectors as the two lie in memory."""
        own = [i for i in b.indices if i in batch], [i for i in b.indices if i in contracted]
        inner = (*own[0], *own[1])
        return (
            bool(left)
            and bool(contracted)
            and tuple(b.indices) == inner
            and tuple(a.indices) in ((*inner, *left), (*own[0], *left, *own[1]))
            and all(v.kind == "float" for v in (a, b))
        )

    def _as_line(self, a: Val, b: Val, left: list[Index], s: Index) -> Val | None:
        """A matrix with one column, or one row with a matrix, where the result is such a matrix; None for anything else."""
        if not self.fills or None in a.axes or len(b.axes) != 2 or None not in b.axes:
            return None
        if self.result == (*left, None) and (len(left) == 1 or a.axes == (*left, s)):
            x, y = (
                permute(a.t, [a.axes.index(i) for i in (*left, s)]),
                permute(b.t, [b.axes.index(i) for i in (s, None)]),
            )
        elif self.result == (None, *left) and len(left) == 1:
            x, y = (
                permute(b.t, [b.axes.index(i) for i in (None, s)]),
                permute(a.t, [a.axes.index(i) for i in (s, *left)]),
            )
        else:
            return None
        return Val(tt.binary("@", x, y), self.result)

    def squeezed(self, v: Val) -> Val:
        """Without dimensions of size one."""
        return to_axes(v, v.indices) if None in v.axes else v

    def _matmul(
        self, a: Val, b: Val, left: list[Index], right: list[Index], s: Index, outer: list[Index]
    ) -> Val | None:
        """`a @ b` over one index, with transposed views where they are needed."""
        if not right:
            if len(b.axes) != 1:
                return None
            if a.axes[-1] == s:
                return Val(tt.binary("@", a.t, b.t), a.axes[:-1])
            if len(a.axes) == 2:
                return Val(tt.binary("@", b.t, a.t), (a.axes[1],))
            return None
        if not left:
            return self._matmul(b, a, right, left, s, outer)
        if len(b.axes) != 2:
            return None
        rows = [i for i in a.axes if i != s]
        if len(rows) > 1 and a.axes[-2] == s and [i for i in outer if i in (rows[-1], *right)][-1:] == rows[-1:]:
            y = permute(b.t, [b.axes.index(i) for i in (*right, s)])  # every matrix of a from the left, as it lies
            return Val(tt.binary("@", y, a.t), (*rows[:-1], *right, rows[-1]))
        x = permute(a.t, [a.axes.index(i) for i in (*rows, s)])
        y = permute(b.t, [b.axes.index(i) for i in (s, *right)])
        return Val(tt.binary("@", x, y), (*rows, *right))

    def _batched(self, a: Val, b: Val, batch: list[Index], left: Index, right: Index, s: Index) -> Val | None:
        """A batched product: both tensors as batch, rows, columns."""
        order = [i for i in a.indices if i in batch]
        if [i for i in b.indices if i in batch] != order:
            order = list(batch)
        x = permute(a.t, [a.axes.index(i) for i in (*order, left, s)])
        y = permute(b.t, [b.axes.index(i) for i in (*order, s, right)])
        return Val(tt.binary("@", x, y), (*order, left, right))

    def _einsum(self, values: list[Val], summed: list[Index], outer: list[Index]) -> Val:
        """The general contraction. Truth values and integers, which einsum does not mix with floats, are multiplied."""
        if any(v.kind != "float" for v in values):
            product = values[0]
            for v in values[1:]:
                product = self.join("*", product, v)
            return self.reduce(product, summed)
        ones = [v for v in values if None in v.axes]
        if not (self.fills and len(ones) == 1 == ones[0].axes.count(None) == self.result.count(None)):
            values = [self.squeezed(v) for v in values]
        letters = {i: chr(ord("a") + k) for k, i in enumerate(dict.fromkeys(i for v in values for i in v.axes))}
        ranks = {i: k for k, i in enumerate(outer)}
        out = sorted((i for i in letters if i not in summed), key=lambda i: 99 if i is None else ranks.get(i, 99))
        if None in letters and {*out} == {*self.result}:
            out = list(self.result)
        given = ",".join("".join(letters[i] for i in v.axes) for v in values)
        spec = f'"{given}->{"".join(letters[i] for i in out)}"'
        return Val(tt.call("torch.einsum", spec, *[v.t for v in values]), tuple(out))


def alone(a: Val, b: Val, groups: list[Val], summed: list[Index]) -> list[Index]:
    """The summed indices that two of several tensors have, and no other one."""
    others = {i for g in groups if g is not a and g is not b for i in g.indices}
    return [i for i in summed if i in a.indices and i in b.indices and i not in others]


def _is_free(f: Expr, s: Index) -> bool:
    return s not in {i for b in f.atoms(Sigma, Amax) for i, _ in b.limits}


def without_sign(t: tt.T) -> tuple[tt.T, bool]:
    """A tensor without the minus in front of it, or of a factor of it, and whether there was one."""
    if t.kind == "unary" and t.head == "neg":
        return t.args[0], True
    if t.kind != "binary" or t.head not in ("*", "/"):
        return t, False
    (one, left), (other, right) = (without_sign(a) for a in t.args)
    return (tt.binary(t.head, one, other), left != right) if left or right else (t, False)
