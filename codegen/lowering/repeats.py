"""Parts of a torch expression that stand in it more than once: each is computed once, under a name that says what it is."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, cast

from codegen.lowering import tensors as tt
from codegen.lowering.tensors import T
from engine.naming import Namer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SHORTEST = 10
"""Characters of the text of a part that is worth a name."""
VIEWS = ("unsqueeze", "squeeze", "view", "transpose", "permute", "expand", "expand_as", "t", "to", "item")
"""Methods that compute nothing."""
SMALL = 0.1
"""What is added to a variance is smaller."""


class Repeats:
    """Names of parts, over the statements of a program: what has a name keeps it.

    Attributes:
        namer: gives names that are not taken.
        known: what has a name, in the order in which it is computed.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self.namer = Namer(taken)
        self.known: dict[T, T] = {}

    def named(self, t: T, owner: str) -> tuple[list[tuple[str, T]], T]:
        """New names with what they stand for, in the order in which they are computed, and an expression in terms of all names.

        Args:
            t: the expression.
            owner: the name of its value.
        """
        marked, t = apart(replaced(t, self.known))
        new: list[tuple[str, T]] = []
        names: dict[T, T] = {}
        for mark, part in marked:
            whole = replaced(part, names)
            name = self.namer(called(whole, owner))
            names[tt.name(mark)] = self.known[whole] = tt.name(name)
            new.append((name, whole))
        return new, replaced(t, names)


def apart(t: T) -> tuple[list[tuple[str, T]], T]:
    """What stands more than once in an expression, under marks, in the order in which it is computed, and what is left."""
    parts: dict[str, T] = {}
    while True:
        counts = Counter(x for e in (t, *parts.values()) for x in tt.walk(e) if worth(x))
        again = [x for x, n in counts.items() if n > 1]
        if not again:
            return ordered(parts), t
        part = max(again, key=lambda x: len(tt.text(x)))
        mark = f"part {len(parts)}"
        table = {part: tt.name(mark)}
        t = replaced(t, table)
        parts = {n: replaced(p, table) for n, p in parts.items()}
        parts[mark] = part


def worth(x: T) -> bool:
    """Whether a part deserves a name: it computes something of a tensor, and is not short."""
    if x.kind not in ("binary", "call", "method") or (x.kind == "method" and x.head in VIEWS):
        return False
    return len(tt.text(x)) >= SHORTEST and any(y.kind == "name" for y in tt.walk(x))


def called(x: T, owner: str) -> str:
    """`x_mean`, `x_centred` for x less that, `x_var` for the mean of its square, `x_var_eps` with a small number, else a part of the owner."""
    return described(x) or f"{owner}_part"


def described(x: T) -> str:
    """What an expression is, in words; "" where there are none."""
    if x.kind == "name":
        return x.head
    first = described(x.args[0]) if x.args and isinstance(x.args[0], T) else ""
    if not first:
        return ""
    if x.kind == "method" and x.head == "mean":
        squared = first.removesuffix("_squared")
        return (
            f"{squared.removesuffix('_centred')}_var"
            if squared.endswith("_centred") and squared != first
            else f"{first}_mean"
        )
    if x.kind == "method" and x.head in ("sum", "sqrt", "rsqrt", "exp", "log"):
        return f"{first}_{x.head}"
    if x.kind != "binary" or not isinstance(x.args[1], T):
        return ""
    second = x.args[1]
    if x.head == "-" and described(second) == f"{first}_mean":
        return f"{first}_centred"
    if x.head == "**" and second.head == "2":
        return f"{first}_squared"
    if x.head == "+" and second.kind == "number" and 0 < abs(float(second.head)) < SMALL:
        return f"{first}_eps"
    return f"{first}_times_{second.head}" if x.head == "*" and second.kind == "name" else ""


def replaced(t: Any, table: Mapping[T, T]) -> Any:
    """An expression with parts of it replaced, and then what has become one of them by that."""
    if isinstance(t, tuple):
        return tuple(replaced(a, table) for a in cast("tuple[Any, ...]", t))
    if not isinstance(t, T) or not table:
        return t
    if t in table:
        return table[t]
    if not t.args and not t.keywords:
        return t
    args = tuple(replaced(a, table) for a in t.args)
    new = T(t.kind, t.head, args, tuple((k, replaced(v, table)) for k, v in t.keywords))
    return table.get(new, new)


def ordered(parts: dict[str, T]) -> list[tuple[str, T]]:
    """Every part after those that it reads."""
    out: dict[str, T] = {}

    def put(name: str) -> None:
        for x in tt.walk(parts[name]):
            if x.kind == "name" and x.head in parts and x.head not in out:
                put(x.head)
        out.setdefault(name, parts[name])

    for name in parts:
        put(name)
    return [*out.items()]
