"""How the loop keeps a parameter where it is not kept as it is: with spare places, doubled, its rows in another order.

A tensor of the loop may hold several parameters. What is kept moves as the parameters would: a part that holds `factor`
times its parameter takes steps along `factor` times the gradient, and a velocity is kept in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Place = tuple[int, int] | int
"""Along a dimension: the first place and the one behind the last, or a single place."""


@dataclass(frozen=True)
class Part:
    """A parameter inside of a kept tensor: seen with sizes `split`, its dimensions in `order`, times `factor`.

    `at` says where that is; `shape` is the parameter's own. Without `split` it is seen as it is.
    """

    name: str
    shape: tuple[int, ...]
    at: tuple[Place, ...]
    split: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    factor: float = 1.0

    @property
    def seen(self) -> tuple[int, ...]:
        """The sizes with which the parameter is seen."""
        return self.split or self.shape

    def within(self, whole: Tensor) -> Tensor:
        """The places of a kept tensor that hold the parameter, with the sizes and in the order that it is seen with."""
        part = whole[tuple(p if isinstance(p, int) else slice(*p) for p in self.at)]
        if self.order:
            part = (part.view([self.seen[d] for d in self.order]) if self.split else part).permute(self.inverse)
        return part

    @property
    def inverse(self) -> list[int]:
        """The order that takes the kept dimensions back."""
        return [self.order.index(d) for d in range(len(self.order))]

    def text(self, whole: str, shape: Sequence[int]) -> str:
        """`within` as an expression for a kept tensor of this shape."""
        places = [
            str(p) if isinstance(p, int) else ":" if p == (0, size) else f"{p[0] or ''}:{p[1]}"
            for p, size in zip(self.at, shape, strict=True)
        ]
        while places and places[-1] == ":":
            places.pop()
        out = f"{whole}[{', '.join(places)}]" if places else whole
        if self.order:
            sizes, back = [self.seen[d] for d in self.order], self.inverse
            out += f".view({', '.join(map(str, sizes))})" if self.split else ""
            out += ".t()" if back == [1, 0] else f".permute({', '.join(map(str, back))})"
        return out


@dataclass(frozen=True)
class Kept:
    """A tensor of the loop that holds parameters: their parts of it, and what is in all other places.

    `fill` is in every place that no part and no row of `rows` covers.
    """

    parts: tuple[Part, ...]
    fill: float = 0.0
    rows: tuple[tuple[int, float], ...] = ()

    def filled(self, shape: Sequence[int], dtype: torch.dtype, values: Mapping[str, Tensor], still: bool) -> Tensor:
        """The tensor for these values of the parameters. `still`: of velocities, where spare places hold zeros."""
        out = torch.full(tuple(shape), 0.0 if still else self.fill, dtype=dtype)
        for row, value in () if still else self.rows:
            out[row] = value
        for p in self.parts:
            p.within(out).copy_(values[p.name].reshape(p.seen) * p.factor)
        return out

    def taken(self, whole: Tensor) -> dict[str, Tensor]:
        """The values of the parameters."""
        return {p.name: (p.within(whole) / p.factor).reshape(p.shape) for p in self.parts}

    def changed(self, change: Callable[[Part], Part]) -> Kept:
        """With other parts."""
        return replace(self, parts=tuple(map(change, self.parts)))


def as_it_is(name: str, shape: tuple[int, ...]) -> Kept:
    """A parameter in a tensor of its own shape."""
    return Kept((Part(name, shape, tuple((0, s) for s in shape)),))


def described(kept: Kept, name: str, shape: tuple[int, ...]) -> list[str]:
    """For the emitted file: what each part is, and where."""
    lines: list[str] = []
    for p in kept.parts:
        seen = f"{p.name} {p.shape}" + (f" seen as {p.split}" if p.split else "")
        turned = f", its dimensions in the order {p.order}" if p.order else ""
        times = f", times {p.factor:g}" if p.factor != 1 else ""
        into = "" if shape == p.shape and len(kept.parts) == 1 else f", in {p.text(name, shape)} of {shape}"
        lines.append(f"{seen}{turned}{times}{into}")
    return lines


class Unpacked:
    """The statements for one kept tensor of parameters, or of their velocities."""

    def __init__(self, kept: Kept, variable: str, source: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.kept, self.variable, self.source, self.shape, self.dtype = kept, variable, source, shape, dtype
        self.still = source == "velocities"

    def setup(self) -> list[str]:
        """It is made, and its parts get names."""
        if all(self.alone(p) for p in self.kept.parts):
            return [f"{self.variable} = torch.empty({self.shape}, dtype={self.dtype})"]
        fill = 0.0 if self.still else self.kept.fill
        made = f"torch.zeros({self.shape}" if fill == 0 else f"torch.full({self.shape}, {fill!r}"
        rows = [] if self.still else [f"{self.variable}[{row}] = {value!r}" for row, value in self.kept.rows]
        parts = [f"{self.own(p)} = {p.text(self.variable, self.shape)}" for p in self.kept.parts]
        return [f"{self.variable} = {made}, dtype={self.dtype})", *rows, *parts]

    def own(self, p: Part) -> str:
        """The variable of a part."""
        if self.alone(p):
            return self.variable
        return f"{p.name}_velocity_own" if self.still else f"{p.name}_own"

    def alone(self, p: Part) -> bool:
        """Whether a part is all of the tensor."""
        return self.shape == p.shape and not p.order and len(self.kept.parts) == 1

    def begin(self) -> list[str]:
        """The parameters are copied into it."""
        return [
            f"{self.own(p)}.copy_({self.given(p)}"
            + (f".reshape({', '.join(map(str, p.split))})" if p.split else "")
            + (f" * {p.factor:g})" if p.factor != 1 else ")")
            for p in self.kept.parts
        ]

    def finish(self) -> list[str]:
        """And back."""
        return [
            f"{self.given(p)}.copy_({self.own(p)}"
            + (f".reshape({', '.join(map(str, p.shape))})" if p.split else "")
            + (f" / {p.factor:g})" if p.factor != 1 else ")")
            for p in self.kept.parts
        ]

    def given(self, p: Part) -> str:
        """What it is copied from."""
        return f'{self.source}["{p.name}"]'


__all__ = ["Kept", "Part", "Unpacked", "as_it_is", "described"]
