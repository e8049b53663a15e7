"""`codegen train`: its options."""

import gc
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from codegen.train.settings import BackwardMode, DType, EvalMode


def train(
    target: Annotated[str, Argument(help="A bundled name, or path/to/file.py with forward, init, logits, ...")] = "mlp",
    steps: Annotated[
        int | None,
        Option(min=1, show_default="the recipe's; mlp: 10000", help="Steps in all, resumed ones included."),
    ] = None,
    batch: Annotated[int | None, Option(min=1, show_default="the recipe's; mlp: 32", help="Rows per step.")] = None,
    lr: Annotated[
        float | None,
        Option(min=0, show_default="the recipe's; mlp: 1.0", help="Learning rate; a tenth of it in the second half."),
    ] = None,
    seed: Annotated[
        int | None,
        Option(min=0, max=2**63 - 1, show_default="42", help="Fixes split, initial parameters, batches, samples."),
    ] = None,
    data: Annotated[
        Path | None, Option(show_default="bundled names", help="Names, one per line, UTF-8; split 80/10/10.")
    ] = None,
    out: Annotated[
        Path | None,
        Option(show_default="runs/TARGET, or the next free runs/TARGET-N", help="Folder of checkpoint and metrics."),
    ] = None,
    backward: Annotated[
        BackwardMode | None,
        Option(show_default="generated", help="Gradients from emitted code, from autograd, or both in lockstep."),
    ] = None,
    dtype: Annotated[DType | None, Option(show_default="float32", help="Floating point type of the model.")] = None,
    eval_mode: Annotated[
        EvalMode | None,
        Option("--eval", show_default="running", help="Validate with running statistics, or the whole split's own."),
    ] = None,
    curve: Annotated[Path | None, Option(show_default="none", help="Write the loss curve to this PNG.")] = None,
    samples: Annotated[int, Option(min=0, help="Names to sample at the end.")] = 20,
    resume: Annotated[
        bool, Option("--resume", help="Continue the checkpoint in --out: the result is that of a run without a stop.")
    ] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace the checkpoint in --out by a new run.")] = False,
    compile: Annotated[
        bool, Option("--compile", help="Hand several steps at once to torch's compiler; kept for the next run.")
    ] = False,
    log_every: Annotated[
        int | None, Option(min=1, show_default="1000", help="Steps between log lines, each with a checkpoint.")
    ] = None,
    nproc: Annotated[
        int, Option(min=1, help="Processes that share every batch (torchrun); gradients are averaged.")
    ] = 1,
) -> None:
    """Train a model on a list of names with the backward pass that was derived for it, autograd off.

    Every --log-every steps it prints the mean training loss since the line before and the loss of the whole validation
    split, and saves a checkpoint (safetensors and JSON) and metrics.jsonl to --out. Ctrl-C or SIGTERM finishes
    the step, saves, and says how to go on. A model of small calls gets one thread, unless OMP_NUM_THREADS is set.

        codegen train mlp --curve loss.png

        codegen train mlp --data names.txt --backward both --dtype float64

        codegen train mlp --out runs/mlp --resume
    """
    gc.disable()  # importing torch makes objects that stay: looking for garbage among them is a tenth of the start
    from codegen.cli.training import TrainingRequest, run_training  # torch, which --help does not need

    gc.freeze()
    gc.enable()

    options = {"steps": steps, "batch": batch, "lr": lr, "seed": seed, "log_every": log_every}
    options |= {"dtype": dtype, "backward": backward, "eval": eval_mode, "compile": compile or None}
    given = {name: value for name, value in options.items() if value is not None}
    request = TrainingRequest(target, given, data, out, curve, samples, resume, overwrite)
    if nproc == 1:
        run_training(request)
    else:
        from codegen.cli.team import run_team  # torch.distributed, which one process does not need

        run_team(request, nproc)
