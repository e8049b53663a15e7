"""Values put or added into places of a tensor: where slices fill a dimension, where places are apart, and the statements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sympy import Integer, S

from codegen.lowering import tensors as tt
from codegen.lowering.values import is_scalar
from codegen.steps import starts_negative, without_minus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codegen.lowering.lower import Scatter
    from codegen.lowering.tensors import T

ZERO = S.Zero


def concatenated(scatters: list[Scatter]) -> T | None:
    """Slices that fill a dimension one after the other as `torch.cat`; None where they do anything else."""
    parts: dict[Any, tuple[Any, T]] = {}
    dims: set[int] = set()
    for s in scatters:
        cut = [d for d, i in enumerate(s.items) if i != tt.EVERYTHING]
        if not s.covers or len(cut) != 1 or s.items[cut[0]].kind != "slice":
            return None
        start, stop, step = s.items[cut[0]].args
        if step is not None or start in parts:
            return None
        dims.add(cut[0])
        parts[start] = (stop, s.value)
    at: Any = None
    values: list[T] = []
    while at in parts and len(values) < len(parts):
        at, value = parts[at]
        values.append(value)
    if len(dims) != 1 or at is not None or len(values) != len(parts) or len(values) < 2:
        return None
    return tt.call("torch.cat", tuple(values), dims.pop())


def disjoint(places: list[tuple[Any, ...]]) -> bool:
    """Whether no two of several places have an element in common: they differ in one dimension's runs, of equal steps."""
    runs: list[tuple[Any, Any, Any]] = []
    dims: set[int] = set()
    for items in places:
        cut = [d for d, i in enumerate(items) if i != tt.EVERYTHING]
        if len(cut) != 1 or not (is_scalar(items[cut[0]]) or items[cut[0]].kind == "slice"):
            return False
        dims.add(cut[0])
        at = items[cut[0]]
        first, last, step = at.args if at.kind == "slice" else (at.args[0] if at.kind == "size" else None, None, None)
        if at.kind != "slice":
            first = Integer(int(at.head)) if at.kind == "number" else first
            last = None if first is None else first + 1
        runs.append((ZERO if first is None else first, last, step or 1))
    return len(dims) == 1 and all(apart(a, b) for k, a in enumerate(runs) for b in runs[:k])


def apart(one: tuple[Any, Any, Any], other: tuple[Any, Any, Any]) -> bool:
    """Whether two runs (start, stop, step) have no place in common: one ends before the other, or they alternate."""
    (a, end, step), (b, stop, pace) = one, other
    if step == pace and step != 1 and (a - b).is_Integer:
        return (a - b) % step != 0
    return any(
        x is not None and x.is_nonnegative is not False and (y - x).is_nonnegative for x, y in ((end, b), (stop, a))
    )


def put(target: str, s: Scatter, alone: bool) -> str:
    """One statement that puts values into places of `target`, where they are `alone`, or adds them to what is there.

    A number is added with `+=`, as people write it; several values with `index_put_`, which does not read the places first.
    """
    inside = ", ".join(tt.argument(i) for i in s.items)
    if s.diagonal and s.fills:
        plain = s.diagonal == (0, 1)
        return (
            f"{target}.fill_diagonal_({tt.text(s.value)})"
            if plain
            else f"{on_diagonal(target, s)}.fill_({tt.text(s.value)})"
        )
    if s.fills:
        return f"{target}[{inside or '...'}] = {tt.text(s.value)}"
    if s.diagonal:
        minus = starts_negative(s.value)
        value = tt.text(without_minus(s.value) if minus else s.value)
        return f"{on_diagonal(target, s)}.{'sub_' if minus else 'add_'}({value})"
    if s.accumulate:
        return accumulated(target, s.items, s.value)
    if alone:
        return f"{target}[{inside or '...'}] = {tt.text(s.value)}"
    if s.several:
        return accumulated(target, s.items, s.value)
    minus = starts_negative(s.value)
    value = tt.text(without_minus(s.value) if minus else s.value)
    if all(is_scalar(i) or i.kind == "slice" for i in s.items):  # a view: `+=` would copy it onto itself
        return f"{target}[{inside or '...'}].{'sub_' if minus else 'add_'}({value})"
    return f"{target}[{inside or '...'}] {'-' if minus else '+'}= {value}"


def on_diagonal(target: str, s: Scatter) -> str:
    """The diagonal of a tensor that values are put on, as a view."""
    return f"{target}.diagonal({'' if s.diagonal == (0, 1) else ', '.join(map(str, (0, *s.diagonal)))})"


def begun(t: T, scatters: list[Scatter]) -> tuple[T, list[Scatter]]:
    """What a tensor is before values are put into it, and which: where it is a copy, the first are added as it is made."""
    first = scatters[0] if scatters else None
    if first is None or t.kind != "method" or t.head != "clone" or not (first.several or first.accumulate):
        return t, scatters
    if is_scalar(first.value) or any(is_scalar(i) for i in first.items):
        return t, scatters
    return tt.method(t.args[0], "index_put", first.items, first.value, accumulate="True"), scatters[1:]


def put_into(terms: Sequence[tuple[T, bool]]) -> list[T]:
    """Terms, and whether each has the whole shape, of which one that puts values into zeros puts them into another one instead."""
    whole = [t for t, full in terms if full]
    into = next((t for t in whole if tt.puts_into_zeros(t)), None)
    other = next((t for t in whole if t is not into and not starts_negative(t)), None)
    if into is None or other is None:
        return [t for t, _ in terms]
    made = tt.method(other, "scatter_add", *into.args[1:])
    return [made if t is other else t for t, _ in terms if t is not into]


def accumulated(target: str, items: tuple[Any, ...], value: T) -> str:
    """Values added where integer tensors say; what is fixed by a number is selected first, `index_put_` takes tensors only."""
    fixed = [is_scalar(i) for i in items]
    while fixed and not fixed[-1]:
        fixed.pop()
    selected = ", ".join(tt.argument(i) if f else ":" for i, f in zip(items, fixed, strict=False))
    tensors = [tt.argument(i) for i in items if not is_scalar(i)]
    where = f"({', '.join(tensors)}{',' if len(tensors) == 1 else ''})"
    return f"{target}{f'[{selected}]' if selected else ''}.index_put_({where}, {tt.text(value)}, accumulate=True)"


__all__ = ["begun", "concatenated", "disjoint", "put", "put_into"]
