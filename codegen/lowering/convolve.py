"""Sums that are convolutions, and torch's kernels for them. An identity of the expression, not of an op that made it.

Three tensors meet in a convolution: an image I, windows O and a kernel W, with a place of the image for each pair of a
window and a place in the kernel,

    place[d] = stride[d] * o[d] + dilation[d] * p[d] - padding[d]

Summed over two of their index sets, the third is left:

    O[n, o, i] = Sum over c, p of I[n, c, place(i, p)] W[o, c, p]        torch.nn.functional.conv2d
    W[o, c, p] = Sum over n, i of I[n, c, place(i, p)] O[n, o, i]        torch.nn.grad.conv2d_weight
    I[n, c, m] = Sum over o, i, p of [m = place(i, p)] O[n, o, i] W[o, c, p]    torch.nn.grad.conv2d_input

Windows alone, spread over all places that they cover (the way back of average pooling), meet a kernel of ones.

A place outside of the image counts as zero. With groups, the channel of the image is c + (channels of W) * (o's group).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.lowering import tensors as tt
from codegen.lowering.values import Val
from engine.indexed import Indexed
from engine.notation import Delta, Index, Less, LessEqual, Quo, Rem, Sigma, Where, free_indices, name_of
from engine.ops.layout import steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from codegen.lowering.tensors import T
    from codegen.lowering.values import TensorInfo

Slots = tuple[Expr, ...]


@dataclass(frozen=True)
class Factors:
    """A summed product taken apart: the elements of one or two tensors, equal pairs, and conditions."""

    elements: tuple[Indexed, ...]
    equal: tuple[tuple[Expr, Expr], ...]
    conditions: tuple[Expr, ...]


@dataclass(frozen=True)
class Steps:
    """How windows move over one dimension: place = stride * o + dilation * p - padding."""

    place: Expr
    stride: int
    dilation: int
    padding: int


@dataclass(frozen=True)
class Roles:
    """The index tuples of image, windows and kernel, how the windows move, and the number of groups."""

    image: Slots
    windows: Slots
    kernel: Slots
    spatial: tuple[Steps, ...]
    groups: Expr


@dataclass(frozen=True)
class Problem:
    """A sum to be matched: its factors, what is summed, and the sizes of indices (0 has size one)."""

    parts: Factors
    summed: frozenset[Index]
    sizes: Mapping[Any, Expr]

    def meaning(self, e: Expr) -> Expr:
        """What an index is where a delta fixes it, else the index itself."""
        return next((q if p == e else p for p, q in self.parts.equal if e in (p, q)), e)

    def third(self, place: Expr, known: Expr) -> Expr | None:
        """The index in a place besides a known one; 0 where there is none, None where there are several."""
        others = [i for i in free_indices(place) if i != known and i in self.sizes]
        return sp.S.Zero if not others else others[0] if len(others) == 1 else None

    def placed(self, about: set[Expr]) -> tuple[Expr, Expr] | None:
        """The free index that a delta puts at a place made of just these indices, and the place."""
        own = about - {sp.S.Zero}
        for a, b in self.parts.equal:
            for m, place in ((a, b), (b, a)):
                if m in self.sizes and m not in self.summed and own and free_indices(place) == own:
                    return m, place
        return None


def convolution(e: Sigma, ranges: Mapping[Index, Expr], tensors: Mapping[str, TensorInfo]) -> Val | None:
    """The kernel call that computes a sum, over the sum's free indices; None where it is no convolution."""
    parts = _factors(e)
    if parts is None or any(tensors[name_of(a)].kind != "float" for a in parts.elements):
        return None
    sizes: dict[Any, Expr] = {**ranges, **dict(cast("Any", e.limits)), sp.S.Zero: sp.S.One}
    problem = Problem(parts, frozenset(i for i, _ in e.limits), sizes)
    if len(parts.elements) == 1:
        return _spread(problem, parts.elements[0], tensors)
    for first, second in (parts.elements, parts.elements[::-1]):
        for find, result, call in KERNELS:
            roles = find(problem, first.indices, second.indices)
            shapes = [tensors[name_of(a)].shape for a in (first, second)]
            if roles is not None and _fits(problem, roles, result, shapes):
                t = call(roles, sizes, tt.name(name_of(first)), tt.name(name_of(second)))
                at = getattr(roles, result)
                return Val(t, tuple(None if i == 0 else cast("Index", i) for i in at))
    return None


def _factors(e: Sigma) -> Factors | None:
    """A product of elements, deltas, and choices between an element and zero; None for anything else."""
    elements: list[Indexed] = []
    equal: list[tuple[Expr, Expr]] = []
    conditions: list[Expr] = []
    todo = list(Mul.make_args(e.body))
    while todo:
        f = todo.pop()
        if isinstance(f, Where) and f.args[2] == 0:
            conditions.append(f.args[0])
            todo.extend(Mul.make_args(f.args[1]))
        elif isinstance(f, (Less, LessEqual)):
            conditions.append(f)
        elif isinstance(f, Delta):
            equal.append((f.args[0], f.args[1]))
        elif isinstance(f, Indexed):
            elements.append(f)
        elif f != 1:
            return None
    ranks = {len(a.indices) for a in elements}
    if len(elements) not in (1, 2) or len(ranks) != 1 or min(ranks) < 3:
        return None
    if any(cast("Any", i).has(Indexed) for a in elements for i in a.indices):
        return None
    return Factors(tuple(elements), tuple(equal), tuple(conditions))


def _steps(place: Expr, o: Expr, p: Expr) -> Steps | None:
    """A place as steps of the window `o` and of the position `p` within it, either 0 where its dimension is one."""
    if not all(i == 0 or isinstance(i, Index) for i in (o, p)) or place.has(Quo, Rem):
        return None
    stride = sp.diff(place, o) if o != 0 else sp.S.One
    dilation = sp.diff(place, p) if p != 0 else sp.S.One
    padding = -sp.expand(place - stride * o - dilation * p)
    if not all(n.is_Integer for n in (stride, dilation, padding)) or stride < 1 or dilation < 1 or padding < 0:
        return None
    return Steps(place, int(stride), int(dilation), int(padding))


def _groups(problem: Problem, channel: Expr, out: Expr, c: Expr) -> Expr | None:
    """How many groups there are where the image's channel is `c + (channels of a group) * (out's group)`."""
    if channel == c:
        return sp.S.One
    group = sp.cancel(sp.expand(channel - c) / problem.sizes[c])
    if group == out:
        return problem.sizes[out]
    if isinstance(group, Quo) and group.args[0] == out:
        return sp.cancel(problem.sizes[out] / group.args[1])
    return None


def _windows_left(problem: Problem, image: Slots, kernel: Slots) -> Roles | None:
    """Image and kernel are read."""
    windows: list[Expr] = [image[0], kernel[0]]
    spatial: list[Steps | None] = []
    for m, p in zip(image[2:], kernel[2:], strict=True):
        place = problem.meaning(m)
        o = problem.third(place, p)
        windows.append(sp.S.NaN if o is None else o)
        spatial.append(None if o is None else _steps(place, o, p))
    return _roles(problem, image, tuple(windows), kernel, spatial, problem.meaning(image[1]))


def _kernel_left(problem: Problem, image: Slots, windows: Slots) -> Roles | None:
    """Image and windows are read."""
    if image[0] != windows[0]:
        return None
    channel = problem.meaning(image[1])
    c = problem.third(channel, windows[1])
    kernel: list[Expr] = [windows[1], sp.S.NaN if c is None else c]
    spatial: list[Steps | None] = []
    for m, o in zip(image[2:], windows[2:], strict=True):
        place = problem.meaning(m)
        p = problem.third(place, o)
        kernel.append(sp.S.NaN if p is None else p)
        spatial.append(None if p is None else _steps(place, o, p))
    return _roles(problem, image, windows, tuple(kernel), spatial, channel)


def _image_left(problem: Problem, windows: Slots, kernel: Slots) -> Roles | None:
    """Windows and kernel are read; deltas say at which place of the image they meet."""
    out, c = kernel[:2]
    if windows[1] != out:
        return None
    image: list[Expr] = [windows[0]]
    grouped = problem.placed({out, c})
    single = out if c == 0 and out not in problem.summed else c
    at, channel = (single, single) if grouped is None else grouped
    image.append(at)
    spatial: list[Steps | None] = []
    for o, p in zip(windows[2:], kernel[2:], strict=True):
        m, place = problem.placed({o, p}) or (o, o)
        image.append(m)
        spatial.append(_steps(place, o, p))
    return _roles(problem, tuple(image), windows, kernel, spatial, channel)


def _spread(problem: Problem, element: Indexed, tensors: Mapping[str, TensorInfo]) -> Val | None:
    """Windows alone, each added to every place of the image that it covers: a kernel of ones for each channel."""
    windows = element.indices
    batch, channel = windows[:2]
    image, kernel = [batch, channel], [channel, sp.S.Zero]
    spatial: list[Steps | None] = []
    for o in windows[2:]:
        own = [(m, e) for pair in problem.parts.equal for m, e in (pair, pair[::-1]) if m not in problem.summed]
        m, place = next(((m, e) for m, e in own if m in problem.sizes and o in e.free_symbols), (o, o))
        p = problem.third(place, o)
        image.append(m)
        kernel.append(sp.S.NaN if p is None else p)
        spatial.append(None if p is None else _steps(place, o, p))
    found = _roles(problem, tuple(image), windows, tuple(kernel), spatial, channel)
    shapes = (tensors[name_of(element)].shape, tuple(problem.sizes.get(i, sp.S.Zero) for i in kernel))
    if found is None or not _fits(problem, found, "image", shapes):
        return None
    v = tt.name(name_of(element))
    ones = tt.method(v, "new_ones", shapes[1])
    return Val(_to_image(found, problem.sizes, v, ones), tuple(None if i == 0 else cast("Index", i) for i in image))


def _roles(
    problem: Problem, image: Slots, windows: Slots, kernel: Slots, spatial: Sequence[Steps | None], channel: Expr
) -> Roles | None:
    whole = all(i in problem.sizes for i in (*windows, *kernel))
    groups = _groups(problem, channel, kernel[0], kernel[1]) if whole else None
    steps_of = tuple(s for s in spatial if s is not None)
    if groups is None or len(steps_of) != len(spatial):
        return None
    return Roles(image, windows, kernel, steps_of, groups)


def _fits(problem: Problem, roles: Roles, result: str, shapes: Sequence[Slots]) -> bool:
    """Whether nothing is left over: every index, delta, condition and size is one that a convolution has."""
    sizes = problem.sizes
    names = ["image", "windows", "kernel"]
    names.remove(result)
    for name, shape in zip(names, shapes, strict=True):
        if any(i in sizes and sp.expand(sizes[i] - n) != 0 for i, n in zip(getattr(roles, name), shape, strict=True)):
            return False
    at = [i for i in getattr(roles, result) if i != 0]
    every: set[Any] = {i for i in (*roles.windows, *roles.kernel, *at) if i != 0}
    every |= {i for s in roles.image for i in free_indices(s)}
    if len(set(at)) != len(at) or set(at) & problem.summed or every - set(at) != set(problem.summed):
        return False
    extents = shapes[0][2:] if result != "image" else [sizes[i] for i in roles.image[2:]]
    allowed = [
        f for s, n in zip(roles.spatial, extents, strict=True) for f in (LessEqual(0, s.place), Less(s.place, n))
    ]
    known = {roles.image[1], *roles.image[2:]}
    return (
        any(p != 0 for p in roles.kernel[2:])
        and all(c in allowed for c in problem.parts.conditions)
        and all(a in known or b in known for a, b in problem.parts.equal)
        and all(
            sp.expand(_count(sp.expand(n + 2 * s.padding - s.dilation * (sizes[p] - 1) - 1), s.stride) - sizes[o]) == 0
            for s, n, o, p in zip(roles.spatial, extents, roles.windows[2:], roles.kernel[2:], strict=True)
        )
    )


def _count(span: Expr, stride: int) -> Expr:
    """How many windows begin within a span: span // stride + 1, without the quotient of what the stride divides."""
    terms = sp.Add.make_args(span)
    whole = [t for t in terms if not t.is_Integer and (t.as_coeff_Mul()[0] % stride) == 0]
    return steps(sp.Add(*[t for t in terms if t not in whole]), stride) + sp.Add(*whole) / stride


def _options(roles: Roles) -> dict[str, Any]:
    """The keywords of torch's calls, without those that have their default."""
    found = {k: [getattr(s, k) for s in roles.spatial] for k in ("stride", "padding", "dilation")}
    usual = {"stride": 1, "padding": 0, "dilation": 1}
    options = {k: v[0] if len(set(v)) == 1 else tuple(v) for k, v in found.items() if set(v) != {usual[k]}}
    return options if roles.groups == 1 else {**options, "groups": roles.groups}


def _forward(roles: Roles, sizes: Mapping[Any, Expr], image: T, kernel: T) -> T:
    return tt.call(f"torch.nn.functional.conv{len(roles.spatial)}d", image, kernel, **_options(roles))


def _to_kernel(roles: Roles, sizes: Mapping[Any, Expr], image: T, windows: T) -> T:
    shape = tuple(sizes[i] for i in roles.kernel)
    return tt.call(f"torch.nn.grad.conv{len(roles.spatial)}d_weight", image, shape, windows, **_options(roles))


def _to_image(roles: Roles, sizes: Mapping[Any, Expr], windows: T, kernel: T) -> T:
    shape = tuple(sizes[i] for i in roles.image)
    return tt.call(f"torch.nn.grad.conv{len(roles.spatial)}d_input", shape, kernel, windows, **_options(roles))


KERNELS: tuple[tuple[Callable[[Problem, Slots, Slots], Roles | None], str, Callable[..., T]], ...] = (
    (_windows_left, "windows", _forward),
    (_kernel_left, "kernel", _to_kernel),
    (_image_left, "image", _to_image),
)
"""What finds the roles of two tensors that are read, which one is left, and torch's call for it."""
