"""Floats of the forward's own text, while it runs: what Python computes from one and a size stays symbolic.

`1 / n` is asked of the size n, which knows where it came from. `1.0 / n` is asked of the float first, which takes n for the
plain number that it is at the example and tells nobody. So the floats of a forward are `Literal` during a trace: those
in its code, its arguments, and the globals, closures and attributes that it reads, also in the functions that it calls.
"""

from __future__ import annotations

import contextlib
import functools
import math
from dataclasses import dataclass
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import nn

from engine.naming import is_user_code
from engine.sizes import Sized

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator


NUMPY = (np.number, np.bool_)


class Literal(float):
    """A float that leaves it to a size what the two of them come to. What it gives with other numbers is one again."""

    __slots__ = ()
    __hash__ = float.__hash__


def _operator(name: str) -> Callable[[Any, Any], Any]:
    plain = getattr(float, name)

    def method(self: Any, *others: Any) -> Any:
        if any(isinstance(other, Sized) for other in others):
            return NotImplemented
        return literal(plain(self, *others))

    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "divmod"):
    setattr(Literal, f"__{_name}__", _operator(f"__{_name}__"))
    setattr(Literal, f"__r{_name}__", _operator(f"__r{_name}__"))
for _name in ("eq", "ne", "lt", "le", "gt", "ge", "neg", "pos", "abs"):
    setattr(Literal, f"__{_name}__", _operator(f"__{_name}__"))


def literal(value: Any) -> Any:
    """A plain float, or a tuple with some in it, as literals; anything else as it is."""
    if type(value) is float:
        return Literal(value)
    if type(value) is tuple:
        return tuple(literal(v) for v in cast("tuple[Any, ...]", value))
    return value


def plain(value: Any) -> Any:
    """A literal as the float that it is, a number of numpy's as Python's; anything else as it is."""
    if isinstance(value, Literal):
        return float(value)
    return cast("Any", value).item() if isinstance(value, NUMPY) else value


def _with_literals(code: CodeType) -> CodeType:
    constants = tuple(_with_literals(c) if isinstance(c, CodeType) else literal(c) for c in code.co_consts)
    return code.replace(co_consts=constants)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for c in code.co_consts:
        if isinstance(c, CodeType):
            yield from _names(c)


@dataclass(frozen=True)
class _Place:
    """Where something is kept; what it is, and what it is while a forward runs."""

    get: Callable[[], Any]
    put: Callable[[Any], None]
    old: Any
    new: Any

    def restore(self) -> None:
        """Put back what was there, unless the forward itself put something else there: that stays."""
        with contextlib.suppress(AttributeError, KeyError, ValueError):  # the forward removed it
            now = self.get()
            self.put(self.old if now is self.new else plain(now))


class _Texts:
    """The user's functions that a forward may call, and what is to be put in place of what while it runs."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.places: list[_Place] = []

    def visit(self, thing: Any) -> None:
        """Look into something callable, and into what that calls."""
        waiting = [thing]
        while waiting:
            one: Any = waiting.pop()
            if id(one) in self.seen:
                continue
            self.seen.add(id(one))
            if isinstance(one, functools.partial):
                waiting.append(cast("Any", one).func)
            elif isinstance(one, MethodType):
                waiting.append(one.__func__)
            elif isinstance(one, (staticmethod, classmethod)):
                waiting.append(cast("Any", one).__func__)
            elif isinstance(one, property):
                waiting.append(one.fget)
            elif isinstance(one, nn.Module):
                waiting.extend(one.modules())
                waiting.extend(self._attributes(one))
            elif isinstance(one, FunctionType):
                waiting.extend(self._function(one))
            elif not isinstance(one, type) and callable(one) and not isinstance(one, ModuleType):
                waiting.extend(_methods(type(one)))

    def _attributes(self, module: nn.Module) -> Iterator[Any]:
        methods = list(_methods(type(module)))
        if methods:
            self.values(vars(module), list(vars(module)))
        yield from methods

    def _function(self, function: FunctionType) -> Iterator[Any]:
        code = function.__code__
        if not is_user_code(code.co_filename):
            return
        self.replace(function, "__code__", code, _with_literals(code))
        defaults = function.__defaults__
        if defaults:
            self.replace(function, "__defaults__", defaults, literal(defaults))
        self.values(function.__kwdefaults__ or {}, list(function.__kwdefaults__ or {}))
        names = [*dict.fromkeys(_names(code))]
        self.values(function.__globals__, names)
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # a cell that nothing was put into
                self.replace(cell, "cell_contents", cell.cell_contents, literal(cell.cell_contents))
                yield cell.cell_contents
        yield getattr(function, "__wrapped__", None)
        for name in names:
            value = function.__globals__.get(name)
            if isinstance(value, ModuleType) and is_user_code(getattr(value, "__file__", None) or "<"):
                yield from (vars(value).get(n) for n in names)
            yield value

    def values(self, held: dict[str, Any], names: list[str]) -> None:
        """Put literals in place of the floats that go by `names`."""
        for name in names:
            if type(held.get(name)) is float:
                get, put = (functools.partial(f, name) for f in (held.__getitem__, held.__setitem__))
                self.places.append(_Place(get, put, held[name], literal(held[name])))

    def replace(self, thing: Any, name: str, old: Any, new: Any) -> None:
        """Let an attribute be `new` while the forward runs."""
        if new is not old:
            get, put = functools.partial(getattr, thing, name), functools.partial(setattr, thing, name)
            self.places.append(_Place(get, put, old, new))


def _methods(cls: type) -> Iterator[Any]:
    """What classes of the user's own define."""
    for base in cls.__mro__:
        if any(isinstance(v, FunctionType) and is_user_code(v.__code__.co_filename) for v in vars(base).values()):
            yield from vars(base).values()


_SYMBOLIC = ("sqrt", "log", "log2", "log10", "exp", "floor", "ceil", "trunc", "prod")
"""What `math` computes from a size stays symbolic; all else needs the number, which is fixed then."""


def _of_literals(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **rest: Any) -> Any:
        if name not in _SYMBOLIC:
            sizes = any(isinstance(a, (Literal, Sized)) for a in args)
            args = tuple(a.plain() if isinstance(a, Sized) else a for a in args)
            return literal(function(*args, **rest)) if sizes or name == "pow" else function(*args, **rest)
        return literal(function(*args, **rest))

    return call


@contextlib.contextmanager
def literals(forward: Any) -> Generator[None]:
    """While a forward runs: its floats are literals, and so are those of `math` and what that computes."""
    texts = _Texts()
    texts.visit(forward)
    for name, value in list(vars(math).items()):
        if not name.startswith("_"):
            new = _of_literals(name, value) if callable(value) else literal(value)
            texts.replace(math, name, value, new)
    try:
        for place in texts.places:
            place.put(place.new)
        yield
    finally:
        for place in reversed(texts.places):
            place.restore()


__all__ = ["Literal", "literal", "literals", "plain"]
