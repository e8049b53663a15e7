"""`codegen inspect`: its options."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


class InspectFormat(StrEnum):
    """How a derivation is printed."""

    text = "text"
    latex = "latex"
    markdown = "markdown"
    html = "html"
    svg = "svg"
    dot = "dot"


def inspect(
    target: Annotated[str, Argument(help="A bundled name, path/to/file.py:function, or package.module:Class.")],
    node: Annotated[
        str | None, Argument(help="One node or input of the forward.", show_default="the whole program")
    ] = None,
    form: Annotated[
        InspectFormat,
        Option(
            "--format", help="text for the terminal, latex for a paper, html for a browser; svg and dot draw the graph."
        ),
    ] = InspectFormat.text,
    out: Annotated[
        Path | None,
        Option("--out", "-o", help="Write to this file, whole or not at all, instead of the terminal.", dir_okay=False),
    ] = None,
) -> None:
    """Show how the gradient of a node follows: its definition, its cotangent, the rules used, the emitted statements.

    The cotangent (the gradient of the result with respect to the node) is shown twice: by the chain rule over the nodes
    that read it, as steps.py computes it, and in closed form, with every state on the way. Without NODE it is the recorded
    program and every cotangent, from the result back to the inputs.

        codegen inspect mlp

        codegen inspect mlp hpreact

        codegen inspect mlp bnstdi --format latex

        codegen inspect mlp --format html --out mlp.html

        codegen inspect mlp --format svg --out mlp.svg

    With svg and dot TARGET may also be an engine.Value, path/to/file.py:name.

    Exit codes: 0, or 2 for a TARGET that cannot be used, a NODE that it does not have, or a file that cannot be written.
    """
    from codegen.cli.inspecting import run_inspect  # torch, which --help does not need

    run_inspect(target, node, form.value, out)
