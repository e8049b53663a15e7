# pyright: basic
"""What the values of a loop are called: as in the forward, else by what they are of what has a name there.

A value that is computed in place of another one shares its variable, as both are never needed. One that is seen as
something with a name has that name and its number of dimensions. A function of one value is called by it, what else leads
to a single named value by that one.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from codegen.loop.calls import OPERATORS as POINTWISE
from codegen.loop.calls import in_place, into
from codegen.loop.constants import constant_name
from codegen.loop.folds import Update
from codegen.loop.graph import Node, contiguous
from codegen.loop.kept import as_it_is
from codegen.loop.layout import root
from codegen.loop.views import RESHAPES, permutation, shortened, unchanged
from engine.naming import Namer, free_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from codegen.loop.graph import Step
    from codegen.loop.layout import Layout

OPERATORS = {
    "moments": "torch.ops.aten.batch_norm_update_stats.default._op",
    "bag": "torch.ops.aten._embedding_bag_forward_only.default._op",
    "gelu": "torch.ops.aten.gelu.out._op",
    "gelu_backward": "torch.ops.aten.gelu_backward.grad_input._op",
    **{op: f"torch.ops.aten.{op}.{into(op)}._op" for op in sorted(POINTWISE)},
    "native_batch_norm_backward": "torch.ops.aten.native_batch_norm_backward.default._op",
    "native_layer_norm_backward": "torch.ops.aten.native_layer_norm_backward.default._op",
    "softmax_backward": "torch.ops.aten._softmax_backward_data.out._op",
    "log_softmax_backward": "torch.ops.aten._log_softmax_backward_data.out._op",
}
"""The kernels that an emitted loop calls by a name of its own."""

OWN = frozenset((
    "torch", "SIZES", "trainer", "run", "at_end", "value_and_grad", "params", "velocities", "momentum", "data", "steps", "lr", "generator",
    "watch", "rate", "losses", "done", "count", "rows", "row", "blocks", "small", "small_velocity", "zip", "range", "len", "min", "float", "enumerate",
    *OPERATORS,
))  # fmt: skip
"""What an emitted loop calls its own things."""

SUFFIXES = (
    "_all", "_rows", "_own", "_table", "_velocity", "_of", "_blocks", "_steps", "_first", "_sorted", "_from",
)  # fmt: skip
"""What names of the emitted loop end with that are made from others."""


def with_free_names(step: Step) -> None:
    """Let no input have a name that the loop may give to something else: it has another one there."""
    for name in [k for k in step.inputs if k.endswith(SUFFIXES) or k in OWN]:
        free = free_name(f"{name}_", step.inputs)
        n = step.inputs[name]
        n.name = free
        step.inputs = {free if k == name else k: v for k, v in step.inputs.items()}
        if name in step.batch:
            step.batch = tuple(free if k == name else k for k in step.batch)
            step.called[free] = name
            continue
        step.kept[free] = step.kept.pop(name, as_it_is(name, n.shape))
        for kind in ("grad", "buffer"):
            if f"{kind}.{name}" in step.results:
                step.results[f"{kind}.{free}"] = step.results.pop(f"{kind}.{name}")


def named_where_computed(step: Step) -> None:
    """Let what is computed have the name, not a sight of it with other sizes: the sight may not be needed."""
    given = {n.name for n in step.order}
    for n in step.order:
        inner = n
        while inner.is_view and not inner.write and inner.op in RESHAPES and inner.args[0].numel == inner.numel:
            inner = inner.args[0]
        if not n.name or inner is n or inner.constant is not None or inner.is_view or inner.op == "input":
            continue
        if inner.name == n.name:
            n.name = ""
        elif not inner.name:
            bare = without_view(n.name)
            inner.name, n.name = (n.name if bare in given or bare in step.inputs else bare), ""
            given.add(inner.name)


class LoopNamer(Namer):
    """Hands out names of which those with a suffix are free as well."""

    def __init__(self, taken: Iterable[str]) -> None:
        super().__init__(OWN)
        for name in taken:
            self.take(name)

    def is_free(self, name: str) -> bool:
        """Whether neither the name nor one that is made from it is in use."""
        return not self._taken.intersection(variants(name))

    def take(self, name: str) -> None:
        """The name is in use from here on, and so are those that are made from it."""
        self._taken.update(variants(name))


def variants(name: str) -> list[str]:
    """A name and all that may be made from it."""
    return [name, *(f"{name}{s}" for s in SUFFIXES)]


PREFIXED = frozenset((
    "sqrt", "rsqrt", "exp", "log", "log1p", "expm1", "tanh", "sigmoid", "neg", "abs", "sign", "sin", "cos", "erf", "floor", "sum", "mean",
    "amax", "amin", "argmax", "logsumexp", "cumsum", "flip", "roll", "softmax", "log_softmax",
))  # fmt: skip
"""Functions of one value, by the name of which stands what they are of."""
OTHERS = {"reciprocal": "inverse", "native_layer_norm": "normal", "clamp_min": "clamped", "clamp": "clamped"}
AFTER = {
    "clone": "copy", "_to_copy": "copy", "index_select": "picked", "index": "picked", "gather": "picked", "square": "squared",
    "onehot": "onehot", "counts": "counts", "repeated": "repeated", "scatter_add": "scattered", "scatter": "scattered", "new_empty": "like", "empty_like": "like",
}  # fmt: skip
"""What stands behind a name for what is done to it."""
NOUNS = {
    "mul": "product", "mm": "product", "bmm": "product", "mv": "product", "div": "quotient", "add": "sum", "addmm": "sum", "addmv": "sum",
    "addcmul": "sum", "addcdiv": "sum", "baddbmm": "sum", "sub": "difference", "rsub": "difference", "where": "choice", "pow": "power",
    "index_add": "scattered", "index_put": "scattered", "maximum": "maximum", "minimum": "minimum", "cat": "joined",
}  # fmt: skip
MASKS = frozenset(("eq", "ne", "lt", "le", "gt", "ge", "logical_not", "logical_and", "logical_or"))
LONG = 32
"""Letters of a name that is made from others."""


class Names:
    """Names for the values of a layout, each handed out when it is first asked for; those of the forward are kept for it."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.inputs = layout.step.inputs
        self.known: dict[Node, str] = {n: k for k, n in self.inputs.items()}
        self.namer = LoopNamer(self.inputs)
        self.wanted: dict[Node, int] = {}
        for n in self.nodes:
            if n.name and n not in self.known and self.same(n) is n:
                self.known[n] = self.namer(n.name)
        for x in layout.order:  # in this order, so that numbers grow with it
            if isinstance(x, Node) and not x.is_view and x.constant is None:
                self[x]

    def __contains__(self, n: Node) -> bool:
        return self.same(n) in self.known

    def __getitem__(self, n: Node) -> str:
        """The variable of a value."""
        n = self.same(n)
        if n not in self.known:
            self.known[n] = self.namer(self.label(n))
        return self.known[n]

    def given(self, n: Node) -> bool:
        """Whether a value has a name that is not made from what it is computed from."""
        return n in self.known or bool(n.name)

    def unique(self, name: str) -> str:
        """A name for something that is no value."""
        return self.namer(name)

    # -- which values have one variable ------------------------------------------------------------------------------

    @cached_property
    def nodes(self) -> list[Node]:
        """Every value of the layout: in the order of its statements, each behind what it reads."""
        found: dict[Node, None] = {}
        order = [*self.layout.data, *self.layout.order, *self.layout.late, *self.layout.step.results.values()]
        for x in order:
            stack = [(n, False) for n in reversed(x.args if isinstance(x, Update) else (x,)) if isinstance(n, Node)]
            while stack:
                n, ready = stack.pop()
                if ready:
                    found.setdefault(n)
                elif n not in found:
                    stack += [(n, True), *((r, False) for r in reversed(n.reads) if r not in found)]
        return list(found)

    @cached_property
    def shared(self) -> dict[Node, Node]:
        """For a value without a name the one whose variable it has: what is computed in its place, or what it is a view of."""
        blocks = self.layout.blocks
        found: dict[Node, Node] = {row: n for n, row in self.layout.over.items()}
        if blocks is not None:
            found |= {copy: n for n, copy in blocks.data.items()} | dict(blocks.stored)
        for n in self.nodes:
            same = unchanged(n)
            if same is not None and not (n.name and same.name):
                if n.name and same not in found and not same.is_view and same.constant is None and same.op != "input":
                    found[same] = n
                elif not n.name:
                    found[n] = same
            elif self.in_its_place(n) and not n.args[0].name:
                found[n.args[0]] = n
        return found

    def same(self, n: Node) -> Node:
        """The value that gives a value its variable."""
        while n in self.shared:
            n = self.shared[n]
        return n

    def in_its_place(self, x: Node) -> bool:
        """Whether a call changes its first argument, which lies where the result does, into it."""
        first = x.args[0] if x.args else None
        if x in self.layout.taken:
            return True
        if not isinstance(first, Node) or self.layout.plain or not in_place(x, first):
            return False
        slot, other = self.layout.place.get(x), self.layout.place.get(first)
        if slot is None or slot is not other or slot.wide is not None:
            return False
        blocks = self.layout.blocks
        handed = {*blocks.collected, *blocks.crossing} if blocks is not None else ()
        return contiguous(x) and contiguous(first) and x not in handed and first not in handed

    # -- names -------------------------------------------------------------------------------------------------------

    def label(self, n: Node) -> str:
        """A name for a value that has none."""
        if n.constant is not None:
            return constant_name(n.constant)
        if n.is_view:
            return self.view_label(n)
        seen = self.seen_as.get(n)
        if seen is not None:
            return f"{self.bare(self.known.get(self.same(seen)) or seen.name)}_{len(n.shape)}d"
        if n.op == "part":
            return self.part_label(n)
        own = next((label for x in self.members(n) if (label := self.own_label(x))), "")
        if own and len(own) <= LONG:
            return own
        goal = self.goal(n)
        noun = NOUNS.get(n.op, "mask" if n.op in (*MASKS, "bracket") else n.op.strip("_"))
        return f"{goal}_{noun}" if goal else own or noun

    def own_label(self, n: Node) -> str:
        """A name from what a value is computed from; "" where several things have a part in it."""
        operands = [r for r in n.reads if r.constant is None]
        if not operands or any(self.same(self.owner(r)) is self.same(n) for r in operands):
            return ""
        stem = self.stem(operands[0])
        if n.op in PREFIXED or n.op in OTHERS:
            return f"{OTHERS.get(n.op, n.op)}_{stem}"
        if n.op in AFTER:
            return f"{stem}_{AFTER[n.op]}"
        if n.op == "mul" and len(n.args) == 2 and n.args[0] is n.args[1]:
            return f"{stem}_squared"
        if n.op == "mv" and n.args[1].constant is not None:
            weights = n.args[1].constant
            if bool((weights == weights[0]).all()):
                return f"{'sum' if float(weights[0]) == 1 else 'mean'}_{stem}"
        if n.op == "mul" and len(operands) == 2 and n.args[0] is not n.args[1]:
            return f"{stem}_times_{self.stem(operands[1])}"
        return ""

    def part_label(self, n: Node) -> str:
        """A name for one of the results of a call."""
        whole, k = n.args
        siblings = [p for p in self.nodes if p.op == "part" and p.args[0] is whole and p.name]
        stem = siblings[0].name if siblings else self.stem(whole.reads[0]) if whole.reads else "part"
        return f"{stem}_{'indices' if n.dtype == torch.int64 else f'part_{k}'}"

    def stem(self, n: Node) -> str:
        """What a value is called by where others are called by it."""
        return self.bare(self[self.owner(n)], n)

    def owner(self, n: Node) -> Node:
        """The value that a view without a name shows."""
        while n.is_view and not n.write and n not in self.known and not n.name:
            n = n.args[0]
        return n

    def members(self, n: Node) -> list[Node]:
        """The values that have one variable, in the order of their calls."""
        return [x for x in self.nodes if x is n or (x in self.shared and not x.is_view and self.same(x) is n)]

    def bare(self, name: str, of: Node | None = None) -> str:
        """A name without what says how it is seen, unless that is the name of something else than what is seen."""
        short = without_view(name)
        own = of is not None and self.known.get(self.same(root(of))) == short
        return short if own or short not in self.named else name

    @cached_property
    def named(self) -> frozenset[str]:
        """The names that values are given."""
        return frozenset([*self.inputs, *(n.name for n in self.nodes)])

    def view_label(self, n: Node) -> str:
        """A name for another sight of a value."""
        inner = shortened(n, lambda v: not self.given(v))
        base = self.bare(self[inner] if not inner.is_view or self.given(inner) else self.view_label(inner), n)
        if n.op in ("t", "transpose", "permute"):
            last = list(range(len(n.shape)))
            last[-2:] = reversed(last[-2:])
            if permutation(n) == last and base.endswith("_T"):
                return base.removesuffix("_T")
            return f"{base}_{'T' if permutation(n) == last else 'permuted'}"
        if n.op == "select":
            return f"{base}_{n.args[2]}"
        if n.op == "slice":
            start = n.args[2] if len(n.args) > 2 else 0
            return f"{base}_{'tail' if start else 'head'}"
        return f"{base}_{view_word(n, inner)}"

    @cached_property
    def seen_as(self) -> dict[Node, Node]:
        """The first view with a name of all of a value that has none."""
        found: dict[Node, Node] = {}
        for n in self.nodes:
            if n.is_view and n.name and n.op != "extended":
                owner = root(n)
                if owner.numel == n.numel and not owner.name and owner.op != "input":
                    found.setdefault(owner, n)
        return found

    @cached_property
    def readers(self) -> dict[Node, list[Node | Update]]:
        """Who reads each value."""
        found: dict[Node, list[Node | Update]] = {}
        updates = [x for x in self.layout.order if isinstance(x, Update)]
        for x in [*self.nodes, *updates]:
            for r in x.reads if isinstance(x, Node) else [a for a in x.args if isinstance(a, Node)]:
                found.setdefault(r, []).append(x)
        return found

    def goal(self, n: Node) -> str:
        """The name of the only named value that a value leads to; "" where there are several."""
        found: dict[str, None] = {}
        seen, stack = {n}, [*self.readers.get(n, ())]
        while stack:
            x = stack.pop()
            if isinstance(x, Update):
                found[f"d{x.name}"] = None
            elif x not in seen:
                seen.add(x)
                if x in self.known or x.name:
                    found[self.bare(self.known.get(self.same(x)) or x.name)] = None
                else:
                    stack.extend(self.readers.get(x, ()))
            if len(found) > 1:
                return ""
        return next(iter(found), "")


def view_word(n: Node, inner: Node) -> str:
    """How the shape of a view differs from that of what it is a view of."""
    if len(n.shape) == 1:
        return "flat"
    if n.shape[-1:] == (1,) and inner.shape[-1:] != (1,):
        return "column"
    return f"{len(n.shape)}d"


def without_view(name: str) -> str:
    """A name without what says how many dimensions it is seen with."""
    return re.sub(r"_(view|\dd|flat|column)$", "", name) or name


__all__ = ["OPERATORS", "OWN", "SUFFIXES", "LoopNamer", "Names", "named_where_computed", "with_free_names"]
