# pyright: basic
"""Shapes by torch's meta kernels without importing torch's compiler.

Many meta kernels are Python functions that torch keeps out of its compiler: on their first call they import
`torch._dynamo`, which takes longer than tracing and deriving a whole network, only to ask it to stay out. While a trace
runs, a stand-in answers that question; afterwards everything is as before, and a real import finds nothing changed.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "torch._dynamo"
MARK = "__dynamo_disable"


class _StandIn(types.ModuleType):
    """Says yes to `disable`; anything else is answered by the real module, which is then imported."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self.marked: list[Any] = []

    def disable(self, fn: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        """The function itself; the mark that torch puts on it is taken off later."""
        self.marked.append(fn)
        return fn

    def leave(self) -> None:
        """Take the marks off and make room for the real module."""
        for fn in self.marked:
            if getattr(fn, MARK, None) is fn:
                delattr(fn, MARK)
        if sys.modules.get(NAME) is self:
            del sys.modules[NAME]
        if vars(torch).get("_dynamo") is self:
            delattr(torch, "_dynamo")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.leave()
        return getattr(importlib.import_module(NAME), name)


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """While this is entered, meta kernels do not import torch's compiler. Nothing is done where it is there already."""
    if NAME in sys.modules:
        yield
        return
    stand_in = _StandIn()
    sys.modules[NAME] = stand_in
    torch._dynamo = stand_in  # type: ignore[attr-defined]
    try:
        yield
    finally:
        stand_in.leave()
