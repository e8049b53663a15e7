# pyright: basic
"""Recording: the closed program is run once at the loop's sizes and once at a small random point, call by call."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from codegen.loop.graph import VIEWS, Node, Sized, Step, call, constant, equal, mapped, packet
from engine.errors import SymgradError
from engine.light import without_compiler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import CodeType, FrameType, ModuleType

LARGE = 1024
"""Rows from which on calls are recorded without computing anything: their values would need much memory at once."""
SMALL = 5
"""Rows of a batch at the small point: more than a regression over rows has unknowns, and few enough to be quick."""
COUNTED = 6
"""What is added to a single whole number at the small point, so that no identity holds by its value."""


FACTORIES = frozenset(
    [
        "constant",
        "new_ones",
        "new_zeros",
        "new_full",
        "zeros_like",
        "ones_like",
        "full_like",
        "zeros",
        "ones",
        "full",
        "arange",
        "eye",
    ]
)
"""Operators whose result depends on shapes alone."""
APART = {torch.ops.aten.addmm.default: torch.mm, torch.ops.aten.addcmul.default: torch.mul}
"""Calls that add a product, and how the product is made."""


def rows_of_table(table: Tensor, places: Tensor, *_: Any) -> Tensor:
    """An embedding in brackets."""
    return table[places]


def one_along(x: Tensor, d: int, places: Tensor) -> Tensor | None:
    """A gather of one number along a dimension in brackets; None for any other."""
    d %= max(x.dim(), 1)
    if x.dim() < 2 or places.shape != (*x.shape[:d], 1, *x.shape[d + 1 :]):
        return None
    last = x.dim() - 2
    counts = [torch.arange(n) for k, n in enumerate(x.shape) if k != d]
    every = [c if k == last else c[(slice(None), *[None] * (last - k))] for k, c in enumerate(counts)]
    return x[(*every[:d], places.squeeze(d), *every[d:])].unsqueeze(d)


PICKED = {torch.ops.aten.embedding.default: rows_of_table, torch.ops.aten.gather.default: one_along}
"""Reads at places that refuse those below zero, as the brackets that the loop's rules are for: the data are looked at before."""


class RecordError(SymgradError):
    """A closed program that cannot be written down as a list of calls."""


class Recorder(TorchDispatchMode):
    """Notes every call as a node. Tensors are known by identity and stay alive until the end."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else entering the mode imports the whole compiler, a second of start-up

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.known: dict[int, Node] = {}
        self.alive: list[Any] = []
        self.sharing: dict[int, list[Tensor]] = {}
        self.code: CodeType | None = None
        self.frame: FrameType | None = None

    def run(self, function: Any, *args: Any) -> tuple[Any, dict[str, Any]]:
        """(result, local variables when it returned) of a function; they are read from its frame, which the calls in it find."""
        self.code, self.frame = function.__code__, None
        result = function(*args)
        return result, {} if self.frame is None else self.frame.f_locals

    def enter(self, t: Tensor, name: str) -> Node:
        """An input."""
        node = Node("input", (), {}, tuple(t.shape), t.dtype, t, name, stride=t.stride())
        self.known[id(t)] = node
        self.alive.append(t)
        self.nodes.append(node)
        self.sharing.setdefault(memory(t), []).append(t)
        return node

    def node(self, a: Any) -> Any:
        """The node of a tensor; a tensor made outside (a literal) is a constant."""
        if not isinstance(a, Tensor):
            return a
        if id(a) not in self.known:
            made = constant(a)
            self.known[id(a)] = made
            self.alive.append(a)
            self.nodes.append(made)
        return self.known[id(a)]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.frame is None:
            frame = sys._getframe()
            while frame is not None and frame.f_code is not self.code:
                frame = frame.f_back
            self.frame = frame
        if func in APART and all(v == -1 for v in (kwargs or {}).values()):
            first, *factors = args
            with self:  # the loop's own rules put such calls in, once the sums and products are joined in other ways
                product = APART[func](*factors)
                return first - product if kwargs else first + product
        if func in PICKED and not kwargs:
            with self:
                picked = PICKED[func](*args)
            if picked is not None:
                return picked
        schema = func._schema
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise RecordError(f"{schema.name} draws random numbers, others in every step")
        first = schema.arguments[0] if schema.arguments else None
        changes = first is not None and first.alias_info is not None and first.alias_info.is_write
        if changes:
            self.freeze(cast("Tensor", args[0]))
        out = func(*args, **(kwargs or {}))
        op, overload = schema.name.removeprefix("aten::"), func._overloadname
        given = mapped(tuple(args), self.node)
        named = {
            k: mapped(v, self.node) for k, v in (kwargs or {}).items() if k not in ("pin_memory", "layout", "device")
        }
        if op == "as_strided":  # from where the tensor begins, which is elsewhere in the loop
            base, size, stride, *offset = args
            begin = cast("Tensor", base).storage_offset()
            given = (given[0], size, stride, (offset[0] if offset and offset[0] is not None else begin) - begin)
        if changes and torch.Tag.inplace_view in func.tags:
            self.reseen(Node(op.removesuffix("_"), given, named, (), None, out, overload=overload), cast("Tensor", out))
            return out
        if changes:
            self.written(op.removesuffix("_"), overload, given, named, cast("Tensor", args[0]))
            return out
        if out is None or isinstance(out, (bool, int, float)):
            raise RecordError(f"{schema.name} gives {out!r}, a value that Python reads while the step is taken")
        if isinstance(out, Tensor):
            self.keep(
                Node(op, given, named, tuple(out.shape), out.dtype, out, overload=overload, stride=out.stride()), out
            )
        else:
            whole = Node(op, given, named, (), None, out, overload=overload)
            self.nodes.append(whole)
            for k, t in enumerate(out):
                if isinstance(t, Tensor):
                    self.keep(Node("part", (whole, k), {}, tuple(t.shape), t.dtype, t, stride=t.stride()), t)
        return out

    def keep(self, node: Node, out: Tensor) -> None:
        self.known[id(out)] = node
        self.alive.append(out)
        self.nodes.append(node)
        self.sharing.setdefault(memory(out), []).append(out)

    def reseen(self, node: Node, target: Tensor) -> None:
        """A tensor that is seen otherwise from now on, as the product of a vector and a matrix is: a view of what it was."""
        node.shape, node.dtype, node.stride = tuple(target.shape), target.dtype, target.stride()
        self.known[id(target)] = node
        self.nodes.append(node)

    def freeze(self, target: Tensor) -> None:
        """Let the nodes of a tensor that is about to change, and of views of it, keep the values they have."""
        self.node(target)
        for t in self.sharing.get(memory(target), [target]):
            n = self.known[id(t)]
            if n.value is t:
                n.value = t.clone()

    def written(self, op: str, overload: str, given: Any, named: Any, target: Tensor) -> None:
        """A call that changes a tensor: what owns its memory becomes a new node, and views of it are read from that."""
        everyone = self.sharing.get(memory(target), [target])
        base = everyone[0]
        seen: list[tuple[Node, Tensor]] = [(self.known[id(t)], t) for t in everyone]
        node = seen[0][0]
        while node.is_view:  # its shape was changed in place: what it was before is written through what it is seen as
            node = cast("Node", node.args[0])
            seen.insert(0, (node, base))
        path: list[tuple[str, tuple[Any, ...]]] = []
        n = self.known[id(target)]
        while n is not node:
            path.insert(0, (n.op, n.args[1:]))
            n = n.args[0]
        made = Node(
            op,
            (node, *given[1:]),
            named,
            node.shape,
            node.dtype,
            as_seen(node, base),
            overload=overload,
            write=True,
            path=tuple(path),
            stride=node.stride,
        )
        self.nodes.append(made)
        renewed = {node: made}
        self.known[id(base)] = made
        for old, t in seen[1:]:
            parent = renewed.get(old.args[0])
            if parent is not None:
                again = Node(
                    old.op,
                    (parent, *old.args[1:]),
                    old.kwargs,
                    old.shape,
                    old.dtype,
                    as_seen(old, t),
                    old.name,
                    old.overload,
                    stride=old.stride,
                )
                renewed[old] = again
                self.known[id(t)] = again
                self.nodes.append(again)


def as_seen(n: Node, t: Tensor) -> Tensor:
    """A copy of a tensor as a node shows it, whose shape may have been changed in place since."""
    return (t.as_strided(n.value.shape, n.stride, t.storage_offset()) if n.stride else t).clone()


def memory(t: Tensor) -> int:
    """What is equal for tensors that share memory."""
    return t.untyped_storage()._cdata


def run_recorded(
    module: ModuleType,
    names: Sequence[str],
    inputs: Sequence[Tensor],
    outputs: int,
    buffers: Callable[[Sequence[Tensor]], Mapping[str, Tensor]] | None,
) -> tuple[Recorder, list[Node], tuple[Node, ...], dict[str, Node], dict[str, Node], dict[str, Node]]:
    """A forward and backward under the recorder: (recorder, inputs, outputs, gradients, named values, next buffers)."""
    recorder = Recorder()
    entered = [recorder.enter(t, n) for n, t in zip(names, inputs, strict=True)]
    with torch.no_grad(), recorder:
        (out, saved), seen = recorder.run(module.forward, *inputs)
        first = out if outputs == 1 else out[0]
        one = torch.ones((), dtype=first.dtype).expand(first.shape) if first.shape else None
        given = one if outputs == 1 else [torch.ones_like(first), *[None] * (outputs - 1)]
        grads, later = recorder.run(module.backward, saved, given)
        renewed = dict(buffers(inputs)) if buffers is not None else {}
    locals_ = {k: v for k, v in {**seen, **later}.items() if isinstance(v, Tensor)}
    results = tuple(recorder.known[id(o)] for o in ((out,) if outputs == 1 else out))
    found = {k: recorder.known[id(g)] for k, g in grads.items()}
    named = {k: recorder.known[id(v)] for k, v in locals_.items() if id(v) in recorder.known}
    after = {k: recorder.node(v) for k, v in renewed.items()}
    return recorder, entered, results, found, named, after


def full_size(
    module: ModuleType,
    names: Sequence[str],
    inputs: Sequence[Tensor],
    outputs: int,
    buffers: Callable[[Sequence[Tensor]], Mapping[str, Tensor]] | None,
    rows: int,
) -> Any:
    """`run_recorded` at the loop's sizes; of a large batch on the meta device, where values have shapes and no memory.

    What depends on shapes alone is computed afterwards. Where that is not possible the calls are made as they are.
    """
    if rows >= LARGE:
        try:
            with without_compiler(), torch.device("meta"):
                made = run_recorded(module, names, [t.to("meta") for t in inputs], outputs, buffers)
            valued(made[0].nodes)
        except (RuntimeError, NotImplementedError, TypeError):
            pass
        else:
            return made
    return run_recorded(module, names, inputs, outputs, buffers)


def valued(nodes: Sequence[Node]) -> None:
    """Give the nodes that depend on shapes alone the values they have. Raises RuntimeError for a literal, whose value is lost."""
    found: dict[Node, Tensor] = {}
    for n in nodes:
        if n.op == "constant" or (n.write and all(r in found for r in n.reads)):
            raise RuntimeError(f"the value of {n} is not known on the meta device")
        if n.op in FACTORIES or (n.op != "input" and n.dtype is not None and all(r in found for r in n.reads)):
            f = getattr(packet(n.op), n.overload) if n.overload else packet(n.op)
            args = mapped(
                n.args, lambda a: found.get(a, torch.empty(a.shape, dtype=a.dtype)) if isinstance(a, Node) else a
            )
            n.value = found[n] = f(*args, **n.kwargs)


def paired(full: Recorder, point: Recorder) -> None:
    """Give every node of the full recording its value at the small point, and mark numbers that depend on the batch."""
    for a, b in alongside(full.nodes, point.nodes):
        if b is None:
            a.value = a.args[0].value
            continue
        fixed = a.op in FACTORIES or (a.op != "input" and all(r.constant is not None for r in a.reads))
        if fixed and isinstance(a.value, Tensor):
            a.constant = a.value
        a.value = b.value
        a.args = _pair(a.args, b.args)
        a.kwargs = {k: _pair(v, b.kwargs[k]) for k, v in a.kwargs.items()}
        a.path = tuple((op, _pair(x, y)) for (op, x), (_, y) in zip(a.path, b.path, strict=True))


def alongside(full: Sequence[Node], point: Sequence[Node]) -> list[tuple[Node, Node | None]]:
    """Each call with the same one at the small point; with None where it changes a dtype to what everything has there."""
    rest = list(reversed(point))
    found: list[tuple[Node, Node | None]] = []
    for n in full:
        other = rest[-1] if rest else None
        if is_cast(n) and not (other is not None and is_cast(other) and other.dtype == n.dtype):
            found.append((n, None))
        elif other is not None and other.op == n.op:
            found.append((n, rest.pop()))
        else:
            rest = list(point)
            break
    if rest:
        raise RecordError("it makes other calls for a batch of another size")
    return found


def is_cast(n: Node) -> bool:
    """Whether a call changes one floating-point dtype to another."""
    return n.op == "_to_copy" and n.dtype.is_floating_point and n.args[0].dtype.is_floating_point


def _pair(a: Any, b: Any) -> Any:
    if isinstance(a, Node):
        return a
    if isinstance(a, (list, tuple)):
        items = [_pair(x, y) for x, y in zip(cast("list[Any]", a), cast("list[Any]", b), strict=True)]
        return tuple(items) if isinstance(a, tuple) else items
    return a if a == b or not isinstance(a, (int, float)) else Sized(a, b)


def recorded(
    module: ModuleType,
    names: Sequence[str],
    batch: Mapping[str, tuple[tuple[int, ...], Any, int]],
    params: Mapping[str, Tensor],
    rows: int,
    outputs: int,
    keys: Callable[[str], str],
    buffers: Callable[[Sequence[Tensor]], Mapping[str, Tensor]] | None,
    keep: Sequence[str],
) -> Step:
    """The closed program's step for batches of `rows` rows.

    `batch` gives for every batch input the shape of a row, its dtype and a bound of its integers; `params` everything
    else. At the small point matrices are so small that their products are about one: where a softmax or a tanh is flat,
    what is not equal would seem to be. `outputs` is how many results the forward has, the loss first; `buffers` computes the buffers' next values.
    """
    generator = torch.Generator().manual_seed(0)
    inputs: list[list[Tensor]] = [[], []]
    for name in names:
        if name in batch:
            shape, dtype, bound = batch[name]
            for n, where in ((rows, inputs[0]), (SMALL, inputs[1])):
                if dtype.is_floating_point:
                    kind = dtype if where is inputs[0] else torch.float64
                    where.append(torch.randn((n, *shape), generator=generator, dtype=kind))
                else:
                    where.append(torch.randint(0, bound, (n, *shape), generator=generator).to(dtype))
        else:
            p = params[name].detach()
            inputs[0].append(p.clone())
            if p.is_floating_point():
                point = torch.randn(p.shape, generator=generator, dtype=torch.float64)
                inputs[1].append(point / max(p.shape) ** 0.5 if p.dim() > 1 and p.numel() else point)
            else:  # a count of steps that is 0 now would make 1 / (count + 1) a 1
                inputs[1].append(p + COUNTED if not p.dim() and p.dtype == torch.int64 else p.clone())
    full, entered, results, grads, named, after = full_size(module, names, inputs[0], outputs, buffers, rows)
    point, *_ = run_recorded(module, names, inputs[1], outputs, buffers)
    paired(full, point)
    taken = set(names)
    for text, n in named.items():
        if not n.name and n.op != "input" and text not in taken:
            n.name = text
            taken.add(text)
    found: dict[str, Node] = {"loss": results[0]}
    for name in names:
        if keys(name) in grads and name not in batch and name not in after:
            found[f"grad.{name}"] = grads[keys(name)]
    found.update({f"buffer.{name}": n for name, n in after.items()})
    for name in keep:
        if name in named:
            found[f"keep.{name}"] = named[name]
    for key, n in found.items():
        if key.startswith(("loss", "keep.")) and (n.op == "input" or n.is_view):
            found[key] = call("clone", n, shape=n.shape, dtype=n.dtype)  # what it shows may be changed by an update
            full.nodes.append(found[key])
    step = Step(dict(zip(names, entered, strict=True)), tuple(batch), found, full.nodes)
    step.sort()
    if after:
        same_values(step)
    return step


def same_values(step: Step) -> None:
    """What only the buffers need is read from where the step has it already: whatever has the same value, is the same."""
    gradients = {k: n for k, n in step.results.items() if not k.startswith("buffer.")}
    main = Step(step.inputs, step.batch, gradients, step.order)
    main.sort()
    own = set(main.order) | set(step.inputs.values())
    known: dict[Any, list[Node]] = {}
    for n in [*step.inputs.values(), *main.order]:
        if isinstance(n.value, Tensor):
            known.setdefault((n.shape, n.value.shape, n.dtype), []).append(n)
    for n in [n for n in step.order if n not in own and isinstance(n.value, Tensor)]:
        candidates = known.get((n.shape, n.value.shape, n.dtype), [])
        twin = next((t for t in candidates if equal(t.value, n.value)), None)
        if twin is not None:
            step.replace(n, twin)
    step.readers = None
    step.sort()


__all__ = ["VIEWS", "recorded"]
