"""A function's local variables, as they were when it returned."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def call_with_locals(function: Callable[..., Any], *args: object) -> tuple[Any, dict[str, Any]]:
    """The function's result, and its local variables as they were when it returned, in order of first appearance."""
    code = inspect.unwrap(function).__code__
    captured: dict[str, Any] = {}

    def watch(frame: FrameType, event: str, argument: object) -> None:
        if event == "return" and frame.f_code is code:
            captured.clear()
            captured.update(frame.f_locals)

    previous: Any = sys.getprofile()
    sys.setprofile(watch)
    try:
        result = function(*args)
    finally:
        if hasattr(previous, "enable"):  # a profiler in C, which is no function
            previous.enable()
        else:
            sys.setprofile(previous)
    return result, captured
