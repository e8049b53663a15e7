"""One entry of the table: a forward from naive primitives, its inputs, and the best forward and backward derived by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable


class Draw:
    """Example tensors from one generator, in the order in which they are asked for."""

    def __init__(self, seed: int, dtype: torch.dtype = torch.float64) -> None:
        self.generator, self.dtype = torch.Generator().manual_seed(seed), dtype

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.generator, dtype=self.dtype)

    def positive(self, *shape: int) -> Tensor:
        """Numbers between 1/2 and 3/2."""
        return torch.rand(shape, generator=self.generator, dtype=self.dtype) + 0.5

    def unit(self, *shape: int) -> Tensor:
        """Numbers between 0 and 1."""
        return torch.rand(shape, generator=self.generator, dtype=self.dtype)

    def classes(self, count: int, *shape: int) -> Tensor:
        """Integers below `count`."""
        return torch.randint(0, count, shape, generator=self.generator)

    def signs(self, *shape: int) -> Tensor:
        """-1 and 1, as floats."""
        return torch.randint(0, 2, shape, generator=self.generator).to(self.dtype) * 2 - 1


@dataclass(frozen=True)
class Form:
    """`forward(*inputs(draw, n))`, differentiated.

    Attributes:
        forward: as somebody would write it who does not think of gradients.
        inputs: draws the forward's arguments for a batch of n.
        hand: (inputs, grad_out) -> (out, gradients of `wrt` in order), the published version; None if it is not counted.
        wrt: the parameters whose gradients the hand-derived version gives; all floating-point ones where it is empty.
        batches: the batch sizes for which the forward makes sense.
        large: the batch size at which operations are counted.
        twice: whether second derivatives are checked (a kink or a max makes no sense of finite differences).
        straight: whether gradients pass what is rounded or picked as if it were not, which differences do not show.
        exact_zero: names of inputs whose gradient is exactly zero.
        ratio: what is allowed beyond 1.25 times the elements of the hand-derived version.
        extreme: whether the result and gradients stay finite with the first input multiplied by 1e4.
        refusal: why the closed form of its region is refused, where torch has a convention that it does not keep.
    """

    name: str
    forward: Callable[..., Any]
    inputs: Callable[[Draw, int], list[Tensor]]
    hand: Callable[..., tuple[Any, tuple[Tensor, ...]]] | None = None
    wrt: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1, 5)
    large: int = 64
    twice: bool = True
    straight: bool = False
    exact_zero: tuple[str, ...] = ()
    ratio: float = 1.25
    extreme: bool = False
    refusal: str = ""
