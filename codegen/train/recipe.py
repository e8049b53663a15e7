"""A target that can be trained: its forward, initial parameters, running statistics, and scores for evaluation."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional

from codegen.targets import Target
from engine.errors import TargetError

Tensors = dict[str, Tensor]
Splits = Mapping[str, tuple[Tensor, Tensor]]
SPLITS = ("train", "val", "test")


class RowKind(StrEnum):
    """What a row of the training data is made from: a character and those before it, or a whole word."""

    characters = "characters"
    words = "words"


@dataclass(frozen=True)
class Recipe:
    """What training needs of a module.

    `forward(x, y, *params)` returns a scalar loss; its first two parameters are the batch, the others the model's
    parameters, by name those of `init`. `update_buffers(buffers, saved)` reads the forward's named values as attributes
    of `saved`.

    A recipe is trained on a list of names, in `rows` of characters or of words with `context` characters at most, unless
    it has `data`: then `data(generator)` makes the splits, and `context` is 0. `metrics(x, y, params, buffers,
    batch_stats)` gives what is measured, a value per example, the loss among them.
    """

    name: str
    forward: Callable[..., Tensor]
    parameters: tuple[str, ...]
    context: int
    rows: RowKind
    data: Callable[[Generator], Splits] | None
    defaults: Mapping[str, Any]
    example_inputs: Callable[[Generator], Tensors]
    init: Callable[[Generator, int, torch.dtype], Tensors]
    init_buffers: Callable[[torch.dtype, int], Tensors]
    update_buffers: Callable[[Tensors, object], None]
    logits: Callable[[Tensor, Tensors, Tensors, bool], Tensor] | None
    metrics: Callable[[Tensor, Tensor, Tensors, Tensors, bool], Tensors]


ARGUMENTS = {
    "data": ("generator",),
    "logits": ("x", "params", "buffers", "batch_stats"),
    "metrics": ("x", "y", "params", "buffers", "batch_stats"),
}
"""What functions of a recipe are called with, in this order."""


def recipe_of(target: Target) -> Recipe:
    """The recipe in a target's module. Raises TargetError, naming what is missing, for one that only has a forward."""
    where = str(target.path or target.name)
    module = target.module

    def member(name: str) -> Any:
        if not hasattr(module, name):
            raise TargetError(
                f"{where} cannot be trained: it has no {name!r}. To train, a module has, besides forward(x, y, ...): "
                f"example_inputs and init; context and logits to learn names, or data and metrics to learn something "
                f"else; and init_buffers, update_buffers to keep statistics."
            )
        return getattr(module, name)

    data = getattr(module, "data", None)
    sized = ("generator", "dtype") if data is not None else ("generator", "vocab_size", "dtype")
    for name, arguments in {**ARGUMENTS, "init": sized}.items():
        _check_takes(where, name, getattr(module, name, None), arguments)
    context, rows = _names_of(where, member, getattr(module, "rows", "characters")) if data is None else (0, "words")
    if not inspect.isfunction(inspect.unwrap(target.forward)):
        raise TargetError(f"{where}: the forward to train must be a function, not a {type(target.forward).__name__}.")
    names = tuple(inspect.signature(target.forward).parameters)
    if len(names) < 3:
        raise TargetError(
            f"{where}: the forward to train takes x, y and its parameters; it takes ({', '.join(names)})."
        )
    has_buffers = hasattr(module, "init_buffers") or hasattr(module, "update_buffers")
    return Recipe(
        name=target.name,
        forward=target.forward,
        parameters=names[2:],
        context=context,
        rows=RowKind(rows),
        data=data,
        defaults=getattr(module, "DEFAULTS", {}),
        example_inputs=member("example_inputs"),
        init=member("init") if data is None else _without_vocabulary(member("init")),
        init_buffers=_sized(member("init_buffers")) if has_buffers else _no_buffers,
        update_buffers=member("update_buffers") if has_buffers else _keep,
        logits=member("logits") if data is None else getattr(module, "logits", None),
        metrics=member("metrics")
        if data is not None
        else getattr(module, "metrics", None) or _likelihood(member("logits")),
    )


def _check_takes(where: str, name: str, function: Any, arguments: tuple[str, ...]) -> None:
    """Raise TargetError for a function of a recipe that cannot be called with these arguments."""
    if not inspect.isfunction(function):
        return
    signature = inspect.signature(function)
    try:
        signature.bind(*arguments)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "nothing"
        raise TargetError(f"{where}: {name} is called with ({', '.join(arguments)}), and takes ({takes}).") from error


def _names_of(where: str, member: Callable[[str], Any], rows: str) -> tuple[int, str]:
    """`context` and `rows` of a recipe that learns names. Raises TargetError for values they cannot have."""
    context = member("context")
    if not isinstance(context, int) or context < 1:
        raise TargetError(f"{where}: context is {context!r}, not the number of characters the model sees (at least 1).")
    if rows not in tuple(RowKind):
        raise TargetError(f"{where}: rows is {rows!r}, which is none of {', '.join(RowKind)}.")
    return context, rows


def _without_vocabulary(
    init: Callable[[Generator, torch.dtype], Tensors],
) -> Callable[[Generator, int, torch.dtype], Tensors]:
    """`init` of a recipe with data of its own, which has no vocabulary."""

    def sized(generator: Generator, vocab_size: int, dtype: torch.dtype) -> Tensors:
        return init(generator, dtype)

    return sized


def _likelihood(logits: Callable[..., Tensor]) -> Callable[..., Tensors]:
    """The negative log-likelihood of the next character, of a recipe that gives scores for it."""

    def metrics(x: Tensor, y: Tensor, params: Tensors, buffers: Tensors, batch_stats: bool) -> Tensors:
        return {"loss": functional.cross_entropy(logits(x, params, buffers, batch_stats), y, reduction="none")}

    return metrics


def initial_parameters(recipe: Recipe, generator: Generator, vocab_size: int, dtype: torch.dtype) -> Tensors:
    """`recipe.init` in the order of the forward. Raises TargetError when its names are not the forward's."""
    params = recipe.init(generator, vocab_size, dtype)
    if set(params) != set(recipe.parameters):
        raise TargetError(
            f"{recipe.name}: init gives {', '.join(params)}, but the forward takes {', '.join(recipe.parameters)} "
            f"after its batch. Give them the same names."
        )
    return {name: params[name] for name in recipe.parameters}


def _no_buffers(dtype: torch.dtype, vocab_size: int) -> Tensors:
    return {}


def _sized(init_buffers: Callable[..., Tensors]) -> Callable[[torch.dtype, int], Tensors]:
    """`init_buffers(dtype)` or `init_buffers(dtype, vocab_size)`, called with both."""
    takes_size = len(inspect.signature(init_buffers).parameters) > 1
    return init_buffers if takes_size else lambda dtype, vocab_size: init_buffers(dtype)


def _keep(buffers: Tensors, saved: object) -> None:
    return None
