"""An emitted forward and backward as a `torch.library.custom_op` with its derivative registered."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from codegen.emit import render, sequence
from codegen.emitfunction import names_text, returned
from engine.errors import InputError
from engine.spelling import quoted

if TYPE_CHECKING:
    from codegen.program import Program

NAME = re.compile(r"[A-Za-z_]\w*::[A-Za-z_]\w*")


def operator_source(program: Program, name: str = "") -> str:
    """The text of `custom_op.py`: `closed.py`, and the operator `namespace::name` made of it.

    Raises:
        InputError: a program in steps mode, or a name of another form.
    """
    graph = program.graph
    name = name or f"symgrad::{re.sub(r'[^0-9a-zA-Z_]', '_', graph.name)}"
    if not NAME.fullmatch(name):
        raise InputError(f"custom_op: {name!r} is no name of an operator; it has the form namespace::name")
    if program.writer is None or program.writer.emission is None:
        raise InputError(f"custom_op: {graph.name} was generated with mode={program.mode!r}; use mode='closed'")
    e = program.writer.emission
    outs, inputs = e.results, graph.inputs
    count = len(outs) + len(e.made) + len(e.renewed)
    body = [*(["buffers = {}"] if e.renewed else [])]
    body.append(f"{returned(graph)}, saved = forward({', '.join(inputs)}{', buffers=buffers' if e.renewed else ''})")
    body += sequence(list(e.saved), " = saved", 4) if e.made else []
    marked = [f"output[{k}]" for k, n in enumerate(outs) if not e.is_float(n)]
    if e.made or e.renewed:
        marked.append(f"*output[{len(outs)}:]")
    first = next(k for k, n in enumerate(outs) if e.is_float(n))
    made = iter(f"grad_{k}" for k in range(len(e.wanted)))
    slots = [next(made) if n in e.wanted else "None" for n in inputs]
    picked = [f"out[{outs.index(n)}]" for n in graph.outputs]
    text = render(
        "operator.py.j2",
        operator=quoted(name),
        operator_backward=quoted(f"{name}_backward"),
        name=graph.name,
        renewed=e.renewed,
        typed=", ".join(f"{n}: Tensor" for n in inputs),
        types="tuple[" + ", ".join(["Tensor"] * count) + "]",
        body=body,
        results=", ".join([*outs, *e.made, *(["*buffers.values()"] if e.renewed else [])]),
        inputs=inputs,
        single=graph.single,
        gradients=[f"grads[{quoted(graph.key(n))}]" for n in e.wanted],
        order=names_text((*inputs, *outs, *e.made)),
        saved=names_text(e.saved) or "()",
        marked=", ".join(marked),
        # The backward reads no gradient of a result that has none; a list of tensors has something at every place.
        seeds=[f"grad_out[{outs.index(n) if e.is_float(n) else first}]" for n in graph.outputs],
        slots_made=[s for s in slots if s != "None"],
        slots=slots,
        call_result=picked[0] if graph.single else f"({', '.join(picked)},)",
    )
    return program.source.replace("import torch\n", "import torch\nfrom torch import Tensor\n", 1) + text


def custom_op(program: Program, name: str = "") -> Any:
    """See `Program.custom_op`."""
    from codegen.program import load

    return load(operator_source(program, name), f"{program.graph.name}_operator").call
