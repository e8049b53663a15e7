"""Logarithms taken apart before they overflow: log(exp(l)/z) is l - log z, and log z of a sum of exponentials is logsumexp."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.algebra.matching import holding
from codegen.closed.algebra.sums import rebuilt
from codegen.closed.definitions import beside, completed, exponents, logpowers, several, shift
from codegen.closed.definitions.logistic import DEPTH, QUOTIENT, elementwise_cells, quotients, softplus_argument
from codegen.closed.definitions.shares import reduction
from codegen.closed.kernels.cubicgate import gelu_tanh
from codegen.closed.regions.cells import Cell, substituted
from codegen.lowering.kernels import stable
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Sigma, Where, fresh, instantiate, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from codegen.closed.regions.region import Region

MEANS = "a mean of exponentials is their sum over their number"
LOGARITHMS = "the logarithm of a product is a sum of logarithms, in which log and exp cancel"
UNREAD = "nothing reads this exponential any more"
KERNEL = "definitions are written out until a kernel of torch is met that does not overflow"
"""The rules of the forward, as its trail names them."""


def stabilized(region: Region, kept: tuple[str, ...] = (), powers: bool = True) -> Region:
    """Every logarithm of a product of exponentials and every quotient of linear functions of an exponential rewritten.

    Exponentials that nothing reads any more are left out, except for those in `kept`. Without `powers`, the logarithm of a power
    of a tensor stays one.
    """
    if powers:
        region = region.by(logpowers.RULE, lambda cells: logpowers.with_log_powers(cells, kept, log_parts))
    region = region.by(exponents.RULE, lambda cells: exponents.with_exponents(cells, kept))
    region = region.by(completed.RULE, lambda cells: completed.completed(cells, kept))
    region = region.by(beside.RULE, lambda cells: beside.beside_one(cells, kept))
    region = (
        region.by(MEANS, means_apart).by(shift.RULE, lambda cells: shift.unshifted(cells, kept)).by(QUOTIENT, quotients)
    )
    return region.by(LOGARITHMS, lambda cells: logs_apart(cells, kept)).by(UNREAD, lambda cells: read_ones(cells, kept))


def logs_apart(cells: list[Cell], kept: tuple[str, ...] = ()) -> list[Cell]:
    """The cells with their logarithms expanded where something is gained. What is another tensor then is read as that, but for `kept` ones."""
    known: dict[str, Cell] = {}
    out: list[Cell] = []
    gone: dict[str, Cell] = {}
    for cell in cells:
        if cell.expr is not None and any(r in gone for r in cell.reads):
            cell = replace(cell, expr=substituted(cell.expr, gone), text=None)
        if cell.expr is not None and not cell.call and cell.expr.has(sp.log):
            new = by_cells(log_parts(cell.expr, known), known)
            if new != cell.expr:
                cell = replace(cell, expr=new)
            other = known.get(name_of(new)) if isinstance(new, Indexed) and cell.name not in kept else None
            same = other is not None and (other.dtype, other.differentiable) == (cell.dtype, cell.differentiable)
            if same and new.indices == cell.indices and not cell.named:
                gone[cell.name] = cell
                continue
        known[cell.name] = cell
        out.append(cell)
    return out


def by_cells(e: Any, known: Mapping[str, Cell]) -> Any:
    """An expression in which the logarithm of what a cell adds up is that of the cell: several logarithms read one sum then.

    Not where a kernel computes the logarithm of what is written out.
    """
    sums = [c for c in known.values() if isinstance(c.expr, sp.Add) and c.kind == "float" and not c.call]
    there: dict[Any, Any] = {}
    for x in sorted(e.atoms(sp.log), key=str):
        for c in sums if isinstance(x.args[0], sp.Add) and stable(x) is None else ():
            own = holding(c, cast("Expr", c.expr), x.args[0])
            if own is not None:
                there[x] = sp.log(own)
                break
    return e.xreplace(there) if there else e


def means_apart(cells: list[Cell]) -> list[Cell]:
    """The cells with every mean of exponentials as a multiple of their sum, which is a cell of its own."""
    known = {c.name: c for c in cells}
    out: list[Cell] = []
    for c in cells:
        number, total = reduction(c.expr) if c.expr is not None and not c.call else (None, None)
        if total is not None and number != 1 and is_exponential(total.body, known):
            name = free_name(f"{c.name}_sum", known)
            own = {i: fresh() for i in c.indices if i != 0}
            inner = instantiate(total, own)
            indices = tuple(own.get(i, i) for i in c.indices)
            known[name] = replace(
                c, name=name, indices=indices, expr=inner, node=None, text=None, named=False, positive=True
            )
            out.append(known[name])
            c = replace(c, expr=cast("Any", number) * known[name].element(c.indices))
        out.append(c)
    return out


def read_ones(cells: list[Cell], kept: tuple[str, ...]) -> list[Cell]:
    """Cells without the exponentials, and the sums of a number and an exponential, that neither `kept` nor other cells read."""
    known = {c.name: c for c in cells}
    read = set(kept)
    out: list[Cell] = []
    for c in reversed(cells):
        if (
            c.name in read
            or c.expr is None
            or c.expr.has(Sigma)
            or not (is_exponential(c.expr, known) or piece(c, known))
        ):
            out.append(c)
            read.update(c.reads)
    return out[::-1]


def log_parts(e: Any, known: Mapping[str, Cell]) -> Any:
    """An expression with its logarithms expanded where an exponential cancels or a stable kernel appears.

    torch's softplus, a choice with a logarithm in it, is such a kernel as it is.
    """
    if isinstance(e, Where) and stable(e) is not None:
        return e
    if isinstance(e, sp.log):
        argument = e.args[0]
        direct = opened(argument)
        for inner in written_out(argument, {n: c for n, c in elementwise_cells(known).items() if c.expr is not None}):
            new = of_choice(inner, known) if isinstance(inner, Where) else opened(inner)
            if new is not None and not (isinstance(direct, sp.log) and only_written_out(direct, new)):
                return besides_ones(new, known)
        return e if direct is None else direct
    if isinstance(e, Indexed) or not e.args:
        return e
    return rebuilt(e, lambda a: log_parts(a, known))


def of_choice(e: Where, known: Mapping[str, Cell]) -> Any:
    """The logarithm of a choice as a choice between logarithms; None where neither of them is taken apart."""
    condition, *both = e.args
    logs = [sp.log(b) if b.is_number else log_parts(sp.log(b), known) for b in both]
    gained = any(isinstance(b, Indexed) and x != sp.log(b) for b, x in zip(both, logs, strict=True))
    return Where(condition, *logs) if gained else None


def written_out(e: Any, usable: Mapping[str, Cell]) -> Iterator[Any]:
    """An expression with more and more cells written out: first those that stand in no exponent, then all of them."""
    seen = {e}
    for exponents_too in (False, True):
        inner = e
        for _ in range(DEPTH):
            kept = (
                {} if exponents_too else {x: sp.Dummy("e", positive=True) for x in sorted(inner.atoms(sp.exp), key=str)}
            )
            step = substituted(inner.xreplace(kept), usable).xreplace({d: x for x, d in kept.items()})
            if step == inner:
                break
            inner = step
            if inner not in seen:
                seen.add(inner)
                yield inner


def besides_ones(e: Any, known: Mapping[str, Cell]) -> Any:
    """An expression with its logarithms of one and an element of a cell that is an exponential as the kernel that computes these."""
    ones = (x for x in e.atoms(sp.log) if isinstance(x.args[0] - 1, Indexed))
    there = {x: log_parts(x, known) for x in ones if is_exponential(x.args[0] - 1, known)}
    return e.xreplace(there) if there else e


def only_written_out(direct: Expr, new: Expr) -> bool:
    """Whether a logarithm that a kernel computes has no exponential less by what its tensor is made of: that gains nothing."""
    return new.count(sp.exp) >= direct.count(sp.exp)


def opened(argument: Expr) -> Expr | None:
    """log of a product of positive factors, exponentials and sums of exponentials, as a sum; None where nothing is gained.

    Factors of any sign have one logarithm together, which is real where that of the product is.
    """
    whole = sp.factor_terms(sp.together(argument)) if argument.is_Add or argument.has(sp.Pow) else argument
    whole = sp.Mul(*[plainer(f) for f in sp.Mul.make_args(whole)])
    total: Any = sp.S.Zero
    signed: Any = sp.S.One
    gained = False
    exponentials = argument.atoms(sp.exp)
    for f in sp.Mul.make_args(whole):
        b, x = (f, sp.S.One) if isinstance(f, sp.exp) else f.as_base_exp()
        if isinstance(b, sp.exp):
            total += x * b.args[0]
            gained = True
        elif isinstance(b, Sigma) and isinstance(b.body, sp.exp):
            total += x * sp.log(b)
            gained = True
        elif isinstance(b, sp.Add) and turned(b, exponentials) is not None:
            g = cast("Expr", turned(b, exponentials))
            total += x * (g + sp.log(1 + sp.exp(-g)))
            gained = True
        elif b.is_positive:
            logarithm = sp.log(b)
            kernel = stable(logarithm)
            if b.has(sp.exp) and (kernel is None or kernel[0] == "log1p"):
                return None  # an exponential that nothing keeps from overflowing
            gained = gained or (kernel is not None and bool(b.has(sp.exp)))
            total += x * logarithm
        elif f.has(sp.exp) or not f.has(Indexed):
            return None
        else:
            signed *= f
    return cast("Expr", total + sp.log(signed)) if gained else None


def plainer(f: Any) -> Any:
    """A sum without the exponentials that cancel in it: what a mixture `c + (1 - c) sigmoid(z)` lacks of one is (1 - c) sigmoid(-z)."""
    if not isinstance(f, sp.Add) or not f.has(sp.exp) or f.has(Sigma):
        return f
    new = sp.powsimp(sp.factor_terms(sp.expand(f)), combine="exp")
    return new if len(new.atoms(sp.exp)) < len(f.atoms(sp.exp)) else f


def turned(b: sp.Add, given: set[Any]) -> Expr | None:
    """g of 1 + exp(g), where the forward has exp(-g) and not exp(g): 1 + exp(g) = exp(g) (1 + exp(-g))."""
    rest = b - 1
    if isinstance(rest, sp.exp) and rest not in given and sp.exp(-rest.args[0]) in given:
        return rest.args[0]
    return None


def kernel_form(cell: Cell, known: Mapping[str, Cell]) -> Expr:
    """A cell's definition with cells written out as far as it takes to meet a stable kernel; unchanged where none is met."""
    e = cast("Expr", cell.expr)
    share = several.by_logarithm(cell, known)
    if share is not None:
        return share
    if has_kernel(e):
        return e
    gelu = gelu_tanh(cell, known)
    if gelu is not None:
        return gelu
    usable = {
        n: c
        for n, c in elementwise_cells(known).items()
        if piece(c, known) or (is_scale(c) and is_exponential(e, known))
    }
    inner: Any = e
    for _ in range(DEPTH):
        step = substituted(inner, usable)
        if step == inner:
            return e
        inner = step
        if has_kernel(inner):
            return inner
    return e


def is_scale(c: Cell) -> bool:
    """Whether a cell is the logarithm of `1 + exp(f)` that exponentials are divided by: they are sigmoids then."""
    return not c.differentiable and isinstance(c.expr, sp.log) and softplus_argument(c.expr.args[0]) is not None


def piece(cell: Cell, known: Mapping[str, Cell]) -> bool:
    """An exponential, one plus an exponential, two or a sum of them: what a kernel is made of, and no kernel itself."""
    e = cell.expr
    if isinstance(e, sp.Add):
        moving = [t for t in e.args if t.has(Indexed)]
        if len(e.args) == 2 and all(is_exponential(t, known) for t in moving) and len(moving) == 2:
            return True
        if several.terms_of(cell, known):
            return True
        return len(moving) == 1 and sp.S.One in e.args and is_exponential(moving[0], known)
    if isinstance(e, Sigma):
        return is_exponential(e.body, known)
    return isinstance(e, sp.exp)


def is_exponential(e: Any, known: Mapping[str, Cell]) -> bool:
    """An exponential, or an access to a cell that is one."""
    if isinstance(e, sp.exp):
        return True
    cell = known.get(name_of(e)) if isinstance(e, Indexed) else None
    return cell is not None and isinstance(cell.expr, sp.exp)


def has_kernel(e: Any) -> bool:
    """Whether a stable kernel computes a part of an expression, and no naked exponential of it is left outside."""
    return any(
        stable(cast("Expr", x)) is not None for x in sp.preorder_traversal(e) if isinstance(x, (sp.Mul, sp.Pow, sp.log))
    )
