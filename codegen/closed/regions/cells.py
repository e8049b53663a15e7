# pyright: basic
"""Cells: one tensor each, by index notation over other cells, and what may be asked of their definitions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.sums import rebuilt
from codegen.closed.regions.constants import chosen
from codegen.lowering.values import TensorInfo
from engine.indexed import Indexed
from engine.notation import (
    BINDERS,
    BRACKETS,
    Delta,
    Equal,
    Index,
    Parity,
    Quo,
    Rem,
    Sigma,
    Where,
    accesses,
    base,
    canonical,
    element,
    instantiate,
    name_of,
    ordered,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.graph import Node

ZERO = sp.S.Zero


@dataclass(frozen=True, eq=False)
class Cell:
    """One tensor: its element `expr` at `indices` over other cells; None for an input and what has no definition.

    `node` is the forward's own node where the cell is one of its nodes. `call` says that the node's own torch call
    computes it from materialised tensors (nothing was inlined into it). `after` names what is drawn at random before it, so
    that the random stream is the forward's.
    """

    name: str
    indices: tuple[Expr, ...]
    shape: tuple[Expr, ...]
    expr: Expr | None
    kind: str
    differentiable: bool
    dtype: Any
    node: Node | None = None
    call: bool = False
    positive: bool = False
    named: bool = False
    text: str | None = None
    after: tuple[str, ...] = ()
    exact: bool = False
    """Whether its statement has to be the definition as it stands: the last bit decides."""
    from_start: bool = False
    """Whether its integers are places that torch refuses below zero."""

    @property
    def info(self) -> TensorInfo:
        """What lowering knows of it."""
        return TensorInfo(self.shape, self.kind, from_start=self.from_start)

    @property
    def ranges(self) -> dict[Index, Expr]:
        """Ranges of the cell's own indices."""
        return {cast("Index", i): n for i, n in zip(self.indices, self.shape, strict=True) if i != 0}

    def element(self, indices: Iterable[Expr]) -> Indexed:
        """An access to the cell at indices."""
        return cast("Indexed", element(base(self.name, self.positive, self.kind != "float"), list(indices)))

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """The cells that the definition reads, each once, in a fixed order."""
        return () if self.expr is None else tuple(dict.fromkeys(name_of(a) for a in accesses(self.expr)))

    @cached_property
    def is_local(self) -> bool:
        """Whether the cell belongs to the algebra: elementwise or a reduction over plainly indexed tensors."""
        return (
            self.expr is not None
            and not self.call
            and self.kind == "float"
            and not is_contraction(self.expr)
            and is_plain(self.expr)
            and not is_joined(self.expr)
        )


def at(cell: Cell, indices: Iterable[Expr]) -> Expr:
    """A cell's definition at other indices, with fresh bound indices."""
    assert cell.expr is not None
    mapping = {i: j for i, j in zip(cell.indices, indices, strict=False) if i != 0}
    return instantiate(cell.expr, mapping)


def substituted(e: Any, known: Mapping[str, Cell]) -> Any:
    """An expression with every access to a cell of `known` replaced by that cell's definition."""
    if isinstance(e, Indexed):
        name = name_of(e)
        if name in known:
            cell = known[name]
            return at(cell, [substituted(i, known) for i in e.indices] if cell.shape else [])
        indices = [substituted(i, known) for i in e.indices]
        return e.func(e.base, *indices) if any(x is not y for x, y in zip(indices, e.indices, strict=True)) else e
    return rebuilt(e, lambda a: substituted(a, known))


def is_contraction(e: Expr) -> bool:
    """A sum over a product of tensors that do not share all of their indices: a matrix product, not a reduction."""
    for f in sp.Mul.make_args(e):
        if not isinstance(f, Sigma):
            continue
        summed = {i for i, _ in f.limits}
        sets = [frozenset(s for s in g.free_symbols if isinstance(s, Index)) for g in sp.Mul.make_args(f.body)]
        sets = [s for s in sets if s & summed]
        if len(sets) < 2 or adds_weights(f.body):
            continue
        if any(isinstance(g, Parity) for g in sp.Mul.make_args(f.body)):
            return True
        union = frozenset().union(*sets)
        outer = union - summed
        if all(outer - s for s in sets) and len(set(sets)) > 1:
            return True
    return False


def adds_weights(e: Any) -> bool:
    """Whether a sum's body is one positive tensor at the places that integers say: weights, which stay with what divides by their sums."""
    tensors = [g for g in sp.Mul.make_args(e) if not isinstance(g, Delta)]
    return len(tensors) == 1 and isinstance(tensors[0], Indexed) and bool(tensors[0].is_positive) and e.has(Delta)


@lru_cache(maxsize=2**13)
def is_plain(e: Expr) -> bool:
    """Whether an expression reads tensors only at index symbols, constants and integer tensors (no index arithmetic)."""
    digits = any(x.atoms(Index, Indexed) for x in e.atoms(Quo, Rem))
    return not digits and all(
        isinstance(i, (Index, Indexed)) or not i.free_symbols
        for a in accesses(e)
        for i in (cast("Any", x) for x in a.indices)
    )


def is_computed(i: Any) -> bool:
    """Whether an index is computed, element by element, from integer tensors alone."""
    made = bool(accesses(i)) or i.has(Where)
    return not isinstance(i, Indexed) and all(a.is_integer for a in accesses(i)) and made and is_plain(i)


def places(e: Expr) -> Expr | None:
    """An expression that is numbers and ones at places that an integer tensor says, as `a [j = y[i]] + b`; None for any other.

    Whether two integer tensors are equal there is such a number.
    """
    whole = chosen(e)
    for d in whole.atoms(Delta):
        one, other = sorted(d.args, key=lambda x: isinstance(x, Indexed))
        if not isinstance(one, Index) or not isinstance(other, Indexed) or not is_plain(other):
            return None
    ones = {d: sp.Dummy() for d in whole.atoms(Delta) | {x for x in whole.atoms(Equal) if is_of_places(x)}}
    free = sp.sympify(whole.xreplace(ones))
    inner = free.has(Indexed, *BINDERS) or free.atoms(Index)
    return None if inner or not accesses(whole) or not free.is_polynomial(*ones.values()) else whole


def is_of_places(e: Equal) -> bool:
    """Whether it compares entries of two integer tensors."""
    return all(isinstance(x, Indexed) and x.is_integer and is_plain(x) for x in e.args)


def is_joined(e: Expr) -> bool:
    """Tensors side by side in one: which of them is read depends on the position alone."""
    return (
        isinstance(e, Where)
        and not accesses(e.args[0])
        and all(is_joined(x) or isinstance(x, Indexed) for x in e.args[1:])
    )


def plain_layout(cell: Cell) -> bool:
    """A permutation, an expansion, or dimensions of size one put in or out: nothing but renamed indices."""
    e = cell.expr
    if not isinstance(e, Indexed):
        return False
    indices = [i for i in e.indices if i != 0]
    return all(isinstance(i, Index) for i in indices) and len(set(indices)) == len(indices)


def is_table(e: Expr) -> bool:
    """Whether a constant is a table of functions or quotients of positions, as sines or powers by them or points at equal distances."""
    positions = (f for f in e.atoms(sp.exp, sp.sin, sp.cos, sp.log, sp.Pow) if (f.exp if f.is_Pow else f).has(Index))
    return any(positions) or (
        e.has(Index) and any(p.exp.is_negative for p in e.atoms(sp.Pow)) and not e.has(*BRACKETS, Delta)
    )


def on_diagonal(a: Indexed) -> bool:
    """Whether a tensor is read where two of its indices are equal."""
    return len(set(a.indices)) < len([i for i in a.indices if i != 0])


def is_positive(e: Expr) -> bool:
    """Whether an expression is positive whatever its tensors hold; asked once for all that differ in their names only."""
    tensors = dict.fromkeys(cast("Any", a).base for a in accesses(e))
    known = ((b, bool(b.label.is_positive), bool(b.label.is_integer)) for b in tensors)
    return _is_positive(canonical(e, {b: base(f"_{k}", p, i) for k, (b, p, i) in enumerate(known)}))


@lru_cache(maxsize=2**10)
def _is_positive(e: Expr) -> bool:
    return bool(e.is_positive)


def natural(e: Any) -> list[Index]:
    """The indices of an expression in the order in which its largest access has them."""
    order: list[Index] = []
    for a in sorted(accesses(e), key=lambda a: -sum(1 for i in a.indices if i != 0)):
        for i in a.indices:
            order.extend(s for s in ([i] if isinstance(i, Index) else accesses(i) and natural(i)) if s not in order)  # pyright: ignore[reportArgumentType]
    rest = ordered(s for s in e.free_symbols if isinstance(s, Index) and s not in order)
    return [*order, *rest]


def signature(cell: Cell) -> tuple[Any, tuple[Any, ...]]:
    """A key that is equal for cells that hold the same values up to the order of dimensions, and that order."""
    assert cell.expr is not None
    own = {i for i in cell.indices if i != 0}
    order = tuple(i for i in natural(cell.expr) if i in own)
    order = (*order, *[i for i in cell.indices if i != 0 and i not in order])
    mapping = {i: Index(f"_o{k}") for k, i in enumerate(order)}
    sizes = dict(zip(cell.indices, cell.shape, strict=True))
    return (canonical(cell.expr, mapping), tuple(sizes[i] for i in order), cell.dtype), order


__all__ = ["Cell", "at", "is_contraction", "natural", "signature", "substituted"]
