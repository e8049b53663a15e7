# pyright: basic
"""Parameters kept multiplied: a power of two behind a product or a normalisation goes into what it is computed from.

2 (x w + b) is x (2 w) + (2 b), and 2 bn(x, w, b) is bn(x, 2 w, 2 b), exactly. Backwards every value that such a parameter
is a factor of is then a multiple of what it was; the multiple is carried on through what is linear, up to the step along
the gradient, which takes a number anyway.
"""

from __future__ import annotations

from dataclasses import replace
from math import log2
from typing import TYPE_CHECKING, Any

from codegen.loop.cost import cost, price
from codegen.loop.graph import VIEWS, Node, Sized, call, copied, equal, mapped, small
from codegen.loop.kept import as_it_is
from codegen.loop.own import evaluated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from codegen.loop.graph import Step

FAR = 24
"""How far a carried power of two may be from one: beyond it is multiplied out, far from where numbers end."""


def multiplied(step: Step, trained: Sequence[str]) -> Step:
    """The step with parameters kept multiplied, or as it is where that is impossible or costs no less."""
    made, _ = copied(step)
    factors, removed = candidates(made, trained)
    if not factors:
        return step
    try:
        carried(made, factors, removed)
    except _UnlikeError:
        return step
    free = sum(
        cost(n) for k, n in made.results.items() if k.startswith("grad.") and n.op == "mul" and n not in step.order
    )
    return made if price(made) - free < price(step) else step


class _UnlikeError(Exception):
    """A result is not the multiple of what it was."""


def candidates(step: Step, trained: Sequence[str]) -> tuple[dict[str, float], set[Node]]:
    """Parameters of products and normalisations that a multiplication by a power of two alone reads, by how much, and those."""
    users = step.users()
    results = set(step.results.values())
    own = {step.inputs[t]: t for t in trained}
    found: dict[str, float] = {}
    removed: set[Node] = set()
    for m in step.order:
        if (
            m.op != "mul"
            or not isinstance(m.args[1], (int, float))
            or m.args[1] <= 0
            or not log2(m.args[1]).is_integer()
        ):
            continue
        z, k = m.args[0], float(m.args[1])
        factors = factors_of(z)
        if len(users[z]) != 1 or z in results or not factors or not all(f in own for f in factors):
            continue
        if not any(own[f] in found for f in factors):
            found |= {own[f]: k for f in factors}
            removed.add(m)
    return found, removed


def factors_of(z: Node) -> list[Node]:
    """What a value is linear in, all of it taken together: the last factor of a product and its bias, or weight and bias."""
    if z.op == "mm":
        return [z.args[1]]
    if z.op == "addmm" and not z.kwargs:
        return [z.args[0], z.args[2]]
    if z.op == "part" and z.args[1] == 0 and z.args[0].op == "native_batch_norm":
        return [a for a in z.args[0].args[1:3] if a is not None]
    return []


def carried(step: Step, factors: dict[str, float], removed: set[Node]) -> None:
    """Multiply inputs, and carry the multiples on through everything that reads them. Raises _UnlikeError."""
    scales: dict[Node, Any] = {}
    before = {n: n.value for n in [*step.inputs.values(), *step.order]}
    for name, k in factors.items():
        n = step.inputs[name]
        scales[n] = k
        n.value = n.value * k
        step.kept[name] = step.kept.get(name, as_it_is(name, n.shape)).changed(
            lambda p, k=k: replace(p, factor=p.factor * k)
        )
    order: list[Node] = []
    plain: dict[Node, Node] = {}
    instead: dict[Node, Node] = {}

    def as_it_was(a: Any) -> Any:
        """An operand without its multiple."""
        if not isinstance(a, Node) or scales.get(a, 1.0) == 1.0:
            return a
        if a not in plain:
            plain[a] = times(a, 1 / scales[a])
            order.append(plain[a])
        return plain[a]

    for n in step.order:
        if n.op == "input" or not any(r in instead or scales.get(r, 1.0) != 1.0 for r in n.reads):
            order.append(n)
            continue
        n.args = mapped(n.args, lambda a: instead.get(a, a) if isinstance(a, Node) else a)
        n.kwargs = {
            k: mapped(v, lambda a: instead.get(a, a) if isinstance(a, Node) else a) for k, v in n.kwargs.items()
        }
        if n.op == "mul" and n in removed and scales.get(n.args[0]) == n.args[1]:
            instead[n] = n.args[0]  # which nothing else reads
            scales[n.args[0]] = 1.0
            continue
        if n.write:
            raise _UnlikeError
        kwargs = n.kwargs
        scale = through(n, lambda a: scales.get(a, 1.0))
        if scale is None or too_far(scale):
            n.kwargs = kwargs
            n.args = mapped(n.args, as_it_was)
            n.kwargs = {k: mapped(v, as_it_was) for k, v in n.kwargs.items()}
            scale = (1.0,) * len(n.value) if n.dtype is None else 1.0
        scales[n] = scale
        n.value = evaluated(n, small(n.args), {k: small(v) for k, v in n.kwargs.items()})
        order.append(n)
    for key, r in list(step.results.items()):
        now = instead.get(r, r)
        wanted = factors.get(key.removeprefix("grad."), 1.0) if key.startswith("grad.") else 1.0
        by = wanted / scales.get(now, 1.0)
        if by != 1.0:
            now = times(now, by)
            order.append(now)
        if not equal(now.value, before[r] * wanted):
            raise _UnlikeError
        step.results[key] = now
    step.order, step.readers = order, None
    step.sort()


def times(n: Node, by: float) -> Node:
    """A value times a number."""
    return call("mul", n, by, shape=n.shape, dtype=n.dtype)


def too_far(scale: Any) -> bool:
    """Whether a multiple is to be multiplied out."""
    return any(abs(log2(s)) > FAR for s in (scale if isinstance(scale, tuple) else (scale,)))


SAME = VIEWS | {"bag", "neg", "sum", "mean", "index_select", "index", "clone"}
"""Calls that are linear in their first argument, and have no other tensors of floating point."""


def through(n: Node, of: Callable[[Node], Any]) -> Any:
    """The multiple of a call's result, given those of what it reads; None where it is not one. Numbers in it may change."""
    a = n.args
    scales = [of(x) if isinstance(x, Node) else 1.0 for x in a]
    if n.op == "part":
        whole = of(a[0])
        return whole[a[1]] if isinstance(whole, tuple) else None
    if n.op in SAME:
        return scales[0]
    if n.op in ("mm", "bmm", "mv") or (n.op == "mul" and not n.kwargs):
        return scales[0] * scales[1]
    if n.op == "div" and not n.kwargs:
        return scales[0] / scales[1]
    if n.op in ("add", "sub") and all(isinstance(x, Node) for x in a[:2]):
        return weighted(n, "alpha", scales[0], scales[1])
    if n.op == "addcmul":
        return weighted(n, "value", scales[0], scales[1] * scales[2])
    if n.op == "addmm" and not n.kwargs:
        return scales[0] if scales[0] == scales[1] * scales[2] else None
    if n.op in ("tanh_backward", "sigmoid_backward", "threshold_backward"):
        return scales[0] if scales[1] == 1.0 else None
    if n.op == "index_add" and a[0].constant is not None and not bool(a[0].constant.any()) and not n.kwargs:
        return scales[3]
    if n.op == "native_batch_norm":
        x, weight, bias = scales[:3]
        return (weight, 1.0, 1.0) if x == 1.0 and (a[2] is None or bias == weight) else None
    if n.op == "native_batch_norm_backward":
        dz, x, weight, _, _, mean, inverse = scales[:7]
        return (dz * weight, dz, dz) if (x, mean, inverse) == (1.0, 1.0, 1.0) else None
    return None


def weighted(n: Node, keyword: str, first: float, second: float) -> float:
    """The multiple of a + k b, with the number k adapted to those of a and b."""
    if first != second:
        given = n.kwargs.get(keyword, 1)
        by = first / second
        n.kwargs = {
            **n.kwargs,
            keyword: Sized(given.full * by, given.small * by) if isinstance(given, Sized) else given * by,
        }
    return first


__all__ = ["multiplied"]
