"""Tracing: a forward runs once on symbolic tensors and every torch call becomes a node.

The tensors are on torch's meta device, so torch itself says shapes and dtypes and refuses what does not fit; a
`TorchFunctionMode` sees every call, factories included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch
from sympy import Expr
from torch.utils import _pytree as pytree

from engine.arguments import (
    devices,
    fixed,
    out_of_place,
    without_devices,
)
from engine.errors import ShapeError, TraceError
from engine.graph import Call
from engine.located import REMEDIES, device, drawn_apart, here, located, transformed, unknown_op
from engine.naming import unwatched
from engine.ops import TABLE
from engine.places import of_masks, places
from engine.proxy import Proxy, Record, SymbolicShape, without_modes
from engine.recording import Recording
from engine.selected import Selected, called, mask_of, refused, selected
from engine.sizes import Dim, Sized, SizedRange, Sizes, exact
from engine.spelling import Ref, decimals
from engine.table import Definition, Row, Shape, row_of
from engine.wholes import DRAWN

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


class Tracer(Recording):
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
