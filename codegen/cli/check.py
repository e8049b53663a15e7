"""`codegen check`: its options."""

from enum import StrEnum
from typing import Annotated

from typer import Argument, Option


class CheckDType(StrEnum):
    """Floating-point types to check in."""

    float32 = "float32"
    float64 = "float64"
    both = "both"


class CheckMode(StrEnum):
    """Emitted code to check."""

    steps = "steps"
    closed = "closed"


def check(
    targets: Annotated[
        list[str] | None,
        Argument(
            metavar="[TARGET]...",
            help="Bundled names, path/to/file.py:function, or package.module:Class.",
            show_default="all bundled ones",
        ),
    ] = None,
    dtype: Annotated[CheckDType, Option(help="Floating-point type of the inputs.")] = CheckDType.both,
    mode: Annotated[
        CheckMode, Option(help="Every node's cotangent, or the closed form's gradients of the inputs.")
    ] = CheckMode.steps,
    batch: Annotated[
        list[int] | None,
        Option(min=0, metavar="N", show_default="the example's", help="Batch size; may be given several times."),
    ] = None,
    edges: Annotated[
        bool,
        Option("--edges", help="Also inputs of 0, ±1, ±100, ±300, with offsets of 10 to 1000, and batches of 1 and 0."),
    ] = False,
    digits: Annotated[
        int | None,
        Option(
            min=20,
            max=1000,
            show_default="longdoubles, about 19",
            help="Decimal digits of the truth, by mpmath: slow, so on 4 rows unless --batch says.",
        ),
    ] = None,
) -> None:
    """Compare the emitted gradients with autograd's, tensor by tensor, and both with the high-precision truth.

    The table has a row per node: whether the two are equal bit for bit, whether they are close by torch's default
    tolerances, the largest absolute and relative difference, the largest of |(a - b) / a| over the entries, and the error of
    either side against the truth, over the largest entry. The truth comes from the index notation by complex steps, at
    a few entries per tensor; it uses neither autograd nor the derivation. It decides who is wrong where the two differ.

        codegen check mlp

        codegen check mlp --dtype float64 --batch 1 --batch 32

        codegen check model.py:forward --edges

    Exit codes: 0 all rows agree, 1 a mismatch, 2 a TARGET or inputs that cannot be used.
    """
    from codegen.cli.checking import CheckRequest, run_check  # torch, which --help does not need

    dtypes = ("float32", "float64") if dtype is CheckDType.both else (dtype.value,)
    run_check(CheckRequest(tuple(targets or ()), dtypes, mode.value, tuple(batch or ()), edges, digits))
