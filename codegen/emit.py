"""Emission: what was decided, laid out by Jinja. The templates hold layout, never mathematics."""

from __future__ import annotations

import os
import re
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from codegen.devices import on_device
from codegen.steps import StepsWriter, Used, forward_lines, guard_rows, size_lines
from codegen.wrapping import fitted, in_double_quotes
from engine import spelling
from engine.spelling import entries, listed, quoted

if TYPE_CHECKING:
    from codegen.derivation import Derivation
    from engine.graph import Graph


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """Strict: an undefined name is an error, never an empty string. What goes into HTML is escaped unless it is markup."""
    loader = jinja2.PackageLoader("codegen", "templates")
    return jinja2.Environment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=lambda name: bool(name) and str(name).endswith(".html.j2"),
    )


def render(template: str, **values: Any) -> str:
    """A template's text, none of its lines too long where it is Python; at most two blank lines in a row, none at the end."""
    text = environment().get_template(template).render(**values).rstrip("\n") + "\n"
    return fitted(with_math(text)) if template.endswith(".py.j2") else text


def with_math(text: str) -> str:
    """A file that imports `math` where it takes the logarithm or the exponential of a size."""
    first = re.search(r"^(from typing|import torch)", text, re.MULTILINE)
    if first is None or not re.search(r"\bmath\.(log|exp)\(", text):  # a part of a file has no imports
        return text
    own = "import math\n" if first[1] == "from typing" else "import math\n\n"
    return text[: first.start()] + own + text[first.start() :]


def shape_text(graph: Graph, name: str) -> str:
    """`(n, 27)`: the shape of a node."""
    return spelling.shape_text(graph[name].shape)


def steps_source(derivation: Derivation, target: str = "") -> str:
    """The text of `steps.py`: forward, and a backward with one statement per node."""
    graph = derivation.graph
    writer = StepsWriter(derivation)
    blocks = writer.blocks()
    sized = Used()
    lines = forward_lines(graph, sized)
    reads = writer.used.names - writer.made
    wanted = {n.name for n in graph.nodes if n.named and not n.is_input} | reads | set(graph.buffers.values())
    unsized = [s for s in writer.used.sizes if not any(size == s for name in wanted for size in graph[name].shape)]
    for s in unsized:
        wanted.add(graph.sizes[s][0])
    saved = [n.name for n in graph.nodes if n.name in wanted]
    sizes_back = size_lines(graph, writer.used.sizes, [n for n in saved if graph[n].is_input], saved)
    unpack = sequence(saved, " = saved", 4)
    named = frozenset(map(str, graph.sizes))
    fields = [{"name": n, "comment": shape_text(graph, n)} for n in saved]
    returns = graph.outputs[0] if graph.single else f"({listed(graph.outputs)})"
    place = next((n.source.file for n in graph.nodes if n.source is not None), "")
    formula = entries((f"{n} {shape_text(graph, n)}" for n in graph.inputs), "; ")
    return render(
        "steps.py.j2",
        target=target or graph.name,
        name=graph.name,
        place=place.replace('"""', ""),
        formula=formula,
        saved=fields,
        inputs=graph.inputs,
        returns=returns,
        guards=guard_rows(graph),
        size_lines=size_lines(graph, sized.sizes, list(graph.inputs), list(graph.inputs)),
        forward=[in_double_quotes(on_device(line, graph.inputs[0], named)) for line in lines],
        unpack=unpack + sizes_back,
        result=sequence(saved, ")", 4, f"return {returns}, Saved("),
        blocks=blocks,
        grads=[(quoted(graph.key(n)), c.name) for n, c in derivation.cotangents.items()],
    )


def sequence(names: list[str], end: str, indent: int, start: str = "", width: int = 120) -> list[str]:
    """Names separated by commas on one line, or one indented block where they do not fit."""
    line = f"{start}{', '.join(names)}{end}" if start or len(names) > 1 else f"({names[0]},){end}"
    if len(line) + indent <= width:
        return [line]
    opened = start or "("
    closed = end.removeprefix(",") if start else f"){end}"  # in a block every name has its comma
    lines = [opened]
    row = "   "
    for n in names:
        if len(row) + len(n) + 2 > width - indent:
            lines.append(row)
            row = "   "
        row += f" {n},"
    return [*lines, row, closed]


def write_atomically(path: Path, text: str) -> bool:
    """Write a whole file or nothing, and only if it changes. Returns whether it did."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True
