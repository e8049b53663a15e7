# pyright: basic
"""Where every value of a step lives: in data rows, in stored rows, in the workspace, or in a tensor of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any

from codegen.loop.blocks import Begin, Blocks, End, NoBlocksError, in_blocks
from codegen.loop.calls import FILLED, elementwise, has_out, in_place
from codegen.loop.cost import price
from codegen.loop.folds import Average, Update, updates
from codegen.loop.graph import Node, contiguous, nodes_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codegen.loop.graph import Step

ROWS_BYTES = 4 << 20
"""How much the rows that are drawn and stored ahead of time may take."""
MOST = 100
BESIDE = 100
"""How many times as long the steps of a chunk take as what is done once for all of them, where their rows allow it."""
ONCE = 10.0
"""Microseconds of a call that is made once for a chunk, many of them through `torch.vmap`."""
LARGE = 1 << 20
"""Bytes from which on a value that lies in no memory of the loop is let go of before the step ends."""
SMALL = 4096
"""Elements of a gradient that is worth keeping until the end of the step."""


ENTRYWISE = frozenset(("add_", "addcmul_", "addcdiv_"))
"""Methods whose every entry depends on the same entry of what they read."""


@dataclass
class Slot:
    """A run of memory that several values use one after the other. With `wide` it is a value's alone, and more than its own."""

    name: str
    dtype: Any
    size: int
    wide: Node | None = None


@dataclass
class Layout:
    """A step in order, with a place for every value.

    `data` are values known from the batch, per step a row; `stored` values that the end of a chunk reads, also rows;
    `late` what is computed there; `setup` constants and views that are made once.
    """

    step: Step
    order: list[Node | Update | Begin | End]
    data: list[Node]
    stored: list[Node]
    late: list[Node]
    slots: list[Slot]
    place: dict[Node, Slot] = field(default_factory=dict[Node, Slot])
    over: dict[Node, Node] = field(default_factory=dict[Node, Node])
    """Values that are written over a row of the data, which is drawn anew for every chunk of steps, or over a tensor that a call made."""
    taken: set[Node] = field(default_factory=set[Node])
    """Tensors of which a part is written in the memory of what they were before."""
    chunk: int = 1
    averages: tuple[Average, ...] = ()
    plain: bool = False
    blocks: Blocks | None = None
    kept: frozenset[Node] = frozenset()
    """Values that are handed out, so that their memory is not used again."""

    @property
    def body(self) -> list[Node | Update]:
        """The calls and updates, without the marks of passes over the blocks."""
        return [x for x in self.order if not isinstance(x, (Begin, End))]


def root(n: Node) -> Node:
    """What owns a value's memory."""
    while n.is_view and not n.write:
        n = n.args[0]
    return n


def from_batch(step: Step) -> list[Node]:
    """Values that the batch alone decides and that have a form for many steps at once."""
    known = {step.inputs[b] for b in step.batch}
    for n in step.order:
        if n in known:
            continue
        if (
            (n.op in ("places", "order", "begins", "turned") and n.args[0] in known)
            or (n.is_view and n.args[0] in known and same_rows(n))
            or (n.op in ("onehot", "counts") and n.args[0] in known)
            or (n.op == "spread" and one_per_row(n, known))
            or (n.op == "permute" and n.args[0] in known)
        ):
            known.add(n)
    return [n for n in step.order if n in known]


def same_rows(n: Node) -> bool:
    """Whether a view of a batch input is one for every row separately."""
    return n.op in ("view", "squeeze", "unsqueeze", "permute", "t", "transpose", "select", "slice", "expand")


def one_per_row(n: Node, known: set[Node]) -> bool:
    """Whether a value is put into every row once, at a column that the batch gives."""
    indices, amount, shape = n.args[:3]
    if len(indices) != 2 or len(shape) != 2 or isinstance(amount, Node):
        return False
    rows, columns = indices
    return (
        rows.constant is not None
        and rows.shape == (shape[0],)
        and bool((rows.constant.diff() == 1).all())
        and columns in known
        and columns.op in ("input", "view")
    )


def laid_out(
    step: Step,
    trained: tuple[str, ...],
    averages: Sequence[Average] = (),
    plain: bool = False,
    block: int | None = None,
) -> Layout:
    """The layout of a step; `plain` keeps every update a statement of its own, `block` takes it in blocks of so many rows.

    Raises NoBlocksError where it cannot be taken in blocks.
    """
    data = from_batch(step)
    late, inside = at_the_end(step, data)
    ends = {r for k, r in step.results.items() if k.startswith(("loss", "keep."))}
    stored = [
        n
        for n in step.order
        if n in inside and n not in data and n.constant is None and (n in ends or any(n in x.reads for x in late))
    ]
    stored = list(dict.fromkeys(root(n) if n.is_view else n for n in stored))
    stored = [n for n in stored if n.op != "input"]
    calls: Sequence[Node | Begin | End] = [
        n for n in step.order if n in inside and n not in data and n.constant is None and n.op != "input"
    ]
    blocks = None
    if block is not None:
        if any(r in data and r.op != "input" for n in late for r in n.reads):
            raise NoBlocksError("the end of a chunk reads more than the batch")
        blocks = in_blocks(step, data, late, stored, block)
        calls = [n for n in blocks.order if not isinstance(n, Node) or n.constant is None]
        step.readers = None
    order = with_updates(step, calls, trained, plain or blocks is not None)
    layout = Layout(step, order, data, stored, late, [], averages=tuple(averages), plain=plain, blocks=blocks)
    layout.chunk = chunk_of(layout)
    workspace(layout)
    return layout


def at_the_end(step: Step, data: Sequence[Node]) -> tuple[list[Node], set[Node]]:
    """What is computed for a chunk of steps at once, as no gradient needs it, and what every step computes."""
    needed: set[Node] = set()
    stack = [r for k, r in step.results.items() if k.startswith(("grad.", "buffer."))]
    while stack:
        n = stack.pop()
        if n not in needed:
            needed.add(n)
            stack.extend(n.reads)
    held = {n for n in step.order if n.op == "input" and n.name not in step.batch}
    ready = needed | set(data) | {n for n in step.order if n.constant is not None}
    wanted = [n for n in step.order if n not in ready]
    changed = True
    pulled: set[Node] = set()
    while changed:
        changed = False
        for n in wanted:
            result = n.op == "part" and (n.args[0] in needed or n.args[0] in pulled)
            if n not in pulled and (any(root(r) in held for r in n.reads) or n.write or n.op in FILLED or result):
                for r in [n, *ancestors(n)]:
                    if r in wanted and r not in pulled:
                        pulled.add(r)
                        changed = True
    late = [n for n in wanted if n not in pulled]
    if all(r in late or r.constant is not None for n in late for r in n.reads):  # nothing has a row for every step
        return [], needed | set(wanted)
    return late, needed | pulled


def ancestors(n: Node) -> list[Node]:
    """Everything a node is computed from."""
    found: dict[Node, None] = {}
    stack = list(n.reads)
    while stack:
        x = stack.pop()
        if x not in found:
            found[x] = None
            stack.extend(x.reads)
    return list(found)


def with_updates(
    step: Step, nodes: Sequence[Node | Begin | End], trained: tuple[str, ...], plain: bool = False
) -> list[Node | Update | Begin | End]:
    """The calls in order, each parameter's update as soon as nothing reads the parameter as it was; not inside of a pass."""
    users = readers_of(step, nodes)
    groups = without_cycles(step, {name: own_first(step, name, updates(step, name, users)) for name in trained})
    needed: set[Node] = set()
    stack = [n for group in groups.values() for u in group for n in u.args if isinstance(n, Node)]
    stack.extend(r for k, r in step.results.items() if not k.startswith("grad."))
    stack.extend(n for n in nodes if isinstance(n, Node) and n.op == "collected")
    while stack:
        n = stack.pop()
        if n not in needed:
            needed.add(n)
            stack.extend(n.reads)
    blocked = any(isinstance(n, Begin) for n in nodes)
    order: list[Node | Update | Begin | End] = [n for n in nodes if not isinstance(n, Node) or n in needed or blocked]
    place = {n: k for k, n in enumerate(order) if isinstance(n, Node)}
    behind = ends_of(order)
    after: dict[int, list[Update]] = {}
    at: dict[str, int] = {}
    latest: dict[Node, int] = {}
    for n, k in place.items():
        if not n.is_view:
            latest.update({root(r): max(behind[k], latest.get(root(r), -1)) for r in n.reads})
    operands_by = {name: operands_of(group) for name, group in groups.items()}
    for name, group in groups.items():  # in this order none reads a parameter that was updated before it
        own = step.inputs[name]
        operands = [
            behind[place[p]]
            for u in group
            for n in u.args
            if isinstance(n, Node)
            for p in (root(n), producer(n))
            if p in place
        ]
        before = [at[other] for other in at if own in operands_by[other]]
        at[name] = max([latest.get(own, -1), *operands, *before])
        after.setdefault(at[name], []).extend(group)
    out: list[Node | Update | Begin | End] = list(after.get(-1, []))
    for k, n in enumerate(order):
        out.append(n)
        out.extend(after.get(k, []))
    last = [x for x in out if isinstance(x, Update) and together(x, groups[x.name])]
    return out if plain or len(last) < FEW else [x for x in out if x not in last] + last


def readers_of(step: Step, nodes: Sequence[Node | Begin | End]) -> dict[Node, list[Node]]:
    """Who reads each value, those of a block included."""
    users: dict[Node, list[Node]] = {}
    for n in dict.fromkeys([*step.order, *[n for n in nodes if isinstance(n, Node)]]):
        users.setdefault(n, [])
        for r in dict.fromkeys(n.reads):
            users.setdefault(r, []).append(n)
    return users


def ends_of(order: Sequence[Node | Update | Begin | End]) -> list[int]:
    """For every place in an order that place, or inside of a pass the end of the pass."""
    out = list(range(len(order)))
    start = 0
    for k, x in enumerate(order):
        if isinstance(x, Begin):
            start = k
        elif isinstance(x, End):
            out[start:k] = [k] * (k - start)
    return out


FEW = 3
"""From how many small updates on one call for all of them is faster than a call for each."""


def together(u: Update, group: list[Update]) -> bool:
    """Whether an update may wait for the end of the step, where one call makes all of those: a small gradient of its own."""
    (g, *_) = u.args
    alone = len(group) == 1 and u.method == "add_" and not u.views and u.scale == 1
    return alone and root(g).op != "input" and g.numel <= SMALL


def own_first(step: Step, name: str, group: list[Update]) -> list[Update]:
    """The updates with the one that reads the parameter itself (weight decay) first: it reads what was there before.

    Where that is not enough, as two read it, or one in another order of its entries than it writes them, the gradient is
    computed as a tensor first.
    """
    own = step.inputs[name]
    readers = [u for u in group if any(isinstance(n, Node) and root(n) is own for n in u.args)]
    entrywise = all(u.method in ENTRYWISE and not u.views and not any(n.is_view for n in u.args) for u in readers)
    if len(readers) > 1 or not entrywise:
        return [Update(name, "add_", (step.results[f"grad.{name}"],), 1.0, (), "alpha", False)]
    return [*readers, *[u for u in group if u not in readers]]


def operands_of(group: list[Update]) -> set[Node]:
    """What the updates of a parameter read."""
    return {root(n) for u in group for n in u.args if isinstance(n, Node)}


def without_cycles(step: Step, groups: dict[str, list[Update]]) -> dict[str, list[Update]]:
    """Updates in an order in which each comes before those of the parameters that it reads.

    Where two read one another, the smaller gradient is computed as a tensor first.
    """
    left = dict(groups)
    done: dict[str, list[Update]] = {}
    while left:
        reads = {other: operands_of(g) for other, g in left.items()}
        free = [n for n in left if not any(step.inputs[n] in g for other, g in reads.items() if other != n)]
        for n in free:
            done[n] = left.pop(n)
        if not free:
            name = min(left, key=lambda n: step.inputs[n].numel)
            left[name] = [Update(name, "add_", (step.results[f"grad.{name}"],), 1.0, (), "alpha", False)]
    return done


def producer(n: Node) -> Node:
    """The call that fills a value's memory."""
    n = root(n)
    return n.args[0] if n.op == "part" else n


def chunk_of(layout: Layout) -> int:
    """How many steps are drawn at once: no more than it takes to pay for that, and of those that are taken in blocks one."""
    if layout.blocks is not None:
        return 1
    rows = 0
    for n in [*layout.data, *layout.stored]:
        if not n.is_view:
            rows += n.numel * n.dtype.itemsize
    once = ONCE * (5 + len(layout.data) + len(layout.late))
    enough = ceil(BESIDE * once / max(1.0, price(layout.step)))
    return max(1, min(MOST, enough, ROWS_BYTES // max(1, rows)))


def reads_of(x: Any) -> list[Node]:
    """The nodes a statement reads."""
    return list(x.reads) if isinstance(x, Node) else [n for n in getattr(x, "args", ()) if isinstance(n, Node)]


def workspace(layout: Layout) -> None:
    """Give every value that a call can write into a slot; a slot is used again once its value is dead.

    A value that is read in a pass over the blocks and was there before it lives until the pass ends; what a pass leaves
    behind has its slot from the beginning of the pass on.
    """
    last = last_reads(layout)
    stored = set(layout.stored) | set(layout.blocks.stored if layout.blocks else ())
    parts: dict[Node, list[Node]] = {}
    for n in layout.order:
        if isinstance(n, Node) and n.op == "part":
            parts.setdefault(n.args[0], []).append(n)
    free: list[Slot] = []
    for n in layout.body:
        if isinstance(n, Node) and n.op == "extended":
            layout.place[n.args[0]] = Slot(f"space{len(layout.slots)}", n.dtype, n.numel, wide=n)
            layout.slots.append(layout.place[n.args[0]])
    for k, x in enumerate(layout.order):
        if isinstance(x, Begin):
            for n in left_behind(layout, x):
                if n not in stored:
                    layout.place[n] = take(layout, n, free)
            continue
        if isinstance(x, End):
            release(layout, x, k, last, free)
            continue
        if not isinstance(x, Node) or x.is_view or x.op in ("total", "collected"):
            release(layout, x, k, last, free)
            continue
        outs = parts.get(x, []) if x.dtype is None else [x]
        mine = [n for n in outs if n.op != "part" or x.dtype is None]
        reduction = (
            layout.blocks is not None and x in layout.blocks.local and x not in layout.place and summed(layout, x)
        )
        if x.write and takes(layout, x, k, last, stored):
            layout.taken.add(x)
            if x.args[0] in layout.place:
                layout.place[x] = layout.place[x.args[0]]
                last[x.args[0]] = -2
        if x.op in ("part", "moments") or x.write or reduction or x in layout.kept or not has_out(x):
            release(layout, x, k, last, free)
            continue
        if over_a_row(layout, x) and last.get(x.args[0]) == k and x not in stored:
            layout.over[x] = x.args[0]
            release(layout, x, k, last, free)
            continue
        if over_a_result(layout, x, stored) and last.get(x.args[0]) == k >= last.get(image_of(x.args[0]), k):
            layout.over[x] = x.args[0]
            release(layout, x, k, last, free)
            continue
        early = elementwise(x) and x not in layout.place and x not in stored
        if early:
            same = [
                r
                for r in dict.fromkeys(map(root, x.reads))
                if last.get(r) == k
                and r in layout.place
                and layout.place[r].wide is None
                and r.numel == x.numel
                and r.dtype == x.dtype
                and r not in stored
            ]
            if (
                same
                and all(root(r) is not same[0] or (r.shape == x.shape and not r.is_view) for r in x.reads)
                and contiguous(same[0])
                and contiguous(x)
            ):
                slot = layout.place[same[0]]
                layout.place[x] = slot
                last[same[0]] = -2
                release(layout, x, k, last, free)
                continue
        for n in mine:
            if n in stored or n in layout.place:
                continue
            layout.place[n] = take(layout, n, free)
        release(layout, x, k, last, free)


def takes(layout: Layout, x: Node, k: int, last: dict[Node, int], stored: set[Node]) -> bool:
    """Whether nothing else needs what a tensor was before a part of it is written."""
    base = x.args[0]
    loose = base in layout.place or (base.write and base not in layout.kept)
    shared = {base, x} & stored or (base in layout.place and (x in layout.kept or layout.place[base].wide is not None))
    others = any(root(r) is base for a in x.args[1:] for r in nodes_in(a))
    free = loose and not shared and not others and not layout.plain and last.get(base) == k
    return free and contiguous(base) and contiguous(x) and base.numel == x.numel


def over_a_row(layout: Layout, x: Node) -> bool:
    """Whether a call may change a row that holds zeros but for what the batch decides."""
    row = x.args[0] if x.args else None
    return (
        isinstance(row, Node)
        and row.op == "spread"
        and row in layout.data
        and in_place(x, row)
        and layout.blocks is None
        and not any(row in n.reads for n in layout.late)
    )


def over_a_result(layout: Layout, x: Node, stored: set[Node]) -> bool:
    """Whether a call may change a large tensor that another call made, as it has no `out=`: nobody else holds its memory."""
    made = x.args[0] if x.args else None
    if not isinstance(made, Node) or layout.plain or layout.blocks is not None:
        return False
    if not elementwise(x) or not has_out(x) or (x.shape, x.dtype) != (made.shape, made.dtype):
        return False
    large = made.numel * made.dtype.itemsize >= LARGE and contiguous(made)
    others = any(root(r) is made for a in x.args[1:] for r in nodes_in(a))
    whole = image_of(made)
    whole = whole.args[0] if whole.op == "part" else whole
    new = whole.op in ("convolution", "convolution_backward") or made in layout.over
    return large and new and not others and {made, x}.isdisjoint(stored) and {made, x}.isdisjoint(layout.kept)


def image_of(n: Node) -> Node:
    """What has the memory that a value may share: an image that it is the pixels of, or itself."""
    return root(n.args[0]) if n.op == "reshape" else n


def last_reads(layout: Layout) -> dict[Node, int]:
    """The last statement that needs each value's memory."""
    last: dict[Node, int] = {}
    behind = ends_of(layout.order)
    local = layout.blocks.local if layout.blocks else {}
    across = layout.blocks.crossing if layout.blocks else {}
    for k, x in enumerate(layout.order):
        for r in map(root, reads_of(x)):
            last[r] = k if r in local and r not in across else behind[k]
        if isinstance(x, Node):
            last.setdefault(root(x), behind[k] if x in across else k)
    for key, r in layout.step.results.items():
        if key.startswith("buffer."):
            last[root(r)] = len(layout.order)
    return last


def left_behind(layout: Layout, x: Begin) -> list[Node]:
    """What a pass fills block by block: totals, what it collects, and values that a later pass reads."""
    assert layout.blocks is not None
    b = layout.blocks
    return [n for kept in (b.totals, b.collected, b.crossing) for n, k in kept.items() if k == x.loop]


def summed(layout: Layout, x: Node) -> bool:
    """Whether a value of a block is added to a total."""
    return layout.blocks is not None and any(n.args[0] is x for n in layout.blocks.totals)


def size_of(layout: Layout, n: Node) -> int:
    """How many elements a value needs memory for."""
    return n.numel * (layout.blocks.count if layout.blocks and n in layout.blocks.crossing else 1)


def take(layout: Layout, n: Node, free: list[Slot]) -> Slot:
    """A free slot for a value: the smallest that is large enough, else the largest made larger, else a new one."""
    needed = size_of(layout, n)
    fitting = [s for s in free if s.dtype == n.dtype]
    large = [s for s in fitting if s.size >= needed]
    if large:
        slot = min(large, key=lambda s: s.size)
    elif fitting:
        slot = max(fitting, key=lambda s: s.size)
        slot.size = needed
    else:
        slot = Slot(f"space{len(layout.slots)}", n.dtype, needed)
        layout.slots.append(slot)
        return slot
    free.remove(slot)
    return slot


def release(layout: Layout, x: Node | Update | Begin | End, k: int, last: dict[Node, int], free: list[Slot]) -> None:
    """Slots of values that nothing reads after statement k."""
    touched = list(layout.place) if isinstance(x, End) else [*reads_of(x), *([x] if isinstance(x, Node) else [])]
    for r in dict.fromkeys(map(root, touched)):
        if last.get(r) == k and r in layout.place:
            slot = layout.place[r]
            if slot not in free and slot.wide is None:
                free.append(slot)
            last[r] = -2
