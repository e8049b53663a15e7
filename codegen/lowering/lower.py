"""From index notation to torch: every expression becomes a tensor whose axes are index symbols.

Accesses become views and gathers, sums become products, `@` or `sum`, deltas of an output index become scatters.
Whatever matches no idiom falls back on `einsum`, `torch.arange` and advanced indexing, so that it is never wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.derive import distribute
from codegen.lowering import tensors as tt
from codegen.lowering.access import AccessMixin
from codegen.lowering.bessel import BesselMixin
from codegen.lowering.choices import ChoiceMixin
from codegen.lowering.contract import ContractMixin
from codegen.lowering.kernels import stable, with_share
from codegen.lowering.products import ProductMixin, has_functions
from codegen.lowering.ranges import nonnegative, without_wholes
from codegen.lowering.stable import KernelMixin
from codegen.lowering.stacks import StackMixin
from codegen.lowering.sums import SumMixin
from codegen.lowering.triangles import TriangleMixin
from codegen.lowering.values import Axes, TensorInfo, Val
from engine.errors import DerivationError
from engine.indexed import Indexed
from engine.notation import (
    BRACKETS,
    Amax,
    Delta,
    Equal,
    Index,
    Less,
    LessEqual,
    Parity,
    Product,
    Quo,
    Rem,
    Sigma,
    Sign,
    Where,
    accesses,
    free_indices,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codegen.lowering.tensors import T

Shape = tuple[Expr, ...]


@dataclass(frozen=True)
class Scatter:
    """Values (of a `kind`, as in `Val`) added to a tensor of zeros (or to what is there) at given places.

    The places may be the `diagonal` of two dimensions instead; what `fills` them stands there whatever was there before.
    `several` says that the places are told by tensors and that each has a value of its own.
    """

    items: tuple[Any, ...]
    value: T
    kind: str
    accumulate: bool
    covers: bool = False
    diagonal: tuple[int, ...] = ()
    fills: bool = False
    several: bool = False

    def renamed(self, names: Mapping[str, str], sizes: Mapping[Any, Expr] | None = None) -> Scatter:
        """The same with other names, and other sizes."""
        items = tuple(tt.rename(i, names, sizes or {}) for i in self.items)
        return replace(self, items=items, value=tt.rename(self.value, names, sizes or {}))


@dataclass(frozen=True)
class Place:
    """One dimension in the brackets of a scatter: which index runs over it, or whether it is `kept` with size one."""

    item: T
    index: Index | None
    kept: bool = False


@dataclass(frozen=True)
class Lowered:
    """The torch form of an expression: a dense part (None if there is none), and scatters to be added to it."""

    dense: Val | None
    scatters: tuple[Scatter, ...]

    @property
    def kind(self) -> str:
        """What it holds: integers and truth values where nothing of floats is in it, as where places are counted."""
        counts = self.dense is not None and not self.scatters and self.dense.kind in ("int", "bool")
        return self.dense.kind if self.dense is not None and counts else "float"

    def texts(self) -> list[T]:
        """All of its values."""
        return [*([] if self.dense is None else [self.dense.t]), *(s.value for s in self.scatters)]


class Lowerer(
    AccessMixin, ContractMixin, TriangleMixin, StackMixin, BesselMixin, SumMixin, ProductMixin, KernelMixin, ChoiceMixin
):
    """Lowers expressions over tensors of known shapes. `ranges` grows with every sum that is entered.

    `like` is a tensor whose precision an expression has that reads no floats. With `fills`, what is a number at some places of
    a tensor, as on its diagonal, is put there. Numbers in a product go into the tensor that is smallest at the sizes of
    the `example`.
    """

    def __init__(
        self,
        tensors: Mapping[str, TensorInfo],
        ranges: Mapping[Index, Expr],
        like: str | None = None,
        fills: bool = False,
        example: Mapping[Any, int] | None = None,
    ) -> None:
        self.default, self.fills, self.example = like, fills, example
        self.tensors = dict(tensors)
        self.ranges = dict(ranges)
        self.order: list[Index] = []
        self.result: Axes = ()
        self.like: str | None = None
        self.counting = False
        self.guarded = False
        self.losses = False

    # -- entry points --------------------------------------------------------------------------------------------

    def lower(self, e: Expr, indices: Sequence[Expr], shape: Shape) -> Lowered:
        """An expression at output `indices` (0 where `shape` is one): its dense part and its scatters."""
        self.like = self._float_in(e)
        self.result = tuple(None if i == 0 else cast("Index", i) for i in indices)
        outputs = [i for i in self.result if i is not None]
        for i, n in zip(indices, shape, strict=True):
            if i != 0:
                self.ranges[cast("Index", i)] = n
        filled = self._filled(e, indices, shape, outputs) if self.fills else None
        if filled is not None:
            return filled
        dense: list[Expr] = []
        scatters: list[Scatter] = []
        for term in sp.Add.make_args(places_apart(e)):
            found = self._scatter(term, indices, shape, outputs)
            if found is None:
                dense.append(term)
            else:
                scatters.append(found)
        value = None
        if len(dense) == 1 and scatters and self.fills:
            filled = self._filled(dense[0], indices, shape, outputs)
            if filled is not None:
                return replace(filled, scatters=(*filled.scatters, *scatters))
        if dense:
            whole = sp.Add(*dense)
            self.order = self.natural_order(whole, outputs)
            value = self.arranged(self.whole(whole), indices)
            value = replace(value, t=tt.reduced_inside(value.t)) if self.losses else value
        return Lowered(value, tuple(scatters))

    def _float_in(self, e: Expr) -> str | None:
        """A tensor of floats that the expression reads, a cotangent if there is one; it has the result's precision."""
        found = {name_of(a) for a in accesses(e)}
        floats = [n for n in found if n in self.tensors and self.tensors[n].kind == "float"]
        return min(floats, key=lambda n: (not n.startswith("_cot"), n), default=self.default)

    def whole(self, e: Expr) -> Val:
        """The dense part of an expression."""
        return self.value(e)

    def value(self, e: Expr) -> Val:
        """An expression as a tensor over the indices it depends on."""
        if isinstance(e, Indexed):
            return self.access(e)
        if not e.free_symbols:
            return self.constant(e)
        if isinstance(e, Index):
            return Val(tt.call("torch.arange", self.ranges[e]), (e,), "int")
        if not e.atoms(Indexed, Index) and not e.has(*BRACKETS) and not has_functions(e):
            return Val(tt.size(e), (), "number")
        known = stable(e)
        if known is not None:
            return self.kernel(known)
        if isinstance(e, sp.Add):
            return self.sum_of(e)
        if isinstance(e, sp.Mul):
            whole = with_share(e)
            return self.product_of(e) if whole is e else self.value(whole)
        if isinstance(e, sp.Pow):
            return self.power_of(e)
        if isinstance(e, Sigma):
            return self.contraction(e)
        if isinstance(e, Amax):
            return self.largest(e)
        if isinstance(e, Product):
            return self.running_product(e)
        if isinstance(e, Where):
            return self.choice(e)
        if isinstance(e, LessEqual):
            return self.compare("<=", e)
        if isinstance(e, Less):
            return self.compare("<", e)
        if isinstance(e, (Equal, Delta)):
            return self.compare("==", e)
        if isinstance(e, (Quo, Rem)):
            over, under = sp.fraction(sp.together(e.args[1]))
            divisor = e.args[1] if under == 1 else Quo(over, under)
            return self.join("//" if isinstance(e, Quo) else "%", self.value(e.args[0]), self.value(divisor))
        if isinstance(e, Parity):
            return self.sign_of_permutation(e)
        if isinstance(e, Sign):
            return self.map_method("sign", e.args[0])
        if isinstance(e, (sp.Function, sp.exp)):
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

    # -- scatters ------------------------------------------------------------------------------------------------

    def _filled(self, e: Expr, indices: Sequence[Expr], shape: Shape, outputs: list[Index]) -> Lowered | None:
        """A number at places of a tensor and something else everywhere else, as that and the number put there."""
        for k, f in enumerate(sp.Mul.make_args(e)):
            others = [g for m, g in enumerate(sp.Mul.make_args(e)) if m != k]
            if isinstance(f, Where) and not f.args[1].has(Indexed, Index) and (f.args[1] == 0 or not others):
                condition, number, rest = f.args[0], f.args[1], f.args[2]
            else:
                number, (rest, condition) = sp.S.Zero, but_where(f)
                if condition is None:
                    continue
            if isinstance(condition, Less) and condition.args[0] == 0:
                condition = condition.args[1]
            place = self._place_of(condition, indices, shape, outputs)
            whole = sp.Mul(rest, *others)
            if place is None or not whole.has(Indexed):
                continue
            low = self.lower(whole, indices, shape)
            dense = self.typed(low.dense) if low.dense is not None and low.dense.kind == "bool" else low.dense
            if dense is not None and dense.kind == "float":
                value = self.value(sp.sympify(number)).t
                return Lowered(dense, (*low.scatters, replace(place, value=value, kind="number", fills=True)))
        return None

    def _place_of(self, d: Any, indices: Sequence[Expr], shape: Shape, outputs: list[Index]) -> Scatter | None:
        """The places that an equality stands for: the diagonal of two dimensions, or where an integer tensor says."""
        if not isinstance(d, (Delta, Equal)):
            return None
        diagonal = dimensions(d, indices)
        if diagonal:
            return Scatter((), tt.number(0), "number", accumulate=False, diagonal=diagonal)
        fixed = self._fixed(cast("Delta", d), outputs)
        if (
            fixed is None
            or not isinstance(fixed[1], Indexed)
            or not all(isinstance(i, Index) for i in fixed[1].indices)
        ):
            return None
        found = self._placed(sp.S.Zero, dict([fixed]), [], indices, shape, free_indices(fixed[1]))
        return found if free_indices(fixed[1]) <= set(outputs) else None

    def _diagonal(self, term: Expr, indices: Sequence[Expr], shape: Shape) -> Scatter | None:
        """A term that is on the diagonal of two dimensions only; unless they are equally long, one value is on all of it."""
        for d in sp.Mul.make_args(term) if self.fills else ():
            diagonal = dimensions(d, indices) if isinstance(d, (Delta, Equal)) else ()
            if not diagonal:
                continue
            row, column = (cast("Index", indices[k]) for k in diagonal)
            body = (term / d).xreplace({column: row})
            square = sp.expand(shape[diagonal[0]] - shape[diagonal[1]]) == 0
            if any(not b.has(Indexed) for b in body.atoms(*BRACKETS)) or not (square or row not in free_indices(body)):
                return None
            own = [*(i for k, i in enumerate(indices) if k not in diagonal), row]
            self.order = self.natural_order(body, [cast("Index", i) for i in own if i != 0])
            value = self.arranged(self.value(body), own, exact=False)
            return Scatter((), value.t, value.kind, accumulate=False, diagonal=diagonal)
        return None

    def _scatter(self, term: Expr, indices: Sequence[Expr], shape: Shape, outputs: list[Index]) -> Scatter | None:
        """A term with deltas that fix output indices, as values put into zeros; None if it has none."""
        factors = list(sp.Mul.make_args(term))
        diagonal = self._diagonal(term, indices, shape)
        if diagonal is not None:
            return diagonal
        if any(isinstance(f, Sigma) and self.kernel_sum(f) is not None for f in factors):
            return None
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
        body = body.xreplace(place)
        if free_indices(body) & set(place):
            return None
        used = set[Index]()
        for at in place.values():
            used |= free_indices(at)
        summed = [(i, n) for i, n in limits if i not in used]
        if summed:
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
        dims = [sp.S.Zero if i == 0 else place.get(cast("Index", i), i) for i in indices]
        apart: dict[Any, Any] = {q: without_wholes(q, self.ranges) for d in dims for q in d.atoms(Quo, Rem)}
        body, dims = body.xreplace(apart), [d.xreplace(apart) for d in dims]
        plain = [self._basic(d, i, n) for d, i, n in zip(dims, indices, shape, strict=True)]
        running = [p.index for p in plain if p is not None and p.index is not None]
        disjoint = len(used) == sum(1 for i in running if i not in indices)
        slices = [p for p in plain if p is not None]
        if len(slices) == len(plain) and disjoint:
            items = [s.item for s in slices]
            target = [s.index for s in slices if s.index is not None or s.kept]
            self.order = self.natural_order(body, [t for t in target if t is not None])
            value = self.arranged(self.value(body), [sp.S.Zero if t is None else t for t in target])
            while len(items) > 1 and items[-1] == tt.EVERYTHING:
                items.pop()
            covers = value.axes == tuple(target)
            return Scatter(tuple(items), value.t, value.kind, accumulate=False, covers=covers)
        last = max(k for k, (d, i) in enumerate(zip(dims, indices, strict=True)) if i != 0 and (d != i or i in used))
        advanced = range(last + 1)
        joint: list[Index] = [i for i in domain if i in used]
        for k in advanced:
            joint.extend(i for i in sorted(free_indices(dims[k]), key=str) if i not in joint)
        joint = self._gather_order(dims[: last + 1], joint)
        rest = [cast("Index", indices[k]) for k in range(last + 1, len(dims)) if indices[k] != 0]
        tail = [indices[k] for k in range(last + 1, len(dims))]
        self.order = [*joint, *rest]
        items = [self.arranged(self.bounded(dims[k], shape[k]), joint, exact=False).t for k in advanced]
        outside = [dims[k] for k in advanced if not self.stays_within(dims[k], shape[k])]
        for at, n in [(dims[k], shape[k]) for k in advanced if dims[k] in outside and dims[k].atoms(Index, Indexed)]:
            said = guards(body)
            body = sp.Mul(body, *[b for b in (LessEqual(0, at), Less(at, n)) if b not in said])
        self.order = self.natural_order(body, [*joint, *rest])
        value = self.arranged(self.floated(self.value(body)), [*joint, *tail])
        several = value.kind == "float" and bool(value.indices)
        return Scatter(tuple(items), value.t, value.kind, accumulate=bool(domain), several=several)

    def _gather_order(self, dims: list[Expr], joint: list[Index]) -> list[Index]:
        """The joint indices as an integer tensor among `dims` has them, if one has them all."""
        for d in dims:
            if isinstance(d, Indexed):
                own = [i for i in d.indices if isinstance(i, Index)]
                if set(own) == set(joint):
                    return own
        return joint

    def _basic(self, e: Expr, i: Expr, n: Expr) -> Place | None:
        """Output index `i` (of size `n`) fixed to `e`, in brackets without integer tensors; None if that cannot be."""
        if i == 0:
            return Place(tt.EVERYTHING, None, kept=True)
        if e == i:
            return Place(tt.EVERYTHING, cast("Index", i))
        if not e.atoms(Index, Indexed):
            return Place(tt.size(e), None)
        digits = any(q.atoms(Index) for q in e.atoms(Quo, Rem))
        if e.has(Indexed) or digits or len(e.atoms(Index)) != 1:
            return None
        (j,) = e.atoms(Index)
        slope = sp.diff(e, j)
        if j not in self.ranges or not (slope.is_Integer and slope > 0):
            return None
        start = sp.expand(e - slope * j)
        stop = sp.expand(start + slope * (self.ranges[j] - 1) + 1)
        if not (nonnegative(start) and nonnegative(sp.expand(n - stop))):
            return None
        ends = sp.expand(stop - n) == 0 or (slope > 1 and sp.expand(stop + slope - 1 - n) == 0)
        first, last = (None if start == 0 else start), (None if ends else stop)
        return Place(tt.slice_(first, last, None if slope == 1 else slope), j)


def dimensions(d: Any, indices: Sequence[Expr]) -> tuple[int, ...]:
    """The two dimensions on whose diagonal an equality holds and nowhere else; none where there are no such two."""
    found = tuple(k for k, i in enumerate(indices) if i in d.args)
    both = len(found) == 2 and {*d.args} == {indices[k] for k in found} and sp.S.Zero not in d.args
    return found if both and (len(indices) == 2 or found != (0, 1)) else ()


def but_where(f: Any) -> tuple[Any, Any]:
    """(c, equality) of what is c but where an equality holds, and zero there; (1, None) for anything else."""
    for d in f.atoms(Delta, Equal) if isinstance(f, sp.Add) and len(f.args) == 2 else ():
        number = f.xreplace({d: sp.S.Zero})
        if number.is_Rational and f == number - number * d:
            return number, d
    return sp.S.One, None


def places_apart(e: Any) -> Any:
    """Products with a sum of places, `([i = 1] - [i = 0]) h`, as a sum of what is put at each; not where that would be added up again."""
    if isinstance(e, sp.Add):
        return sp.Add(*[places_apart(t) for t in e.args]) if e.has(Delta) else e
    f = places_in(e)
    return e if f is None or (e / f).has(Sigma) else sp.Add(*[t * (e / f) for t in f.args])


def places_in(e: Any) -> Any:
    """The factor of a product that is a sum of places; None where there is none."""
    for f in e.args if isinstance(e, sp.Mul) and e.has(Delta) else ():
        if isinstance(f, sp.Add) and all(any(isinstance(d, Delta) for d in sp.Mul.make_args(t)) for t in f.args):
            return f
    return None


def guards(e: Expr) -> set[Expr]:
    """The conditions without any of which a product is zero."""
    found: set[Expr] = set()
    for f in sp.Mul.make_args(e):
        if isinstance(f, Where) and f.args[2] == 0:
            found |= {*sp.Mul.make_args(f.args[0]), *guards(f.args[1])}
        elif isinstance(f, (Less, LessEqual)):
            found.add(f)
    return found
