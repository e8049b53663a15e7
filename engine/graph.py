"""A traced forward as data: nodes in order of execution, each with its index notation, its torch call and its place."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from torch.utils import _pytree as pytree

from engine.implicit import UNKNOWN, Equation
from engine.indexed import IndexedBase
from engine.notation import base, instantiate
from engine.spelling import render_call, shape_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from sympy import Expr, Symbol

    from engine.bounds import Bound
    from engine.implicit import Implicit
    from engine.sizes import Guard
    from engine.table import Definition


@dataclass(frozen=True)
class Source:
    """Where in the user's forward a node was made."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, eq=False)
class Call:
    """One torch call of the forward: the callable as the user spelled it, with `Ref`s for tensors."""

    function: Any
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()


@lru_cache(maxsize=2**12)
def placeholders(e: Expr) -> tuple[tuple[IndexedBase, int, bool, bool], ...]:
    """The tensors of a template: which operand each stands for, and whether it is positive or an integer."""
    labels = [(tensor, tensor.label) for tensor in e.atoms(IndexedBase) if str(tensor.label) != UNKNOWN]
    return tuple((t, int(str(n)[1:]), bool(n.is_positive), bool(n.is_integer)) for t, n in labels)


@dataclass(frozen=True, eq=False)
class Node:
    """One tensor of the forward.

    `operands` are the names of the tensors its op reads, `template` its definition over operands `_0, _1, ...` (None
    for an input, a constant and what has no definition, such as an argmax), shared by every node of the same
    structure. What an equation defines has that as `implicit`, over the same operands. `sizes` maps the template's size symbols to this graph's.
    """

    name: str
    op: str
    operands: tuple[str, ...]
    template: Definition | None
    sizes: tuple[tuple[Symbol, Expr], ...]
    shape: tuple[Expr, ...]
    dtype: torch.dtype
    differentiable: bool
    source: Source | None
    call: Call | None = None
    output: int | None = None
    outputs: int = 1
    view: bool = False
    value: Any = None
    positive: bool = False
    operand_shapes: tuple[tuple[Expr, ...], ...] = ()
    named: bool = False
    implicit: Implicit | None = None

    @property
    def is_input(self) -> bool:
        return self.op == "input"

    @cached_property
    def definition(self) -> tuple[tuple[Expr, ...], Expr] | None:
        """Indices and expression with this node's own operand names, or None for inputs and opaque nodes."""
        if self.template is None:
            return None
        mapping: dict[Any, Any] = dict(self.sizes)
        for tensor, k, positive, integer in placeholders(self.template.expr):
            mapping[tensor] = base(self.operands[k], positive, integer)
        return self.template.indices, instantiate(self.template.expr, mapping)

    @cached_property
    def equation(self) -> Equation | None:
        """The equation that defines this node, with the names of this graph; None for what has none."""
        if not isinstance(self.implicit, Equation):
            return None
        mapping: dict[Any, Any] = {**dict(self.sizes), base(UNKNOWN): base(self.name)}
        for tensor, k, positive, integer in placeholders(self.implicit.expr):
            mapping[tensor] = base(self.operands[k], positive, integer)
        left, right = (instantiate(e, mapping) for e in (self.implicit.left, self.implicit.right))
        return replace(self.implicit, shape=self.shape, left=left, right=right)

    def forward_text(self) -> str:
        """The torch call, with operands by name."""
        if self.call is None:
            return self.op
        return render_call(self.call.function, self.call.args, dict(self.call.kwargs), self.operands)


@dataclass(frozen=True)
class Structure:
    """What the forward returned around its tensors: tuples, lists and dicts, and what in them was no tensor, by place."""

    spec: pytree.TreeSpec
    constants: tuple[tuple[int, Any], ...]

    def around(self, tensors: Sequence[Any]) -> Any:
        """The structure with these tensors in it, in the forward's order."""
        leaves = list(tensors)
        for k, value in self.constants:
            leaves.insert(k, value)
        return pytree.tree_unflatten(leaves, self.spec)


@dataclass(frozen=True, eq=False)
class Graph:
    """A forward, recorded. `repr` reads as a program.

    `sizes` says for every size symbol which input's dimension it is; `guards` what the forward fixed, `bounds` what its slices
    and comparisons took for granted; `keys` maps a node's name to the key of its gradient where they differ (`fc1_weight` to
    `fc1.weight`). `state` says what the module holds that was recorded, if whoever asked for the graph wanted to know
    (`codegen.modulestate`).
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sizes: dict[Symbol, tuple[str, int]]
    guards: tuple[Guard, ...]
    structure: Structure | None = None
    keys: dict[str, str] = field(default_factory=dict[str, str])
    example: dict[Symbol, int] = field(default_factory=dict["Symbol", int])
    buffers: dict[str, str] = field(default_factory=dict[str, str])
    parameters: tuple[str, ...] = ()
    bounds: tuple[Bound, ...] = ()
    state: Any = None

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Nodes by name."""
        return {n.name: n for n in self.nodes}

    def __getitem__(self, name: str) -> Node:
        return self.by_name[name]

    def key(self, name: str) -> str:
        """The name under which a node's gradient is returned."""
        return self.keys.get(name, name)

    @cached_property
    def single(self) -> bool:
        """Whether the forward returned one tensor (and not a tuple of them)."""
        return self.structure is None

    def __repr__(self) -> str:
        width = max((len(n.name) for n in self.nodes), default=0)
        lines = [f"def {self.name}({', '.join(self.inputs)}):"]
        for n in self.nodes:
            shape = shape_text(n.shape)
            dtype = str(n.dtype).removeprefix("torch.")
            if n.is_input:
                lines.append(f"    # {n.name:<{width}} : {dtype} {shape}")
                continue
            text = n.forward_text() + (f"[{n.output}]" if n.output is not None else "")
            place = f"  # {dtype} {shape}" + (f"  line {n.source.line}" if n.source else "")
            lines.append(f"    {n.name:<{width}} = {text}{place}")
        lines.append(f"    return {', '.join(self.outputs)}")
        return "\n".join(lines)
