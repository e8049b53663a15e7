"""What a forward itself may change while it runs: attributes of modules and objects, and what its closure holds."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from types import CellType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, cast

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Snapshot:
    """What cells of a closure held, and lists, dicts and sets (attributes are such a dict) with what was in them."""

    cells: list[tuple[CellType, Any]]
    collections: list[tuple[Any, Any]]

    def restore(self) -> None:
        """Put back all of it."""
        for cell, value in self.cells:
            cell.cell_contents = value
        for now, before in self.collections:
            if isinstance(now, list):
                now[:] = before
            elif list(now) != list(before) or (
                isinstance(now, dict) and any(now[k] is not v for k, v in cast("dict[Any, Any]", before).items())
            ):
                cast("Any", now).clear()
                cast("Any", now).update(before)


def snapshot(forward: Callable[..., Any]) -> Snapshot:
    """What is held by a module and those inside of it, by the object of a bound method, and by a closure and modules in it."""
    function: Any = forward.__func__ if isinstance(forward, MethodType) else forward
    cells: list[tuple[CellType, Any]] = []
    for cell in (function.__closure__ or ()) if isinstance(function, FunctionType) else ():
        with contextlib.suppress(ValueError):  # nothing was put into it
            cells.append((cell, cell.cell_contents))
    held = [value for _, value in cells]
    owners: list[Any] = [forward, getattr(forward, "__self__", None), *held]
    inside = [m for o in owners if isinstance(o, nn.Module) for m in o.modules()]
    plain = [
        o for o in owners if hasattr(o, "__dict__") and not isinstance(o, (nn.Module, FunctionType, MethodType, type))
    ]
    attributes = [vars(o) for o in (*inside, *plain)]
    values = [*held, *[v for d in attributes for v in d.values()]]
    found = [v for v in (*attributes, *values) if type(v) in (list, dict, set)]
    return Snapshot(cells, [(c, cast("Any", c).copy()) for c in {id(c): c for c in found}.values()])
