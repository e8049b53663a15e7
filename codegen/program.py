"""`generate`: from a forward to a program that holds its emitted source, its derivation, and runs both."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import linecache
import sys
import types
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from codegen.closed.write.emit import closed_source
from codegen.derivation import derive, steps_of
from codegen.emit import steps_source
from codegen.fromstart import Refused, ignored, refused
from codegen.function import differentiable
from codegen.modulestate import module_state
from codegen.operator import custom_op
from codegen.second import differentiable_inputs, gradient_along, hvp
from codegen.stops import has_stops
from codegen.worked.rewritten import rewritten_steps
from engine import Graph, trace
from engine.bounds import checked
from engine.collection import few_collections
from engine.errors import InputError, TraceError
from engine.notation import Part, Quo, Rem

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from codegen.closed.write.writer import ClosedWriter
    from codegen.derivation import Derivation
    from codegen.loop.quick import Selection
    from codegen.loop.trainer import LoopTrainer

MODES = ("steps", "closed")


def load(source: str, name: str) -> types.ModuleType:
    """Emitted text as a module; tracebacks show its lines."""
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    filename = f"<generated {name} {digest}>"
    module = types.ModuleType(f"generated_{name}_{digest}")
    module.__file__ = filename
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    sys.modules[module.__name__] = module
    exec(compile(source, filename, "exec"), module.__dict__)
    return module


class Saved(tuple[Tensor, ...]):
    """What a closed backward reads, and what the buffers become."""

    buffers: dict[str, Tensor]


class Program:
    """An emitted forward and backward.

    Attributes:
        graph: the traced forward.
        derivation: every cotangent and the rules that led to it.
        source: the emitted file.
        mode: "steps" or "closed".
        second: with `order=2` the program of the gradient along vectors, whose backward gives Hessian-vector products; its
            `source` is the emitted file.
        original: the user's own forward; None for a program made from a graph.
    """

    def __init__(
        self,
        graph: Graph,
        derivation: Derivation | Callable[[], Derivation],
        source: str,
        mode: str,
        module: nn.Module | None,
        wrt: tuple[str, ...] | None,
    ) -> None:
        self.graph, self._derivation, self.source, self.mode = graph, derivation, source, mode
        self.owner = module
        self.original: Callable[..., Any] | None = None
        self.wrt = wrt
        self.refused: dict[str, Refused] = {}
        self.second: Program | None = None
        self.writer: ClosedWriter | None = None
        self._selection: Selection | None = None
        self.module = load(source, graph.name)

    def __repr__(self) -> str:
        graph = self.graph
        return f"Program({graph.name!r}, mode={self.mode!r}, inputs={graph.inputs}, outputs={graph.outputs})"

    @property
    def derivation(self) -> Derivation:
        """Every cotangent and the rules that led to it; in closed mode it is made when it is asked for."""
        if callable(self._derivation):
            self._derivation = self._derivation()
        return self._derivation

    def tensors(self, inputs: Sequence[Any]) -> list[Tensor]:
        """The tensors that the emitted forward takes, from the arguments of the user's own.

        Raises:
            InputError: too few or too many of them, or a dtype or rank that the trace did not have.
        """
        given = [v for v in pytree.tree_leaves(list(inputs)) if isinstance(v, Tensor)]
        own = len(self.graph.inputs) - len(self.graph.parameters)
        if len(given) == own and self.owner is not None:
            held = {**dict(self.owner.named_parameters()), **dict(self.owner.named_buffers())}
            given += [held[self.graph.key(n)] for n in self.graph.parameters]
        if len(given) != len(self.graph.inputs):
            names = ", ".join(self.graph.inputs)
            others = [type(v).__name__ for v in pytree.tree_leaves(list(inputs)) if type(v).__module__ == "numpy"]
            beside = f" beside {others[0]} of numpy: give torch.as_tensor(...)" if others else ""
            raise InputError(
                f"{self.graph.name} takes {len(self.graph.inputs)} tensors ({names}) and was given {len(given)}{beside}"
            )
        for name, t in zip(self.graph.inputs, given, strict=True):
            node = self.graph[name]
            if t.dim() != len(node.shape):
                raise InputError(f"{self.graph.name}: {name} has {t.dim()} dimensions, the trace had {len(node.shape)}")
            truths = (t.dtype == torch.bool) != (node.dtype == torch.bool)  # a mask in brackets is no place
            if t.is_floating_point() != node.dtype.is_floating_point or truths:
                raise InputError(f"{self.graph.name}: {name} is {t.dtype}, the trace had {node.dtype}")
            for d, size in enumerate(node.shape):
                if size.is_Integer and t.shape[d] != int(size):
                    raise InputError(
                        f"{self.graph.name}: dimension {d} of {name} is {t.shape[d]}, the trace had {size}. "
                        f"{self._why_fixed(name, d, int(size))}: generate again with inputs of these shapes."
                    )
        check_equal_sizes(self.graph, given)
        for name, t in zip(self.graph.inputs, given, strict=True):
            if name in self.refused:
                self.refused[name].check(t)
        return given

    def _why_fixed(self, name: str, d: int, size: int) -> str:
        """Why a dimension of an input is a number, and where the forward made it one."""
        if size == 1:
            return "Sizes of one broadcast, so they are fixed"
        reads = (g.where for g in self.graph.guards if self.graph.sizes.get(cast("Any", g.expr)) == (name, d))
        where = next((f" at {w}" for w in reads if w), "")
        return f"The forward read that size as a number{where} (a loop over it, a comparison, a choice, its text), so it is fixed"

    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        """(out, saved) for the arguments of the user's forward; no autograd graph is built."""
        given = self.tensors(inputs)
        with torch.no_grad(), told(lambda: mixed_dtypes(self.graph, given) or ignored(self.graph, given)):
            if self.mode == "closed" and self.graph.buffers:
                renewed: dict[str, Tensor] = {}
                out, saved = self.module.forward(*given, buffers=renewed)
                saved = Saved(saved)
                saved.buffers = renewed
            else:
                out, saved = self.module.forward(*given)
        return self.structured(out), saved

    def structured(self, out: Any) -> Any:
        """The emitted result in the structure that the user's forward returned."""
        return out if self.graph.structure is None else self.graph.structure.around(out)

    def backward(self, saved: Any, grad_out: Any = None) -> dict[str, Tensor]:
        """Gradients by name for the cotangent `grad_out` of the result (ones where it is None)."""
        if grad_out is not None and not self.graph.single:
            grad_out = self._cotangents(grad_out)
        reason = misshapen(self.graph, grad_out)
        if reason:
            raise InputError(reason)
        with torch.no_grad():
            grads = self.module.backward(saved, grad_out)
        if self.wrt is None:
            return grads
        return {k: v for k, v in grads.items() if k in self.wrt or k not in self.input_keys}

    def _cotangents(self, grad_out: Any) -> list[Any]:
        """One cotangent per tensor of the result, from the result's structure or a flat sequence; None is zero."""
        leaves = pytree.tree_leaves(grad_out, is_leaf=lambda v: v is None)
        constants = {k for k, _ in self.graph.structure.constants} if self.graph.structure is not None else set[int]()
        if len(leaves) == len(self.graph.outputs) + len(constants):
            leaves = [v for k, v in enumerate(leaves) if k not in constants]
        return leaves

    def buffers(self, saved: Any) -> dict[str, Tensor]:
        """What the forward left in the module's buffers (running statistics), by their `named_buffers()` names.

        The forward itself writes nothing: `saved` holds the new values, and `write_buffers` puts them into a module.
        Empty for a function, and for a module that changes none (in `eval()`, say).
        """
        if isinstance(saved, Saved):
            return saved.buffers
        return {self.graph.key(name): getattr(saved, after) for name, after in self.graph.buffers.items()}

    def write_buffers(self, saved: Any, module: nn.Module | None = None) -> None:
        """Copy the new buffers into a module, in place, as a call of the module itself would have left them.

            out, saved = program.forward(x)
            program.write_buffers(saved)

        Args:
            saved: what `forward` returned.
            module: any module with buffers of these names; by default the one that the program was generated from.

        Raises:
            InputError: the program was generated from a function and no module is given, or the module lacks a buffer.
        """
        target = module if module is not None else self.owner
        renewed = self.buffers(saved)
        if target is None:
            raise InputError(f"{self.graph.name} was generated from a function: say into which module the buffers go")
        held = dict(target.named_buffers())
        for name in renewed:
            if name not in held:
                raise InputError(f"{type(target).__name__} has no buffer {name!r}")
        with torch.no_grad():
            for name, value in renewed.items():
                held[name].copy_(value)

    @property
    def input_keys(self) -> tuple[str, ...]:
        """The keys under which gradients of differentiable inputs are returned."""
        return tuple(self.graph.key(n) for n in self.graph.inputs if self.graph[n].differentiable)

    def value_and_grad(self, *inputs: Any) -> tuple[Any, dict[str, Tensor]]:
        """The forward's result and its gradients.

        In closed mode, where calls with inputs of the same sizes come again and again, and are cheap enough that calling
        torch is what takes the time, kernels are selected for these sizes: the same values to rounding.
        """
        if self.mode == "closed":
            if self._selection is None:
                from codegen.loop.quick import Selection

                self._selection = Selection(self)
            found = self._selection(inputs)
            if found is not None:
                return found
        out, saved = self.forward(*inputs)
        return out, self.backward(saved)

    def hvp(self, inputs: Sequence[Any], vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Hessian-vector products of a scalar result, by the emitted code of `order=2`.

        Args:
            inputs: the arguments of the forward.
            vectors: by gradient key, a tensor of that input's shape and dtype; inputs without one have a vector of zeros.

        Returns:
            By gradient key, `Sum_k (d^2 result / d input d input_k) vectors[k]`, in the shape of the input.

        Raises:
            InputError: the program was not generated with `order=2`, or a vector does not fit.
        """
        return hvp(self, inputs, vectors)

    def trainer(
        self,
        params: Mapping[str, Tensor],
        batch_size: int = 32,
        lr: float = 0.1,
        momentum: float = 0.0,
        compile: bool = False,
    ) -> LoopTrainer:
        """Gradient descent on copies of `params` through an emitted loop without autograd (closed mode).

        Args:
            params: tensors by name. The forward's inputs that are not among them are the batch, in the forward's order. Each
                name has a copy of its own, also where two were given one tensor: what is to stay one is one input.
            batch_size: rows of a step.
            lr: the learning rate, where `run` is not given one.
            momentum: of the velocity v = momentum v + gradient; the parameters then move by -lr v.
            compile: hand several steps at once to `torch.compile`.

        Raises:
            InputError: a name that is no input, no batch input left, a result that is no loss, a `batch_size` below one, or what
                is no tensor or no number.
        """
        from codegen.loop.trainer import program_trainer

        return program_trainer(self, params, batch_size, lr, momentum, compile)

    @property
    def function(self) -> Callable[..., Any]:
        """The forward as a differentiable callable of the same signature, whose backward is the emitted one."""
        return differentiable(self)

    def custom_op(self, name: str = "") -> Callable[..., Any]:
        """The forward as an operator of torch, with its derivative registered: `torch.library.custom_op` (closed mode).

        Args:
            name: `namespace::name`; by default `symgrad::` and the forward's name.

        Returns:
            A function of the forward's tensors in the order of `graph.inputs`: the arguments, then a module's parameters
            and buffers. It returns the result, or a tuple of results; what buffers become is left to `Module`.

        Raises:
            InputError: a program in steps mode, or a name of another form.
        """
        return custom_op(self, name)


def second_of(program: Program, inputs: Sequence[Any], wrt: Sequence[str] | None, name: str | None) -> Program:
    """The program of a program's gradient along vectors.

    A closed form may call kernels of torch's that nothing derives, such as a softmax's backward: then the gradient is the
    one in steps mode, of which closed forms are found in their turn.
    """
    graph, names = program.graph, differentiable_inputs(program.graph)

    def of(first: Program) -> Program:
        along, example = gradient_along(first, program.tensors(inputs))
        return generate(along, *example, mode=program.mode, wrt=names, name=name)

    if program.mode == "steps" or not has_stops(graph):
        try:
            return of(program)
        except TraceError:
            if program.mode == "steps":
                raise
    return of(generate(graph, mode="steps", wrt=wrt))


@contextlib.contextmanager
def told(why: Callable[[], str]) -> Generator[None]:
    """Where torch refuses to run what was emitted, what it was given that does not fit, if that is known."""
    try:
        yield
    except (RuntimeError, IndexError) as error:
        reason = why()
        if reason:
            raise InputError(f"{reason} (torch: {error})") from error
        raise


def mixed_dtypes(graph: Graph, tensors: Sequence[Tensor]) -> str:
    """Which two inputs differ in a dtype that was one in the trace; "" if none do."""
    first: dict[torch.dtype, tuple[str, torch.dtype]] = {}
    for name, t in zip(graph.inputs, tensors, strict=True):
        other, dtype = first.setdefault(graph[name].dtype, (name, t.dtype))
        if dtype != t.dtype:
            both = f"{other} is {dtype} and {name} is {t.dtype}".replace("torch.", "")
            return f"{graph.name}: {both}; in the trace they had one dtype"
    return ""


def misshapen(graph: Graph, grad_out: Any) -> str:
    """How a cotangent's shape differs from that of its result; "" if none does. None stands for zero, or for ones."""
    given = [grad_out] if graph.single or not isinstance(grad_out, (tuple, list)) else cast("list[Any]", grad_out)
    for k, (name, g) in enumerate(zip(graph.outputs, given, strict=False)):
        shape = graph[name].shape
        if not isinstance(g, Tensor) or (
            len(shape) == g.dim() and all(not n.is_Integer or int(n) == m for n, m in zip(shape, g.shape, strict=True))
        ):
            continue
        names = ", ".join(map(str, shape))
        which = ("grad_out", "the result") if graph.single else (f"grad_out[{k}]", f"result {k}")
        return f"{graph.name}: {which[0]} has shape {tuple(g.shape)}, {which[1]} has ({names})"
    return ""


def check_equal_sizes(graph: Graph, tensors: Sequence[Tensor]) -> None:
    """Refuse inputs of which two dimensions differ that were one size in the trace. Raises InputError."""
    first: dict[Any, tuple[str, int, int]] = {}
    for name, t in zip(graph.inputs, tensors, strict=True):
        for d, size in enumerate(graph[name].shape):
            if size.is_Symbol:
                other, e, n = first.setdefault(size, (name, d, t.shape[d]))
                if n != t.shape[d]:
                    raise InputError(
                        f"{graph.name}: dimension {d} of {name} is {t.shape[d]} and dimension {e} of {other} is {n}; "
                        "the forward needs them to be equal"
                    )
    computed = [
        (name, d, t.shape[d], size)
        for name, t in zip(graph.inputs, tensors, strict=True)
        for d, size in enumerate(graph[name].shape)
        if not size.is_Symbol and not size.is_Integer
    ]
    if not computed or torch.compiler.is_compiling():  # the emitted file says by itself what it needs
        return
    known = {s: sp.Integer(n) for s, (_, _, n) in first.items()}
    for name, d, n, size in computed:
        if size.has(Part, Quo, Rem) or not size.free_symbols <= known.keys() or size.xreplace(known) == n:
            continue
        told = ", ".join(f"{s} = {known[s]}" for s in sorted(size.free_symbols, key=str))
        raise InputError(f"{graph.name}: dimension {d} of {name} is {n}; the forward needs it to be {size}, for {told}")


def check_arguments(forward: Any, inputs: Sequence[Any]) -> None:
    """Refuse what is no forward, and examples that hold no tensor. Raises InputError."""
    if inspect.isclass(forward) and issubclass(forward, nn.Module):
        raise InputError(f"{forward.__name__} is a class; give an instance of it, {forward.__name__}(...)")
    if not isinstance(forward, Graph) and not callable(cast("Any", forward)):
        raise InputError(
            f"{forward!r} is a {type(forward).__name__}; a forward is a function, an nn.Module, or a Graph"
        )
    for k, value in enumerate(inputs):
        if type(value).__module__ == "numpy":
            raise InputError(f"input {k} is a {type(value).__name__} of numpy; give a tensor, torch.as_tensor(...)")
    if inputs and not any(isinstance(v, Tensor) for v in pytree.tree_leaves(list(inputs))):
        kinds = ", ".join(type(v).__name__ for v in inputs)
        raise InputError(f"none of the inputs ({kinds}) is a tensor, so that there is nothing to differentiate")


def closed_derivation(graph: Graph, writer: ClosedWriter) -> Derivation:
    """The derivation of a graph, with the closed forms that were found and the rules that led to them."""
    derivation = derive(graph)
    trail = (*derivation.trail, *rewritten_steps(writer), *steps_of(writer.proofs))
    return replace(derivation, proofs=tuple(writer.proofs), trail=trail)


@few_collections()
def generate(
    forward: Callable[..., Any] | nn.Module | Graph,
    *inputs: Any,
    mode: str = "closed",
    wrt: Sequence[str] | None = None,
    name: str | None = None,
    order: int = 1,
) -> Program:
    """Derive and emit the backward of a forward.

    Args:
        forward: a function or `nn.Module` in ordinary torch, or a Graph that was traced before.
        inputs: example tensors, for shapes and dtypes; see `engine.trace`.
        mode: "steps" for one statement per node, "closed" for cotangents simplified across nodes.
        wrt: names of the inputs whose gradients are wanted; all floating-point ones by default.
        name: what the emitted file says it was made from; the forward's name by default.
        order: 1 for gradients; 2 for Hessian-vector products as well, by the derivation of the derived gradient: see
            `Program.hvp` and `Program.second`. The forward must return one scalar.

    Raises:
        TraceError: what the forward does cannot be traced. InputError: no input is differentiable, or `wrt` names none that is.
    """
    if order not in (1, 2):
        raise InputError(f"order={order!r} is neither 1 nor 2")
    if mode not in MODES:
        raise InputError(f"mode={mode!r} is none of {', '.join(MODES)}")
    wrt = (wrt,) if isinstance(wrt, str) else wrt
    if wrt is not None and not (isinstance(cast("Any", wrt), Collection) and wrt):
        raise InputError(f"wrt={wrt!r} names no input; give names, or leave it out for all of floating point")
    check_arguments(forward, inputs)
    graph = forward if isinstance(forward, Graph) else trace(forward, *inputs)
    known = [graph.key(n) for n in graph.inputs if graph[n].differentiable]
    if not known:
        taken = ", ".join(f"{n} {graph[n].dtype}".replace("torch.", "") for n in graph.inputs) or "none"
        raise InputError(
            f"{graph.name} has nothing to differentiate: none of its inputs ({taken}) is of floating point"
        )
    unknown = [w for w in wrt or () if w not in known]
    if unknown:
        raise InputError(
            f"wrt names {unknown[0]!r}, which is no differentiable input of {graph.name}; those are {', '.join(known)}"
        )
    if isinstance(forward, nn.Module):
        graph = replace(graph, state=module_state(forward, graph, inputs))
    module = forward if isinstance(forward, nn.Module) else None
    writer: ClosedWriter | None = None
    if mode == "closed":
        names = tuple(n for n in graph.inputs if graph[n].differentiable and (wrt is None or graph.key(n) in wrt))
        with checked(b.expr for b in graph.bounds):
            source, writer = closed_source(graph, names, name or graph.name)
        derivation = partial(closed_derivation, graph, writer)
    else:
        derivation = derive(graph)
        with checked(b.expr for b in graph.bounds):
            source = steps_source(derivation, name or graph.name)
    program = Program(graph, derivation, source, mode, module, None if wrt is None else tuple(wrt))
    program.writer = writer
    if not isinstance(forward, Graph):
        program.refused = refused(graph, program.tensors(inputs), mode == "closed")
    program.original = None if isinstance(forward, Graph) else forward
    if order == 2:
        if isinstance(forward, Graph):
            raise InputError("order=2 needs example tensors; pass the forward and its inputs instead of a graph")
        program.second = second_of(program, inputs, wrt, name)
    return program
