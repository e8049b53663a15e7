"""The text of `closed.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from codegen.closed.regions.random import random_nodes
from codegen.closed.write.fused import fused
from codegen.closed.write.tidy import continued, in_place, joined, read_by, unturned
from codegen.closed.write.unpack import taken_apart, unpacked
from codegen.closed.write.writer import ClosedWriter
from codegen.devices import on_device
from codegen.emit import quoted, render, sequence, shape_text
from codegen.emitfunction import Emission, emission_options, function_text, module_text, returned
from codegen.helpers import source
from codegen.steps import Used, forward_lines, forward_text, guard_rows, size_lines
from codegen.stops import has_stops, needed
from codegen.wrapping import in_double_quotes
from engine.naming import free_name
from engine.notation import in_wholes
from engine.spelling import entries, size_text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sympy import Expr

    from codegen.closed.regions.cells import Cell
    from codegen.closed.write.blocks import Block
    from engine.graph import Graph


def closed_source(graph: Graph, wanted: tuple[str, ...], target: str = "") -> tuple[str, ClosedWriter]:
    """The emitted file and what it was written from."""
    writer = ClosedWriter(graph, wanted)
    writer.write()
    return source_of(writer, target), writer


def source_of(writer: ClosedWriter, target: str = "") -> str:
    """The emitted file of a finished writer."""
    graph, wanted = writer.graph, writer.wanted
    given = {"grad_out", *[f"grad_out_{k}" for k in range(len(graph.outputs))]}
    drawn = random_in(writer)
    reads = (writer.backward.used.names - writer.backward.made - given) | set(drawn)
    order = [c.name for c in writer.cells]
    extra = [b.name for b in writer.forward.blocks if b.name not in order]
    saved = [n for n in (*order, *extra) if n in reads]
    seeds, used = seed_lines(writer, saved)
    sizes = writer.backward.used.sizes | used.sizes
    saved = with_sizes(graph, writer, saved, sizes)
    writer.saved = tuple(saved)
    inputs = list(graph.inputs)
    shapes = {b.name: b for b in writer.forward.blocks}
    needed = live_forward(writer, [*saved, *graph.outputs])
    renewal, read, resized = renewal_lines(graph, {n for n in needed if whole(writer, n)})
    kept = {*saved, *graph.outputs, *read}
    forward = [shapes[b.name] for b in writer.forward.blocks if b.name in needed]

    apart = taken_apart(forward, writer.forward.several)

    def nameless(name: str) -> bool:
        return name not in kept and name not in apart and not (name in writer.by_name and writer.by_name[name].named)

    forward = joined(unturned(in_place(forward, nameless), nameless), nameless)
    forward = in_one_call(writer, [taken_back(b, drawn) for b in forward])
    given_back = {writer.gradients[n] for n in wanted}

    def passing(name: str) -> bool:
        return name not in given_back

    backward = in_one_call(writer, unturned(continued(writer.backward.blocks, passing), passing))
    named = frozenset(map(str, graph.sizes))
    forward = [on(b, inputs[0], named) for b in unpacked(forward, writer.forward.several)]
    backward = [on(b, (*saved, inputs[0])[0], named) for b in backward]
    writer.emitted = tuple(forward)
    sized = forward_sizes(writer, needed) | resized
    returns = returned(graph)
    zeros = tuple(graph.key(n) for n in wanted if zero_block(writer, writer.gradients[n]))
    lines = tuple(line for b in forward for line in b.lines)
    written = as_written(graph, drawn) if has_stops(graph) else ()
    emission = Emission(graph, tuple(wanted), tuple(saved), "", zeros, drawn, tuple(graph.buffers), lines, written)
    writer.emission = emission
    made = {n: shape_of_saved(writer, n) for n in sorted(saved, key=lambda n: n not in graph.by_name)}
    back = size_lines(graph, sizes, [n for n in saved if n in graph.inputs], [], made)
    keys = [(quoted(graph.key(n)), writer.gradients[n]) for n in wanted]
    trained = [n for n in wanted if n in graph.parameters or not graph.parameters]
    scalar = graph.single and not graph[graph.outputs[0]].shape
    own = {name: free_name(name, graph.inputs) for name in ("lr", "out", "grads")}
    return render(
        "closed.py.j2",
        target=target or graph.name,
        name=graph.name,
        shapes=entries((f"{n} {shape_text(graph, n)}" for n in graph.inputs), "; "),
        saved_lines=entries(
            [f"{n} {saved_shape(writer, n)}" for n in saved] or ["nothing"], start="Saved for the backward:"
        ),
        autograd_text="",
        inputs=inputs,
        returns=returns,
        guards=guard_rows(graph),
        size_lines=size_lines(graph, sized, inputs, inputs),
        helpers=source(line for b in (*forward, *backward) for line in b.lines),
        forward=forward,
        result=sequence(saved, "," * (len(saved) == 1) + ")", 4, f"return {returns}, ("),
        unpack=[*(sequence(saved, " = saved", 4) if saved else []), *back, *seeds],
        blocks=backward,
        grads=["return {" + ", ".join(f"{k}: {v}" for k, v in keys) + "}"]
        if len(keys) < 4
        else ["return {", *[f"    {k}: {v}," for k, v in keys], "}"],
        renewal=renewal,
        function=function_text(emission),
        module=module_text(emission, graph.state),
        **emission_options(emission),
        renewed=list(graph.buffers),
        step=[f"{n}.sub_({own['grads']}[{quoted(graph.key(n))}], alpha={own['lr']})" for n in trained]
        if scalar
        else [],
        step_lines=step_docstring(trained),
        own=own,
    )


def on(block: Block, like: str, sizes: Collection[str]) -> Block:
    """Statements that make what they make of nothing where the tensor `like` is."""
    return replace(block, lines=tuple(in_double_quotes(on_device(line, like, sizes)) for line in block.lines))


def as_written(graph: Graph, drawn: tuple[str, ...]) -> tuple[str, ...]:
    """Statements that compute the results by the forward's own calls."""
    used = Used()
    inputs = list(graph.inputs)
    lines = [
        in_double_quotes(on_device(line, inputs[0], {*map(str, graph.sizes)}))
        for line in forward_lines(graph, used, needed(graph), drawn)
    ]
    return (*size_lines(graph, used.sizes, inputs, inputs), *lines)


def step_docstring(trained: Sequence[str]) -> list[str]:
    """What `step` says of itself, on one line if it fits."""
    what = '"""One step of gradient descent without autograd'
    line = f'{what}, in place on {", ".join(trained)}. Returns the loss before it."""'
    if len(line) <= 116:
        return [line]
    last = f"{trained[-1]}."
    return [
        f"{what}. Returns the loss before it.",
        "",
        *entries([*trained[:-1], last], start="Changed in place:"),
        '"""',
    ]


def random_in(writer: ClosedWriter) -> tuple[str, ...]:
    """Random tensors that the result depends on."""
    live = live_forward(writer, list(writer.graph.outputs))
    return tuple(n for n in random_nodes(writer.graph) if n in live)


def taken_back(block: Block, drawn: tuple[str, ...]) -> Block:
    """A random tensor is drawn, unless it is given."""
    if block.name not in drawn:
        return block
    return replace(block, lines=(f"{block.lines[0]} if drawn is None else drawn[{drawn.index(block.name)}]",))


def renewal_lines(graph: Graph, known: set[str]) -> tuple[list[str], set[str], set[Any]]:
    """What the buffers become, by the forward's own calls from tensors that are `known`: (lines, tensors and sizes read)."""
    needed: set[str] = set()
    read: set[str] = set()
    stack = list(graph.buffers.values())
    while stack:
        name = stack.pop()
        if name in known:
            read.add(name)
        elif name not in needed and not graph[name].is_input:
            needed.add(name)
            stack.extend(graph[name].operands)
    used = Used()
    lines: list[str] = []
    for n in graph.nodes:
        if n.name in needed and n.call is not None:
            used.see_size(n.call.args)
            used.see_size(dict(n.call.kwargs))
            output = f"[{n.output}]" if n.output is not None else ""
            lines.append(f"{n.name} = {forward_text(graph, n)}{output}")
    lines += [f"buffers[{quoted(graph.key(n))}] = {after}" for n, after in graph.buffers.items()]
    return lines, read, used.sizes


def saved_cell(writer: ClosedWriter, name: str) -> Cell | None:
    """The cell that a saved tensor is, of the forward or of what a region made of it."""
    made = (c for r in writer.regions.values() for c in r.code.cells if r.names.get(c.name) == name)
    return writer.by_name.get(name) or next(made, None)


def shape_of_saved(writer: ClosedWriter, name: str) -> tuple[Expr, ...]:
    """The shape of a saved tensor."""
    cell = saved_cell(writer, name)
    return () if cell is None else cell.shape


def whole(writer: ClosedWriter, name: str) -> bool:
    """Whether a tensor has the shape that the forward's own has, whose calls may read it then."""
    cell = writer.by_name.get(name)
    return cell is None or name not in writer.graph.by_name or cell.shape == writer.graph[name].shape


def zero_block(writer: ClosedWriter, name: str) -> bool:
    """Whether a gradient is zero whatever the inputs are."""
    return any(b.name == name and all("zeros_like" in line for line in b.lines) for b in writer.backward.blocks)


def saved_shape(writer: ClosedWriter, name: str) -> str:
    """The shape of a saved tensor as text."""
    shape = shape_of_saved(writer, name)
    return "(" + ", ".join(size_text(s) for s in shape) + ("," if len(shape) == 1 else "") + ")"


def seed_lines(writer: ClosedWriter, saved: list[str]) -> tuple[list[str], Used]:
    """Statements that take `grad_out`, or ones of the result's shape where it is None."""
    graph = writer.graph
    used = Used()
    lines: list[str] = []
    single = graph.single
    for k, o in enumerate(graph.outputs):
        if o not in writer.live:
            continue
        name = "grad_out" if single else f"grad_out_{k}"
        if not single:
            lines.append(f"{name} = None if grad_out is None else grad_out[{k}]")
        shape = graph[o].shape
        for s in shape:
            used.see_size(s)
        sizes = "(" + ", ".join(size_text(s) for s in shape) + ("," if len(shape) == 1 else "") + ")"
        like, dtype = owner_of_dtype(writer, saved, graph[o].dtype)
        ones, zeros = (f"{like}.new_{fill}({sizes}{dtype})" for fill in ("ones", "zeros"))
        if single:
            lines.extend([f"if {name} is None:", f"    {name} = {ones}"])
        else:
            lines.extend([f"if {name} is None:", f"    {name} = {ones} if grad_out is None else {zeros}"])
    return lines, used


def owner_of_dtype(writer: ClosedWriter, saved: list[str], dtype: Any) -> tuple[str, str]:
    """A saved tensor of a dtype, an input of it that is saved for that, or any float and the keyword that names the dtype."""
    graph = writer.graph
    cells = {n: saved_cell(writer, n) for n in saved}
    floats = {n: c for n, c in cells.items() if c is not None and c.kind == "float"}
    inputs = [n for n in graph.inputs if graph[n].dtype.is_floating_point]
    found = next((n for n, c in floats.items() if c.dtype == dtype), None)
    found = found or next((n for n in inputs if graph[n].dtype == dtype), None)
    name = found or [*floats, *inputs][0]
    if name not in saved:
        saved.append(name)
    return name, "" if found else f", dtype={dtype}"


def with_sizes(graph: Graph, writer: ClosedWriter, saved: list[str], sizes: Any) -> list[str]:
    """The saved tensors, and an input for every size that none of them has."""
    out = list(saved)
    for s in sorted(sizes, key=str):
        if not any(in_wholes(size) == s for n in out for size in shape_of_saved(writer, n)):
            source = graph.sizes.get(s)
            if source is not None and source[0] not in out:
                out.append(source[0])
    order = {n: k for k, n in enumerate([*(c.name for c in writer.cells)])}
    return sorted(out, key=lambda n: order.get(n, len(order)))


def live_forward(writer: ClosedWriter, wanted: list[str]) -> set[str]:
    """The forward statements that the result and the saved tensors need."""
    reads = {b.name: b for b in writer.forward.blocks}
    texts = {name: {n for line in b.lines for n in read_by(line)} for name, b in reads.items()}
    live: set[str] = set()
    stack = [n for n in wanted if n in reads]
    while stack:
        n = stack.pop()
        if n not in live:
            live.add(n)
            stack.extend(r for r in texts[n] if r in reads and r != n)
    return live


def forward_sizes(writer: ClosedWriter, needed: set[str]) -> Any:
    """The sizes that the needed forward statements read."""
    names = {str(s): s for s in writer.graph.sizes}
    found: set[Any] = set()
    for b in writer.forward.blocks:
        if b.name in needed:
            found |= {names[i] for line in b.lines for i in read_by(line) if i in names}
    return found


def in_one_call(writer: ClosedWriter, blocks: Sequence[Block]) -> list[Block]:
    """Statements with sums of products as one call each, where all floats have one precision."""
    one = len({c.dtype for c in writer.cells if c.kind == "float"}) == 1
    sizes = frozenset(map(str, writer.graph.sizes))
    return fused(blocks, writer.labels.floats, sizes) if one else list(blocks)
