"""`codegen build`: its options."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def build(
    targets: Annotated[
        list[str] | None,
        Argument(
            metavar="[TARGET]...",
            help="Bundled names, path/to/file.py:function, or package.module:Class.",
            show_default="all bundled ones",
        ),
    ] = None,
    check: Annotated[
        bool, Option("--check", help="Write nothing; show what would change and exit 1 if anything would.")
    ] = False,
    out: Annotated[
        Path | None, Option(show_default="generated/NAME", help="The folder for the files of a single TARGET.")
    ] = None,
    custom_op: Annotated[
        bool,
        Option("--custom-op", help="Also custom_op.py: the forward as an operator symgrad::NAME of torch.library."),
    ] = False,
    sizes: Annotated[
        str | None,
        Option(
            metavar="NAME=SIZExSIZE,...",
            show_default="the target's own",
            help="Make the training loop for other shapes: those of inputs by name, and batch=ROWS.",
        ),
    ] = None,
    plain: Annotated[
        bool, Option("--plain", help="Make the training loop of basic operations only, no kernels.")
    ] = False,
) -> None:
    """Derive the backward of each TARGET and write it: steps.py and closed.py, to import and read, derivation.md to follow.

    The emitted module imports only torch. Files are written whole, and only if they change; the same forward gives the
    same bytes. What a TARGET is traced with comes from `example_inputs(generator)` in its class or its file, or from
    jaxtyping annotations of its parameters.

        codegen build

        codegen build --check

        codegen build model.py:forward --out emitted/model

        codegen build mlp --sizes batch=64,w1=30x400,w2=400x27,bnw=400,bnb=400 --out emitted/mlp

    Exit codes: 0 all is as it should be, 1 something is stale (--check), 2 a TARGET or folder that cannot be used.
    """
    from codegen.cli.building import run_build  # torch, which --help does not need

    run_build(tuple(targets or ()), check, out, custom_op, sizes, plain)
