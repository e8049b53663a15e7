"""Public names that are imported when they are first used: `codegen --help` does not wait for torch."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from engine.collection import few_collections

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Package(ModuleType):
    """A package whose public names hide its modules of the same name: `engine.trace` is the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in self.__all__):
            super().__setattr__(name, value)


def lazy(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose public names live in the modules `homes` says."""
    module = sys.modules[package]
    module.__class__ = Package

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with few_collections():
            value = getattr(importlib.import_module(homes[name]), name)
        vars(module)[name] = value
        return value

    return find
