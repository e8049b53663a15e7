# pyright: basic
"""Functions of a tensor that lines of a forward take several times: each is computed once.

A root serves where something is divided by it, too, and the softplus of what is negative is the logarithm of a sigmoid.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.closed.regions.cells import Cell
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Index, Sigma, fresh, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

RULE = "a function that several tensors are made of is computed once"
FUNCTIONS = (sp.log, sp.tanh)
"""What is taken once of a tensor, beside its roots. Exponentials are not: they are parts of kernels that do not overflow."""
HALF = sp.S.Half

Line = tuple[Cell, Expr]


@dataclass
class Taken:
    """One function of one tensor: how often it is read, whether as it is and not only as what something is divided by, and where."""

    count: int = 0
    plain: bool = False
    whole: Line | None = None
    held: tuple[Cell, Any] | None = None
    """The line that is the function, once it is there, and the tensor's element that it reads."""
    names: set[str] = field(default_factory=set[str])


def with_shared_functions(lines: list[Line]) -> list[Line]:
    """Every function of a tensor that is taken several times as a line of its own, before the first line that takes it."""
    taken: dict[Any, Taken] = {}
    for c, e in lines:
        for f in functions_of(e):
            known = taken.setdefault(key_of(f), Taken())
            known.count += 1
            known.plain = known.plain or not is_divisor(f)  # a logarithm and a tanh always are
            known.names.add(c.name)
            if f == e and (known.whole is None or is_divisor(known.whole[1])) and is_open(c, f):
                known.whole = c, e
    names = {c.name for c, _ in lines}
    out: list[Line] = []
    for c, e in lines:
        if any(c is d for d, _ in out):
            continue
        change: dict[Any, Expr] = {}
        for f in functions_of(e):
            known = taken[key_of(f)]
            if known.count < 2 or (known.whole is not None and known.whole[0] is c) or not is_readable(f):
                continue
            if known.whole is None and not known.plain:  # what is divided by a root alone stays a quotient
                continue
            if known.held is None:
                line = known.whole or of_its_own(f, c, e, names)
                known.held = line[0], argument(functions_of(line[1])[0])
                if not any(line[0] is d for d, _ in out):
                    out.append(line)
            new = read_from(f, known)
            change.update({} if new is None else {f: new})
        out.append((c, e.xreplace(change) if change else e))
    return out


def functions_of(e: Expr) -> list[Any]:
    """The logarithms, tanh and roots of tensors in an expression, what is divided by roots, and softplus of minus a tensor."""
    found = (x for x in cast("Iterator[Any]", sp.preorder_traversal(e)) if isinstance(x, FUNCTIONS) or is_root(x))
    return list(dict.fromkeys(f for f in found if isinstance(argument(f), Indexed)))


def is_root(e: Any) -> bool:
    """Whether an expression is a square root or one over it."""
    return isinstance(e, sp.Pow) and not isinstance(e, sp.exp) and e.exp in (HALF, -HALF)


def is_divisor(f: Any) -> bool:
    """Whether a function is one over a root."""
    return isinstance(f, sp.Pow) and f.exp == -HALF


def is_softplus(f: Any) -> bool:
    """Whether a function is `log(1 + exp(-x))` of an element."""
    e = f.args[0] - 1
    return isinstance(f, sp.log) and isinstance(e, sp.exp) and isinstance(-e.args[0], Indexed)


def argument(f: Any) -> Any:
    """What a function is of."""
    return -(f.args[0] - 1).args[0] if is_softplus(f) else f.args[0]


def key_of(f: Any) -> Any:
    """A function of a tensor whatever its indices are called; roots and what is divided by them are one."""
    a = argument(f)
    own = dict.fromkeys(i for i in a.indices if isinstance(i, Index))
    kind = "root" if is_root(f) else "softplus" if is_softplus(f) else f.func.__name__
    return kind, a.xreplace({i: Index(f"_own{k}") for k, i in enumerate(own)})


def is_readable(f: Any) -> bool:
    """Whether a function's tensor is read at plain indices."""
    return all(isinstance(i, Index) for i in argument(f).indices if i != 0)


def is_open(c: Cell, f: Any) -> bool:
    """Whether a line that is a function has the indices of what that reads, all different, and no more."""
    own = [i for i in argument(f).indices if i != 0]
    return is_readable(f) and len({*own}) == len(own) and {i for i in c.indices if i != 0} == {*own}


def of_its_own(f: Any, c: Cell, e: Expr, names: set[str]) -> Line:
    """A line for a function that a line takes, called after what it is of."""
    a = argument(f)
    label = "sqrt" if is_root(f) else "log_sigmoid" if is_softplus(f) else f.func.__name__
    name = free_name(f"{name_of(a)}_{label}", names)
    names.add(name)
    sizes: dict[Any, Expr] = {**c.ranges, **{i: n for s in e.atoms(Sigma) for i, n in s.limits}}
    copy = {i: fresh() for i in a.indices if i != 0}
    whole = sp.sqrt(a) if is_root(f) else -f if is_softplus(f) else f
    expr = cast("Expr", whole.xreplace(copy))
    different = [i for k, i in enumerate(a.indices) if i == 0 or i not in a.indices[:k]]
    shape = tuple(sizes.get(i, sp.S.One) for i in different)
    own = cast("tuple[Expr, ...]", tuple(copy.get(i, i) for i in different))
    return Cell(name, own, shape, expr, "float", c.differentiable, c.dtype), expr


def read_from(f: Any, known: Taken) -> Expr | None:
    """A function as an element of the line that holds it, or as one over that; None where it is a root and that is one over it."""
    cell, own = cast("tuple[Cell, Any]", known.held)
    there = dict(zip(own.indices, argument(f).indices, strict=True))
    element = cell.element([there.get(i, i) for i in cell.indices])
    if is_softplus(f):
        return element if known.whole is not None else cast("Expr", -element)
    divided = known.whole is not None and is_divisor(known.whole[1])
    if is_divisor(f) == divided:
        return element
    return cast("Expr", 1 / element) if is_divisor(f) else None


__all__ = ["RULE", "with_shared_functions"]
