"""One call of a torch callable: its arguments, with tensors that a forward takes as its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_generator = torch.Generator().manual_seed(0)


def t(*shape: int) -> Tensor:
    """Real numbers, away from kinks and from each other."""
    return torch.randn(shape, dtype=torch.float64, generator=_generator)


def p(*shape: int) -> Tensor:
    """Numbers between 0.1 and 1."""
    return 0.1 + 0.9 * torch.rand(shape, dtype=torch.float64, generator=_generator)


def ties(*shape: int) -> Tensor:
    """Small whole numbers, of which many are equal."""
    return torch.randint(-1, 2, shape, generator=_generator).double()


def i(high: int, *shape: int) -> Tensor:
    """Integers below `high`."""
    return torch.randint(0, high, shape, generator=_generator)


def b(*shape: int) -> Tensor:
    """Truth values."""
    return torch.rand(shape, generator=_generator) < 0.6


def permutation(n: int) -> Tensor:
    """Each of the integers below `n` once."""
    return torch.randperm(n, generator=_generator)


@dataclass(frozen=True, eq=False)
class Call:
    """Arguments for a row's targets.

    `only` picks targets by their qualified name, `how` spells the call differently. `values=False`: only shape and
    dtype can be compared (uninitialized memory). `tolerance`: where torch itself is inexact. `constant`: which of the
    tensors torch takes no derivative of.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    only: str = ""
    how: Callable[..., Any] | None = None
    values: bool = True
    tolerance: float = 0.0
    constant: tuple[int, ...] = ()

    def applies(self, qualified: str) -> bool:
        """Whether this is a call of the callable of that name; `$` in `only` is the end of the name."""
        return self.only in f"{qualified}$"

    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments, in order."""
        return [v for v in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(v, torch.Tensor)]

    def forward(self, target: Callable[..., Any]) -> Callable[..., Any]:
        """The call as a function of its tensors."""
        leaves, spec = pytree.tree_flatten((self.args, self.kwargs))
        places = [k for k, v in enumerate(leaves) if isinstance(v, torch.Tensor)]

        def forward(*tensors: Tensor) -> Any:
            given = list(leaves)
            for place, tensor in zip(places, tensors, strict=True):
                given[place] = tensor
            args, kwargs = pytree.tree_unflatten(given, spec)
            return target(*args, **kwargs) if self.how is None else self.how(target, *args, **kwargs)

        return forward


def call(*args: Any, **kwargs: Any) -> Call:
    """A call with these arguments."""
    return Call(args, kwargs)


def running(*args: Any, **kwargs: Any) -> Call:
    """A call whose second and third tensors are running statistics."""
    return Call(args, kwargs, constant=(1, 2))


def weighted(*args: Any, **kwargs: Any) -> Call:
    """A call whose third tensor is a weight that torch takes no derivative of."""
    return Call(args, kwargs, constant=(2,))


def calls(*shapes: Any, **kwargs: Any) -> list[Call]:
    """One call per tuple of arguments."""
    return [Call(s if isinstance(s, tuple) else (s,), kwargs) for s in shapes]


def spelled(how: Callable[..., Any], *args: Any, only: str = "", values: bool = True, **kwargs: Any) -> Call:
    """A call of `how(target, *args)`."""
    return Call(args, kwargs, only, how, values)


def named(only: str, *args: Any, tolerance: float = 0.0, **kwargs: Any) -> Call:
    """A call for the targets whose qualified name contains `only`."""
    return Call(args, kwargs, only, tolerance=tolerance)
