# pyright: basic
"""Comparisons of whole numbers that both the forward and the backward choose by: kept as truth values, which are smaller than what is compared.

What floats are compared with is computed again: they are there, as the backward reads them.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch

from codegen.closed.regions.cells import Cell, natural
from engine.indexed import Indexed
from engine.notation import BRACKETS, Delta, Equal, Index, LessEqual, accesses, canonical, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sympy import Expr

RULE = "what is chosen by whole numbers twice is compared once"


def with_kept_masks(cells: Sequence[Cell], slopes: Mapping[str, Expr]) -> tuple[list[Cell], dict[str, Expr]]:
    """The cells with such comparisons as cells of their own, before the first that chooses by them, and the backward's formulas."""
    known = {c.name: c for c in cells}
    compared = {key_of(b) for e in slopes.values() for b in comparisons(e, known)}
    made: dict[Any, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        found = comparisons(c.expr, known) if compared and c.expr is not None and not c.call else []
        for b in found:
            if key_of(b) in compared and key_of(b) not in made:
                made[key_of(b)] = mask(b, known, [m.name for m in made.values()])
                out.append(made[key_of(b)])
        out.append(replace(c, expr=put(c.expr, made, known), text=None) if found and made else c)
    return out, {n: put(e, made, known) if made else e for n, e in slopes.items()}


def comparisons(e: Any, known: Mapping[str, Cell]) -> list[Any]:
    """The comparisons in an expression of what whole numbers are at given places, over all different indices, in a fixed order."""
    found = [b for b in e.atoms(*BRACKETS) if not isinstance(b, Delta) and accesses(b)] if e.has(*BRACKETS) else []
    whole = [
        b for b in found if all(given(a, known) for a in accesses(b)) and not any(isinstance(x, Index) for x in b.args)
    ]
    plain = [b for b in whole if all(isinstance(x, Indexed) or x.is_number for x in b.args)]
    return sorted(plain, key=str)


def given(a: Any, known: Mapping[str, Cell]) -> bool:
    """Whether whole numbers are read from elsewhere, at plain indices."""
    cell = known.get(name_of(a))
    own = [i for i in a.indices if i != 0]
    plain = all(isinstance(i, Index) for i in own) and len(set(own)) == len(own) > 0
    return cell is not None and cell.expr is None and cell.kind == "int" and plain


def key_of(b: Any) -> Any:
    """A comparison whatever its indices are called."""
    return canonical(b, {i: Index(f"_m{k}") for k, i in enumerate(natural(b))})


def mask(b: Any, known: Mapping[str, Cell], made: Sequence[str] = ()) -> Cell:
    """A comparison as a cell, called after what is compared and unlike those already `made`."""
    sizes = {i: n for a in accesses(b) for i, n in zip(cast("Any", a).indices, known[name_of(a)].shape, strict=True)}
    order = natural(b)
    own = {i: Index(f"_m{k}") for k, i in enumerate(order)}
    first = known[name_of(min(accesses(b), key=str))]
    label = "eq" if isinstance(b, Equal) else "le" if isinstance(b, LessEqual) else "lt"
    taken = {*known, *made}
    name = next(n for k in itertools.count() if (n := f"{first.name}_{label}{k or ''}") not in taken)
    return Cell(name, tuple(own.values()), tuple(sizes[i] for i in order), b.xreplace(own), "bool", False, torch.bool)


def put(e: Any, made: Mapping[Any, Cell], known: Mapping[str, Cell]) -> Any:
    """An expression that reads the cells of comparisons."""
    change = {b: made[key_of(b)].element(natural(b)) for b in comparisons(e, known) if key_of(b) in made}
    return e.xreplace(change) if change else e


__all__ = ["RULE", "with_kept_masks"]
