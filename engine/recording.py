"""A torch call recorded: its shapes by torch's meta kernels, what defines its outputs by the row of its op, once per structure."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any, cast

import sympy as sp
import torch
from sympy import Expr, Symbol
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from engine.arguments import (
    as_tuple,
    form,
    hashable,
    is_bool,
    one_of,
    with_values,
    without_values,
)
from engine.bounds import REASONS, SLICED
from engine.errors import ShapeError, TraceError
from engine.graph import Call, Source
from engine.implicit import Equation, Expansion
from engine.indexed import Indexed
from engine.literals import plain
from engine.located import here, located
from engine.notation import Index, accesses, name_of, size_symbol
from engine.ops.indexing import selects
from engine.parts import part
from engine.positive import positive
from engine.proxy import Proxy, Record, without_modes
from engine.sizes import Dim, Real, Sized, Sizes, number
from engine.spelling import Ref, SizeArg, is_slice, with_bounds
from engine.table import BroadcastError, Definition, Operand, Output, Row, Scope, Shape
from engine.wholes import computed, counts_from_end


@dataclass(frozen=True)
class _Defined:
    """What a row said of one structure of call.

    Outputs, equal sizes, what is not negative, placeholders, the operands' shapes, and which of the call's own outputs (`chosen`) the
    definitions read as further operands.
    """

    outputs: tuple[Output, ...]
    same: tuple[tuple[Expr, Expr], ...]
    bounds: tuple[Expr, ...]
    placeholders: tuple[Symbol, ...]
    shapes: tuple[Shape, ...]
    chosen: tuple[int, ...]


_memo: dict[Any, _Defined] = {}


@dataclass
class _Given:
    """What a call is given: the records that it reads, and every leaf on torch's meta device, by its value if that is known, and as it
    is recorded. `selecting` are the integer tensors without dimensions that select as an int does.
    """

    operands: list[Record] = field(default_factory=list[Record])
    meta: list[Any] = field(default_factory=list[Any])
    known: list[Any] = field(default_factory=list[Any])
    call: list[Any] = field(default_factory=list[Any])
    selecting: int = 0

    def add(self, meta: Any, known: Any, call: Any) -> None:
        """One leaf more."""
        self.meta.append(meta)
        self.known.append(known)
        self.call.append(call)


def memory(t: torch.Tensor) -> int:
    """What is equal for tensors that share memory, also where they have no values."""
    return t.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def moves_with(template: Definition, operands: list[Record]) -> bool:
    """Whether an operand that has a gradient is among those whose elements a definition reads.

    `x.to(y)` takes no more than a dtype from y. What reads nothing, as `0 * x`, has a gradient of zeros, as in torch.
    """
    places = {name_of(a) for a in accesses(template.expr)}
    return any(o.differentiable and (not places or f"_{k}" in places) for k, o in enumerate(operands))


class Recording(TorchFunctionMode):
    """Makes records of calls; what a call is given comes from the tracer that it is."""

    shapes: tuple[tuple[int, ...], ...] | None
    padded: bool
    sizes: Sizes
    shaped: dict[Any, Any]

    def proxy(self, record: Record) -> Proxy:
        """A tensor for a record."""
        raise NotImplementedError(type(self).__name__)

    def _constant(self, t: torch.Tensor) -> Proxy:
        raise NotImplementedError(type(self).__name__)

    def _read(self, p: Proxy, name: str) -> Record:
        raise NotImplementedError(type(self).__name__)

    def _record(self, row: Row, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        source = here()
        if any(torch.is_autocast_enabled(device) for device in ("cpu", "cuda")):
            raise TraceError(
                f"autocast is on at {located()}, and casts what the forward does not say. Cast where you want it, "
                "x.to(torch.bfloat16), or put autocast around the emitted function."
            )
        leaves, spec = pytree.tree_flatten((tuple(map(as_tuple, args)), {k: as_tuple(v) for k, v in kwargs.items()}))
        given = self._given(row, leaves)
        operands = given.operands
        call_args, call_kwargs = pytree.tree_unflatten(given.call, spec)
        try:
            result, shown = self._shaped(row, func, given.meta, spec)
        except (RuntimeError, IndexError, ValueError, TypeError, AssertionError) as error:
            with contextlib.suppress(ShapeError, RuntimeError, IndexError, ValueError, TypeError):
                self._define(row, operands, call_args, call_kwargs, source)  # a row may say better what is wrong
            shapes = ", ".join(str(tuple(r.meta.shape)) for r in operands)
            text = f"  {source.text}" if source and source.text else ""
            message = f"{row.name} on shapes {shapes or 'none'} at {source or 'the forward'}: {error}\n{text}"
            raise ShapeError(message) from error
        dtypes = list(dict.fromkeys(r.meta.dtype for r in operands)) if row.kind == "product" else []
        if len(dtypes) > 1:
            raise TraceError(
                f"{row.name} at {source} is of {dtypes[0]} and {dtypes[1]}, and torch multiplies tensors of one dtype: convert one of "
                f"them, as in x.to({dtypes[1]})"
            )
        collection, several = cast("Any", type(result)), isinstance(result, (tuple, list))
        metas: list[Any] = [*result] if several else [result]
        if any(isinstance(m, torch.Tensor) and m.is_complex() for m in metas):
            raise TraceError(f"{row.name} at {source} makes complex numbers, which are outside of what is derived")
        grad = torch.is_grad_enabled() or self._given_back(row, func, leaves, given.meta, spec)
        call = Call(func, call_args, tuple(call_kwargs.items()))
        # torch copies what it gathers; an integer tensor without dimensions selects, as an int does
        gathered = row.name == "__getitem__" and sum(isinstance(v, torch.Tensor) for v in leaves) > 1 + given.selecting
        view = (row.view and not gathered) or shown
        values: list[torch.Tensor | None] = [None] * len(metas)
        if all(o.known is not None for o in operands):
            with without_modes():
                values = computed(row.name, func, given.known, spec, metas)
        made: dict[int, Proxy] = {}
        if self.shapes is not None:
            moves = grad and any(o.differentiable for o in operands)
            for k, meta in enumerate(metas):
                record = Record(
                    row.name, tuple(operands), None, (), tuple(map(sp.Integer, meta.shape)), meta, moves and meta.is_floating_point(),
                    source, call, k if several else None, len(metas), view, known=values[k],
                )  # fmt: skip
                made[k] = self.proxy(record)
                if view:
                    operands[0].views.append(record)
            return collection([made[k] for k in range(len(metas))]) if several else made[0]
        known, mapping = self._define(row, operands, call_args, call_kwargs, source)
        self._same_as_counted(known, operands)
        pairs = list(enumerate(zip(known.outputs, metas, strict=True)))
        for k, (output, meta) in sorted(pairs, key=lambda p: p[0] not in known.chosen):
            back = dict(mapping)
            shape = tuple(self.sizes.resolve(s.xreplace(back)) for s in output.shape)
            if tuple(self.sizes.value(s) for s in shape) != tuple(meta.shape):
                said, true = tuple(self.sizes.value(s) for s in shape), tuple(meta.shape)
                raise ShapeError(f"{row.name} at {source}: the op table says shape {said}, torch {true}")
            template = output if isinstance(output, Definition) else None
            implicit = output if isinstance(output, (Equation, Expansion)) else None
            moves = row.kind != "like" and (
                moves_with(template, operands)
                if template is not None
                else implicit is not None and any(o.differentiable for o in operands)
            )
            differentiable = grad and moves and meta.is_floating_point()
            is_positive = template is not None and positive(template.expr)
            read = (*operands, *(made[c].record for c in known.chosen)) if template is not None else tuple(operands)
            record = Record(
                row.name, read, template, mapping, shape, meta, differentiable, source, call,
                k if several else None, len(metas), view, None, is_positive, known.shapes, known=values[k],
                signed=counts_from_end(row.name, values[k], output, meta, [o.signed for o in operands], not several),
                implicit=implicit,
            )  # fmt: skip
            made[k] = self.proxy(record)
            if view:
                operands[0].views.append(record)
        if view and not several and isinstance(args[0], Proxy) and (shown or row.name == "__getitem__"):
            made[0].part_of = part(row, func, args, kwargs)
        return collection([made[k] for k in range(len(metas))]) if several else made[0]

    def _given(self, row: Row, leaves: list[Any]) -> _Given:
        """What a call is given, leaf by leaf."""
        given = _Given()
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor):
                p = leaf if isinstance(leaf, Proxy) else self._constant(leaf)
                self._read(p, row.name)
                if p.record not in given.operands:
                    given.operands.append(p.record)
                chosen_by = row.name == "__getitem__" and bool(given.meta) and selects(p.record.meta)
                given.selecting += int(chosen_by)
                given.add(0 if chosen_by else p.record.meta, p.record.known, Ref(given.operands.index(p.record)))
            else:
                whole = with_bounds(number, leaf) if is_slice(leaf) else number(leaf)
                given.add(whole, whole, with_bounds(self._argument, leaf) if is_slice(leaf) else self._argument(leaf))
        return given

    def _shaped(self, row: Row, func: Any, leaves: list[Any], spec: Any) -> tuple[Any, bool]:
        """The result's shape and dtype by torch's meta kernels, asked once for equal calls, and whether it is a view."""
        key = (func, torch.get_default_dtype(), spec, *map(form, leaves)) if row.bundled else None
        if key in self.shaped:
            return self.shaped[key]
        args, kwargs = pytree.tree_unflatten(leaves, spec)
        if row.kind == "factory":
            kwargs = {**kwargs, "device": "meta"}
        with without_modes():
            result = func(*args, **kwargs) if row.bundled else self._own(func, args, kwargs)
            if row.kind == "elementwise" and row.bundled and any(map(is_bool, leaves)):
                args, kwargs = pytree.tree_unflatten([one_of(x) for x in leaves], spec)
                func(*args, **kwargs)  # no meta kernel refuses a truth value that is subtracted
        made = [cast("Any", result)] if isinstance(result, torch.Tensor) else pytree.tree_leaves(result)
        given = [x for x in leaves if isinstance(x, torch.Tensor)]
        shown = any(memory(t) == memory(x) and t is not x for t in made if isinstance(t, torch.Tensor) for x in given)
        found = result, shown
        if key is not None:
            self.shaped[key] = found
        return found

    def _given_back(self, row: Row, func: Any, leaves: list[Any], metas: list[Any], spec: Any) -> bool:
        """Whether torch gives an argument itself back, as `contiguous` and `to` may: with its gradient, under `no_grad` as elsewhere."""
        moving = [
            meta for p, meta in zip(leaves, metas, strict=True) if isinstance(p, Proxy) and p.record.differentiable
        ]
        if not moving or not row.bundled or row.name.endswith("_"):
            return False
        args, kwargs = pytree.tree_unflatten(metas, spec)
        with without_modes():
            result = func(*args, **kwargs)
        return any(result is meta for meta in moving)

    def _own(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of the user's own on meta tensors; where it needs values, on ones (integers: zeros) of the same shapes."""
        try:
            return func(*args, **kwargs)
        except (RuntimeError, NotImplementedError, TypeError):
            args, kwargs = pytree.tree_map(with_values, (args, kwargs))
            return pytree.tree_map(without_values, func(*args, **kwargs))

    def _same_as_counted(self, known: _Defined, operands: list[Record]) -> None:
        """`x[torch.arange(n), y]` reads every row of x where n is their number: then the two sizes are one, checked."""
        by_name = {f"_{k}": o for k, o in enumerate(operands)}
        for output in known.outputs:
            if not isinstance(output, Definition):
                continue
            for access in accesses(output.expr):
                owner = by_name.get(name_of(access))
                if owner is None:  # one of the call's own outputs
                    continue
                for d, at in enumerate(access.indices[: len(owner.shape)]):
                    counter = by_name.get(name_of(at)) if isinstance(at, Indexed) else None
                    if counter is None or counter.template is None or not isinstance(counter.template.expr, Index):
                        continue
                    a, b = self.sizes.resolve(counter.shape[0]), self.sizes.resolve(owner.shape[d])
                    if a != b and self.sizes.value(a) == self.sizes.value(b):
                        self.sizes.same_unseen.append((a, b, located()))
                        self.sizes.unify(a, b)

    def _argument(self, v: Any) -> Any:
        return SizeArg(self.sizes.resolve(v.expr)) if isinstance(v, Sized) else plain(v)

    def _define(
        self, row: Row, operands: list[Record], args: Any, kwargs: dict[str, Any], source: Source | None
    ) -> tuple[_Defined, tuple[tuple[Symbol, Expr], ...]]:
        """The outputs' definitions over placeholders, made once per structure, and what the placeholders stand for."""
        names: dict[Symbol, Symbol] = {}

        def placeholder(e: Expr) -> Expr:
            e = self.sizes.resolve(e)
            for s in sorted(e.free_symbols, key=lambda s: s.name):
                if s not in names:
                    names[s] = size_symbol(f"s{len(names)}")
            return e.xreplace(dict(names))

        shapes = [tuple(placeholder(s) for s in o.shape) for o in operands]

        def renamed(v: Any) -> Any:
            if isinstance(v, SizeArg):
                return SizeArg(placeholder(v.expr))
            return with_bounds(renamed, v) if is_slice(v) else v

        leaves, spec = pytree.tree_flatten((args, kwargs))
        leaves = [renamed(v) for v in leaves]
        values = {p: self.sizes.values[s] for s, p in names.items()}
        flags = tuple((o.meta.dtype, o.positive, o.signed) for o in operands)
        key = (
            row,
            self.padded,
            tuple(shapes),
            flags,
            tuple(hashable(v) for v in leaves),
            str(spec),
            tuple(values.items()),
        )
        if key not in _memo:
            scope = Scope(dict(values), len(operands), self.padded)
            sizes = Sizes()
            sizes.values = dict(values)
            tensors = [Operand(k, shapes[k], *flags[k]) for k in range(len(operands))]

            def given(v: Any) -> Any:
                if isinstance(v, Ref):
                    return tensors[v.position]
                if isinstance(v, SizeArg):
                    n = sp.N(v.expr.xreplace(dict(values)), 17)
                    return Dim(int(n), v.expr, sizes) if v.expr.is_integer else Real(float(n), v.expr, sizes)
                return with_bounds(given, v) if is_slice(v) else v

            row_args, row_kwargs = pytree.tree_unflatten([given(v) for v in leaves], spec)
            try:
                outputs = row(scope, row_args, row_kwargs)
            except BroadcastError as error:  # torch takes it: it is broadcast, so that it has to be one in any run
                symbols = sorted(error.size.xreplace({p: s for s, p in names.items()}).free_symbols, key=str)
                if not symbols:
                    raise
                for s in symbols:
                    self.sizes.fix(s, self.sizes.values[s])
                return self._define(row, operands, args, kwargs, source)
            except TraceError as error:
                text = f"\n  {source.text}" if source and source.text else ""
                raise type(error)(f"{error} ({row.name} at {source or 'the forward'}){text}") from error
            except TypeError as error:
                raise TraceError(
                    f"{row.name} at {source or 'the forward'}: an argument the op table does not know: {error}"
                ) from error
            read = (*shapes, *(shape for _, shape in scope.chosen))
            resolved = tuple(tuple(scope.resolve(s) for s in shape) for shape in read)
            chosen = tuple(c for c, _ in scope.chosen)
            _memo[key] = _Defined(outputs, tuple(scope.same), tuple(scope.bounds), tuple(values), resolved, chosen)
        known = _memo[key]
        back: dict[Symbol, Expr] = {p: s for s, p in names.items()}
        for a, b in known.same:
            self.sizes.unify(a.xreplace(dict(back)), b.xreplace(dict(back)))
        for e in known.bounds:
            self.sizes.keep_bound(e.xreplace(dict(back)), REASONS.get(row.name, SLICED))
        return known, tuple((p, back[p]) for p in known.placeholders)
