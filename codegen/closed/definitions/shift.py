"""Shares do not change when every exponent is shifted: exp(f - m) / Sum exp(f - m) is exp(f) / Sum exp(f), so m is dropped.

People subtract the largest logit so that nothing overflows; the stable kernels do that by themselves, and what is not there
needs no gradient. log Sum exp(f - m) becomes log Sum exp(f) - m, and the difference of that and f - m has no m at all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.regions.cells import Cell, at, substituted
from codegen.formula import named
from engine.indexed import Indexed
from engine.notation import Sigma, accesses, instantiate, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping


RULE = "shares do not change when every exponent is shifted, so that what is subtracted from all of them is dropped"


def unshifted(cells: list[Cell], kept: tuple[str, ...] = ()) -> list[Cell]:
    """The cells with exponents free of what does not vary along the axis that they are summed over."""
    known = {c.name: c for c in cells}
    for name in [c.name for c in cells if isinstance(c.expr, sp.exp) and c.name not in kept]:
        change = shifted(known, name, kept)
        if change is not None:
            before = known
            known = {new.name: new for c in known.values() for new in [change.get(c.name, c)]}
            known = cancelled(known, before, name)
    return list(known.values())


def cancelled(known: Mapping[str, Cell], before: Mapping[str, Cell], name: str) -> dict[str, Cell]:
    """The cells with the shift of the exponential `name` left out of sums in which it stands twice, with opposite signs.

    Such a sum reads a logarithm that the shift was taken out of, and what the exponential was of, or what is picked from that.
    """
    moved = {c.name for c in known.values() if c.name in before and c.expr != before[c.name].expr}
    moved |= {r for r in before[name].reads if r in known and isinstance(known[r].expr, sp.Add)}
    picks = {c.name: c for c in known.values() if isinstance(c.expr, Indexed) and name_of(c.expr) in moved}
    sums = {n: known[n] for n in known if n in moved and isinstance(known[n].expr, sp.Add)}
    out = dict(known)
    for c in known.values():
        if isinstance(c.expr, sp.Add) and not c.call and {*c.reads} & {*picks, *sums}:
            new = sp.expand(substituted(substituted(c.expr, picks), sums))
            if len(sp.Add.make_args(new)) <= len(c.expr.args):
                out[c.name] = replace(c, expr=new, text=None)
    return out


def shifted(known: Mapping[str, Cell], name: str, kept: tuple[str, ...]) -> dict[str, Cell] | None:
    """The cells that change when the exponential `name` loses its shift; None where somebody could tell the difference.

    Those that hold other values then, the exponential and its sums, have other names.
    """
    e = known[name]
    exponent: Any = cast("Expr", e.expr).args[0]
    inner = known.get(name_of(exponent)) if isinstance(exponent, Indexed) else None
    if inner is not None and isinstance(inner.expr, sp.Add):
        exponent = at(inner, exponent.indices)
    if not isinstance(exponent, sp.Add):
        return None
    readers = [c for c in known.values() if name in c.reads]
    sums = {c.name: c for c in readers if isinstance(c.expr, Sigma) and isinstance(c.expr.body, Indexed)}
    places = {
        tuple(p for p, i in enumerate(body(z).indices) if i in dict(cast("Sigma", z.expr).limits))
        for z in sums.values()
    }
    if len(places) != 1 or any(z in kept for z in sums):
        return None
    summed = {e.indices[p] for p in next(iter(places))}
    fixed = sp.Add(*[t for t in exponent.args if not t.free_symbols & summed])
    if fixed == 0:
        return None
    change = {name: replace(e, expr=cast("Expr", sp.exp(exponent - fixed)))}
    alone = inner is not None and [c.name for c in known.values() if inner.name in c.reads] == [name]
    if inner is not None and alone and inner.name not in kept and isinstance(exponent - fixed, sp.Add):
        e_at: Any = cast("Expr", e.expr).args[0]
        own = {j: i for i, j in zip(inner.indices, e_at.indices, strict=True) if i != 0}
        change = {
            name: replace(e, expr=sp.exp(e_at)),
            inner.name: replace(inner, expr=cast("Any", exponent - fixed).xreplace(own)),
        }
    inverses = {c.name: c for c in known.values() if c.name not in kept and inverse_of(c) in sums}
    for c in known.values():
        if c.name in sums or c.name in inverses or not {name, *sums, *inverses} & set(c.reads):
            continue
        new = without_shift(replace(c, expr=substituted(c.expr, inverses)), e, sums, cast("Expr", fixed))
        if new is None:
            return None
        change[c.name] = replace(c, expr=new)
    change.update(dict((*sums.items(), *inverses.items())))
    names = {n: f"{n}_unshifted" for n in (name, *sums, *inverses)}
    if inner is not None and inner.name in change and (inner.node is not None or inner.named):
        names[inner.name] = f"{inner.name}_unshifted"
    return {
        n: replace(
            c, name=names.get(n, n), expr=named(cast("Expr", c.expr), names), node=None if n in names else c.node
        )
        for n, c in change.items()
    }


def body(z: Cell) -> Indexed:
    """The access that a sum adds up."""
    return cast("Indexed", cast("Sigma", z.expr).body)


def inverse_of(c: Cell) -> str | None:
    """The cell whose reciprocal a cell is."""
    e = c.expr
    return name_of(e.base) if isinstance(e, sp.Pow) and e.exp == -1 and isinstance(e.base, Indexed) else None


def without_shift(c: Cell, e: Cell, sums: Mapping[str, Cell], fixed: Expr) -> Expr | None:
    """A reader's definition in terms of the sums without the shift; None where it reads anything but shares and logarithms."""
    expr = cast("Expr", c.expr)
    hidden: dict[Any, Any] = {}
    logs: dict[Any, Any] = {}
    for log in sorted(expr.atoms(sp.log), key=sp.default_sort_key):
        z = sums.get(name_of(log.args[0])) if isinstance(log.args[0], Indexed) else None
        if z is not None:
            where = corresponding(cast("Indexed", log.args[0]), e, z)
            mark = sp.Dummy("log", real=True)
            hidden[log], logs[mark] = mark + instantiate(fixed, where), log
    plain = expr.xreplace(hidden)
    factors = list(sp.Mul.make_args(plain))
    for a in accesses(plain, e.name):
        partner = next(
            (
                z
                for z in sums.values()
                for b in accesses(plain, z.name)
                if sp.Pow(b, -1) in factors and paired(a, b, e, z)
            ),
            None,
        )
        if partner is None or a not in factors:
            return None
        factors = [
            f for f in factors if f != a and not (isinstance(f, sp.Pow) and f.base in accesses(plain, partner.name))
        ]
    if any(accesses(f, z) for f in factors for z in sums):
        return None
    return plain.xreplace(logs) if logs else expr


def corresponding(access: Indexed, e: Cell, z: Cell) -> dict[Any, Any]:
    """e's indices in terms of those of an access to z."""
    own = dict(zip(z.indices, access.indices, strict=False))
    return {i: own[j] for i, j in zip(e.indices, body(z).indices, strict=False) if j in own and i != 0}


def paired(a: Indexed, b: Indexed, e: Cell, z: Cell) -> bool:
    """Whether z is read at the row of e's element."""
    own = dict(zip(e.indices, a.indices, strict=False))
    return all(own[i] == j for i, j in corresponding(b, e, z).items())


__all__ = ["RULE", "unshifted"]
