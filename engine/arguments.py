"""The arguments of a recorded call, as torch's meta kernels and memories of equal calls take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from engine.proxy import SymbolicShape
from engine.sizes import Sized
from engine.spelling import is_slice

if TYPE_CHECKING:
    from collections.abc import Sequence


def with_values(v: Any) -> Any:
    if not isinstance(v, torch.Tensor):
        return v
    return (torch.ones if v.is_floating_point() else torch.zeros)(v.shape, dtype=v.dtype)


def without_values(v: Any) -> Any:
    return torch.empty(v.shape, dtype=v.dtype, device="meta") if isinstance(v, torch.Tensor) else v


def is_bool(v: Any) -> bool:
    """Whether something is a tensor of truth values."""
    return isinstance(v, torch.Tensor) and v.dtype == torch.bool


def one_of(v: Any) -> Any:
    """A tensor's dtype and dimensions with one element; anything else as it is."""
    return torch.ones([1] * v.dim(), dtype=v.dtype) if isinstance(v, torch.Tensor) else v


def as_tuple(v: Any) -> Any:
    """An argument with every `SymbolicShape` in it as a plain tuple, whose entries pytree finds."""
    if v is None or isinstance(v, (torch.Tensor, int, float, str)):
        return v
    return pytree.tree_map_only(SymbolicShape, tuple, v)


def form(leaf: Any) -> Any:
    """What the shape of a call's result can depend on."""
    if isinstance(leaf, torch.Tensor):
        return leaf.shape, leaf.dtype, leaf.stride()
    return hashable(leaf)


def fixed(v: Any) -> Any:
    """A size as the number it is, where a call that is not recorded needs it."""
    return v.plain() if isinstance(v, Sized) else v


def hashable(v: Any) -> Any:
    if is_slice(v):
        return ("slice", hashable(v.start), hashable(v.stop), hashable(v.step))
    try:
        hash(v)
    except TypeError:
        return repr(v)
    return (type(v).__name__, v)


def devices(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> list[str]:
    """The kinds of devices that a method's call names: `x.to(0)`, `x.to("cuda", torch.float64)`, `x.new_zeros(3, device="cpu")`."""
    given = [a for a in args[1:] if _is_device(a)] if name == "to" else []
    named = [a for a in (*given, kwargs.get("device")) if a is not None]
    return ["accelerator" if isinstance(a, int) else torch.device(a).type for a in named]


def without_devices(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A method's arguments without devices, and without how they are moved there."""
    kept = tuple(a for k, a in enumerate(args) if not (name == "to" and k and _is_device(a)))
    return kept, {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking", "pin_memory")}


def _is_device(a: Any) -> bool:
    return isinstance(a, (torch.device, str)) or (isinstance(a, int) and not isinstance(a, bool))


def out_of_place(name: str) -> Any:
    """The out-of-place callable behind `add_` or `__iadd__`, None where there is none or it takes other arguments."""
    dunder = name.startswith("__") and name.endswith("__")
    if dunder and name.startswith("__i") and name not in ("__index__", "__int__", "__invert__", "__iter__"):
        plain = name.replace("__i", "__", 1)
        return getattr(torch.Tensor, "__truediv__" if plain == "__div__" else plain, None)
    if name.endswith("_") and not name.endswith("__") and name not in ("bernoulli_", "normal_"):
        return getattr(torch.Tensor, name[:-1], getattr(torch, name[:-1], None))
    return None
