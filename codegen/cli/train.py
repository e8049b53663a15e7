"""`codegen train`: the training loop, its log lines, checkpoint, curve and samples."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from codegen.train.settings import BackwardMode, DType, EvalMode

if TYPE_CHECKING:
    from codegen.targets import Target
    from codegen.train.folder import RunFolder
    from codegen.train.state import Training

INTERRUPTED = 130
_RECIPE = "the recipe's"


def train(
    target: Annotated[str, typer.Argument(help="A bundled name, or path/to/file.py: a module with forward, init, logits, ...")] = "mlp",
    steps: Annotated[int | None, typer.Option(min=1, show_default=f"{_RECIPE}; mlp: 10000", help="Steps in all, resumed ones included.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, show_default=f"{_RECIPE}; mlp: 32", help="Rows per step.")] = None,
    lr: Annotated[float | None, typer.Option(min=0, show_default=f"{_RECIPE}; mlp: 1.0", help="Learning rate; a tenth of it in the second half.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, show_default="42", help="Fixes the split, the initial parameters, the batches, the samples.")] = None,
    data: Annotated[Path | None, typer.Option(show_default="bundled names", help="Names, one per line, UTF-8; split 80/10/10.")] = None,
    out: Annotated[Path | None, typer.Option(show_default="runs/TARGET, or the next free runs/TARGET-N", help="Folder for checkpoint and metrics.")] = None,
    backward: Annotated[BackwardMode | None, typer.Option(show_default="generated", help="Gradients from emitted code, from torch autograd, or both in lockstep.")] = None,
    dtype: Annotated[DType | None, typer.Option(show_default="float32", help="Floating point type of the model.")] = None,
    eval_: Annotated[EvalMode | None, typer.Option("--eval", show_default="running", help="Validate with running statistics, or those of the whole split.")] = None,
    curve: Annotated[Path | None, typer.Option(show_default="none", help="Write the loss curve to this PNG.")] = None,
    samples: Annotated[int, typer.Option(min=0, help="Names to sample at the end.")] = 20,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the checkpoint in --out; the result is that of a run without a stop.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the checkpoint in --out by a new run.")] = False,
    log_every: Annotated[int | None, typer.Option(min=1, show_default="1000", help="Steps between log lines, each with a checkpoint.")] = None,
) -> None:
    """Train a model on a list of names with the backward pass that was derived for it, autograd off.

    The loss log, a checkpoint (safetensors and JSON) and metrics.jsonl go to --out. Ctrl-C finishes the step, saves, and says how
    to go on.

        codegen train mlp --curve loss.png

        codegen train mlp --data names.txt --backward both --dtype float64

        codegen train mlp --out runs/mlp --resume
    """
    from codegen.targets import load_target
    from codegen.train.curve import check_curve_path
    from codegen.train.folder import RunFolder, default_folder

    chosen = {
        "steps": steps,
        "batch": batch,
        "lr": lr,
        "seed": seed,
        "dtype": dtype,
        "backward": backward,
        "eval": eval_,
        "log_every": log_every,
    }
    given = {name: value for name, value in chosen.items() if value is not None}
    found = load_target(target)
    if curve is not None:
        check_curve_path(curve)
    folder = RunFolder(out or default_folder(found.name, resume))
    console = Console(soft_wrap=True)
    with folder.lock():
        from codegen.train.session import open_training

        training = open_training(found, given, data, folder, resume, overwrite)
        _announce(console, training, folder, resume)
        _run(console, target, training, folder)
        _conclude(console, found, training, folder, curve, samples)
