# pyright: basic
"""What a region may gain before it is closed: shares of sums of exponentials, and sums of centred tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.closed.algebra.matching import matched
from codegen.closed.algebra.sums import summed_term
from codegen.closed.algebra.terms import expanded
from codegen.closed.definitions import (
    knownsums,
    multiples,
    normalised,
    oncecentred,
    onesum,
    oppositegates,
    several,
    sharesofsums,
    signs,
    turned,
)
from codegen.closed.definitions.logistic import DEPTH, elementwise_cells, gate_argument, softplus_arguments
from codegen.closed.definitions.outer import ORIGINS, with_origins
from codegen.closed.definitions.shares import held
from codegen.closed.definitions.stabilize import is_exponential
from codegen.closed.kernels.kinks import CLAMP, with_clamps
from codegen.closed.regions.cells import Cell, at, natural, substituted
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Index, Sigma, accesses, canonical, free_indices, fresh, name_of

if TYPE_CHECKING:
    from codegen.closed.regions.region import Region

SHARES_BY_LOGS = "exp(f - log z) with z = Σ exp f is the share exp(f) / z"
CENTRED = "a centred tensor u = x - mean(x) sums to zero, so that Σ u x is Σ u u"
GATES = "the derivative of log(1 + exp f) is made of sigmoid(f)"
"""The rules of the forward, as its trail names them."""


def enriched(region: Region, kept: tuple[str, ...] = ()) -> Region:
    """A region centred, with the share `exp(f) / Sum exp(f)` of every sum of exponentials that has none, and so on.

    Cells that are `kept` are read from outside of it.
    """
    region = region.by(oncecentred.RULE, lambda cells: oncecentred.without_second_mean(cells, kept))
    region = region.by(oppositegates.RULE, oppositegates.by_opposite_gates)
    region = region.by(normalised.RULE, normalised.with_normalised)
    region = region.by(onesum.RULE, lambda cells: onesum.with_one_sum(cells, kept))
    region = region.by(SHARES_BY_LOGS, shares_by_logs).by(
        knownsums.RULE, lambda cells: knownsums.by_known_sums(cells, kept)
    )
    region = region.by(turned.RULE, turned.by_turned_places)
    region = (
        region.by(CENTRED, centred)
        .by(sharesofsums.RULE, sharesofsums.with_shares)
        .by(several.RULE, several.with_logarithms)
    )
    region = region.by(GATES, with_gates)
    region = region.by(CLAMP, with_clamps).by(multiples.RULE, multiples.with_multiples).by(ORIGINS, with_origins)
    return region.by(signs.RULE, lambda cells: signs.without_minus(cells, kept))


def shares_by_logs(cells: list[Cell]) -> list[Cell]:
    """`exp(f - log z)` with `z = Sum exp f` as the share `exp(f) / z` that it is."""
    known: dict[str, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        share = share_by_log(c, known) if isinstance(c.expr, sp.exp) else None
        known[c.name] = c if share is None else replace(c, expr=share, positive=True)
        out.append(known[c.name])
    return out


def share_by_log(c: Cell, known: dict[str, Cell]) -> Expr | None:
    """exp(f)/z of a cell that is exp(f - log z); None where it is something else."""
    usable = {n: d for n, d in elementwise_cells(known).items() if isinstance(d.expr, (sp.Add, sp.log))}
    return share_within(c, known, of_logarithms(usable)) or share_within(c, known, usable)


def of_logarithms(cells: dict[str, Cell]) -> dict[str, Cell]:
    """Cells, in their order, that are made of logarithms; what stands in front of the tensors beside these is not."""
    out: dict[str, Cell] = {}
    for n, c in cells.items():
        if cast("Expr", c.expr).has(sp.log) or any(r in out for r in c.reads):
            out[n] = c
    return out


def share_within(c: Cell, known: dict[str, Cell], usable: dict[str, Cell]) -> Expr | None:
    """The share that a cell is with as many of the usable cells written out as it takes."""
    inner: Any = cast("Any", c.expr).args[0]
    for _ in range(DEPTH):
        for t in sp.Add.make_args(inner):
            total = cast("Any", -t).args[0] if isinstance(-t, sp.log) else None
            z = total if isinstance(total, Indexed) else held(total, known) if isinstance(total, Sigma) else None
            cell = None if z is None else known.get(name_of(z))
            if z is None or cell is None or not isinstance(cell.expr, Sigma):
                continue
            body = cast("Any", at(cell, z.indices)).body
            if isinstance(body, Indexed) and is_exponential(body, known):
                body = at(known[name_of(body)], body.indices)
            own = {cast("Index", i) for i in c.indices if i != 0}
            share: Any = sp.exp(inner - t)
            if isinstance(body, sp.exp) and matched(share, body, own) is not None:
                return share / z
        step = substituted(inner, usable)
        if step == inner:
            return None
        inner = step
    return None


def with_gates(cells: list[Cell]) -> list[Cell]:
    """sigmoid(g) after every cell that reads log(1 + exp(g)), whose derivative it is, unless some cell is sigmoid(g) or sigmoid(-g)."""
    known = {canonical(generic_of(g)) for c in cells for g in [gate_argument(c.expr)] if g is not None}
    taken = {c.name for c in cells}
    by_name = {c.name: c for c in cells}
    out: list[Cell] = []
    for c in cells:
        c = with_sums_by_name(c, by_name)
        out.append(c)
        for g in softplus_arguments(c.expr) if c.expr is not None and c.differentiable else []:
            g = (-g) if g.could_extract_minus_sign() else g
            sizes: dict[Any, Expr] = {**c.ranges, **{i: n for s in c.expr.atoms(Sigma) for i, n in s.limits}}  # pyright: ignore[reportOptionalMemberAccess]
            free = [i for i in natural(g) if i in sizes and i in free_indices(g)]
            copy = {i: Index(f"_g{k}") for k, i in enumerate(free)}
            generic = g.xreplace(copy)
            if canonical(generic) in known or canonical(-generic) in known:
                continue
            known.add(canonical(generic))
            name = free_name(f"{c.name}_sigmoid", taken)
            taken.add(name)
            own = {j: fresh() for j in copy.values()}
            expr = (1 / (1 + sp.exp(-generic))).xreplace(own)
            out.append(
                Cell(
                    name,
                    tuple(own.values()),
                    tuple(sizes[i] for i in free),
                    expr,
                    "float",
                    True,
                    c.dtype,
                    positive=True,
                )
            )
    return out


def with_sums_by_name(c: Cell, known: dict[str, Cell]) -> Cell:
    """A cell that reads by their names the sums that it has log(1 + exp(g)) of: sigmoid(g) reads them too."""
    sums = [s for g in softplus_arguments(c.expr) for s in g.atoms(Sigma)] if c.expr is not None else []
    there = {s: a for s in sums for a in [held(s, known)] if a is not None and name_of(a) != c.name}
    return replace(c, expr=cast("Any", c.expr).xreplace(there)) if there else c


def generic_of(e: Expr) -> Expr:
    """An expression with its indices by position."""
    return e.xreplace({i: Index(f"_g{k}") for k, i in enumerate(natural(e))})


def centred(cells: list[Cell]) -> list[Cell]:
    """`Sum u*x` with u = x - mean(x) is `Sum u*u`: x is u + m, and Sum u is 0. It costs less and loses nothing at an offset."""
    known: dict[str, Cell] = {}
    out: list[Cell] = []
    for c in cells:
        c = replace(c, expr=centred_sum(c.expr, known)) if c.expr is not None else c
        known[c.name] = c
        out.append(c)
    return out


def centred_sum(e: Expr, known: dict[str, Cell]) -> Expr:
    """A reduction with an uncentred factor replaced, where a centred one stands beside it."""
    sums = [f for f in Mul.make_args(e) if isinstance(f, Sigma)]
    if len(sums) != 1 or not isinstance(sums[0].body, sp.Mul):
        return e
    total = sums[0]
    for a in accesses(total.body):
        u = known.get(name_of(a))
        if u is None or u.expr is None or not isinstance(u.expr, sp.Add):
            continue
        written = at(u, a.indices)
        parts = sp.Add.make_args(written)
        lead = [p for p in parts if isinstance(p, Indexed) and p in total.body.args]
        if len(parts) != 2 or len(lead) != 1:
            continue
        x = lead[0]
        m = written - x
        if not is_mean_of(x, -m, total, known):
            continue
        body = expanded(total.body / x * (a - m))
        kept = [t for t in sp.Add.make_args(body) if not m_free(t, m, total)]
        ranges = dict(total.limits)
        return e / total * sp.Add(*[summed_term(t, list(total.limits), ranges) for t in kept])
    return e


def m_free(term: Any, m: Any, total: Sigma) -> bool:
    """Whether a term is the centred tensor times its mean alone, whose sum is zero."""
    (atom,) = accesses(m)
    rest = term / m
    return bool(term.has(atom)) and isinstance(rest.as_coeff_Mul()[1], Indexed)


def is_mean_of(x: Indexed, m: Any, total: Sigma, known: dict[str, Cell]) -> bool:
    """Whether m is the mean of x over exactly the summed indices."""
    if not isinstance(m, Indexed):
        return False
    cell = known.get(name_of(m))
    if cell is None or cell.expr is None:
        return False
    written: Any = at(cell, m.indices)
    sums = [f for f in Mul.make_args(written) if isinstance(f, Sigma)]
    if len(sums) != 1 or not isinstance(sums[0].body, Indexed):
        return False
    count = Mul(*[n for _, n in sums[0].limits])
    if sp.cancel(written / sums[0] * count) != 1 or len(sums[0].limits) != len(total.limits):
        return False
    mapping: dict[Any, Any] = dict(zip([i for i, _ in sums[0].limits], [i for i, _ in total.limits], strict=True))
    return bool(sums[0].body.xreplace(mapping) == x)
