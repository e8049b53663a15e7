"""A recipe's loop: which named values its running statistics need, its emitted file, and a `Trainer` for `codegen train`."""

from __future__ import annotations

import importlib
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Generator, Tensor

from codegen.loop.plan import Plan, inputs_of, rows_of
from codegen.loop.trainer import LoopTrainer
from codegen.train.recipe import RowKind
from codegen.train.trainer import NonFiniteLossError, StepTrainer
from engine.errors import InputError, SymgradError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    from codegen.targets import Target
    from codegen.train.data import Split
    from codegen.train.recipe import Recipe, Tensors


class _Asked:
    """Notes the names that are read from it; each is a tensor that broadcasts with anything."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def __getattr__(self, name: str) -> Tensor:
        self.names[name] = None
        return torch.zeros(())


def kept_names(recipe: Recipe, dtype: torch.dtype = torch.float32) -> tuple[str, ...]:
    """The named values of the forward that `update_buffers` reads."""
    asked = _Asked()
    recipe.update_buffers(recipe.init_buffers(dtype, 1), asked)
    return tuple(asked.names)


def loop_text(
    module: ModuleType,
    recipe: Recipe,
    params: Tensors,
    target: str,
    batch: int,
    vocabulary: int,
    sizes: Mapping[str, tuple[int, ...]] | None = None,
    plain: bool = False,
) -> str:
    """The emitted loop of a recipe for batches of `batch` rows, as its example inputs or, for names, its context has them.

    `sizes` are other shapes of inputs by name, and `batch` another number of rows; `plain` uses no kernels.
    Raises InputError for a name that is no input, and for shapes that do not fit together.
    """
    from codegen.loop.make import make_loop  # here, as training with a committed loop needs no sympy

    x, y = inputs_of(module)[:2]
    rows = rows_of(list(recipe.example_inputs(Generator().manual_seed(0)).values())[:2])
    if recipe.data is None:  # words are filled up with an index of its own
        words = recipe.rows is RowKind.words
        rows = [replace(r, bound=vocabulary + filled) for r, filled in zip(rows, (int(words), 0), strict=True)]
    dtype = next(iter(params.values())).dtype
    rows = [replace(r, dtype=dtype) if r.dtype.is_floating_point else r for r in rows]
    given = dict(sizes or {})
    (batch,) = given.pop("batch", (batch,))
    shapes = {k: (batch, *r.shape) for k, r in zip((x, y), rows, strict=True)}
    shapes |= {k: tuple(p.shape) for k, p in params.items()}
    unknown = [k for k in given if k not in shapes]
    if unknown:
        raise InputError(f"--sizes: {unknown[0]!r} is no input of {recipe.name}; those are batch, {', '.join(shapes)}")
    shapes |= given
    if not shapes[x] or shapes[x][:1] != shapes[y][:1]:
        raise InputError(f"--sizes: {x} has shape {shapes[x]} and {y} {shapes[y]}; both begin with the rows of a batch")
    batches = {k: replace(r, shape=shapes[k][1:]) for k, r in zip((x, y), rows, strict=True)}
    values = {k: p if shapes[k] == tuple(p.shape) else torch.ones(shapes[k], dtype=p.dtype) for k, p in params.items()}
    plan = Plan(keep=kept_names(recipe, dtype), plain=plain)
    try:
        return make_loop(module, batches, values, shapes[x][0], plan, target, recipe.name).source
    except (RuntimeError, IndexError) as error:
        if not given:
            raise
        raise InputError(f"--sizes: with these shapes {recipe.name} fails: {error}") from error


class RecipeTrainer:
    """A `Trainer` over the emitted loop. See `codegen.train.trainer.Trainer`.

    Steps are taken in pieces; where a loss is not finite, the piece is taken again one step at a time to say why.
    """

    def __init__(
        self,
        closed: ModuleType,
        params: Tensors,
        buffers: Tensors,
        recipe: Recipe,
        batch: int,
        again: Callable[[Tensors, Tensors], StepTrainer],
        committed: ModuleType | None,
        compile: bool = False,
    ) -> None:
        self._recipe, self._again, self._committed = recipe, again, committed
        keep = kept_names(recipe, next(iter(params.values())).dtype)
        self._loop = LoopTrainer(
            closed, params, batch, compile=compile, plan=Plan(keep=keep), name=recipe.name, ready=self._ready
        )
        self._batch = batch
        self.params = self._loop.params
        self.buffers = {name: value.clone() for name, value in buffers.items()}

    @property
    def path(self) -> str:
        """How steps are taken. See `LoopTrainer`."""
        return self._loop.path

    def _ready(self, data: Sequence[Tensor]) -> ModuleType | None:
        """The committed loop, if it was made for these sizes."""
        if self._committed is None:
            return None
        sizes = cast("dict[str, tuple[Any, ...]]", self._committed.SIZES)
        own = {k: (str(v.dtype), *v.shape) for k, v in self.params.items()}
        rows = [(str(t.dtype), self._batch, *t.shape[1:]) for t in data]
        given = dict(zip([k for k in sizes if k not in own], rows, strict=False)) | own
        return self._committed if given == sizes else None

    def run(self, data: Split, steps: int, lr: float, generator: Generator) -> Tensor:
        """See `Trainer.run`."""
        before = (
            {k: v.clone() for k, v in self.params.items()},
            {k: v.clone() for k, v in self.buffers.items()},
            generator.get_state(),
        )
        losses = self._loop.run((data.x, data.y), steps, lr, generator, self._watch if self._loop.plan.keep else None)
        if not losses.isfinite().all():
            self._explain(*before, data, steps, lr)
            bad = int((~losses.isfinite()).nonzero()[0])
            raise NonFiniteLossError(bad, losses[bad].item(), "the loss itself")
        return losses

    def _watch(self, count: int, kept: Tensors) -> None:
        rows = {name: value.unbind() for name, value in kept.items()}
        for k in range(count):
            self._recipe.update_buffers(
                self.buffers, SimpleNamespace(**{name: values[k] for name, values in rows.items()})
            )

    def _explain(self, params: Tensors, buffers: Tensors, state: Tensor, data: Split, steps: int, lr: float) -> None:
        """The same steps one by one: raises NonFiniteLossError where the first loss is not finite."""
        generator = Generator()
        generator.set_state(state)
        self._again(params, buffers).run(data, steps, lr, generator)


def recipe_trainer(
    target: Target,
    recipe: Recipe,
    batch: int,
    again: Callable[[Tensors, Tensors], StepTrainer],
    compile: bool = False,
) -> Callable[[Tensors, Tensors], RecipeTrainer] | None:
    """How to make a trainer from a target's closed form, and from its committed loop where the sizes fit; None without them."""
    closed = closed_module(target, recipe)
    if closed is None:
        return None
    committed = emitted(f"generated.{target.name}.loop") if target.bundled else None
    return lambda params, buffers: RecipeTrainer(closed, params, buffers, recipe, batch, again, committed, compile)


def closed_module(target: Target, recipe: Recipe) -> ModuleType | None:
    """The committed `generated/NAME/closed.py` of a bundled target; for any other it is generated now, if it can be."""
    if target.bundled:
        return emitted(f"generated.{target.name}.closed")
    generate: Any = importlib.import_module("codegen").generate  # here, as bundled targets need no sympy
    try:
        return generate(recipe.forward, *recipe.example_inputs(Generator().manual_seed(0)).values()).module
    except SymgradError:
        return None


def emitted(name: str) -> ModuleType | None:
    """A module of `generated`, None if it is not there."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None
