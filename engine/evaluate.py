"""A traced forward evaluated from its index notation alone, in any precision; and derivatives of it by a complex step.

Nothing here knows a derivative rule, autograd, or the derivation: it is what those are measured against.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import mpmath
import numpy as np
import sympy as sp
import torch
from torch.utils import _pytree as pytree

from engine.arithmetic import Arithmetic, arithmetic
from engine.errors import InputError
from engine.fixedpoint import Contractions
from engine.implicit import Expansion
from engine.interpret import Interpreter
from engine.notation import Part
from engine.sizes import evaluate as size_of
from engine.solving import Solver, determinants, of_determinant
from engine.spelling import Ref, SizeArg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    from sympy import Symbol

    from engine.graph import Graph, Node

    Array = npt.NDArray[Any]


def evaluate(
    graph: Graph,
    inputs: Mapping[str, Any],
    number: str | int = "float64",
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Array]:
    """Every node's value, computed from its definition.

    Args:
        graph: a traced forward.
        inputs: a tensor or array per input name (or gradient key). Integers stay integers, the rest becomes `number`.
        number: "float64", "longdouble", "complex" (longdoubles, complex ones where an override is), or a number of
            decimal digits (mpmath).
        overrides: values that nodes are given instead of being computed; what depends on them follows.

    Returns:
        Arrays by node name: int64 and bool for integer and truth-valued nodes, else of the chosen number (object arrays
        of mpf or mpc for digits). Opaque nodes (an argmax, a random mask) come from torch in float64.

    Raises:
        InputError: an input that is missing or of another shape, or a gather out of range.
    """
    numbers = arithmetic(number)
    with _precision(numbers):
        return _Evaluation(graph, inputs, numbers).run(dict(overrides or {}))


def directional(
    graph: Graph,
    inputs: Mapping[str, Any],
    node: str,
    direction: Any,
    grad_out: Any = None,
    number: str | int = "complex",
    overrides: Mapping[str, Any] | None = None,
) -> Any:
    """The derivative of `sum(output * grad_out)` as the value of `node` moves along `direction` (of the node's shape).

    Arguments as for `truth_gradient`.
    """
    return truth_gradient(graph, inputs, node, [np.asarray(_as_array(direction))], grad_out, number, overrides)[0]


def truth_gradient(
    graph: Graph,
    inputs: Mapping[str, Any],
    node: str,
    entries: Sequence[Any] | None = None,
    grad_out: Any = None,
    number: str | int = "complex",
    overrides: Mapping[str, Any] | None = None,
) -> Array:
    """The derivative of `sum(output * grad_out)` with respect to entries of a node's value, by complex steps.

    The node is moved by a tiny imaginary number, everything after it is evaluated again, and the imaginary part of the
    result over the step is the derivative, without cancellation. It costs one evaluation per entry. Outputs that are
    nan are left out of the sum, as they would hide the derivative of all others.

    Args:
        graph: a traced forward.
        inputs: as for `evaluate`.
        node: the name of an input or of any other floating node.
        entries: positions (tuples of ints) in the node, or directions (arrays of its shape); all positions for None.
        grad_out: an array, a sequence with one array (or None) per output, or None for ones.
        number: "complex" or a number of decimal digits.
        overrides: as for `evaluate`; a random mask must be given to be the one that the gradient is compared with.

    Returns:
        One number per entry; for `entries=None` an array of the node's shape.
    """
    return ComplexSteps(graph, inputs, number, overrides).gradient(node, entries, grad_out)


class ComplexSteps:
    """Derivatives of one graph at one set of inputs, whose values are computed once. Arguments as for `truth_gradient`."""

    def __init__(
        self, graph: Graph, inputs: Mapping[str, Any], number: str | int, overrides: Mapping[str, Any] | None = None
    ) -> None:
        self.graph, self.numbers, self.fixed = graph, arithmetic(number), dict(overrides or {})
        if not (self.numbers.is_complex or self.numbers.is_mp):
            raise InputError(f"a complex step needs number='complex' or a number of digits, not {number!r}")
        with _precision(self.numbers):
            self.evaluation = _Evaluation(graph, inputs, self.numbers)
            self.values = self.evaluation.run(self.fixed)

    def gradient(self, node: str, entries: Sequence[Any] | None = None, grad_out: Any = None) -> Array:
        """The derivative with respect to entries of a node's value."""
        numbers, run, values = self.numbers, self.evaluation, self.values
        with _precision(numbers):
            origin = numbers.lift(values[node])
            positions = list(np.ndindex(*origin.shape)) if entries is None else entries
            weights = _weights(self.graph, values, grad_out, numbers)
            after = run.after(node) - set(self.fixed)
            found: list[Any] = []
            for entry in positions:
                direction = entry if hasattr(entry, "dtype") else _unit(origin.shape, entry)
                moved = run.run({**values, node: origin + numbers.lift(direction) * numbers.step}, after)
                total = numbers.lift(0)
                for o, w, known in weights:
                    total = np.asarray(total + np.sum(np.asarray(numbers.imag(moved[o]) * w)[known]))
                found.append(total[()] / numbers.step.imag)
        out = np.array(found, dtype=np.object_ if numbers.is_mp else np.longdouble)
        return out.reshape(origin.shape) if entries is None else out


def sizes_of(graph: Graph, inputs: Mapping[str, Any]) -> dict[Symbol, int]:
    """The graph's size symbols as the inputs' shapes fix them. Raises InputError where the shapes do not fit."""
    shapes = {name: tuple(int(s) for s in _input(graph, inputs, name).shape) for name in graph.inputs}
    sizes = {symbol: shapes[name][d] for symbol, (name, d) in graph.sizes.items()}
    sizes |= {p: sizes[p.whole] // p.count for p in graph.example if isinstance(p, Part)}
    for name, shape in shapes.items():
        wanted = tuple(size_of(s, sizes) for s in graph[name].shape)
        if wanted != shape:
            raise InputError(f"input {name!r} has shape {shape}, and the forward was traced for {wanted}")
    for guard in graph.guards:
        if guard.equal is None and size_of(guard.expr, sizes) != guard.value:
            raise InputError(f"the forward fixed {guard.expr} to {guard.value} at {guard.where}")
    for bound in graph.bounds:
        if size_of(bound.expr, sizes) < 0:
            raise InputError(f"{bound.of} at {bound.where} was traced where {bound.expr} is at least 0")
    return sizes


class _Evaluation:
    """One graph at one set of inputs."""

    def __init__(self, graph: Graph, inputs: Mapping[str, Any], numbers: Arithmetic) -> None:
        self.graph, self.inputs, self.numbers = graph, inputs, numbers
        self.sizes = sizes_of(graph, inputs)
        self._contractions: dict[str, Contractions] = {}
        self._solvers: dict[str, Solver] = {}

    def run(self, given: dict[str, Any], only: set[str] | None = None) -> dict[str, Array]:
        """Values by node; `given` are taken as they are, except for the nodes of `only`, which are computed."""
        values: dict[str, Array] = {}
        for node in self.graph.nodes:
            known = given.get(node.name)
            if known is not None and (only is None or node.name not in only):
                values[node.name] = self._typed(node, _as_array(known))
            else:
                value = self._typed(node, self._compute(node, values))
                if known is not None and value.dtype.kind == "c":
                    value.real = known.real  # a step does not change it; complex arithmetic may, in the last bit
                values[node.name] = value
        return values

    def after(self, name: str) -> set[str]:
        """The nodes that move with a node. Opaque ones do not: they see real parts only, and are drawn once.

        Nor does what was computed under `no_grad`.
        """
        found: set[str] = set()
        for node in self.graph.nodes:
            moves = node.differentiable and (node.template or node.implicit) is not None
            if moves and any(o == name or o in found for o in node.operands):
                found.add(node.name)
        return found

    def _compute(self, node: Node, values: dict[str, Array]) -> Array:
        if node.is_input:
            return _as_array(_input(self.graph, self.inputs, node.name))
        if node.definition is not None:
            indices, e = node.definition
            shape = [size_of(s, self.sizes) for s in node.shape]
            with np.errstate(all="ignore"):
                known = self._contractions.setdefault(node.name, Contractions())
                return Interpreter(self.numbers, values, self.sizes, known).tensor(indices, shape, e)
        if node.op == "constant":
            return _as_array(node.value)
        if node.op == "detach":
            value = values[node.operands[0]]
            return value if value.dtype.kind in "biu" else self.numbers.real(value)
        if node.equation is not None:
            if node.name not in self._solvers:
                self._solvers[node.name] = Solver(node, self.sizes, self._opaque(node, values))
            return self._solvers[node.name].solve(values, self.numbers)
        if isinstance(node.implicit, Expansion):
            found = determinants(values[node.operands[node.implicit.matrix]], self.numbers)
            return of_determinant(node.implicit.expr, found, self.numbers)
        return self._opaque(node, values)

    def _opaque(self, node: Node, values: dict[str, Array]) -> Array:
        """What the algebra takes as it is, from torch in float64."""
        call = node.call
        if call is None:
            raise InputError(f"{node.name!r} ({node.op}) has neither a definition nor a torch call")

        def argument(v: Any) -> Any:
            if isinstance(v, Ref):
                operand = values[node.operands[v.position]]
                return torch.as_tensor(np.array(self.numbers.to_float(operand), order="C"))
            if isinstance(v, SizeArg):
                n = cast("Any", v.expr.xreplace({s: sp.Integer(k) for s, k in self.sizes.items()}))
                return int(n) if n.is_integer else float(n)
            return v

        args, kwargs = pytree.tree_map(argument, (call.args, dict(call.kwargs)))
        with torch.no_grad():
            out = call.function(*args, **kwargs)
        return _as_array(out if node.output is None else out[node.output])

    def _typed(self, node: Node, a: Array) -> Array:
        if node.dtype == torch.bool:
            return a.astype(bool) if a.dtype.kind in "biu" else np.asarray(self.numbers.real(a) != 0).astype(bool)
        if node.dtype.is_floating_point:
            return self.numbers.lift(a)
        return a.astype(np.int64) if a.dtype.kind in "biu" else np.asarray(self.numbers.to_float(a)).astype(np.int64)


def _precision(numbers: Arithmetic) -> Any:
    return mpmath.workdps(numbers.digits)


def _input(graph: Graph, inputs: Mapping[str, Any], name: str) -> Any:
    for key in (name, graph.key(name)):
        if key in inputs:
            return inputs[key]
    raise InputError(f"input {name!r} of {graph.name} was not given; its inputs are {', '.join(graph.inputs)}")


def _as_array(t: Any) -> Array:
    """A tensor, array or number as an array; floats narrower than 64 bits are widened, which is exact."""
    if isinstance(t, torch.Tensor):
        t = t.detach().cpu()
        return (t.double() if t.is_floating_point() else t).numpy()
    a = np.asarray(t)
    return a.astype(np.float64) if a.dtype.kind == "f" and a.dtype.itemsize < 8 else a


def _weights(
    graph: Graph, values: dict[str, Array], grad_out: Any, numbers: Arithmetic
) -> list[tuple[str, Array, Array]]:
    """What each output's entries are multiplied with before they are summed, and which of them are numbers."""
    if grad_out is None:
        given: list[Any] = [np.ones(values[o].shape) for o in graph.outputs]
    elif len(graph.outputs) == 1 and not isinstance(grad_out, (list, tuple)):
        given = [grad_out]
    else:
        given = list(cast("Sequence[Any]", grad_out))
    floating = [
        (o, g) for o, g in zip(graph.outputs, given, strict=True) if g is not None and graph[o].dtype.is_floating_point
    ]
    return [
        (o, numbers.lift(np.broadcast_to(_as_array(g), values[o].shape)), ~np.isnan(numbers.to_float(values[o])))
        for o, g in floating
    ]


def _unit(shape: tuple[int, ...], at: Any) -> Array:
    out = np.zeros(shape)
    out[tuple(cast("Sequence[int]", at)) if isinstance(at, (tuple, list)) else at] = 1
    return out
