"""`derivation.md`: a derivation as mathematics, step by step, in the Markdown that GitHub renders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from codegen.emit import render
from codegen.explain import explanations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codegen.derivation import Derivation
    from codegen.explain import Explanation

READING = (
    "Every node of the forward is below, last one first: the line that computes it, one element of it in index notation, and "
    "its cotangent, the gradient of the result with respect to it, written with a `d` in front. A cotangent is the sum over all "
    "paths to the result: the cotangent of the node that a path goes through, times the derivative of that node's element, "
    "summed over its indices. $`\\delta_{i,j}`$ is 1 where $`i = j`$ and 0 elsewhere; a dimension of size one is read at 0."
)

EQUATIONS = (
    " Where a node `X` is what an equation defines, `X_equation` is its left side less its right one, which stays zero as tensors "
    "move. So the cotangent of what it reads is minus the sum of `X_adjoint` times the derivative of `X_equation`, for the adjoint "
    "with which the derivative by `X` itself gives the cotangent of `X`."
)
"""What is to be known of a derivation with equations."""


@dataclass(frozen=True)
class Block:
    """A fenced block with the sentence above it."""

    caption: str
    language: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class NodeSection:
    """What stands below one node's heading."""

    name: str
    facts: tuple[str, ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Section:
    """A part of the document."""

    title: str
    text: str
    nodes: tuple[NodeSection, ...]


def derivation_markdown(derivation: Derivation, target: str) -> str:
    """The text of `derivation.md`. `target` is what `codegen build` was given."""
    graph = derivation.graph
    told = explanations(derivation)
    backward = [e for e in told.values() if e.cotangent is not None]
    constant = [e for e in told.values() if e.cotangent is None and not graph[e.name].is_input]
    place = next((n.source.file for n in graph.nodes if n.source is not None), "")
    intro = (
        f"The forward `{graph.name}`{f' in `{place}`' if place else ''} computes {_listed(graph.outputs)} "
        f"from {_counted(len(graph.inputs), 'input')}:"
    )
    sections = [
        Section("Backward", "In the order of the emitted code, from the result to the inputs.", _nodes(backward)),
    ]
    if constant:
        text = "Nodes that no gradient goes through: constants, integers, and what is made of them."
        sections.append(Section("Without a gradient", text, _nodes(constant)))
    return render(
        "derivation.md.j2",
        target=target,
        name=target,
        intro=intro,
        inputs=[{"name": i, "dtype": told[i].dtype, "shape": told[i].shape} for i in graph.inputs],
        reading=READING + (EQUATIONS if any(n.equation is not None for n in graph.nodes) else ""),
        sections=sections,
    )


def node_markdown(e: Explanation) -> str:
    """One node as Markdown, headed by its name."""
    section = node_section(e)
    parts = [f"### `{e.name}`", "\n".join(section.facts)]
    for b in section.blocks:
        parts.extend([b.caption] if b.caption else [])
        parts.append("\n".join([f"```{b.language}", *b.lines, "```"]))
    return "\n\n".join(parts) + "\n"


def node_section(e: Explanation) -> NodeSection:
    """What is told of one node: its forward, its paths to the result, its cotangent and the emitted statement."""
    kind = "Node" if e.forward else "Input"
    place = f", from {e.place}" + (f", `{e.line}`" if e.line and "`" not in e.line else "") if e.place else ""
    blocks: list[Block] = []
    if e.forward:
        blocks.append(Block("", "python", (e.forward,)))
    if e.definition is not None:
        blocks.append(Block("", "math", (e.definition.latex,)))
    blocks.extend(Block(caption, "math", (law.latex,)) for caption, law in e.laws)
    if e.cotangent is not None:
        for p in e.paths:
            scattered = ", scattered back along its index" if p.scattered else ""
            blocks.append(Block(f"Through `{p.consumer}`{scattered}:", "math", (p.derivative.latex,)))
        rules = f" ({'; '.join(e.rules)})" if e.rules else ""
        blocks.append(Block(f"Cotangent{rules}:", "math", (e.cotangent.latex,)))
        blocks.append(Block("", "python", e.statements))
    if e.adjoint is not None:
        caption, law, lines = e.adjoint
        blocks += [Block(caption, "math", (law.latex,)), *([Block("", "python", lines)] if lines else [])]
    return NodeSection(e.name, (f"{kind}, {e.dtype} `{e.shape}`{place}",), tuple(blocks))


def _nodes(told: Sequence[Explanation]) -> tuple[NodeSection, ...]:
    return tuple(node_section(e) for e in told)


def _listed(names: Sequence[str]) -> str:
    return (
        " and ".join([", ".join(f"`{n}`" for n in names[:-1]), f"`{names[-1]}`"]) if len(names) > 1 else f"`{names[0]}`"
    )


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
