"""From index notation to torch: every expression becomes a tensor whose axes are index symbols.

Accesses become views and gathers, sums become products, `@` or `sum`, deltas of an output index become scatters.
Whatever matches no idiom falls back on `einsum`, `torch.arange` and advanced indexing, so that it is never wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Indexed

from codegen import tensors as tt
from codegen.access import AccessMixin
from codegen.contract import ContractMixin
from codegen.scalars import ScalarMixin
from codegen.tensors import T
from codegen.values import TensorInfo, Val
from engine.errors import DerivationError
from engine.notation import (
    Amax,
    Delta,
    Equal,
    Index,
    Less,
    LessEqual,
    Quo,
    Rem,
    Sigma,
    Sign,
    Where,
    accesses,
    free_indices,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Shape = tuple[Expr, ...]


@dataclass(frozen=True)
class Scatter:
    """Values added to a tensor of zeros (or to what is there) at given places."""

    items: tuple[Any, ...]
    value: T
    accumulate: bool
    tensors: bool


@dataclass(frozen=True)
class Lowered:
    """The torch form of an expression: a dense part (None if there is none), and scatters to be added to it."""

    dense: Val | None
    scatters: tuple[Scatter, ...]


class Lowerer(AccessMixin, ContractMixin, ScalarMixin):
    """Lowers expressions over tensors of known shapes. `ranges` grows with every sum that is entered."""

    def __init__(self, tensors: Mapping[str, TensorInfo], ranges: Mapping[Index, Expr]) -> None:
        self.tensors = dict(tensors)
        self.ranges = dict(ranges)
        self.order: list[Index] = []

    # -- entry points --------------------------------------------------------------------------------------------

    def lower(self, e: Expr, indices: Sequence[Expr], shape: Shape) -> Lowered:
        """An expression at output `indices` (0 where `shape` is one): its dense part and its scatters."""
        outputs = [cast("Index", i) for i in indices if i != 0]
        for i, n in zip(indices, shape, strict=True):
            if i != 0:
                self.ranges[cast("Index", i)] = n
        dense: list[Expr] = []
        scatters: list[Scatter] = []
        for term in sp.Add.make_args(e):
            found = self._scatter(cast("Expr", term), indices, shape, outputs)
            if found is None:
                dense.append(cast("Expr", term))
            else:
                scatters.append(found)
        value = None
        if dense:
            whole = cast("Expr", sp.Add(*dense))
            self.order = self.natural_order(whole, outputs)
            value = self.arranged(self.value(whole), indices)
        return Lowered(value, tuple(scatters))

    def value(self, e: Expr) -> Val:
        """An expression as a tensor over the indices it depends on."""
        if isinstance(e, Indexed):
            return self.access(e)
        if not e.free_symbols:
            return self.constant(e)
        if isinstance(e, Index):
            return Val(tt.call("torch.arange", self.ranges[e]), (e,), "int")
        if not e.atoms(Indexed, Index):
            return Val(tt.size(e), (), "number")
        if isinstance(e, sp.Add):
            return self.sum_of(e)
        if isinstance(e, sp.Mul):
            return self.product_of(e)
        if isinstance(e, sp.Pow):
            return self.power_of(e)
        if isinstance(e, Sigma):
            return self.contraction(e)
        if isinstance(e, Amax):
            return self.largest(e)
        if isinstance(e, Where):
            return self.choice(e)
        if isinstance(e, LessEqual):
            return self.compare("<=", e)
        if isinstance(e, Less):
            return self.compare("<", e)
        if isinstance(e, (Equal, Delta)):
            return self.compare("==", e)
        if isinstance(e, (Quo, Rem)):
            a, b = (self.value(x) for x in e.args)
            return self.join("//" if isinstance(e, Quo) else "%", a, b)
        if isinstance(e, Sign):
            return self.map_method("sign", e.args[0])
        if isinstance(e, sp.Function) or isinstance(e, sp.exp):
            return self.function(e)
        raise DerivationError(f"no torch form for {type(e).__name__}: {e}")

    # -- order of axes -------------------------------------------------------------------------------------------

    def natural_order(self, e: Expr, outputs: Sequence[Index]) -> list[Index]:
        """An order of all indices in which most tensors can be used as they lie in memory."""
        sequences = [[i for i in a.indices if isinstance(i, Index)] for a in accesses(e)]
        sequences = sorted(([*dict.fromkeys(s)] for s in sequences), key=len, reverse=True)
        if len(outputs) > 1 or not sequences:
            sequences.insert(0, list(outputs))
        order: list[Index] = []
        for sequence in sequences:
            for k, i in enumerate(sequence):
                if i in order:
                    continue
                before = [order.index(p) for p in sequence[:k] if p in order]
                after = [order.index(p) for p in sequence[k + 1 :] if p in order]
                at = max(before) + 1 if before else min(after) if after else len(order)
                order.insert(at, i)
        rest = [i for i in sorted(free_indices(e) | set(outputs), key=str) if i not in order]
        return [*order, *rest]

    def rank(self, i: Index) -> int:
        """The place of an index in the order of axes; unknown ones come last."""
        if i not in self.order:
            self.order.append(i)
        return self.order.index(i)

    # -- scatters ------------------------------------------------------------------------------------------------

    def _scatter(self, term: Expr, indices: Sequence[Expr], shape: Shape, outputs: list[Index]) -> Scatter | None:
        """A term with deltas that fix output indices, as values put into zeros; None if it has none."""
        factors = list(sp.Mul.make_args(term))
        sums = [f for f in factors if isinstance(f, Sigma) and self._placing(f.body, outputs)]
        limits: tuple[tuple[Index, Expr], ...] = ()
        if sums:
            inner = sums[0]
            factors.remove(inner)
            factors.extend(sp.Mul.make_args(inner.body))
            limits = inner.limits
        placing = [f for f in factors if isinstance(f, Delta) and self._fixed(f, outputs)]
        if not placing:
            return None
        place: dict[Index, Expr] = {}
        others: list[Any] = []
        for f in factors:
            fixed = self._fixed(f, outputs) if isinstance(f, Delta) else None
            if fixed is not None and fixed[0] not in place:
                place[fixed[0]] = fixed[1]
            else:
                others.append(f)
        for i, n in limits:
            self.ranges[i] = n
        body = sp.Mul(*others)
        domain = [i for i, _ in limits]
        body = cast("Expr", body.xreplace(place))
        if free_indices(body) & set(place):
            return None
        used = set[Index]()
        for at in place.values():
            used |= free_indices(at)
        summed = [(i, n) for i, n in limits if i not in used]
        if summed:
            from codegen.derive import distribute

            body = distribute(body, summed)
            domain = [i for i in domain if i in used]
        return self._placed(body, place, domain, indices, shape, used)

    def _placing(self, body: Expr, outputs: list[Index]) -> bool:
        return any(isinstance(f, Delta) and self._fixed(f, outputs) for f in sp.Mul.make_args(body))

    def _fixed(self, delta: Delta, outputs: list[Index]) -> tuple[Index, Expr] | None:
        """The output index that a delta fixes, and to what."""
        a, b = delta.args
        for one, other in ((a, b), (b, a)):
            if (
                one in outputs
                and one not in other.free_symbols
                and (not isinstance(other, Index) or other not in outputs)
            ):
                return cast("Index", one), other
        return None

    def _placed(
        self,
        body: Expr,
        place: dict[Index, Expr],
        domain: list[Index],
        indices: Sequence[Expr],
        shape: Shape,
        used: set[Index],
    ) -> Scatter:
        """Index items per output dimension, and the values arranged to match torch's indexing."""
        dims: list[Any] = [sp.S.Zero if i == 0 else place.get(cast("Index", i), i) for i in indices]
        plain = [self._basic(d, i, n) for d, i, n in zip(dims, indices, shape, strict=True)]
        disjoint = len(used) == sum(1 for p in plain if p is not None and p[1] is not None and p[1] not in indices)
        if all(p is not None for p in plain) and disjoint:
            items = [cast("Any", p)[0] for p in plain]
            target = [cast("Any", p)[1] for p in plain if cast("Any", p)[1] is not None or cast("Any", p)[2]]
            self.order = self.natural_order(body, [t for t in target if t is not None])
            value = self.arranged(self.value(body), [sp.S.Zero if t is None else t for t in target])
            while len(items) > 1 and items[-1] == tt.EVERYTHING:
                items.pop()
            return Scatter(tuple(items), self.full(value, target), accumulate=False, tensors=False)
        last = max(k for k, (d, i) in enumerate(zip(dims, indices, strict=True)) if d != i and i != 0)
        advanced = [k for k in range(last + 1)]
        joint: list[Index] = [i for i in domain if i in used]
        for k in advanced:
            joint.extend(i for i in sorted(free_indices(dims[k]), key=str) if i not in joint)
        joint = self._gather_order(dims, advanced, joint)
        rest = [cast("Index", indices[k]) for k in range(last + 1, len(dims)) if indices[k] != 0]
        tail = [indices[k] for k in range(last + 1, len(dims))]
        self.order = [*joint, *rest]
        items = [self.arranged(self.value(cast("Expr", dims[k])), joint, exact=False).t for k in advanced]
        self.order = self.natural_order(body, [*joint, *rest])
        value = self.arranged(self.value(body), [*joint, *tail])
        injective = not domain
        return Scatter(
            tuple(items),
            self.full(value, [*joint, *[None if t == 0 else t for t in tail]]),
            not injective,
            tensors=True,
        )

    def _gather_order(self, dims: list[Any], advanced: list[int], joint: list[Index]) -> list[Index]:
        for k in advanced:
            d = dims[k]
            if isinstance(d, Indexed):
                own = [i for i in d.indices if isinstance(i, Index)]
                if set(own) == set(joint):
                    return own
        return joint

    def _basic(self, d: Any, i: Any, n: Expr) -> tuple[Any, Index | None, bool] | None:
        """(item text, index that runs over it, whether the dimension stays with size one) of a basic slice; else None."""
        if i == 0:
            return tt.EVERYTHING, None, True
        if d == i:
            return tt.EVERYTHING, i, False
        e = d
        if not e.atoms(Index, Indexed):
            return tt.size(e), None, False
        if e.has(Indexed, Quo, Rem) or len(e.atoms(Index)) != 1:
            return None
        (j,) = e.atoms(Index)
        slope = sp.diff(e, j)
        if j not in self.ranges or not (slope.is_Integer and slope > 0):
            return None
        start = sp.expand(e - slope * j)
        stop = sp.expand(start + slope * (self.ranges[j] - 1) + 1)
        ends = sp.expand(stop - n) == 0 or (slope > 1 and sp.expand(stop + slope - 1 - n) == 0)
        first, last = (None if start == 0 else start), (None if ends else stop)
        return tt.slice_(first, last, None if slope == 1 else slope), j, False
