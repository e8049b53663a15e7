"""Tracing: a forward runs once on symbolic tensors and every torch call becomes a node.

The tensors are on torch's meta device, so torch itself says shapes and dtypes and refuses what does not fit; a
`TorchFunctionMode` sees every call, factories included.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch
from sympy import Expr, Symbol
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from engine.arguments import (
    as_tuple,
    devices,
    fixed,
    form,
    hashable,
    is_bool,
    one_of,
    out_of_place,
    with_values,
    without_devices,
    without_values,
)
from engine.bounds import REASONS, SLICED
from engine.errors import ShapeError, TraceError
from engine.graph import Call, Source
from engine.implicit import Equation, Expansion
from engine.indexed import Indexed
from engine.literals import plain
from engine.located import REMEDIES, device, drawn_apart, here, located, transformed, unknown_op
from engine.naming import unwatched
from engine.notation import Index, accesses, name_of, size_symbol
from engine.ops import TABLE
from engine.ops.indexing import selects
from engine.parts import part
from engine.places import of_masks, places
from engine.positive import positive
from engine.proxy import Proxy, Record, SymbolicShape, without_modes
from engine.selected import Selected, called, mask_of, refused, selected
from engine.sizes import Dim, Real, Sized, SizedRange, Sizes, exact, number
from engine.spelling import Ref, SizeArg, decimals, is_slice, with_bounds
from engine.table import BroadcastError, Definition, Operand, Output, Row, Scope, Shape, row_of
from engine.wholes import DRAWN, computed, counts_from_end

if TYPE_CHECKING:
    from collections.abc import Mapping

CONSTANT_LIMIT = 64
META_PROPERTIES = frozenset((
    "dtype", "ndim", "layout", "itemsize", "is_sparse", "is_quantized", "is_nested", "is_leaf", "is_cuda", "is_mps",
    "is_mkldnn",
))  # fmt: skip
"""Attributes of a tensor that do not depend on its values or sizes."""
IN_PLACE = frozenset((
    "copy_", "zero_", "normal_", "uniform_", "exponential_", "bernoulli_", "random_", "cauchy_", "geometric_",
    "log_normal_", "fill_diagonal_",
))  # fmt: skip
"""Methods that write into their tensor and have rows of their own."""


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


def memory(t: torch.Tensor) -> int:
    """What is equal for tensors that share memory, also where they have no values."""
    return t.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def resized(t: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor of another shape with the entries of this one, again and again."""
    for d, size in enumerate(shape):
        if size != t.shape[d] and not t.is_meta:
            t = t.index_select(d, torch.arange(size, device=t.device) % t.shape[d])
    return t.new_empty(shape) if t.is_meta else t


def _is_part(p: Any, whole: Any, item: Any) -> bool:
    """Whether a tensor is `whole[item]`, as it is now."""
    if not isinstance(p, Proxy) or p.part_of is None or p.record.stale or p.part_of.whole is not whole:
        return False
    (given, spec), (own, own_spec) = pytree.tree_flatten((item,)), pytree.tree_flatten(p.part_of.args)
    return spec == own_spec and all(
        a is b or (type(a) is type(b) and not isinstance(a, torch.Tensor) and bool(a == b))
        for a, b in zip(given, own, strict=True)
    )


def moves_with(template: Definition, operands: list[Record]) -> bool:
    """Whether an operand that has a gradient is among those whose elements a definition reads.

    `x.to(y)` takes no more than a dtype from y. What reads nothing, as `0 * x`, has a gradient of zeros, as in torch.
    """
    places = {name_of(a) for a in accesses(template.expr)}
    return any(o.differentiable and (not places or f"_{k}" in places) for k, o in enumerate(operands))


class Tracer(TorchFunctionMode):
    """Records every torch call on proxies.

    Args:
        shapes: the sizes of the inputs, in order, instead of the examples'. They are plain numbers then, and calls are
            recorded without what defines them.
        fixed: sizes that are numbers, by input and dimension, and where the forward took them for one.
    """

    def __init__(
        self, shapes: tuple[tuple[int, ...], ...] | None = None, fixed: Mapping[tuple[int, int], str] | None = None
    ) -> None:
        super().__init__()
        self.shapes, self.fixed = shapes, fixed or {}
        self.count = 0
        self.read: set[Expr] = set()
        self.sizes = Sizes()
        self.sizes.locate_with(located)
        self.records: list[Record] = []
        self.captured: dict[int, Proxy] = {}
        self.padded = False
        self.keep: list[Any] = []
        self.annotated: dict[Expr, str] = {}
        self.buffers: dict[int, Record] = {}
        self.written: set[int] = set()
        self.buffer_updates: list[tuple[Record, Record]] = []
        self.held: dict[int, Proxy] = {}
        self.shaped: dict[Any, Any] = {}

    def proxy(self, record: Record) -> Proxy:
        """The tensor that the forward sees for a record."""
        p = record.meta.detach().as_subclass(Proxy)
        p.record, p.part_of = record, None
        self.records.append(record)
        return p

    def input(self, name: str, t: torch.Tensor) -> Proxy:
        """A proxy for an input tensor; dimensions of size one stay 1, the others get a symbol."""
        if t.is_complex():
            raise TraceError(f"input {name!r} is complex; keep real and imaginary parts as real tensors")
        number, self.count = self.count, self.count + 1
        shape: Shape
        if self.shapes is None:
            shape = tuple(self.sizes.new(f"{name}%{d}", int(s)) for d, s in enumerate(t.shape))
            for d, size in enumerate(shape):
                if (number, d) in self.fixed:
                    self.sizes.fix(size, int(t.shape[d]), self.fixed[number, d])
        else:
            with without_modes():
                t = resized(t, self.shapes[number])
            shape = tuple(map(sp.Integer, t.shape))
        meta = torch.empty(t.shape, dtype=t.dtype, device="meta")
        record = Record("input", (), None, (), shape, meta, t.is_floating_point(), None)
        with without_modes():
            self.padded = self.padded or (t.dtype == torch.int64 and not t.is_meta and bool((t == -100).any()))
            record.look_at(t)
        record.wanted.append((-1, 0, name))
        return self.proxy(record)

    # -- what the mode sees ------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with unwatched():
            return self._called(func, args, kwargs)

    def _called(self, func: Any, args: Any, kwargs: Any) -> Any:
        given: dict[str, Any] = kwargs or {}
        kwargs = {k: v for k, v in given.items() if k != "out" or v is not None}
        name = getattr(func, "__name__", str(func))
        flat = pytree.tree_leaves((args, kwargs))
        if any(isinstance(a, torch.Generator) for a in flat):
            raise TraceError(drawn_apart(name))
        if self.held and any(id(a) in self.held for a in flat):  # a parameter that was kept elsewhere in the module
            args, kwargs = pytree.tree_map(self._as_held, (args, kwargs))
            flat = pytree.tree_leaves((args, kwargs))
        proxies = [a for a in flat if isinstance(a, (Proxy, Selected))]
        if name == "__get__" and proxies:
            if isinstance(args[0], Selected):
                return called(self, name, func, args, kwargs)
            return self._property(func, args[0])
        if not proxies:
            row, made = TABLE.get(func), row_of(func)
            if made is not None and made.kind == "factory":
                return self._record(made, func, *without_devices(name, args, kwargs))
            sized = any(isinstance(a, Sized) for a in flat)  # torch.tensor(0.0).expand(n), which stays symbolic
            if row is not None and (sized or row.name in DRAWN) and name not in IN_PLACE:
                args, kwargs = pytree.tree_map_only(torch.Tensor, self._constant, (args, kwargs))
                return self.apply(row, func, args, kwargs)
            return self._outside(name, func, args, kwargs)
        answer = self._python(name, args, kwargs)
        if answer is not None:
            return answer[0]
        if name == "to" or "device" in kwargs:
            if any(kind != "cpu" for kind in devices(name, args, kwargs)):
                raise TraceError(device(name))
            args, kwargs = without_devices(name, args, kwargs)
            if name == "to" and len(args) == 1 and not kwargs:
                return args[0]
        if name in ("nonzero", "argwhere") or (name == "where" and len(proxies) == len(args) + len(kwargs) == 1):
            return places(self, name, args, kwargs)
        if name == "index_select" and isinstance(args[0], Proxy) and any(isinstance(a, Selected) for a in proxies):
            dim, index = [*args[1:], *kwargs.values()]
            name, func = "__getitem__", torch.Tensor.__getitem__
            args, kwargs = (args[0], (*[slice(None)] * (dim % args[0].dim()), index)), {}
        if name in ("__getitem__", "__setitem__") and isinstance(args[0], Proxy):
            args = (args[0], of_masks(args[1], read=name == "__getitem__"), *args[2:])
            proxies = [a for a in pytree.tree_leaves(args) if isinstance(a, (Proxy, Selected))]
        if any(isinstance(a, Selected) for a in proxies):
            return called(self, name, func, args, kwargs)
        if name == "masked_select":
            with self:
                both = cast("Any", torch).broadcast_tensors(*args, *kwargs.values())
            return selected(self, *both)
        if name in ("__getitem__", "__setitem__"):
            args = (args[0], self._item(args[1]), *args[2:])
            if name == "__getitem__" and any(
                i.dtype == torch.bool for i in pytree.tree_leaves(args[1]) if isinstance(i, Proxy)
            ):
                found = mask_of(args[1], args[0].record.meta.dim())
                if found is None:
                    raise refused("a mask beside other indices")
                return selected(self, args[0], *found)
        if name == "__setitem__":
            if not _is_part(
                args[2], args[0], args[1]
            ):  # else `x[item] += y`, which has written through x[item] already
                self.inplace(TABLE[func], func, args, kwargs)
            return None
        if name in IN_PLACE and func in TABLE:
            return self.inplace(TABLE[func], func, args, kwargs)
        row = row_of(func)
        if row is None:
            inplace = out_of_place(name)
            if inplace is not None and inplace in TABLE:
                return self.inplace(TABLE[inplace], inplace, args, kwargs)
            raise TraceError(unknown_op(name))
        if "inplace" in kwargs:
            rest = {k: v for k, v in kwargs.items() if k != "inplace"}
            return self.inplace(row, func, args, rest) if kwargs["inplace"] else self.apply(row, func, args, rest)
        return self.apply(row, func, args, kwargs)

    def _outside(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call on no tensor of the trace, made as it is: what it gives is a constant, which random numbers are not."""
        if any(isinstance(a, torch.Tensor) and a.is_meta for a in pytree.tree_leaves((args, kwargs))):
            raise TraceError(transformed(name))
        before = torch.get_rng_state()
        result = func(*pytree.tree_map(fixed, args), **pytree.tree_map(fixed, kwargs))
        if not torch.equal(before, torch.get_rng_state()):
            raise TraceError(
                f"{name!r} at {located()} draws random numbers into a tensor that is not part of the trace, where they would "
                "be the same in every call. Draw with torch.rand, torch.randn, torch.randint, torch.randperm or torch.normal."
            )
        return result

    def _as_held(self, a: Any) -> Any:
        """The proxy of a module's own parameter."""
        return self.held.get(id(a), a)

    def function_called(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An autograd Function that was applied: by its row, for its own backward is not derived from anything."""
        row = TABLE.get(function)
        if row is None and function.__name__ in REMEDIES:
            raise TraceError(unknown_op(function.__name__))
        if row is None:
            raise TraceError(
                f"the autograd Function {function.__name__!r} has a backward of its own, at {located()}, and symgrad "
                "derives backwards from definitions. Call what its forward calls, or add a row for it: "
                f"@engine.op(targets=({function.__name__},)) above its index notation."
            )
        with without_modes():
            return self.apply(row, function.apply, args, kwargs)

    def _property(self, func: Any, p: Proxy) -> Any:
        name = func.__self__.__name__
        if name == "shape":
            return self._shape(p)
        if name == "data":
            return self._detach(p)
        if name == "requires_grad":
            return p.record.differentiable
        if name == "grad":
            return None
        if func in TABLE:
            return self._record(TABLE[func], func, (p,), {})
        if name in META_PROPERTIES:
            return getattr(p.record.meta, name)
        if name == "device":
            return torch.device("cpu")
        raise TraceError(f"the tensor attribute .{name} is not supported at {located()}")

    def _item(self, item: Any) -> Any:
        """What stands in the brackets of an indexing, with lists and ranges as integer tensors."""
        if isinstance(item, tuple):
            made = [self._item(i) for i in cast("tuple[Any, ...]", item)]
            return tuple(e for m in made for e in (cast("tuple[Any, ...]", m) if isinstance(m, tuple) else (m,)))
        if isinstance(item, (SizedRange, range)):
            bounds = item.args if isinstance(item, SizedRange) else (item.start, item.stop, item.step)
            return self._record(TABLE[torch.arange], torch.arange, tuple(bounds), {})
        if isinstance(item, torch.Tensor) and not isinstance(item, Proxy) and item.dtype == torch.bool:
            with without_modes():
                places = item.nonzero(as_tuple=True)
            return tuple(self._constant(p) for p in places)
        if isinstance(item, list):
            items = cast("list[Any]", item)
            if all(isinstance(i, int) and not isinstance(i, bool) for i in items):
                return self._constant(torch.tensor([fixed(i) for i in items]))
        return cast("Any", item)

    def _shape(self, p: Proxy) -> SymbolicShape:
        return SymbolicShape(self._dim(e) for e in p.record.shape)

    def _dim(self, e: Expr) -> int:
        e = self.sizes.resolve(e)
        self.read.add(e)
        return int(e) if e.is_Integer else Dim(self.sizes.value(e), e, self.sizes)

    def _python(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any] | None:
        """Calls that ask about a tensor rather than compute one, as a one-tuple; None for everything else."""
        p = args[0] if args and isinstance(args[0], Proxy) else None
        if p is None:
            return None
        if name == "size":
            dim: int | None = args[1] if len(args) > 1 else kwargs.get("dim")
            return (self._shape(p) if dim is None else self._shape(p)[dim],)
        if name in ("dim", "ndimension"):
            return (len(p.record.shape),)
        if name in ("numel", "nelement"):
            return (self._shape(p).numel(),)
        if name == "__len__":
            if not p.record.shape:
                raise TraceError(f"len() of a tensor without dimensions at {located()}")
            first = self._shape(p)[0]
            return (first.plain() if isinstance(first, Dim) else first,)
        if name in ("is_floating_point", "is_complex", "element_size", "is_contiguous", "is_inference", "get_device"):
            with without_modes():
                return (getattr(p.record.meta, name)() if name != "get_device" else -1,)
        if name == "requires_grad_" and p.record.op == "detach" and (*args[1:], *kwargs.values(), True)[0]:
            raise TraceError(unknown_op("grad"))
        if name in ("requires_grad_", "retain_grad", "register_hook", "cpu"):
            return (p,)
        if name in ("detach", "detach_"):
            return (self._detach(p),)
        if name in ("__repr__", "__str__") or (name == "__format__" and args[1:] == ("",)):
            return (f"Tensor(shape={self._shape(p)}, dtype={p.record.meta.dtype}, traced)",)
        if name == "backward":
            raise TraceError(f"backward() at {located()}: return the loss; its gradients are what is derived.")
        if name in ("item", "tolist", "numpy", "__float__", "__int__", "__index__", "__array__", "__format__"):
            raise TraceError(
                f"{name}() reads a tensor's value at {located()}: a trace has no values. "
                "Keep the value a tensor, or pass it as a Python number."
            )
        if name in ("__bool__", "is_nonzero", "equal", "allclose", "__contains__"):
            raise TraceError(
                f"Python control flow depends on a tensor's value at {located()}. "
                "Use torch.where, or decide outside of the forward and pass the decision as a Python bool."
            )
        return None

    def _detach(self, p: Proxy) -> Proxy:
        old = self._read(p, "detach")
        call = Call(torch.Tensor.detach, (Ref(0),))
        record = Record(
            "detach", (old,), None, (), old.shape, old.meta, False, here(), call, view=True, positive=old.positive
        )
        old.views.append(record)
        return self.proxy(record)

    # -- recording ---------------------------------------------------------------------------------------------

    def _constant(self, t: torch.Tensor) -> Proxy:
        known = self.captured.get(id(t))
        if known is not None:
            return known
        if t.is_meta:
            raise TraceError(transformed("a tensor"))
        if t.numel() > CONSTANT_LIMIT or t.requires_grad:
            shape = tuple(t.shape)
            raise TraceError(
                f"the forward uses a tensor of shape {shape} that is not one of its inputs, at {located()}. "
                "Pass it as an argument (emitted code depends on nothing but torch and its inputs)."
            )
        with without_modes():
            value = t.detach().clone()
            meta = torch.empty(t.shape, dtype=t.dtype, device="meta")
            shape = tuple(sp.Integer(int(s)) for s in t.shape)
            values = decimals(value)
        template = None if shape else Definition((), (), exact(values))
        call = Call(torch.tensor, (values,), (("dtype", t.dtype),))
        record = Record("constant", (), template, (), shape, meta, False, here(), call, value=value)
        with without_modes():
            record.look_at(t)
        p = self.proxy(record)
        self.captured[id(t)] = p
        self.keep.append(t)
        return p

    def apply(self, row: Row, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call as a node, or as what a composite makes of it."""
        if row.kind != "composite":
            return self._record(row, func, args, kwargs)
        args, named = row.arguments(args, kwargs)
        try:
            row.signature.bind(*args, **named)
        except TypeError as error:
            raise TraceError(f"{row.name} at {located()}: an argument the op table does not know: {error}") from error
        try:
            with self:
                result = row.define(*args, **named)
            given = [id(a) for a in pytree.tree_leaves((args, named))]
            for p in pytree.tree_leaves(result):
                if isinstance(p, Proxy) and id(p) not in given:
                    p.part_of = None  # whether torch makes a copy is not said by what the composite makes
            return result
        except TraceError as error:
            place, source = located(), here()
            if place in str(error):
                raise
            text = f"\n  {source.text}" if source and source.text else ""
            raise type(error)(f"{error} ({row.name} at {place}){text}") from error

    def rebind(self, target: Proxy, new: Proxy) -> None:
        """From now on `target` is `new`: what an in-place write comes to. A buffer's last value is an output."""
        old = target.record
        if old.differentiable and not old.is_buffer and not torch.is_grad_enabled():
            raise TraceError(
                f"an in-place write at {located()} is under no_grad, into a tensor that gradients pass: they would pass as if it "
                "had not been written. Make a new tensor: x = new.detach() passes none, x + (new - x).detach() passes x's."
            )
        first = self.buffers.get(id(target), old)
        if old.op == "input":
            self.buffers[id(target)] = old
        self.keep.append(target)
        self.written.add(id(target))
        self.buffer_updates = [(b, u) for b, u in self.buffer_updates if b is not first]
        if first.op == "input":
            self.buffer_updates.append((first, new.record))
        if new.record is not old:
            new.record.wanted.extend(old.wanted)
        stack = list(old.views)
        while stack:
            view = stack.pop()
            if not view.stale:  # what was written through a view is a view of it, too
                view.stale = True
                stack.extend(view.views)
        target.record = new.record

    def inplace(self, row: Row, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        target = args[0]
        if not isinstance(target, Proxy) or not self._writable(target):
            raise TraceError(
                f"an in-place write at {located()} changes an input, or a tensor through what may be a view of it or a copy "
                "(reshape, flatten), or through one of several views (split, chunk, unbind). Write into a copy of an input, "
                "x = x.clone(), and through x.view(...) or x[...]."
            )
        result = self.apply(row, func, args, kwargs)
        made, wanted = result.record.meta, target.record.meta
        if made.shape != wanted.shape or not torch.can_cast(made.dtype, wanted.dtype):
            raise ShapeError(
                f"{row.name} at {located()} cannot write {made.dtype} {tuple(made.shape)} into a tensor that is "
                f"{wanted.dtype} {tuple(wanted.shape)}. Write a new tensor, x = x.{row.name}(...)."
            )
        if made.dtype != wanted.dtype:  # as torch does: an in-place result is rounded to its target
            with self:
                result = result.to(wanted.dtype)
        self._write(target, result)
        return target

    def _writable(self, target: Proxy) -> bool:
        """Whether nothing outside of the forward sees a write: into what it made, or a buffer, or a part of those."""
        if id(target) in self.written or target.record.is_buffer:
            return True
        if target.part_of is not None:
            return self._writable(target.part_of.whole)
        return not target.record.view and target.record.op != "input"

    def _write(self, target: Proxy, new: Proxy) -> None:
        """From now on `target` is `new`, and so is that part of what `target` is a part of."""
        if target.part_of is None:
            self.rebind(target, new)
            return
        part = target.part_of
        with self:
            whole = part.put(new)
        self._write(part.whole, whole)
        target.record = new.record
        part.whole.record.views.append(new.record)

    def _read(self, p: Proxy, name: str) -> Record:
        """A tensor's record for a call that reads it."""
        record = self.current(p)
        if record is None:
            raise TraceError(
                f"{name} at {located()} reads a view of a tensor that was written in place since. "
                "Take the view again after the write."
            )
        return record

    def current(self, p: Proxy) -> Record | None:
        """A tensor's record, taken anew where it shows a part of one that was written since; None where that is not known."""
        if p.record.stale:
            known = p.part_of
            if known is None or self.current(known.whole) is None:
                return None
            with torch.set_grad_enabled(known.grad):
                p.record = self.apply(known.row, known.call, (known.whole, *known.args), known.kwargs).record
        return p.record

    def _record(self, row: Row, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        source = here()
        if any(torch.is_autocast_enabled(device) for device in ("cpu", "cuda")):
            raise TraceError(
                f"autocast is on at {located()}, and casts what the forward does not say. Cast where you want it, "
                "x.to(torch.bfloat16), or put autocast around the emitted function."
            )
        operands: list[Record] = []
        leaves, spec = pytree.tree_flatten((tuple(map(as_tuple, args)), {k: as_tuple(v) for k, v in kwargs.items()}))
        meta_leaves: list[Any] = []
        call_leaves: list[Any] = []
        known_leaves: list[Any] = []
        selecting = 0
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor):
                p = leaf if isinstance(leaf, Proxy) else self._constant(leaf)
                self._read(p, row.name)
                if p.record not in operands:
                    operands.append(p.record)
                chosen_by = row.name == "__getitem__" and bool(meta_leaves) and selects(p.record.meta)
                selecting += int(chosen_by)
                meta_leaves.append(0 if chosen_by else p.record.meta)
                known_leaves.append(p.record.known)
                call_leaves.append(Ref(operands.index(p.record)))
            elif is_slice(leaf):
                meta_leaves.append(with_bounds(number, leaf))
                known_leaves.append(meta_leaves[-1])
                call_leaves.append(with_bounds(self._argument, leaf))
            else:
                meta_leaves.append(number(leaf))
                known_leaves.append(meta_leaves[-1])
                call_leaves.append(self._argument(leaf))
        call_args, call_kwargs = pytree.tree_unflatten(call_leaves, spec)
        try:
            result, shown = self._shaped(row, func, meta_leaves, spec)
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
        grad = torch.is_grad_enabled() or self._given_back(row, func, leaves, meta_leaves, spec)
        call = Call(func, call_args, tuple(call_kwargs.items()))
        # torch copies what it gathers; an integer tensor without dimensions selects, as an int does
        gathered = row.name == "__getitem__" and sum(isinstance(v, torch.Tensor) for v in leaves) > 1 + selecting
        view = (row.view and not gathered) or shown
        values: list[torch.Tensor | None] = [None] * len(metas)
        if all(o.known is not None for o in operands):
            with without_modes():
                values = computed(row.name, func, known_leaves, spec, metas)
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
