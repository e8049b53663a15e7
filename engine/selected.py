"""Entries that a mask chooses, `x[mask]`: how many there are is known by values alone, so all are computed with.

What works on each entry of the first dimension by itself works on all of them as on the chosen ones. Whether a call does
so is read off its definition. A sum or a mean then leaves out the others, and `x[mask] = y` puts `y` where the mask holds.
The entries that are not chosen are taken for the first one that is, so that nothing is undefined at them.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch
from torch.utils import _pytree as pytree

from engine.arguments import out_of_place
from engine.chosen import Selected, beside, chosen, entries_or, refused, view_of, write
from engine.leftout import REDUCED, SHARED, keeping
from engine.notation import Index, accesses, name_of
from engine.ops.losses import reduction_of
from engine.proxy import Proxy, without_modes
from engine.table import Row, axes, recorded_as, row_of
from engine.wholes import DRAWN

if TYPE_CHECKING:
    from collections.abc import Generator

    from engine.proxy import Record
    from engine.tracer import Tracer

ABOUT = frozenset(("dtype", "ndim", "layout", "is_sparse", "is_cuda"))
"""Attributes that the chosen entries share with all of them."""
LAYOUT = frozenset(("squeeze", "flatten", "reshape", "view", "__getitem__", "select"))
"""What leaves the places of a mask what they are, `mask.nonzero().squeeze(1)`."""
BY_CLASS = frozenset(("cross_entropy", "nll_loss"))
"""Losses that leave out a class."""


@contextlib.contextmanager
def as_written(tracer: Tracer) -> Generator[None]:
    """Calls in here are recorded by their own rows, also inside of a composite that records one by another."""
    with recorded_as(None), tracer:
        yield


def selected(tracer: Tracer, x: Proxy, mask: Proxy, at: int = 0) -> Selected:
    """What a mask of dimensions of `x` from `at` on chooses. Raises TraceError where it has other dimensions."""
    of, by, rank = tracer.current(x), tracer.current(mask), mask.record.meta.dim()
    if of is None or by is None:
        raise refused("a mask of a view that was written in place since")
    sizes = of.shape[at : at + rank]
    if not rank or of.meta.shape[at : at + rank] != by.meta.shape or 1 in sizes:
        raise refused(f"a mask of shape {tuple(by.meta.shape)}")
    for a, b in zip(sizes, by.shape, strict=True):
        tracer.sizes.unify(a, b)
    raw, flat = Proxy.of(of), Proxy.of(by)
    if rank > 1:
        with as_written(tracer):
            raw, flat = cast("Any", raw).flatten(at, at + rank - 1), cast("Any", flat).flatten()
    return chosen(raw, None, flat, by, at)


def alike(a: Record, b: Record) -> bool:
    """Whether two records have the same values: they are one, or the same call made them of such."""
    pairs, seen = [(a, b)], set[tuple[int, int]]()
    while pairs:
        a, b = pairs.pop()
        if a is b or (id(a), id(b)) in seen:
            continue
        seen.add((id(a), id(b)))
        if a.op in DRAWN or a.value is not None or a.output != b.output or _spelled(a) != _spelled(b):
            return False
        if len(a.operands) != len(b.operands):
            return False
        pairs.extend(zip(a.operands, b.operands, strict=True))
    return True


def _spelled(r: Record) -> Any:
    """A record's call as something that equals that of the same call."""
    return id(r) if r.call is None else (r.call.function, r.call.args, r.call.kwargs)


def filled(s: Selected) -> Any:
    """All entries, the first chosen one in the place of those that are not."""
    if s.full is None:
        first = s.raw.detach().index_select(s.at, s.mask.int().argmax().reshape(1))
        if not s.raw.is_floating_point():  # where none is chosen 0 is a place for sure
            first = first * s.mask.any()
        s.full = torch.where(beside(s.mask, s.raw, s.at), s.raw, first)
    return s.full


def _put(x: Any, mask: Any, value: Any, at: int) -> Any:
    value = value.reshape(x.shape)
    return torch.where(beside(mask, x, at), value if value.dtype == x.dtype else value.to(x.dtype), x)


PUT = Row("__setitem__", (), _put, kind="composite")
"""`x` with the entries of another tensor of its shape where a mask holds."""


def called(tracer: Tracer, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call with chosen entries among its arguments. Raises TraceError where it needs to know how many there are."""
    given = [v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, Selected)]
    s = given[0]
    if name == "__get__":
        attribute = func.__self__.__name__
        if attribute not in ABOUT:
            raise refused(f".{attribute}")
        return getattr(s.raw.record.meta, attribute)
    if name in ("dim", "ndimension", "is_floating_point", "is_complex"):
        with without_modes():
            return getattr(s.raw.record.meta, name)()
    if any(other.stale for other in given):
        raise refused(f"{name} of entries that were written through a view of them")
    if any(not alike(other.by, s.by) for other in given):
        raise refused(f"{name} of entries that different masks choose")
    if name == "__setitem__":
        return _assigned(tracer, *args)
    if name in ("detach", "clone", "contiguous"):
        with as_written(tracer):
            full = getattr(filled(s), name)()
        made = chosen(full, full, s.mask, s.by, s.at)
        return made if name == "clone" else view_of(s, made)
    if "inplace" in kwargs:
        made = called(tracer, name, func, args, {k: v for k, v in kwargs.items() if k != "inplace"})
        if kwargs["inplace"] and isinstance(made, Selected):
            write(s, made.full)
        return made
    row, inplace = row_of(func), out_of_place(name)
    if row is None and inplace is not None and row_of(inplace) is not None:
        made = called(tracer, name, inplace, args, kwargs)
        if not isinstance(args[0], Selected) or not isinstance(made, Selected):
            raise refused(name)
        with as_written(tracer):
            write(args[0], filled(made).to(args[0].raw.dtype))
        return args[0]
    if row is None:
        raise refused(name)
    return _applied(tracer, row, func, args, kwargs, s)


def mask_of(item: Any, rank: int) -> tuple[Proxy, int] | None:
    """The mask in the brackets and its first dimension, where it stands beside dimensions that are taken whole alone."""
    items: list[Any] = list(cast("tuple[Any, ...]", item)) if isinstance(item, tuple) else [item]
    places = [k for k, i in enumerate(items) if isinstance(i, Proxy)]
    others = [i for i in items if not isinstance(i, Proxy)]
    if len(places) != 1 or not all(i is Ellipsis or (isinstance(i, slice) and i == slice(None)) for i in others):
        return None
    (k,) = places
    mask, behind = items[k], len(items) - k - 1
    ahead = items[:k]
    return mask, (rank - mask.record.meta.dim() - behind if Ellipsis in ahead else k)


def _assigned(tracer: Tracer, x: Any, item: Any, value: Any) -> None:
    """`x[mask] = y[mask]`, or what was made of it."""
    found = mask_of(item, x.record.meta.dim()) if isinstance(x, Proxy) and isinstance(value, Selected) else None
    if found is None or found[0].record.meta.dtype != torch.bool or found[1] != value.at:
        raise refused("an assignment of chosen entries")
    if not alike(found[0].record, value.by):
        raise refused("an assignment of entries that another mask chooses")
    with as_written(tracer):
        full = filled(value)
    tracer.inplace(PUT, None, (x, found[0], full, value.at), {})


def _applied(tracer: Tracer, row: Row, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], s: Selected) -> Any:
    positional, named = row.arguments(args, kwargs)
    given = row.signature.bind(*positional, **named).arguments
    if row.name in (*REDUCED, *SHARED) and isinstance(given.get("x"), Selected):
        s = given["x"]
        with as_written(tracer):
            dim = given.get("dim")
            over = axes(None if isinstance(dim, bool) else dim, s.raw.dim())
            if s.at in over and row.name in REDUCED:
                return REDUCED[row.name](s, list(over), given)
            if over == (s.at,):
                shares = getattr(entries_or(s, float("-inf")), row.name)(s.at, **keeping(given, "dtype"))
                return chosen(shares, None, s.mask, s.by, s.at)
    if "reduction" in row.signature.parameters:
        how = reduction_of(given.get("size_average"), given.get("reduce"), given.get("reduction", "mean"))
        target = given.get("y")
        with as_written(tracer):
            if row.name in BY_CLASS and isinstance(target, Selected) and not target.is_floating_point():
                out = _by_class(tracer, func, args, kwargs, target, given.get("ignore_index", -100))
                return chosen(out, out, s.mask, s.by, target.at) if how == "none" else out
            if how != "none":
                old = ("size_average", "reduce", "reduction")
                if how not in ("sum", "mean") or any(k in given and k not in kwargs for k in old):
                    raise refused(f"{row.name} with reduction={how!r}")
                each = func(*args, **{k: v for k, v in kwargs.items() if k not in old}, reduction="none")
                return getattr(each, how)()
    if row.kind == "composite":
        return tracer.apply(row, func, args, kwargs)
    return _each(tracer, row, func, args, kwargs, s)


def _by_class(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], target: Selected, ignored: int
) -> Any:
    """A loss of classes, of which it leaves out those that are not chosen."""
    tracer.padded = tracer.padded or ignored == -100
    classes = torch.where(
        beside(target.mask, target.raw, target.at), target.raw if target.full is None else target.full, ignored
    )

    def all_of(v: Any) -> Any:
        return classes if v is target else filled(v) if isinstance(v, Selected) else v

    args, kwargs = pytree.tree_map(all_of, (args, kwargs))
    return func(*args, **kwargs)


def _each(tracer: Tracer, row: Row, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], s: Selected) -> Selected:
    """A call that works on each entry by itself. Raises TraceError where its definition says something else."""
    full: list[tuple[Record, int]] = []

    def all_of(v: Any) -> Any:
        if not isinstance(v, Selected):
            return v
        with as_written(tracer):
            entries = filled(v)
        full.append((entries.record, v.at))
        return entries

    args, kwargs = pytree.tree_map(all_of, (args, kwargs))
    out = tracer.apply(row, func, args, kwargs)
    at = max(full, key=lambda f: f[0].meta.dim())[1]
    # a second run, at other sizes, is without definitions: the same calls were looked at in the first
    if not isinstance(out, Proxy) or (tracer.shapes is None and not by_itself(tracer, out.record, full, at)):
        raise refused(row.name)
    made = chosen(out, out, s.mask, s.by, at)
    if row.name in LAYOUT and len(full) == 1 and out.record.meta.dim() == 1:
        made.place = s.place
    return view_of(s, made) if out.record.view else made


def by_itself(tracer: Tracer, made: Record, full: list[tuple[Record, int]], at: int) -> bool:
    """Whether each entry of a call's result along `at` is made of the same entry of `full` alone, and the same way for all."""
    definition = made.template
    index = definition.indices[at] if definition is not None and at < len(definition.indices) else None
    if definition is None or not isinstance(index, Index):
        return False
    if len({tracer.sizes.resolve(r.shape[k]) for r, k in ((made, at), *full)}) > 1:
        return False
    own = {f"_{n}": k for n, o in enumerate(made.operands) for r, k in full if o is r}

    def of_the_entry(a: Any) -> bool:
        k = own.get(name_of(a))
        return (
            k is not None
            and a.indices[k] == index
            and not any(i.has(index) for i in (*a.indices[:k], *a.indices[k + 1 :]))
        )

    expr = definition.expr
    while found := [a for a in accesses(expr) if of_the_entry(a)]:
        expr = expr.xreplace({a: sp.Dummy() for a in found})
    return not expr.has(index) and all(name_of(a) not in own for a in accesses(expr))
