# pyright: basic
"""Images as rows: what has its channels in the second dimension is computed with a row for each pixel and a column for each channel.

Convolutions and pooling read such a matrix as an image with its channels last in memory, which is how their kernels
compute: nothing is turned before and after each. Everything between two of them is computed of matrices, where a number
of each channel is a column's, a sum of each channel is a column sum, and what holds for matrices holds.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch

from codegen.loop.calls import COMPARISONS
from codegen.loop.cost import price
from codegen.loop.graph import (
    Node,
    Sized,
    call,
    called,
    contiguous,
    copied,
    equal,
    lies_in_rows,
    mapped,
    packet,
    sizes_of,
)
from codegen.loop.views import RESHAPES, permutation
from codegen.loop.windows import DEFAULTS, pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from codegen.loop.graph import Step


def in_pixels(step: Step) -> Step:
    """The step with images as rows from its first convolution on, or as it is where that costs no less."""
    if not any(n.op == "convolution" and fast(n) for n in step.order):
        return step
    made, _ = copied(step)
    pixels = Pixels()
    for n in list(made.order):
        pixels.visit(n)
    made.results = {k: pixels.whole(n) for k, n in made.results.items()}
    made.order, made.readers = pixels.order, None
    made.sort()
    return made if price(made) < price(step) else step


def fast(n: Node) -> bool:
    """Whether a convolution of images in rows is as fast as of others: always in float32, else along a single dimension."""
    x, transposed = n.args[0], n.args[6 if n.op == "convolution" else 7]
    return not transposed and (len(x.shape) == 3 or (len(x.shape) == 4 and x.dtype == torch.float32))


WINDOWS: tuple[Any, ...] = (None, [], 0, 1, False)
"""What max_pool2d takes where it is given less, behind the image."""


class Pixels:
    """The rewritten calls so far; `rows` has the matrix of a value (images, channels, places along one or more dimensions)."""

    def __init__(self) -> None:
        self.order: list[Node] = []
        self.placed: set[Node] = set()
        self.rows: dict[Node, Node] = {}
        self.instead: dict[Node, Node] = {}
        self.images: dict[Any, Node] = {}
        self.calls: dict[Node, Node] = {}
        self.pools: dict[Node, Node] = {}

    def visit(self, n: Node) -> None:
        """Rewrite one call."""
        if n.constant is not None or n.write or n.op == "input":
            self.keep(n)
            return
        if n.dtype is None:
            whole = attempted(self.several, n)
            if whole is None:
                self.keep(n)
            else:
                self.calls[n] = self.add(whole)
            return
        if n.op == "part":
            spread = self.spread(n)
            if spread is not None:
                self.rows[n] = self.add(self.taken(self.add(spread), n))
                self.rows[n].name = n.name
            elif n.args[0] in self.calls:
                self.part(n, self.calls[n.args[0]])
            else:
                self.keep(n)
            return
        made = attempted(self.one, n)
        if made is None:
            self.keep(n)
            return
        matrix, node = made
        right = turned_back(node.value, n.value) if matrix else node.value
        if right.shape != n.value.shape or not equal(right, n.value):
            self.keep(n)
            return
        node.name = node.name or n.name
        self.add(node)
        if matrix:
            self.rows[n] = node
        else:
            self.instead[n] = node

    def add(self, n: Node) -> Node:
        """Put a call at the end of the order, once."""
        if n not in self.placed:
            self.placed.add(n)
            self.order.append(n)
        return n

    def keep(self, n: Node) -> None:
        """A call as it is, of what its operands are as they were."""
        n.args = mapped(n.args, self.whole)
        n.kwargs = {k: mapped(v, self.whole) for k, v in n.kwargs.items()}
        self.add(n)

    def whole(self, n: Any) -> Any:
        """A value as it was."""
        if not isinstance(n, Node):
            return n
        if n not in self.instead and n in self.rows and n not in self.placed and prod(n.shape[2:]) == 1:
            self.instead[n] = self.add(call("view", self.rows[n], sizes_of(n), shape=n.shape, dtype=n.dtype))
        if n not in self.instead and n in self.rows and n not in self.placed:
            seen = self.image(n, n.shape[2:], n.value.shape[2:])
            self.instead[n] = self.copy(seen)
        return self.instead.get(n, n)

    def copy(self, n: Node) -> Node:
        """A value in memory of its own, row by row."""
        return self.add(call("clone", n, shape=n.shape, dtype=n.dtype, memory_format=torch.contiguous_format))

    def matrix(self, n: Node) -> Node:
        """The matrix of a value: the one there is, or a view, or a copy."""
        if n not in self.rows:
            given = self.whole(n)
            channels, places = n.shape[1], prod(n.shape[2:])
            order = [0, *range(2, len(n.shape)), 1]
            if channels == 1 or places == 1:
                given = given if lies_in_rows(given) else self.copy(given)
                made = call("view", given, self.sizes(n), shape=self.shape(n), dtype=n.dtype)
            else:
                turned = call("permute", given, order, shape=tuple(n.shape[k] for k in order), dtype=n.dtype)
                copy = self.copy(self.add(turned))
                copy.name = f"{called(given)}_pixels" if called(given) else ""
                made = call("view", copy, self.sizes(n), shape=self.shape(n), dtype=n.dtype)
            self.rows[n] = self.add(made)
        return self.rows[n]

    def seen(self, n: Node) -> None:
        """Note a value that is what lies in rows, turned."""
        base = self.whole(n.args[0])
        if permutation(n) == [0, len(n.shape) - 1, *range(1, len(n.shape) - 1)] and lies_in_rows(base):
            self.rows[n] = self.add(call("view", base, self.sizes(n), shape=self.shape(n), dtype=n.dtype))

    def image(self, n: Node, places: tuple[int, ...], few: tuple[int, ...]) -> Node:
        """A value's matrix as an image (images, channels, rows, columns) or whatever places there are."""
        matrix = self.matrix(n)
        key = matrix, places
        if key not in self.images:
            first = sizes_of(n)[0]
            last = len(places) + 1
            sizes = [first, *(a if a == b else Sized(a, b) for a, b in zip(places, few, strict=True)), n.shape[1]]
            seen = call("view", matrix, sizes, shape=(n.shape[0], *places, n.shape[1]), dtype=n.dtype)
            order = [0, last, *range(1, last)]
            self.add(seen)
            self.images[key] = self.add(call("permute", seen, order, shape=(*n.shape[:2], *places), dtype=n.dtype))
        return self.images[key]

    def plane(self, n: Node) -> Node:
        """A value as an image in two dimensions."""
        one = () if len(n.shape) == 4 else (1,)
        return self.image(n, (*one, *n.shape[2:]), (*one, *n.value.shape[2:]))

    def shape(self, n: Node) -> tuple[int, int]:
        """The shape of a value's matrix."""
        return n.shape[0] * prod(n.shape[2:]), n.shape[1]

    def sizes(self, n: Node) -> list[Any]:
        """The same, at the loop's sizes and at the small point."""
        rows, few = self.shape(n)[0], n.value.shape[0] * prod(n.value.shape[2:])
        return [rows if rows == few else Sized(rows, few), n.shape[1]]

    def taken(self, image: Node, n: Node) -> Node:
        """The matrix of `n`, an image that a call made: as it lies in memory, if its channels lie last there."""
        image.name = f"{n.name}_image" if n.name else ""
        shape, few = image.shape, image.value.shape
        turned = call("permute", image, [0, 2, 3, 1], shape=(shape[0], *shape[2:], shape[1]), dtype=image.dtype)
        self.add(turned)
        rows, count = shape[0] * prod(shape[2:]), few[0] * prod(few[2:])
        sizes = [rows if rows == count else Sized(rows, count), shape[1]]
        matrix = call("reshape", turned, sizes, shape=(rows, shape[1]), dtype=image.dtype)
        self.images[matrix, shape[2:]] = image
        return matrix

    def is_image(self, a: Any, shape: tuple[int, ...] | None = None) -> bool:
        """Whether a value has a matrix, or is to have the shape of one that does."""
        return isinstance(a, Node) and a in self.rows and (shape is None or a.shape == shape)

    # -- calls -----------------------------------------------------------------------------------------------------

    def one(self, n: Node) -> tuple[bool, Node] | None:
        """What a call becomes: (whether that is the matrix of its value, call)."""
        if n.op == "convolution":
            return (True, self.convolved(n)) if fast(n) else None
        if n.op == "scatter_add":
            made = self.unpooled(n)
            return None if made is None else (True, made)
        x: Any = n.args[0] if n.args else None
        if n.op == "permute" and len(n.shape) > 2 and n.dtype.is_floating_point:
            self.seen(n)
        if n.op in RESHAPES and self.is_image(x):
            return self.reshaped(n, x)
        if n.op in ("sum", "mean") and self.is_image(x) and not n.kwargs:
            return self.reduced(n, x)
        if n.op == "avg_pool2d" and self.is_image(x):
            image = call(n.op, self.plane(x), *n.args[1:], shape=n.shape, dtype=n.dtype)
            return True, self.taken(self.add(image), n)
        if pointwise(n) and len(n.shape) > 2 and any(r in self.rows and like(r, n) for r in n.reads):
            return self.elementwise(n)
        return None

    def several(self, n: Node) -> Node | None:
        """A call of several results, of images."""
        if n.op == "max_pool2d_with_indices" and self.is_image(n.args[0]) and len(n.args[0].shape) == 4:
            return call(n.op, self.plane(n.args[0]), *n.args[1:], shape=(), dtype=None, **n.kwargs)
        if n.op != "convolution_backward" or not fast(n):
            return None
        g, x, w, bias, *rest = n.args
        if w.constant is not None or x.constant is not None:
            return None
        inner = self.plane(x) if x in self.rows or x.op != "expand" else self.wide(x)
        return call(
            n.op,
            self.plane(g),
            inner,
            self.wide(w),
            bias,
            *in_planes(x, rest),
            shape=(),
            dtype=None,
            overload=n.overload,
        )

    def part(self, n: Node, whole: Node) -> None:
        """A result of such a call."""
        k = n.args[1]
        value = whole.value[k]
        weight = whole.op == "convolution_backward" and k > 0
        one = () if len(n.shape) in (1, 4) else (1,)
        shape = (*n.shape[:2], *one, *n.shape[2:])
        node = self.add(Node("part", (whole, k), {}, shape, n.dtype, value, "" if one or not weight else n.name))
        if weight and one:
            node = self.add(call("squeeze", node, 2, shape=n.shape, dtype=n.dtype, name=n.name))
        if weight:
            self.instead[n] = node
            return
        self.rows[n] = self.add(self.taken(node, n))
        self.rows[n].name = n.name
        if whole.op == "max_pool2d_with_indices" and k == 1:
            self.pools[self.rows[n]] = node

    def wide(self, w: Node) -> Node:
        """A weight for places in two dimensions."""
        given = self.whole(w)
        if len(w.shape) == 4:
            return given
        if given not in self.images:
            shape = (*w.shape[:2], 1, *w.shape[2:])
            self.images[given] = self.add(call("unsqueeze", given, 2, shape=shape, dtype=w.dtype))
        return self.images[given]

    def convolved(self, n: Node) -> Node:
        """A convolution."""
        x, w, b, *rest = n.args
        one = () if len(n.shape) == 4 else (1,)
        shape = (*n.shape[:2], *one, *n.shape[2:])
        given = self.plane(x), self.wide(w), self.whole(b), *in_planes(x, rest)
        return self.taken(self.add(call(n.op, *given, shape=shape, dtype=n.dtype, overload=n.overload)), n)

    def unpooled(self, n: Node) -> Node | None:
        """What a maximum over windows passes back: each cotangent to the place that was the largest."""
        base, _, at, given, *_ = n.args
        index = self.pools.get(self.rows[at]) if self.is_image(at) else None
        if index is None or base.constant is None or bool(base.constant.any()) or not isinstance(given, Node):
            return None
        if given.shape[:2] != n.shape[:2]:
            return None
        image, *rest = index.args[0].args
        kernel, stride, padding, dilation, ceil = (*rest, *WINDOWS[len(rest) :])
        self.matrix(given)
        g = self.image(given, index.shape[2:], tuple(index.value.shape[2:]))
        made = call(
            "max_pool2d_with_indices_backward", g, image, kernel, stride, padding, dilation, ceil, index,
            shape=image.shape, dtype=n.dtype,
        )  # fmt: skip
        return self.taken(self.add(made), n)

    def spread(self, n: Node) -> Node | None:
        """What sums over windows, of which there are means, pass back: a convolution with ones, or avg_pool2d_backward."""
        if n.args[0].op != "convolution_backward" or n.args[1] != 0 or n.args[0].args[2].constant is None:
            return None
        g, _, ones, _, stride, padding, *_ = n.args[0].args
        for pool in self.order:
            if pool.op != "avg_pool2d" or pool.args[0].shape != n.shape or pool.shape != g.shape:
                continue
            _, kernel, by, around, ceil, counted, _ = (*pool.args, *DEFAULTS[len(pool.args) :])
            if (pair(kernel), pair(by or kernel), pair(around)) != (ones.shape[2:], pair(stride), pair(padding)):
                continue
            given = self.plane(g), pool.args[0], kernel, by, around, ceil, counted, 1
            made = call("avg_pool2d_backward", *given, shape=n.shape, dtype=n.dtype)
            return made if equal(made.value, n.value) else None
        return None

    def reshaped(self, n: Node, x: Node) -> tuple[bool, Node] | None:
        """The same entries, with the places along other dimensions or none."""
        kept = n.shape[:2] == x.shape[:2] and n.value.shape[:2] == x.value.shape[:2]
        if not kept or (len(n.shape) == 2 and prod(x.shape[2:]) != 1):
            return None
        return len(n.shape) > 2, self.rows[x]

    def reduced(self, n: Node, x: Node) -> tuple[bool, Node] | None:
        """Sums over everything but channels, over the places of each image, or over everything."""
        rank = len(x.shape)
        given = n.args[1] if len(n.args) > 1 and n.args[1] else range(rank)
        dims, keep = sorted(d % rank for d in given), len(n.args) > 2 and bool(n.args[2])
        matrix = self.rows[x]
        if dims == [0, *range(2, rank)]:
            made = call(n.op, matrix, [0], shape=n.shape[1:2] if keep else n.shape, dtype=n.dtype)
        elif dims == list(range(2, rank)):
            sizes = [sizes_of(x)[0], prod(x.shape[2:]), x.shape[1]]
            seen = self.add(call("view", matrix, sizes, shape=(x.shape[0], *sizes[1:]), dtype=x.dtype))
            made = call(n.op, seen, [1], shape=x.shape[:2], dtype=n.dtype)
        elif dims == list(range(rank)) and not keep:
            return False, call(n.op, matrix, shape=(), dtype=n.dtype)
        else:
            return None
        if not keep:
            return False, made
        self.add(made)
        return False, call("view", made, sizes_of(n), shape=n.shape, dtype=n.dtype)

    def elementwise(self, n: Node) -> tuple[bool, Node] | None:
        """Values as matrices, numbers of a channel as those of a column."""
        args: list[Any] = []
        for a in n.args:
            args.append(self.operand(a, n) if isinstance(a, Node) else a)
            if isinstance(a, Node) and args[-1] is None:
                return None
        return True, call(n.op, *args, shape=self.shape(n), dtype=n.dtype, overload=n.overload, **n.kwargs)

    def operand(self, a: Node, n: Node) -> Node | None:
        """What an operand becomes."""
        while a.op == "expand" and a not in self.rows and not a.write:
            a = a.args[0]
        if like(a, n):
            return self.matrix(a)
        a = self.whole(a)
        if not a.shape:
            return a
        ones = len(n.shape) - len(a.shape)
        shape, few = (*[1] * ones, *a.shape), (*[1] * ones, *a.value.shape)
        places = shape[2:]
        if shape[:1] == (1,) and set(places) == {1}:
            while a.op in RESHAPES and len(a.shape) > 1 and not a.write:
                a = a.args[0]
            return a if len(a.shape) == 1 else self.add(call("view", a, [shape[1]], shape=shape[1:2], dtype=a.dtype))
        if set(places) != {1} and places != n.shape[2:]:
            return None
        sizes = [x if x == y else Sized(x, y) for x, y in ((shape[0], few[0]), (shape[1], few[1]))]
        while a.op in RESHAPES and not a.write:
            a = a.args[0]
        a = a if contiguous(a) and not a.is_view else self.copy(a)
        seen = call("view", a, [*sizes, prod(places)], shape=(*shape[:2], prod(places)), dtype=a.dtype)
        seen = call("permute", self.add(seen), [0, 2, 1], shape=(shape[0], prod(places), shape[1]), dtype=a.dtype)
        wide = [sizes_of(n)[0], prod(n.shape[2:]), n.shape[1]]
        seen = call("expand", self.add(seen), wide, shape=(n.shape[0], *wide[1:]), dtype=a.dtype)
        return self.add(call("view", self.copy(self.add(seen)), self.sizes(n), shape=self.shape(n), dtype=a.dtype))


def attempted(f: Callable[[Node], Any], n: Node) -> Any:
    """What a call becomes; None where torch does not take it so."""
    try:
        return f(n)
    except RuntimeError:
        return None


def turned_back(matrix: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A matrix as the value it stands for."""
    return matrix.reshape(like.shape[0], *like.shape[2:], like.shape[1]).movedim(-1, 1)


def like(a: Node, n: Node) -> bool:
    """Whether two values have the same shape."""
    return a.shape == n.shape and a.value.shape == n.value.shape


def pointwise(n: Node) -> bool:
    """Whether a call computes each element from those at the same place."""
    if n.op in COMPARISONS:
        return True
    found = packet(n.op) if hasattr(torch.ops.aten, n.op) else None
    return found is not None and torch.Tag.pointwise in getattr(found, n.overload or found.overloads()[0]).tags


def in_planes(x: Node, rest: list[Any]) -> list[Any]:
    """Strides, paddings and dilations along one dimension as those along two, the first of which has one place."""
    if len(x.shape) == 4:
        return rest
    first = [1, 0, 1, None, 0, *[None] * len(rest)]
    return [r if a is None or not isinstance(r, (list, tuple)) else [a, *r] for a, r in zip(first, rest, strict=False)]


__all__ = ["in_pixels"]
