"""What torch does with shapes alone, for shapes of symbolic sizes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, cast

import torch

from engine.sizes import Sized, expression, number

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

_broadcast_shapes = cast("Callable[..., Sequence[int]]", vars(torch)["broadcast_shapes"])


def broadcast_shapes(*shapes: Any) -> Any:
    """`torch.broadcast_shapes`. Sizes that are equal at the example are equal for good, as where tensors are added."""
    given = [(s,) if isinstance(s, int) else tuple(s) for s in shapes]
    plain = _broadcast_shapes(*[tuple(number(n) for n in s) for s in given])
    if not any(isinstance(n, Sized) for s in given for n in s):
        return plain
    found: list[Any] = []
    for d, size in enumerate(plain):
        place = d - len(plain)
        alike = [s[place] for s in given if len(s) >= -place and number(s[place]) == size]
        symbolic = [n for n in alike if isinstance(n, Sized)]
        for n in alike if symbolic else ():
            symbolic[0].sizes.unify(symbolic[0].expr, expression(n))
        found.append(symbolic[0] if symbolic else size)
    return tuple(found)


@contextlib.contextmanager
def symbolic_shapes() -> Generator[None]:
    """While it lasts, torch's own functions of shapes keep sizes symbolic."""
    internals: Any = vars(torch)["_C"]
    places = ((torch, "broadcast_shapes"), (torch.functional, "broadcast_shapes"), (internals, "_infer_size"))
    saved = [(module, name, getattr(module, name)) for module, name in places]
    for module, name, _ in saved:
        setattr(module, name, broadcast_shapes)
    try:
        yield
    finally:
        for module, name, plain in saved:
            setattr(module, name, plain)
