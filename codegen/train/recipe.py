"""A target that can be trained: its forward, initial parameters, running statistics, and scores for evaluation."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from codegen.targets import Target
from engine.errors import TargetError

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """What training needs of a module.

    `forward(x, y, *params)` returns a scalar loss; its first two parameters are the batch, the others the model's
    parameters, by name those of `init`. `update_buffers(buffers, saved)` reads the forward's named values as attributes
    of `saved`.
    """

    name: str
    forward: Callable[..., Tensor]
    parameters: tuple[str, ...]
    context: int
    defaults: Mapping[str, Any]
    example_inputs: Callable[[Generator], Tensors]
    init: Callable[[Generator, int, torch.dtype], Tensors]
    init_buffers: Callable[[torch.dtype], Tensors]
    update_buffers: Callable[[Tensors, object], None]
    logits: Callable[[Tensor, Tensors, Tensors, bool], Tensor]


def recipe_of(target: Target) -> Recipe:
    """The recipe in a target's module. Raises TargetError, naming what is missing, for one that only has a forward."""
    where = str(target.path or target.name)
    module = target.module

    def member(name: str) -> Any:
        if not hasattr(module, name):
            raise TargetError(
                f"{where} cannot be trained: it has no {name!r}. To train, a module has, besides forward(x, y, ...): "
                f"example_inputs, init, logits, context; and init_buffers, update_buffers to keep statistics."
            )
        return getattr(module, name)

    context = member("context")
    if not isinstance(context, int) or context < 1:
        raise TargetError(f"{where}: context is {context!r}, not the number of characters the model sees (at least 1).")
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
        defaults=getattr(module, "DEFAULTS", {}),
        example_inputs=member("example_inputs"),
        init=member("init"),
        init_buffers=member("init_buffers") if has_buffers else _no_buffers,
        update_buffers=member("update_buffers") if has_buffers else _keep,
        logits=member("logits"),
    )


def initial_parameters(recipe: Recipe, generator: Generator, vocab_size: int, dtype: torch.dtype) -> Tensors:
    """`recipe.init` in the order of the forward. Raises TargetError when its names are not the forward's."""
    params = recipe.init(generator, vocab_size, dtype)
    if set(params) != set(recipe.parameters):
        raise TargetError(
            f"{recipe.name}: init gives {', '.join(params)}, but the forward takes {', '.join(recipe.parameters)} "
            f"after its batch. Give them the same names."
        )
    return {name: params[name] for name in recipe.parameters}


def _no_buffers(dtype: torch.dtype) -> Tensors:
    return {}


def _keep(buffers: Tensors, saved: object) -> None:
    return None
