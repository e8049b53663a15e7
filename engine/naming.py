"""Names for nodes: the forward's own local variables, read from its frames while it runs."""

from __future__ import annotations

import inspect
import keyword
import logging
import re
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import sympy
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable
    from types import FrameType

_PACKAGES = (
    str(Path(torch.__file__).parent),
    str(Path(sympy.__file__).parent),
    str(Path(__file__).parent),
    str(Path(__file__).parents[1] / "codegen"),
)
_TYPED = ("<stdin", "<string>", "<console>", "<python-input", "<ipython-input")
"""How the names of what was typed at a prompt begin, and of what was given to `python -c` or `exec`."""
_MODULES = frozenset(("torch", "sympy", "engine", "codegen"))
_STDLIB = str(Path(sysconfig.get_paths()["stdlib"]))


@lru_cache(maxsize=2**12)
def is_user_code(filename: str) -> bool:
    """Whether a frame of this file belongs to the user's forward rather than to torch, Python or this project."""
    if filename.startswith("<"):
        return filename.startswith(_TYPED)
    if filename.startswith(_PACKAGES):
        return False
    return "-packages" in filename or not filename.startswith(_STDLIB)


def is_users(frame: FrameType) -> bool:
    """Whether a frame belongs to the user's forward; what Python writes for a dataclass belongs to the module that has the class."""
    name = frame.f_code.co_filename
    if not is_user_code(name):
        return False
    return not name.startswith("<") or str(frame.f_globals.get("__name__")).partition(".")[0] not in _MODULES


def is_library(frame: FrameType) -> bool:
    """Whether a frame belongs to torch, sympy, this project or `logging`, which make texts of sizes for messages."""
    return frame.f_code.co_filename.startswith((*_PACKAGES, str(Path(logging.__file__).parent)))


def user_frame() -> FrameType | None:
    """The innermost frame of the user's own code."""
    frame = inspect.currentframe()
    while frame is not None and not is_users(frame):
        frame = frame.f_back
    return frame


class LocalsWatcher:
    """Watches the forward's frames line by line and reports every local variable that holds something of interest.

    `seen(value, name, depth)` is called once for each binding; the outermost frame has depth 0.
    """

    def __init__(self, interesting: Callable[[Any], bool], seen: Callable[[Any, str, int], None]) -> None:
        self._interesting, self._seen = interesting, seen
        self._known: dict[int, dict[str, int]] = {}
        self._depth: dict[int, int] = {}
        self._level = 0
        self._previous: Any = None

    def __enter__(self) -> Self:
        self._previous = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._previous)

    def _call(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not is_users(frame):
            return None
        self._depth[id(frame)] = self._level
        self._known[id(frame)] = {}
        self._level += 1
        return self._line

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        known = self._known.get(id(frame))
        if known is None:
            return None
        depth = self._depth[id(frame)]
        for name, value in frame.f_locals.items():
            if self._interesting(value) and known.get(name) != id(value):
                known[name] = id(value)
                self._seen(value, name, depth)
        if event == "return":
            self._level = depth
            del self._known[id(frame)], self._depth[id(frame)]
        return self._line


class unwatched:  # noqa: N801  # read as a statement
    """Where nothing of the forward runs: a watcher of locals looks at none of the calls in here, which would take time."""

    __slots__ = ("_watcher",)

    def __enter__(self) -> None:
        watcher = sys.gettrace()
        self._watcher = watcher if isinstance(getattr(watcher, "__self__", None), LocalsWatcher) else None
        if self._watcher is not None:
            sys.settrace(None)

    def __exit__(self, *_: object) -> None:
        if self._watcher is not None:
            sys.settrace(self._watcher)


RESERVED = frozenset((
    "torch", "math", "saved", "Saved", "grad_out", "grads", "forward", "backward", "value_and_grad", "step", "function",
    "Function", "Module", "NamedTuple", "Tensor", "self", "cls", "ctx", "dict", "float", "int", "len", "range", "tuple",
    "list", "zip", "min", "max", "sum", "abs", "ValueError", "RuntimeError", "getattr", "apply", "hold", "renew", "renewed",
    "followed", "squared_distances", "silu_backward", "mish_backward", "softmax_backward",
    "logcumsumexp_backward",
    "drawn", "buffers", "next", "grad_given", "results", "lr", "generator", "as_written", "pulled_back", "batched_alike",
    "computed", "kind_of",
))  # fmt: skip
"""What emitted files call their own things, and the builtins they use."""


class Namer:
    """Hands out identifiers, each once: a name already taken becomes `name_1`, `name_2`."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = {*taken}
        self._numbers: dict[str, int] = {}

    def identifier(self, wanted: str) -> str:
        """`wanted` as a Python identifier that nothing in an emitted file shadows."""
        name = re.sub(r"\W", "_", wanted).lstrip("_") or "x"  # a NamedTuple has no field that begins with one
        if not name.isidentifier():
            name = f"x_{name}"
        if keyword.iskeyword(name) or name in RESERVED:
            name += "_"
        return name

    def __call__(self, wanted: str) -> str:
        name = self.identifier(wanted)
        unique, number = name, self._numbers.get(name, 0)
        while not self.is_free(unique):
            number += 1
            unique = f"{name}_{number}"
        self.take(unique)
        self._numbers[name] = number
        return unique

    def is_free(self, name: str) -> bool:
        """Whether a name may be handed out."""
        return name not in self._taken

    def take(self, name: str) -> None:
        """Let a name be handed out no more."""
        self._taken.add(name)


def free_name(name: str, taken: Container[str]) -> str:
    """A name that is not taken, with as many underscores behind it as that needs."""
    while name in taken:
        name += "_"
    return name
