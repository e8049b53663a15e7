"""Two ways to a step's gradients behind one interface: emitted code, and torch autograd over the forward itself."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from codegen.frames import call_with_locals
from codegen.train.recipe import Tensors


class Backward(Protocol):
    """One step's loss and gradients. Parameters are plain tensors without `requires_grad`, and are not changed."""

    def step(self, params: Tensors, x: Tensor, y: Tensor) -> tuple[Tensor, Tensors, object]:
        """(scalar loss, gradient by parameter name, the forward's named values as attributes)."""
        ...


class Emitted(Protocol):
    """An emitted module, or a program: what `generated/NAME/steps.py` defines."""

    @property
    def forward(self) -> Callable[..., tuple[Tensor, Any]]:
        """(x, y, *params) -> (loss, saved)."""
        ...

    @property
    def backward(self) -> Callable[..., Tensors]:
        """(saved) -> gradients by name, the parameters' among them."""
        ...


class GeneratedBackward:
    """Gradients from emitted code, with autograd off. See `Backward`."""

    def __init__(self, emitted: Emitted) -> None:
        self._forward = emitted.forward
        self._backward = emitted.backward

    def step(self, params: Tensors, x: Tensor, y: Tensor) -> tuple[Tensor, Tensors, object]:
        """See `Backward.step`."""
        with torch.inference_mode():
            loss, saved = self._forward(x, y, *params.values())
            return loss, self._backward(saved), saved


class AutogradBackward:
    """Gradients from `torch.autograd` over the forward as the user wrote it. See `Backward`."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        self._forward = forward

    def step(self, params: Tensors, x: Tensor, y: Tensor) -> tuple[Tensor, Tensors, object]:
        """See `Backward.step`."""
        with torch.enable_grad():
            leaves = [p.detach().requires_grad_() for p in params.values()]
            loss, named = call_with_locals(self._forward, x, y, *leaves)
            grads = torch.autograd.grad(loss, leaves, materialize_grads=True)
        saved = {name: value.detach() for name, value in named.items() if isinstance(value, Tensor)}
        return loss.detach(), dict(zip(params, grads, strict=True)), SimpleNamespace(**saved)


def first_non_finite(params: Tensors, saved: object) -> str:
    """What went bad first, in the order of computation: a parameter, a named value of the forward, or only the loss."""
    for name, value in params.items():
        if not value.isfinite().all():
            return f"the parameter {name} (already after the step before)"
    for name, value in named_values(saved).items():
        if name not in params and isinstance(value, Tensor) and not value.isfinite().all():
            kind = "nan" if value.isnan().any() else "inf"
            return f"the node {name} ({kind})"
    return "the loss itself"


def named_values(saved: object) -> dict[str, object]:
    """The fields of an emitted `Saved`, or the locals captured under autograd, in order."""
    as_dict = getattr(saved, "_asdict", None)
    return cast("dict[str, object]", as_dict()) if as_dict else vars(saved)
