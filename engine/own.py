"""Functions of the user's own as ops: operators of torch.library, `torch.autograd.Function`s, plain Python functions.

A trace sees what torch dispatches. An operator of torch.library is dispatched as it is; an autograd Function is caught at
its `apply`; a plain Python function is dispatched once it is `overridable`.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils import _pytree as pytree

from engine.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

F = TypeVar("F", bound="Callable[..., Any]")
OPERATORS: Any = torch.ops.aten.add
PACKET = cast("type[Any]", type(OPERATORS))
OVERLOAD = cast("type[Any]", type(OPERATORS.Tensor))
"""The two classes of torch.ops.aten.add and torch.ops.aten.add.Tensor, which torch gives no public name."""
FUNCTION: Any = torch.autograd.Function


def overridable(function: F) -> F:
    """A plain Python function as one call in a trace, instead of the torch calls inside of it.

        @engine.overridable
        def snake(x): return x + torch.sin(x) ** 2

        @engine.elementwise(targets=(snake,))
        def row(x): return x + sp.sin(x) ** 2

    What is emitted is written from the row's index notation; the function itself is only called by the forward.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        tensors = [a for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
        if has_torch_function(tensors):
            return handle_torch_function(call, tensors, *args, **kwargs)
        return function(*args, **kwargs)

    cast("Any", call).overridable = True
    return cast("F", call)


def keys_of(target: Any) -> tuple[Any, ...]:
    """What a trace sees when `target` is called.

    Raises TraceError for a plain Python function, of which it sees nothing.
    """
    if isinstance(target, type) and issubclass(target, torch.autograd.Function):
        return (target,)
    known = cast("object", target)
    applied = getattr(known, "__self__", None)
    if isinstance(applied, type) and issubclass(applied, torch.autograd.Function):
        return (applied,)
    overload: Any = getattr(known, "_opoverload", None)  # what torch.library.custom_op returns
    if overload is not None:
        return (overload, overload.overloadpacket)
    if isinstance(target, PACKET):
        packet = cast("Any", target)
        found = [getattr(packet, name) for name in packet.overloads()]
        return (packet, *[f for f in found if not any(a.is_out for a in f._schema.arguments)])
    if _plain(known) and not hasattr(known, "overridable"):
        name = getattr(known, "__name__", "it")
        raise TraceError(
            f"{name} is a plain Python function: a trace sees the torch calls inside of it, not the call. "
            f"Decorate it: @engine.overridable above `def {name}`, and give that as the target."
        )
    return (known,)


def _plain(target: Any) -> bool:
    """Whether a function is none of torch's."""
    module = str(getattr(target, "__module__", None) or "torch")
    return hasattr(target, "__code__") and not module.startswith("torch")


def is_operator(function: Any) -> bool:
    """Whether a function is one of torch.ops, which torch.library registers."""
    return isinstance(function, (PACKET, OVERLOAD))


def reachable(function: Any) -> bool:
    """Whether emitted code, which imports only torch, can call a function."""
    if is_operator(function):
        return True
    applied = getattr(function, "__self__", None)
    own = isinstance(applied, type) and issubclass(applied, torch.autograd.Function)
    return not own and not hasattr(function, "overridable")


@contextlib.contextmanager
def functions_seen(is_traced: Callable[[Any], bool], called: Callable[..., Any]) -> Generator[None]:
    """While it lasts, an autograd Function applied to something traced is handed to `called`."""
    original = cast("Any", vars(FUNCTION)["apply"])
    plain: Any = original.__func__

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        leaves: Sequence[Any] = pytree.tree_leaves((args, kwargs))
        if any(is_traced(a) for a in leaves):
            return called(cls, args, kwargs)
        return plain(cls, *args, **kwargs)

    FUNCTION.apply = classmethod(apply)
    try:
        yield
    finally:
        FUNCTION.apply = original
