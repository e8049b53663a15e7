# pyright: basic
"""The statements of a step as text."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from codegen.loop.blocks import Begin, End
from codegen.loop.calls import argument, changed, expression, has_out, in_place, number, written
from codegen.loop.ending import Ending
from codegen.loop.folds import LISTED, Update, seen
from codegen.loop.graph import Node, Sized, constant, contiguous
from codegen.loop.layout import FEW, LARGE, ends_of, reads_of, root, together
from codegen.loop.names import OPERATORS
from codegen.loop.own import windows
from codegen.loop.tidy import SCALARS
from codegen.loop.views import RESHAPES, permutation

if TYPE_CHECKING:
    from codegen.loop.memory import Text

ADDED = {"mm": "addmm_", "mv": "addmv_", "bmm": "baddbmm_"}
"""The method that adds a product to what is there."""


class Writer(Ending):
    """Writes a layout: what is made once, what is drawn, the calls of a step, and the end of a chunk."""

    def write(self) -> Text:
        """Everything."""
        self.batch()
        self.stored()
        self.workspace()
        last = len(self.layout.order)
        while last and self.is_small(self.layout.order[last - 1]):
            last -= 1
        few = self.layout.plain or len(self.layout.order) - last < FEW
        for k, x in enumerate(self.layout.order):
            if isinstance(x, Begin):
                self.begin(x)
            elif isinstance(x, End):
                self.finish()
            elif few or k < last:
                self.statement(x)
            self.forget(k)
        if not few:
            self.all_at_once([u for u in self.layout.order[last:] if isinstance(u, Update)])
        self.buffers()
        self.end()
        return self.text

    def begin(self, x: Begin) -> None:
        """The statements that follow are those of a block."""
        assert self.blocks is not None
        for n, k in self.blocks.totals.items():
            if k == x.loop:
                self.text.body.append(f"{self.ready(n)}.zero_()")
        self.inside, self.passed, self.text.body = [], self.text.body, []

    def finish(self) -> None:
        """The statements of a block as a loop over blocks."""
        assert self.inside is not None
        names = dict(self.inside)
        one = len(names) == 1
        into = ", ".join(names)
        given = next(iter(names.values())) if one else f"zip({', '.join(names.values())})"
        body = [f"for {into} in {given}:", *[f"    {line}" for line in self.text.body]]
        self.text.body, self.inside = [*self.passed, *body], None

    def statement(self, x: Node | Update) -> None:
        """One call, or one update."""
        if isinstance(x, Update):
            self.update(x)
            return
        if x.op in ("total", "collected"):
            return
        if (x.is_view and not x.write) or (x.op == "part" and self.whole(x).op == "native_batch_norm"):
            return
        body = self.text.body
        turned = self.turned(x)
        if turned is not None:
            body.append(turned)
            return
        for r in x.reads:
            self.ready(r)
        for op in OPERATORS:
            if x.op in (op, f"_{op}_data") and op not in self.text.operators:
                self.text.operators.append(op)
        if x in self.owner:
            self.into_total(x, self.owner[x])
        elif x.op == "native_batch_norm":
            outs = [self.out(p) for p in self.parts(x)]
            body.append(f"torch.native_batch_norm({', '.join(self.plain(a) for a in x.args)}, out=({', '.join(outs)}))")
        elif x.write:
            self.in_place(x)
        elif x.dtype is None:
            names = [self.name(p) if p is not None else "_" for p in self.some_parts(x)]
            if x.op == "moments":
                names = [f"{self.name(x)}_{k}" for k in range(2)]
            if any(p in self.rowed for p in self.results.get(x, ())):  # whose rows are filled from it
                body.append(f"{self.name(x)} = {expression(x, self.name)}")
                body.extend(f"{n} = {self.name(x)}[{k}]" for k, n in enumerate(names) if n != "_")
            else:
                body.append(f"{', '.join(names)} = {expression(x, self.name)}")
        elif x.op == "part":
            if x in self.rowed:
                body.append(f"{self.ready(x)}.copy_({self.name(x.args[0])}[{x.args[1]}])")
        elif x.op == "spread":
            out = self.out(x)
            amount = x.args[1]
            body.append(f"{out}.zero_()")
            body.append(f"{out}[{', '.join(self.name(i) for i in x.args[0])}] = {self.plain(amount)}")
        elif x.op == "onehot":
            out = self.out(x)
            body.append(f"{out}.zero_().scatter_(1, {self.name(x.args[0])}.view(-1, 1), 1.0)")
        elif x.op == "repeated":
            out, given = self.out(x), self.ready(x.args[0])
            first, kernel, stride, sizes = x.args
            once = tuple(kernel) == tuple(stride) and x.numel == first.numel * prod(kernel)
            body += [] if once else [f"{out}.zero_()"]
            for at in windows(first.shape, kernel, stride):
                places = ", ".join(
                    f"{a or ''}:{'' if b + by > size else b}:{by}" for (a, b, by), size in zip(at, sizes, strict=True)
                )
                body.append(f"{out}[..., {places}].{'copy_' if once else 'add_'}({given})")
        elif self.changes(x):
            becomes = "" if self.name(x) == self.name(x.args[0]) else f"  # {self.name(x)} from here on"
            body.append(f"{changed(self.operand(x), self.ready)}{becomes}")
        elif x in self.layout.over:
            body.append(written(self.operand(x), self.name(x.args[0]), self.ready))
        elif has_out(x) and (x in self.rowed or x in self.layout.place):
            body.append(written(self.operand(x), self.out(x), self.ready))
        elif x in self.rowed:
            body.append(f"{self.ready(x)}.copy_({expression(x, self.name)})")
        else:
            body.append(f"{self.name(x)} = {expression(x, self.name)}")

    def changes(self, x: Node) -> bool:
        """Whether a call fills the memory that its first argument has all of."""
        first = x.args[0] if x.args else None
        if not isinstance(first, Node) or not in_place(x, first) or self.layout.plain:
            return False
        if self.layout.over.get(x) is first:
            return True
        slots = self.layout.place.get(x), self.layout.place.get(first)
        if x in self.rowed or first in self.rowed:
            return False
        one = slots[0] is not None and slots[0] is slots[1] and slots[0].wide is None
        return one and contiguous(x) and contiguous(first) and not self.handed_out(x) and not self.handed_out(first)

    def turned(self, x: Node) -> str | None:
        """A product A B as (BT AT)T, where a step then makes fewer views of what calls made anew; None for any other call."""
        if x.op != "mm" or x not in self.layout.place or x in self.rowed or self.layout.plain:
            return None
        a, b, out = (v.args[0] if permutation(v) == [1, 0] else turned_view(v) for v in (*x.args, x))
        if sum(map(self.loose, (a, b))) >= sum(map(self.loose, x.args)):
            return None
        return f"torch.mm({self.ready(b)}, {self.ready(a)}, out={self.ready(out)})"

    def loose(self, n: Node) -> bool:
        """Whether a view is made in every step, as what it shows is."""
        own = root(n)
        return n.is_view and n not in self.made and own.op != "input" and own not in {*self.rowed, *self.layout.place}

    def into_total(self, x: Node, total: Node) -> None:
        """A block's part of a sum over all rows, or its row of what is collected."""
        into = self.ready(total)
        if total.op == "collected":
            self.text.body.append(f"{into}.copy_({self.name(x.args[0])}_{x.args[1]})")
        elif x.op in ADDED and len(x.args) == 2 and not x.kwargs:
            self.text.body.append(f"{into}.{ADDED[x.op]}({', '.join(self.ready(a) for a in x.args)})")
        else:
            self.text.body.append(f"{into}.add_({self.name(x) if x.op == 'part' else expression(x, self.ready)})")

    def forget(self, k: int) -> None:
        """Let go of large values that the statements made, as soon as nothing reads them."""
        if not self.last:
            behind, last = ends_of(self.layout.order), dict[Node, int]()
            for j, x in enumerate(self.layout.order):
                last.update({root(r): behind[j] for r in reads_of(x)})
            for x in reversed(self.layout.order):  # what is written in its memory has its name
                if isinstance(x, Node) and x in self.layout.taken:
                    last[x.args[0]] = max(last.get(x, -1), last.get(x.args[0], -1))
            for n, j in last.items():
                self.last.setdefault(j, []).append(n)
        dead = [n for n in self.last.get(k, ()) if n.dtype is not None]
        known = {*self.layout.place, *self.rowed, *self.layout.data, *self.layout.over.values()}
        large = [n for n in dead if not self.local(n) and n.op != "input" and n.numel * n.dtype.itemsize >= LARGE]
        loose = [n for n in large if n.constant is None and n not in known]
        names = [self.names[n] for n in loose if n in self.names and n not in self.made]
        names += [self.names[v] for n in loose for v in self.made if v in self.names and v.is_view and root(v) is n]
        if names:
            self.text.body.append(f"del {', '.join(dict.fromkeys(names))}")

    def plain(self, a: Any) -> str:
        return (
            self.name(a)
            if isinstance(a, Node)
            else number(a)
            if isinstance(a, (int, float, Sized)) and not isinstance(a, bool)
            else str(a)
        )

    def whole(self, part: Node) -> Node:
        return part.args[0]

    def parts(self, whole: Node) -> list[Node]:
        """All results of a call that writes into given tensors; those nothing reads get memory as well."""
        found = {
            n.args[1]: n for n in self.layout.order if isinstance(n, Node) and n.op == "part" and n.args[0] is whole
        }
        out: list[Node] = []
        for k, t in enumerate(whole.value):
            if k not in found:
                shape = tuple(t.shape) if k else whole.args[0].shape
                found[k] = Node("part", (whole, k), {}, shape, whole.args[0].dtype, t, "unused")
            out.append(found[k])
        return out

    def some_parts(self, whole: Node) -> list[Node | None]:
        """The results of a call that makes them, None for those nothing reads."""
        found = {n.args[1]: n for n in self.results.get(whole, ())}
        return [found.get(k) if k not in found or found[k] not in self.rowed else None for k in range(len(whole.value))]

    @cached_property
    def results(self) -> dict[Node, list[Node]]:
        """The results that are read of every call that has several."""
        found: dict[Node, list[Node]] = {}
        for x in self.layout.order:
            for n in [x] if isinstance(x, Node) else reads_of(x):
                if n.op == "part":
                    found.setdefault(n.args[0], []).append(n)
        return found

    def in_place(self, x: Node) -> None:
        """A call that changes a part of a tensor: on a copy of it, if it is needed as it was."""
        base = x.args[0]
        name = self.name(x)
        if x not in self.layout.taken and (x in self.rowed or x in self.layout.place):  # read after the step
            self.text.body.append(f"{self.ready(x)}.copy_({self.name(base)})")
        elif x not in self.layout.taken:
            self.text.body.append(f"{name} = {self.name(base)}.clone()")
        elif name != self.name(base) and x not in self.layout.place:
            self.text.body.append(f"{name} = {self.name(base)}")
        target = name
        for op, args in x.path:
            view = Node(op, (base, *args), {}, (), x.dtype, None)
            target = expression(view, lambda r, t=target: t)
        given = [argument(a, self.name) for a in x.args[1:]] + [
            f"{k}={argument(v, self.name)}" for k, v in x.kwargs.items()
        ]
        self.text.body.append(f"{target}.{x.op}_({', '.join(given)})")

    def update(self, u: Update) -> None:
        """Into the parameter, or into its velocity."""
        for n in u.args:
            if isinstance(n, Node):
                self.ready(n)
        first, final = u is self.updates[u.name][0], u is self.updates[u.name][-1]
        args = ", ".join(self.plain(a) for a in u.args)
        owner = f"{u.name}_velocity" if self.momentum else u.name
        target = self.seen(owner, u.name, u.views)
        if self.momentum:
            scale = f"{u.keyword}={u.scale!r}" if u.scale != 1 else ""
            if first and not u.beta:
                self.text.body.append(f"{owner}.mul_(momentum)")
            if not u.keyword:
                args, scale = (args if u.scale == 1 else self.multiplied(u, repr(u.scale))), ""
            keywords = ", ".join(k for k in ("beta=momentum" if first and u.beta else "", scale) if k)
            self.text.body.append(f"{target}.{u.method}({args}{', ' + keywords if keywords else ''})")
            if final:
                self.text.body.append(f"{u.name}.add_({owner}, alpha=rate)")
            return
        if first and self.shrinks(u) is not None:
            return  # as the next one does
        rate = (
            "rate"
            if u.scale == 1
            else "lr"
            if u.scale == -1
            else f"{u.scale:g} * rate"
            if u.scale == float(f"{u.scale:g}")
            else f"{u.scale!r} * rate"
        )
        if not u.keyword:
            self.text.body.append(f"{target}.{u.method}({self.multiplied(u, rate)})")
            return
        group = self.updates[u.name]
        by = self.shrinks(group[0]) if len(group) > 1 and u is group[1] else None
        beta = "" if by is None else f"beta=1 + {by!r} * rate, "
        self.text.body.append(f"{target}.{u.method}({args}, {beta}{u.keyword}={rate})")

    def shrinks(self, u: Update) -> float | None:
        """By how much an update makes a parameter smaller itself, where the next one does both at once; None for any other."""
        first, *others = self.updates[u.name]
        own = u.method == "add_" and u.args[0] is self.step.inputs[u.name] and not u.views
        return u.scale if u is first and others and others[0].beta and own and not self.layout.plain else None

    def multiplied(self, u: Update, by: str) -> str:
        """The arguments of an update with the last one multiplied: in place, where nothing reads it afterwards."""
        *others, rows = u.args
        number = f"({by})" if "*" in by else by
        text = f"{self.name(rows)}.mul_({by})" if self.is_done(rows, u) else f"{self.name(rows)} * {number}"
        return ", ".join([*map(self.plain, others), text])

    def is_done(self, n: Node, u: Update) -> bool:
        """Whether a value is all of memory that the loop owns, and nothing but an update reads that from there on."""
        owner, layout = root(n), self.layout
        elsewhere = {*self.rowed, *layout.stored, *layout.kept}
        if owner not in layout.place or owner in elsewhere or self.handed_out(owner) or n.numel != owner.numel:
            return False
        at = next(k for k, x in enumerate(layout.order) if x is u)
        after = [x for x in layout.order[at + 1 :] if not isinstance(x, Node) or x.write or not x.is_view]
        reads = [r for k, r in self.step.results.items() if not k.startswith("grad.")]
        reads += [a.value for a in layout.averages if a.value is not None]
        reads += [r for x in after for r in reads_of(x)]
        reads += [r for r in reads_of(u) if r is not n]
        return not any(root(r) is owner for r in reads)

    def is_small(self, x: Any) -> bool:
        """Whether a statement is an update that one call makes together with others."""
        return isinstance(x, Update) and together(x, self.updates[x.name])

    @cached_property
    def updates(self) -> dict[str, list[Update]]:
        """The updates of every parameter, in order."""
        found: dict[str, list[Update]] = {}
        for x in self.layout.order:
            if isinstance(x, Update):
                found.setdefault(x.name, []).append(x)
        return found

    def all_at_once(self, group: list[Update]) -> None:
        """Small updates in one call."""
        for u in group:
            self.ready(u.args[0])
        gradients = f"[{', '.join(self.name(u.args[0]) for u in group)}]"
        self.text.setup.append(f"small = [{', '.join(u.name for u in group)}]")
        if not self.momentum:
            self.text.body.append(f"torch._foreach_add_(small, {gradients}, alpha=rate)")
            return
        self.text.setup.append(f"small_velocity = [{', '.join(f'{u.name}_velocity' for u in group)}]")
        self.text.body += [
            "torch._foreach_mul_(small_velocity, momentum)",
            f"torch._foreach_add_(small_velocity, {gradients})",
            "torch._foreach_add_(small, small_velocity, alpha=rate)",
        ]

    def operand(self, n: Node) -> Node:
        """A call with its number as a tensor, made once: torch makes one at every call otherwise."""
        if (
            self.layout.plain
            or n.op not in SCALARS
            or n.write
            or len(n.args) < 2
            or isinstance(n.args[1], Node)
            or not n.dtype.is_floating_point
        ):
            return n
        value = n.args[1].full if isinstance(n.args[1], Sized) else n.args[1]
        key = (value, n.dtype)
        if key not in self.numbers:
            self.numbers[key] = constant(torch.tensor(value, dtype=n.dtype))
        made = self.numbers[key]
        return replace(n, args=(n.args[0], made, *n.args[2:]))

    def seen(self, owner: str, of: str, views: tuple[Any, ...]) -> str:
        """A parameter through views, made once."""
        if not views:
            return owner
        key = (owner, views)
        if key not in self.views:
            same = next((n for n in self.names.nodes if shows(n, owner, views)), None)
            if same is not None and not self.varying:
                self.views[key] = self.ready(same)
                return self.views[key]
            text, part = owner, torch.empty(self.step.inputs[of].shape, device="meta")
            for k, (op, args) in enumerate(views):
                given = Node("input", (), {}, tuple(part.shape), None, None)
                text = expression(
                    Node(op, (given, *([args] if op in LISTED else args)), {}, (), None, None), lambda r, t=text: t
                )
                part = seen(part, views[k : k + 1])
            self.views[key] = self.names.unique(f"{owner}_{seen_word(views)}")
            self.text.setup.append(f"{self.views[key]} = {text}")
        return self.views[key]

    def buffers(self) -> None:
        """Next values of the forward's own buffers."""
        body = self.text.body
        averaged = {a.name: a for a in self.layout.averages}
        for key, n in self.step.results.items():
            name = key.removeprefix("buffer.")
            if key.startswith("buffer.") and name not in averaged:
                buffer = self.step.inputs[name]
                value = (
                    self.ready(n) if n.shape == buffer.shape else f"{self.ready(n)}.view({self.sizes(buffer.shape)})"
                )
                body.append(f"{name}.copy_({value})")
        for a in averaged.values():
            if a.value is None:
                body.append(f"{a.name}.add_({self.plain(a.share)})")
            else:
                share = f"alpha={self.plain(a.share)}"
                body.append(f"{a.name}.mul_({self.plain(a.keep)}).add_({self.ready(a.value)}, {share})")


def shows(n: Node, owner: str, views: tuple[Any, ...]) -> bool:
    """Whether a value is a parameter through a single view."""
    if not n.is_view or n.write or n.args[0].op != "input" or n.args[0].name != owner:
        return False
    order = permutation(n)
    own = ("view", n.shape) if n.op in RESHAPES else (n.op, n.args[1:]) if order is None else ("permute", tuple(order))
    return views == (own,)


def seen_word(views: tuple[Any, ...]) -> str:
    """What a parameter that is seen through views is called behind its own name."""
    op, sizes = views[-1]
    if op == "permute":
        return "T"
    if op in ("select", "slice"):
        return str(sizes[1]) if op == "select" else "tail" if len(sizes) > 1 and sizes[1] else "head"
    return "flat" if len(sizes) == 1 else "column" if sizes[-1:] == (1,) else f"{len(sizes)}d"


def turned_view(n: Node) -> Node:
    """A matrix with its rows as columns."""
    return Node("permute", (n, [1, 0]), {}, n.shape[::-1], n.dtype, n.value.T)


__all__ = ["OPERATORS", "Writer"]
