"""Tensors and their elements as sympy knows them, made quickly.

A derivation makes tens of thousands of accesses. sympy's `Indexed` and `IndexedBase` deduce what is known of each from its
base anew, and sort it for every hash; here an access takes over what its tensor's symbol already says. The names are sympy's:
its ordering of terms and its printers go by them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import sympy as sp
from sympy import Expr, Symbol
from sympy.core.assumptions import StdFactKB  # pyright: ignore[reportMissingTypeStubs]


class Indexed(sp.Indexed):
    """One element of a tensor: `x[i,j]`."""

    def __new__(cls, base: Any, *indices: Any) -> Any:
        return _indexed(cls, base, *indices)

    def _hashable_content(self) -> tuple[Any, ...]:
        return self.args  # the base's symbol says the rest


class IndexedBase(sp.IndexedBase):
    """A tensor by name. What its symbol is known to be (real, positive, integer), all elements are."""

    def __new__(cls, label: Symbol) -> Any:
        return _indexed_base(cls, label)

    def _hashable_content(self) -> tuple[Any, ...]:
        return self.args

    def __getitem__(self, indices: Any, **options: Any) -> Any:
        return Indexed(self, *indices) if isinstance(indices, (tuple, sp.Tuple)) else Indexed(self, indices)


@lru_cache(maxsize=2**15)
def _indexed(cls: Any, base: Any, *indices: Any) -> Any:
    made: Any = Expr.__new__(cls, base, *map(sp.sympify, indices))
    return _known_as(made, base)


@lru_cache(maxsize=2**12)
def _indexed_base(cls: Any, label: Symbol) -> Any:
    made: Any = Expr.__new__(cls, label)
    made._shape, made._offset, made._strides, made._name = None, sp.S.Zero, None, str(label)
    return _known_as(made, label)


def _known_as(made: Any, other: Any) -> Any:
    """`made` with everything that is known of `other`."""
    made._assumptions = known = cast("Any", StdFactKB())
    known.update(other._assumptions)
    known._generator = other._assumptions._generator
    return made
