"""A layered layout: boxes in columns from left to right, arrows between neighbouring columns, few crossings.

Arrows over several columns pass through points of their own in the columns between (one per origin and column, so that
arrows with the same origin run together). Points are boxes of no size; from then on both are treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SWEEPS = 12
COLUMN_GAP, ROW_GAP = 48.0, 14.0


@dataclass(frozen=True)
class Layout:
    """Where everything is: (left, right, y) of the boxes and then the points, arrows between their positions, the size.

    A point is as wide as its column, so that what passes through does so level with it.
    """

    places: tuple[tuple[float, float, float], ...]
    edges: tuple[tuple[int, int], ...]
    width: float
    height: float


def layered(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> Layout:
    """Place boxes of the given (width, height), which are in an order in which every arrow points forward."""
    columns_of = _columns(len(sizes), edges)
    columns_of, edges = _with_points(columns_of, edges)
    extent = [*sizes, *[(0.0, 0.0)] * (len(columns_of) - len(sizes))]
    columns: list[list[int]] = [[] for _ in range(max(columns_of, default=0) + 1)]
    for k, column in enumerate(columns_of):
        columns[column].append(k)
    before, after = _neighbours(len(columns_of), edges)
    _uncross(columns, before, after)
    y = _rows(columns, [height for _, height in extent], before, after)
    sides: dict[int, tuple[float, float]] = {}
    left = 0.0
    for column in columns:
        width = max(extent[k][0] for k in column)
        for k in column:
            inset = (width - extent[k][0]) / 2 if k < len(sizes) else 0.0
            sides[k] = left + inset, left + width - inset
        left += width + COLUMN_GAP
    top = min(y[k] - h / 2 for k, (_, h) in enumerate(extent))
    bottom = max(y[k] + h / 2 for k, (_, h) in enumerate(extent))
    places = tuple((*sides[k], y[k] - top) for k in range(len(extent)))
    return Layout(places, tuple(edges), left - COLUMN_GAP, bottom - top)


def _columns(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """A column per box: right of all of its operands, and what has none just left of the first thing that reads it."""
    column = [0] * count
    by_target: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        by_target[b].append(a)
    for k in range(count):
        column[k] = max((column[a] + 1 for a in by_target[k]), default=0)
    first: dict[int, int] = {}
    for a, b in edges:
        first[a] = min(first.get(a, column[b]), column[b])
    return [first[k] - 1 if k in first and not by_target[k] else column[k] for k in range(count)]


def _with_points(column: list[int], edges: Sequence[tuple[int, int]]) -> tuple[list[int], list[tuple[int, int]]]:
    """Arrows cut into pieces from one column to the next."""
    column = list(column)
    points: dict[tuple[int, int], int] = {}
    pieces: dict[tuple[int, int], None] = {}
    for a, b in edges:
        here = a
        for c in range(column[a] + 1, column[b]):
            if (a, c) not in points:
                points[a, c] = len(column)
                column.append(c)
            pieces[here, points[a, c]] = None
            here = points[a, c]
        pieces[here, b] = None
    return column, list(pieces)


def _neighbours(count: int, edges: Sequence[tuple[int, int]]) -> tuple[list[list[int]], list[list[int]]]:
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        before[b].append(a)
        after[a].append(b)
    return before, after


def _uncross(columns: list[list[int]], before: list[list[int]], after: list[list[int]]) -> None:
    """Order every column by the mean position of its neighbours, sweeping to the right and back."""
    position = {k: float(p) for column in columns for p, k in enumerate(column)}

    def key(neighbours: list[list[int]]) -> Callable[[int], float]:
        return lambda k: _mean([position[n] for n in neighbours[k]], position[k])

    for sweep in range(SWEEPS):
        backwards = sweep % 2 == 1
        for column in reversed(columns) if backwards else columns:
            column.sort(key=key(after if backwards else before))
            position.update((k, float(p)) for p, k in enumerate(column))


def _rows(
    columns: list[list[int]], heights: list[float], before: list[list[int]], after: list[list[int]]
) -> dict[int, float]:
    """Vertical centres: as near to the mean of the neighbours as the order of the column allows."""
    y: dict[int, float] = {}
    for column in columns:
        y.update(zip(column, _spread([0.0] * len(column), [heights[k] for k in column]), strict=True))
    for sweep in range(SWEEPS):
        backwards = sweep % 2 == 0
        for column in reversed(columns) if backwards else columns:
            neighbours = after if backwards else before
            wanted = [_mean([y[n] for n in neighbours[k]], y[k]) for k in column]
            y.update(zip(column, _spread(wanted, [heights[k] for k in column]), strict=True))
    return y


def _spread(wanted: list[float], heights: list[float]) -> list[float]:
    """The centres nearest to the wanted ones (least squares) that keep the order and do not overlap.

    With the room that the boxes above need taken off, that is a regression by a nondecreasing sequence: neighbours that
    are in the wrong order are pooled at their mean.
    """
    offsets = [0.0]
    for upper, lower in pairwise(heights):
        offsets.append(offsets[-1] + (upper + lower) / 2 + ROW_GAP)
    pools: list[tuple[float, int]] = []
    for target, offset in zip(wanted, offsets, strict=False):
        mean, count = target - offset, 1
        while pools and pools[-1][0] > mean:
            other, n = pools.pop()
            mean, count = (other * n + mean * count) / (n + count), n + count
        pools.append((mean, count))
    means = [mean for mean, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=False)]


def _mean(numbers: list[float], otherwise: float) -> float:
    return sum(numbers) / len(numbers) if numbers else otherwise
