"""`trace`: from a forward and its inputs to a `Graph`."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import traceback
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from engine.bounds import SQUEEZED, Bound, nonnegative
from engine.collection import few_collections
from engine.errors import ExampleError, TraceError
from engine.graph import Call, Graph, Node, Structure
from engine.indexbounds import index_bounds
from engine.layers import traceable
from engine.light import without_compiler
from engine.literals import literal, literals, plain
from engine.naming import LocalsWatcher, Namer, is_user_code
from engine.notation import in_wholes, size_symbol
from engine.othersizes import taken_for_numbers
from engine.own import functions_seen
from engine.proxy import Proxy, Record
from engine.selected import Selected, refused
from engine.shapes import symbolic_shapes
from engine.sizes import Dim, Guard, number, symbolic_python
from engine.spelling import SizeArg, is_slice, with_bounds
from engine.state import snapshot
from engine.table import Definition, define
from engine.tracer import Tracer
from engine.validation import without_validation

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sympy import Expr, Symbol

    from engine.implicit import Implicit

EXAMPLE_SIZES = (5, 7, 3, 11, 6, 13, 4, 9)


@few_collections()
def trace(forward: Callable[..., Any] | nn.Module, *inputs: Any, **static: Any) -> Graph:
    """Record a forward, run on symbolic tensors; where it reads sizes once more, on tensors of other sizes.

    Args:
        forward: a function of tensors, or an `nn.Module`; ordinary torch, never changed.
        inputs: example tensors (or lists, tuples and dicts of them), for shapes and dtypes, and for whether integers are
            below zero: labels of -100, which torch's losses leave out, and indices that count from the end. May be
            left out where every parameter is annotated with jaxtyping (`x: Float[Tensor, "batch features"]`).
            Numbers, strings and None are taken as they are.
        static: keyword arguments passed on as they are.

    Returns:
        The graph. Sizes are symbols, except those that are one at the example.

    Raises:
        TraceError: an unknown op, control flow on a tensor's value, a tensor that is not an input; with file and line.
        ShapeError: shapes that do not fit.
    """
    if not callable(cast("Any", forward)):
        raise TraceError(f"{forward!r} is a {type(forward).__name__}; a forward is a function or an nn.Module")
    fixed: dict[tuple[int, int], str] = {}
    before = snapshot(forward)
    while True:
        with contextlib.redirect_stdout(io.StringIO()) if fixed else contextlib.nullcontext():  # it has printed already
            run = _run(forward, inputs, static, Tracer(fixed=fixed))
        after = snapshot(forward)
        before.restore()
        found = taken_for_numbers(run.tracer, run.given, lambda shapes: _at_shapes(forward, inputs, static, shapes))
        shapes = enumerate([[run.tracer.sizes.resolve(s) for s in r.shape] for r in run.given])
        dims = {
            (k, d): next((w for e, w in found.items() if e in s.free_symbols), None)
            for k, r in shapes
            for d, s in enumerate(r)
        }
        if not found or all(where is None for where in dims.values()):
            after.restore()
            return _finish(run, forward)
        before.restore()
        fixed |= {place: where for place, where in dims.items() if where is not None}


@dataclass(frozen=True)
class _Run:
    """A forward that has run: what was recorded, its inputs and what it returned.

    `given` are the inputs in the order in which they were made.
    """

    name: str
    tracer: Tracer
    watcher: _Names
    inputs: list[Record]
    given: list[Record]
    out: Any


def _at_shapes(
    forward: Callable[..., Any] | nn.Module,
    inputs: tuple[Any, ...],
    static: dict[str, Any],
    shapes: tuple[tuple[int, ...], ...],
) -> Tracer | None:
    """What a forward calls for inputs of other shapes; None where it, or torch, refuses those."""
    tracer = Tracer(shapes)
    before = snapshot(forward)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            _run(forward, inputs, static, tracer)
    except Exception:  # noqa: BLE001  # whatever a forward raises at sizes that it is not made for
        return None
    finally:
        before.restore()
    return tracer


def _run(
    forward: Callable[..., Any] | nn.Module, inputs: tuple[Any, ...], static: dict[str, Any], tracer: Tracer
) -> _Run:
    """One run of a forward under a tracer."""
    watcher = _Names()
    with contextlib.ExitStack() as stack:
        if isinstance(forward, nn.Module):
            name = type(forward).__name__
            parameters, swap = _module_inputs(tracer, forward)
            call: Callable[..., Any] = forward
            signature_of: Callable[..., Any] = forward.forward
            stack.enter_context(swap)
        else:
            name, parameters, call, signature_of = getattr(forward, "__name__", "forward"), [], forward, forward
            name = "forward" if name == "<lambda>" else name
        names, given = _bind(signature_of, inputs, static)
        arguments, proxies = _proxies(tracer, names, given, signature_of)
        graph_inputs = [p.record for p in (*proxies, *parameters)]
        stack.enter_context(symbolic_python())
        stack.enter_context(symbolic_shapes())
        stack.enter_context(without_compiler())
        stack.enter_context(without_validation())
        if tracer.shapes is None:
            stack.enter_context(literals(forward))
            stack.enter_context(LocalsWatcher(lambda v: isinstance(v, (Proxy, Dim)), watcher.seen))
        stack.enter_context(functions_seen(lambda v: isinstance(v, Proxy), tracer.function_called))
        stack.enter_context(tracer)
        try:
            out = call(*map(literal, arguments), **{k: literal(v) for k, v in static.items()})
        except RecursionError as error:
            raise TraceError(
                f"{_title(forward)} calls deeper than Python goes, at {_deepest(error)}. A call of itself needs an end "
                "that does not depend on a tensor's value."
            ) from error
    made = [p.record for p in (*parameters, *proxies)]
    return _Run(name, tracer, watcher, graph_inputs, made, out)


class _Names:
    """What the forward's locals called its tensors and sizes."""

    def __init__(self) -> None:
        self.count = 0
        self.sizes: dict[Expr, str] = {}

    def seen(self, value: Any, name: str, depth: int) -> None:
        self.count += 1
        if isinstance(value, Dim):
            self.sizes.setdefault(value.expr, name)
        elif not name.startswith("_") or len(name) > 1:
            value.record.wanted.append((depth, self.count, name))


def _bind(function: Callable[..., Any], inputs: tuple[Any, ...], static: dict[str, Any]) -> tuple[list[str], list[Any]]:
    """Parameter names and given values, positionally; annotated parameters without a value get an example."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return [f"x{k}" for k in range(len(inputs))], list(inputs)
    positional = [
        p
        for p in signature.parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name not in static
    ]
    star = next((p for p in signature.parameters.values() if p.kind == p.VAR_POSITIONAL), None)
    values = list(inputs)
    if not values and positional:
        values = _annotated(function, [p for p in positional if p.default is p.empty])
    if len(values) > len(positional) and star is None:
        taken = ", ".join(p.name for p in positional) or "none"
        named = [p.name for p in signature.parameters.values() if p.kind == p.KEYWORD_ONLY and p.name not in static]
        rest = f"; {', '.join(named)} can only be given by name, which a trace does not do" if named else ""
        count = len(positional)
        raise TraceError(f"{_title(function)} takes {count} inputs ({taken}) and was given {len(values)}{rest}")
    names = [p.name for p in positional[: len(values)]]
    if star is not None:
        names.extend(f"{star.name}_{k}" for k in range(len(values) - len(positional)))
    missing = [p.name for p in positional[len(values) :] if p.default is p.empty]
    if missing:
        raise ExampleError(
            f"{_title(function)} needs {', '.join(missing)}: pass example tensors, or annotate them with jaxtyping"
        )
    return names, values


def _deepest(error: BaseException) -> str:
    """The innermost line of the user's own code that an error came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if is_user_code(f.filename)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown line"


def _title(function: Any) -> str:
    return f"forward {getattr(function, '__name__', type(function).__name__)!r}"


def _annotated(function: Any, parameters: list[inspect.Parameter]) -> list[Any]:
    """Example tensors from jaxtyping annotations: equal dimension names get equal sizes."""
    try:
        hints = inspect.get_annotations(function, eval_str=True)
    except NameError as error:
        raise TraceError(f"an annotation of {_title(function)} cannot be read: {error}") from error
    sizes: dict[str, int] = {}
    out: list[Any] = []
    for p in parameters:
        text = getattr(hints.get(p.name), "dim_str", None)
        if text is None:
            raise ExampleError(
                f"{_title(function)} was given no example for {p.name!r}, which has no jaxtyping annotation"
            )
        for d in text.split():
            if not d.lstrip("-").isdigit() and d not in sizes:
                sizes[d] = EXAMPLE_SIZES[len(sizes) % len(EXAMPLE_SIZES)]
        shape = [int(d) if d.isdigit() else sizes[d] for d in text.split()]
        dtypes = [str(d) for d in getattr(hints[p.name], "dtypes", ())]
        floating = not dtypes or any(d.startswith(("float", "bfloat")) for d in dtypes)
        out.append(
            torch.empty(shape, dtype=torch.float32 if floating else torch.bool if dtypes == ["bool"] else torch.int64)
        )
    return out


def _dimension_names(function: Any, names: list[str]) -> dict[str, list[str]]:
    """jaxtyping's names of dimensions, by parameter."""
    try:
        hints = inspect.get_annotations(function, eval_str=True)
    except (NameError, TypeError):
        return {}
    found = {n: str(getattr(hints.get(n), "dim_str", "")).split() for n in names}
    return {n: d for n, d in found.items() if d}


def _proxies(tracer: Tracer, names: list[str], given: list[Any], function: Any) -> tuple[list[Any], list[Proxy]]:
    """The arguments with every tensor replaced by a proxy, and the proxies in order."""
    made: list[Proxy] = []
    dims = _dimension_names(function, names)
    arguments: list[Any] = []
    shared: dict[str, Expr] = {}
    for name, value in zip(names, given, strict=True):
        leaves, spec = pytree.tree_flatten_with_path(value)
        new: list[Any] = []
        for path, leaf in leaves:
            if not isinstance(leaf, torch.Tensor):
                new.append(leaf)
                continue
            suffix = re.sub(r"\W+", "_", "".join(str(k) for k in path)).strip("_")
            p = tracer.input(f"{name}_{suffix}" if suffix else name, leaf)
            for d, text in enumerate(dims.get(name, []) if not suffix else []):
                size = p.record.shape[d]
                if text.isidentifier() and not size.is_Integer:
                    shared[text] = tracer.sizes.unify(shared[text], size) if text in shared else size
            made.append(p)
            new.append(p)
        arguments.append(pytree.tree_unflatten(new, spec))
    for text, size in shared.items():
        tracer.annotated[size] = text
    return arguments, made


def _module_inputs(tracer: Tracer, module: nn.Module) -> tuple[list[Proxy], Any]:
    """Proxies for parameters and buffers, and a context in which the module holds them."""
    proxies: dict[int, Proxy] = {}
    order: list[Proxy] = []
    originals: dict[int, Record] = {}
    for kind, items in (("parameter", module.named_parameters()), ("buffer", module.named_buffers())):
        for name, t in items:
            if is_lazy(t):
                raise TraceError(
                    f"{type(module).__name__}.{name} has no shape yet: call the module once on an example before it is traced"
                )
            p = tracer.input(name, t)
            p.record.value = (kind, name)
            if kind == "buffer" or not t.requires_grad:
                p.record.differentiable = False
            p.record.is_buffer = kind == "buffer"
            proxies[id(t)], originals[id(t)] = p, p.record
            tracer.held[id(t)] = p
            order.append(p)

    @contextlib.contextmanager
    def swapped() -> Generator[None]:
        saved: list[tuple[dict[str, Any], str, Any]] = []
        for m in module.modules():
            for store in (vars(m)["_parameters"], vars(m)["_buffers"]):
                for key, t in store.items():
                    if t is not None:
                        saved.append((store, key, t))
                        store[key] = proxies[id(t)]
        try:
            with traceable(module):
                yield
        finally:
            for store, key, t in saved:
                held = store[key]
                if isinstance(held, Proxy) and held is not proxies[id(t)]:
                    tracer.buffer_updates = [u for u in tracer.buffer_updates if u[0] is not originals[id(t)]]
                    tracer.buffer_updates.append((originals[id(t)], held.record))
                store[key] = t

    return order, swapped()


def flattened(out: Any) -> tuple[list[Any], pytree.TreeSpec]:
    """What a forward returned, as `pytree.tree_flatten` has it, with the fields of dataclasses, which torch is told of."""
    while True:
        leaves, spec = pytree.tree_flatten(out)
        unknown = {type(v) for v in leaves if is_dataclass(v) and all(f.init for f in fields(v))}
        if not unknown:
            return leaves, spec
        for cls in unknown:
            pytree.register_dataclass(cls)


def _finish(run: _Run, forward: Any) -> Graph:
    tracer, inputs, out = run.tracer, run.inputs, run.out
    everything, spec = flattened(out)
    leaves = [v for v in everything if isinstance(v, torch.Tensor)]
    wrong = [v for v in everything if not isinstance(v, (torch.Tensor, NoneType, str, bool))]
    if not leaves or wrong:
        raise TraceError(
            f"{_title(forward)} must return a tensor, or a tuple, list or dict of tensors (and None, where there is "
            f"none), and returned {type(plain(number(wrong[0] if wrong else out))).__name__}"
        )
    results: list[Record] = []
    for v in leaves:
        if not isinstance(v, Proxy):
            if isinstance(v, Selected):
                raise refused(f"{_title(forward)} returns x[mask]")
            raise TraceError(f"{_title(forward)} returns a tensor that does not depend on its inputs")
        if tracer.current(v) is None:
            raise TraceError(
                f"{_title(forward)} returns a view of a tensor that was written in place since; take it after the write"
            )
        results.append(v.record)
    updates = tracer.buffer_updates
    needed = _reachable([*results, *[u for _, u in updates], *inputs], tracer.records)
    names = _names(needed, inputs, results)
    rename = _size_names(tracer, run.watcher, [(names[r], r) for r in inputs], set(names.values()))

    renamed = dict(rename)
    kept = set(renamed.values())

    def final(e: Expr) -> Expr:
        return tracer.sizes.resolve(e).xreplace(renamed)

    sources: dict[Symbol, tuple[str, int]] = {}
    for r in inputs:
        for d, size in enumerate(r.shape):
            for e in (final(size), size.xreplace(renamed)):  # the second: a size that was fixed, for its guard
                if e.is_Symbol and e in kept:
                    sources.setdefault(cast("Symbol", e), (names[r], d))

    calls: dict[int, Call] = {}
    nodes = tuple(_node(r, names, final, calls) for r in needed)
    given = {names[r]: r.value[1] if r.value else min(r.wanted)[2] for r in inputs}
    keys = {name: key for name, key in given.items() if key != name}
    guards = tuple(
        Guard(g.expr.xreplace(dict(rename)), g.value, g.where)
        for g in tracer.sizes.guards
        if g.expr.is_Symbol or not final(g.expr).is_Integer  # else its sizes are fixed each by itself
    )
    read = {
        size: sp.Symbol(f"{names[r]}.shape[{d}]")
        for r in reversed(inputs)
        for d, size in reversed(list(enumerate(r.shape)))
    }
    for a, b, where in tracer.sizes.same_unseen:
        sides = in_wholes(a).xreplace(read), in_wholes(b).xreplace(read)
        if all(side.free_symbols <= {*read.values()} for side in sides):
            guards = (*guards, Guard(a, 0, where, sides))
    of_results = {size for r in results for n in r.shape for size in final(n).free_symbols}

    def shown(b: Bound) -> bool:
        """Whether a result has the size: elsewhere a dimension of one is as good as none."""
        return not of_results.isdisjoint(b.expr.free_symbols)

    bounds = (*[replace(b, expr=final(b.expr)) for b in tracer.sizes.bounds], *index_bounds(nodes))
    constants = tuple((k, v) for k, v in enumerate(everything) if not isinstance(v, torch.Tensor))
    structure = None if isinstance(out, torch.Tensor) else Structure(spec, constants)
    return Graph(
        name=run.name,
        nodes=nodes,
        inputs=tuple(names[r] for r in inputs),
        outputs=tuple(names[r] for r in results),
        sizes=sources,
        guards=guards,
        bounds=tuple(b for b in dict.fromkeys(bounds) if not nonnegative(b.expr) and (b.of != SQUEEZED or shown(b))),
        structure=structure,
        keys=keys,
        example={rename[s]: v for s, v in tracer.sizes.values.items() if s in rename},
        buffers={names[a]: names[b] for a, b in updates},
        parameters=tuple(names[r] for r in inputs if r.value),
    )


def _reachable(roots: list[Record], order: list[Record]) -> list[Record]:
    """What the results need, in order of execution."""
    seen: set[Record] = set()
    stack = list(roots)
    while stack:
        r = stack.pop()
        if r not in seen:
            seen.add(r)
            stack.extend(r.operands)
    return [r for r in order if r in seen]


def _names(needed: list[Record], inputs: list[Record], results: list[Record]) -> dict[Record, str]:
    """A unique identifier per record: inputs by parameter, nodes by their outermost local, others by what they feed."""
    namer = Namer()
    names: dict[Record, str] = {r: namer(min(r.wanted)[2]) for r in inputs}
    best = {r: min(r.wanted)[2] for r in needed if r.wanted and r not in names}
    for r in needed:
        if r in best:
            names[r] = namer(best[r])
    for k, r in enumerate(results):
        if r not in names:
            names[r] = namer("out" if len(results) == 1 else f"out_{k}")
    consumer: dict[Record, Record] = {}
    for r in needed:
        for o in r.operands:
            if o not in consumer or (r.differentiable and not consumer[o].differentiable):
                consumer[o] = r
    roots = dict(names)
    for r in reversed(needed):
        if r not in names:
            fed = consumer.get(r)
            roots[r] = roots[fed] if fed else ""
    for r in needed:  # in the order of execution, so that numbers grow with it
        if r not in names:
            names[r] = namer(f"{roots[r]}_{_role(r)}" if roots[r] else _role(r))
    return names


def _role(r: Record) -> str:
    """What a record is by its op, or by its place among the results of one that has several: the `indices` of a maximum."""
    if r.op == "constant":
        return "const"
    op, indexed, _ = r.op.partition("_with_indices")
    fields = ("values", "indices") if indexed else getattr(getattr(torch.return_types, op, None), "__match_args__", ())
    return fields[r.output] if r.output and fields else op.strip("_")


def _size_names(
    tracer: Tracer, watcher: _Names, inputs: list[tuple[str, Record]], taken: set[str]
) -> dict[Symbol, Symbol]:
    """Final symbols for sizes: jaxtyping's name, the local that held the size, or n0, n1, ..."""
    wanted: dict[Expr, str] = {}
    for e, text in [*tracer.annotated.items(), *watcher.sizes.items()]:
        resolved = tracer.sizes.resolve(e)
        if resolved.is_Symbol:
            wanted.setdefault(resolved, text)
    namer = Namer(taken)
    used: list[Symbol] = []
    for _, r in inputs:
        for size in r.shape:
            fixed = (
                size.free_symbols
                if any(size.free_symbols & g.expr.free_symbols for g in tracer.sizes.guards)
                else set[Any]()
            )
            for s in sorted(tracer.sizes.resolve(size).free_symbols | fixed, key=str):
                if s not in used:
                    used.append(s)
    return {s: size_symbol(namer(wanted.get(s, f"n{k}"))) for k, s in enumerate(used)}


def _specialised(
    r: Record, fixed: dict[Any, Expr]
) -> tuple[Definition | None, Implicit | None, tuple[tuple[Expr, ...], ...]]:
    """A record's template and operand shapes with the sizes that the forward fixed after the op was recorded."""
    t, implicit = r.template, r.implicit
    if (t is None and implicit is None) or not fixed:
        return t, implicit, r.operand_shapes
    shapes = tuple(tuple(s.xreplace(fixed) for s in shape) for shape in r.operand_shapes)
    if t is None:
        return None, None if implicit is None else implicit.replaced(fixed), shapes
    return define(tuple(s.xreplace(fixed) for s in t.shape), t.indices, t.expr.xreplace(fixed)), None, shapes


def _node(r: Record, names: dict[Record, str], final: Callable[[Expr], Expr], calls: dict[int, Call]) -> Node:
    """A record with its final name and sizes; the outputs of one call keep sharing it."""
    call = r.call

    def argument(v: Any) -> Any:
        if isinstance(v, SizeArg):
            return SizeArg(final(v.expr))
        return with_bounds(argument, v) if is_slice(v) else v

    if call is not None:
        if id(call) not in calls:
            args, kwargs = pytree.tree_map(argument, (call.args, dict(call.kwargs)))
            calls[id(call)] = Call(call.function, args, tuple(kwargs.items()))
        call = calls[id(call)]
    sizes = {p: final(e) for p, e in r.sizes}
    template, implicit, shapes = _specialised(r, {p: n for p, n in sizes.items() if n.is_Integer})
    return Node(
        name=names[r],
        op=r.op,
        operands=tuple(names[o] for o in r.operands),
        template=template,
        sizes=tuple(sizes.items()),
        shape=tuple(final(s) for s in r.shape),
        dtype=r.meta.dtype,
        differentiable=r.differentiable,
        source=r.source,
        call=call,
        output=r.output,
        outputs=r.outputs,
        view=r.view,
        value=r.value,
        positive=r.positive,
        operand_shapes=shapes,
        named=bool(r.wanted),
        implicit=implicit,
    )
