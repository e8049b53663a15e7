"""What a forward itself may change while it runs: attributes of modules and objects, and what its closure holds."""

from __future__ import annotations

import contextlib
from types import CellType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

Snapshot = tuple[list[tuple[dict[str, Any], dict[str, Any]]], list[tuple[CellType, Any]]]


def snapshot(forward: Callable[..., Any]) -> Snapshot:
    """What is held by a module and those inside of it, by the object of a bound method, by a closure and modules in it."""
    function: Any = forward.__func__ if isinstance(forward, MethodType) else forward
    cells = (function.__closure__ or ()) if isinstance(function, FunctionType) else ()
    held: list[tuple[CellType, Any]] = []
    for cell in cells:
        with contextlib.suppress(ValueError):  # nothing was put into it
            held.append((cell, cell.cell_contents))
    owners: list[Any] = [forward, getattr(forward, "__self__", None), *[value for _, value in held]]
    inside = [m for o in owners if isinstance(o, nn.Module) for m in o.modules()]
    plain = [
        o for o in owners[:2] if hasattr(o, "__dict__") and not isinstance(o, (nn.Module, FunctionType, MethodType))
    ]
    return [(vars(o), dict(vars(o))) for o in {id(o): o for o in [*inside, *plain]}.values()], held


def restore(taken: Snapshot) -> None:
    """Put back what was held."""
    for now, before in taken[0]:
        if any(now.get(k) is not v for k, v in before.items()) or len(now) != len(before):
            now.clear()
            now.update(before)
    for cell, value in taken[1]:
        cell.cell_contents = value
