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


def inspect(
    target: Annotated[str, Argument(help="A bundled name, path/to/file.py:function, or package.module:Class.")],
    node: Annotated[
        str | None, Argument(help="One node or input of the forward.", show_default="the whole program")
    ] = None,
    form: Annotated[
        InspectFormat, Option("--format", help="For the terminal, a paper, a page, or a browser.")
    ] = InspectFormat.text,
    out: Annotated[Path | None, Option(help="Write to this file instead of the terminal.", dir_okay=False)] = None,
) -> None:
    """Show how the gradient of a node follows: its definition, its cotangent, the rules used, the emitted statement.

    Without NODE it shows the recorded program and every cotangent, from the result back to the inputs.

        codegen inspect mlp

        codegen inspect mlp hpreact

        codegen inspect mlp bnstdi --format latex

        codegen inspect mlp --format html --out mlp.html

    Exit codes: 0, or 2 for a TARGET that cannot be used or a NODE that it does not have.
    """
    from codegen.cli.inspecting import run_inspect  # torch, which --help does not need

    run_inspect(target, node, form.value, out)
