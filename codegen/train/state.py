"""A training run in progress: its trainers, generator and loss log, to and from a checkpoint."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from codegen.train.checkpoint import Checkpoint
from codegen.train.data import Dataset
from codegen.train.evaluate import mean_loss
from codegen.train.files import DAMAGED
from codegen.train.metrics import Row, rows_from_tensor, rows_to_tensor
from codegen.train.recipe import Recipe, Tensors, initial_parameters
from codegen.train.settings import Settings
from codegen.train.trainer import Trainer, default_dtype
from engine.errors import CheckpointError

MakeTrainer = Callable[[Tensors, Tensors], Trainer]


@dataclass
class Training:
    """The state of a run. With a `twin`, a second trainer takes the same batches from the same start, in lockstep."""

    recipe: Recipe
    dataset: Dataset
    settings: Settings
    trainer: Trainer
    twin: Trainer | None
    generator: Generator
    step: int = 0
    losses: list[Tensor] = field(default_factory=list[Tensor])
    rows: list[Row] = field(default_factory=list[Row])
    difference: float = 0.0

    @property
    def dtype(self) -> torch.dtype:
        """Of parameters and buffers."""
        return torch_dtype(self.settings)

    def advance(self, steps: int) -> float:
        """Take steps that share a learning rate; the last one's loss. A NonFiniteLossError leaves it unusable."""
        lr = self.settings.lr_at(self.step)
        before = self.generator.get_state()
        with default_dtype(self.dtype):
            losses = self.trainer.run(self.dataset.train, steps, lr, self.generator).double()
            if self.twin is not None:
                again = Generator()
                again.set_state(before)
                others = self.twin.run(self.dataset.train, steps, lr, again).double()
                self.difference = max(self.difference, (losses - others).abs().max().item())
        self.losses.append(losses)
        self.step += steps
        return losses[-1].item()

    def evaluate(self) -> Row:
        """Add a row to the loss log: mean training loss since the row before, and loss of the validation split."""
        since = self.rows[-1].step if self.rows else 0
        train_loss = self.all_losses()[since:].mean().item() if self.step > since else math.nan
        val_loss = mean_loss(
            self.recipe, self.dataset.val, self.trainer.params, self.trainer.buffers, self.settings.eval
        )
        self.rows.append(Row(self.step, train_loss, val_loss))
        return self.rows[-1]

    def all_losses(self) -> Tensor:
        """Losses of all steps so far (step,), float64."""
        self.losses = [torch.cat(self.losses)] if self.losses else []
        return self.losses[0] if self.losses else torch.empty(0, dtype=torch.float64)

    def parameter_difference(self) -> tuple[float, str]:
        """The largest absolute difference between the two trainers' parameters, and the parameter that has it."""
        if self.twin is None:
            return 0.0, ""
        others = self.twin.params
        return max(((p - others[name]).abs().max().item(), name) for name, p in self.trainer.params.items())

    def checkpoint(self) -> Checkpoint:
        """The state as data. Its tensors are the live ones: write it before the next step."""
        tensors = _named("params", self.trainer.params) | _named("buffers", self.trainer.buffers)
        tensors |= {
            "generator": self.generator.get_state(),
            "losses": self.all_losses(),
            "rows": rows_to_tensor(self.rows),
        }
        if self.twin is not None:
            tensors |= _named("twin.params", self.twin.params) | _named("twin.buffers", self.twin.buffers)
            tensors["difference"] = torch.tensor(self.difference, dtype=torch.float64)
        return Checkpoint(
            model=self.recipe.name,
            step=self.step,
            vocabulary=self.dataset.vocabulary,
            settings=self.settings,
            data_path=str(self.dataset.path),
            data_digest=self.dataset.digest,
            tensors=tensors,
        )


def start(
    recipe: Recipe, dataset: Dataset, settings: Settings, make: MakeTrainer, make_twin: MakeTrainer | None
) -> Training:
    """A run at step 0. The seed draws the parameters, and then, anew, the batches."""
    generator = Generator().manual_seed(settings.seed)
    dtype = torch_dtype(settings)
    params = initial_parameters(recipe, generator, len(dataset.vocabulary.symbols), dtype)
    buffers = recipe.init_buffers(dtype, len(dataset.vocabulary.symbols))
    twin = make_twin(params, buffers) if make_twin else None
    return Training(recipe, dataset, settings, make(params, buffers), twin, generator.manual_seed(settings.seed))


def restore(
    checkpoint: Checkpoint,
    recipe: Recipe,
    dataset: Dataset,
    settings: Settings,
    make: MakeTrainer,
    make_twin: MakeTrainer | None,
    where: str,
) -> Training:
    """A run where its checkpoint left it. Raises CheckpointError for one of another model, or with parts missing."""
    check_model(checkpoint, recipe, where)
    twin = None
    if make_twin:
        if not _same_layout(checkpoint.group("params"), checkpoint.group("twin.params")) or not _same_layout(
            checkpoint.group("buffers"), checkpoint.group("twin.buffers")
        ):
            raise CheckpointError(f"{where} was trained in lockstep but lacks the second run's parameters. {DAMAGED}")
        twin = make_twin(_ordered(recipe, checkpoint.group("twin.params")), checkpoint.group("twin.buffers"))
    losses, generator = checkpoint.tensors.get("losses"), Generator()
    rows, state = checkpoint.tensors.get("rows"), checkpoint.tensors.get("generator")
    if losses is None or rows is None or state is None or losses.shape != (checkpoint.step,) or rows.shape[1:] != (3,):
        raise CheckpointError(
            f"{where} lacks the generator state or the loss log of its {checkpoint.step} steps. {DAMAGED}"
        )
    try:
        generator.set_state(state)
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"{where} holds no generator state that torch accepts ({error}). {DAMAGED}") from error
    return Training(
        recipe,
        dataset,
        settings,
        make(_ordered(recipe, checkpoint.group("params")), checkpoint.group("buffers")),
        twin,
        generator,
        checkpoint.step,
        [losses],
        rows_from_tensor(rows),
        checkpoint.tensors["difference"].item() if "difference" in checkpoint.tensors else 0.0,
    )


def check_model(checkpoint: Checkpoint, recipe: Recipe, where: str) -> None:
    """Refuse a checkpoint that is not of this recipe: another name, other parameters, shapes or dtype."""
    if checkpoint.model != recipe.name:
        raise CheckpointError(f"{where} is a checkpoint of the model {checkpoint.model!r}, not of {recipe.name!r}.")
    dtype = torch_dtype(checkpoint.settings)
    expected = initial_parameters(recipe, Generator().manual_seed(0), len(checkpoint.vocabulary.symbols), dtype)
    found = checkpoint.group("params")
    for name in [*expected, *found]:
        if name not in found or name not in expected:
            raise CheckpointError(
                f"{where} is of another {recipe.name!r}: "
                f"it {'lacks' if name in expected else 'has'} the parameter {name!r}."
            )
        if (found[name].shape, found[name].dtype) != (expected[name].shape, expected[name].dtype):
            raise CheckpointError(
                f"{where} is of another {recipe.name!r}: its {name} is {found[name].dtype} {tuple(found[name].shape)}, "
                f"the model's is {dtype} {tuple(expected[name].shape)}."
            )
    if not _same_layout(recipe.init_buffers(dtype, len(checkpoint.vocabulary.symbols)), checkpoint.group("buffers")):
        raise CheckpointError(f"{where} is of another {recipe.name!r}: its running statistics are not the model's.")


def torch_dtype(settings: Settings) -> torch.dtype:
    """The settings' dtype as torch's."""
    return torch.float64 if settings.dtype == "float64" else torch.float32


def _named(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def _ordered(recipe: Recipe, params: Tensors) -> Tensors:
    """Parameters in the forward's order, which a file does not keep."""
    return {name: params[name] for name in recipe.parameters}


def _same_layout(a: Tensors, b: Tensors) -> bool:
    return {k: (v.shape, v.dtype) for k, v in a.items()} == {k: (v.shape, v.dtype) for k, v in b.items()}
