"""`codegen bench`: its options."""

from typing import Annotated

from typer import Argument, Option


def bench(
    workloads: Annotated[
        list[str] | None, Argument(metavar="[W1..W5]...", help="Which workloads.", show_default="all five")
    ] = None,
    vs: Annotated[str, Option(help="Other variants: eager, compile, jax, separated by commas.")] = "eager",
    rounds: Annotated[int, Option(min=1, help="How often all variants take their turn.")] = 9,
    seconds: Annotated[float, Option(min=0.0, help="About how long eager's turn takes.")] = 0.5,
    compile: Annotated[bool, Option("--compile", help="Also the emitted loop handed to torch.compile.")] = False,
) -> None:
    """Time the emitted training loop against what people would use instead.

    All variants alternate in one process on one thread. Their parameters are compared before anything is timed. Printed
    are speeds relative to eager autograd, median and quartiles over the rounds; "floor" is the step's matrix products alone,
    "first step" the processor time from the trace to the end of the first step, imports aside.

        codegen bench

        codegen bench W1 W4 --vs eager,compile

    Exit codes: 0 timed, 2 an unknown workload or variant, a variant that is not installed, or steps that differ.
    """
    from codegen.cli.benching import run_bench  # torch, which --help does not need

    run_bench(tuple(workloads or ()), tuple(v for v in vs.split(",") if v), rounds, seconds, compile)
