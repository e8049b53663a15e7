"""Reductions of what a mask chooses: what is not chosen is put out of the way, as 0 in a sum and -inf under a maximum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from engine.chosen import beside, entries_or, refused
from engine.ops.reductions import correction_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.chosen import Selected

INF = float("inf")


def keeping(given: dict[str, Any], *more: str) -> dict[str, Any]:
    """The arguments of a reduction that say nothing of its dimensions."""
    return {k: v for k, v in given.items() if k in ("keepdim", *more)}


def total(s: Selected, over: list[int], given: dict[str, Any]) -> Any:
    return entries_or(s, 0).sum(over, **keeping(given, "dtype"))


def count(s: Selected, over: list[int]) -> Any:
    """How many entries are reduced."""
    number: Any = s.mask.sum()
    for d in over:
        number = number if d == s.at else number * s.raw.shape[d]
    return number


def mean(s: Selected, over: list[int], given: dict[str, Any]) -> Any:
    return total(s, over, given) / count(s, over)


def variance(s: Selected, over: list[int], given: dict[str, Any]) -> Any:
    """Around the mean of the chosen; as many as its correction, or fewer, have none."""
    _, correction = correction_of(given.get("dim"), given.get("unbiased"), given.get("correction"))
    whole = entries_or(s, 0)
    apart = whole - whole.sum(over, keepdim=True) / count(s, over)
    squares = torch.where(beside(s.mask, s.raw, s.at), apart, 0).square().sum(over, **keeping(given))
    return squares / (count(s, over) - correction).clamp(min=0)


def deviation(s: Selected, over: list[int], given: dict[str, Any]) -> Any:
    """Its slope is 0 at a variance of 0."""
    v = variance(s, over, given)
    return torch.where(v == 0, 0, v.sqrt())


def with_mean(spread: Callable[..., Any]) -> Any:
    """A variance or a deviation, and the mean."""

    def found(s: Selected, over: list[int], given: dict[str, Any]) -> Any:
        return spread(s, over, given), mean(s, over, keeping(given))

    return found


def norm(power: str) -> Any:
    """The norm whose order goes by the name `power`: zeros add nothing to one of a positive order, nor to the count of the others."""

    def found(s: Selected, over: list[int], given: dict[str, Any]) -> Any:
        p = given.get(power, 2)
        p = 2 if p in ("fro", None) else p
        if isinstance(p, str) or p < 0:
            raise refused(f"the norm of order {p!r}")
        return cast("Any", torch.linalg).vector_norm(entries_or(s, 0), p, over, **keeping(given, "dtype"))

    return found


def logsumexp(s: Selected, over: list[int], given: dict[str, Any]) -> Any:
    return entries_or(s, -INF).logsumexp(over, **keeping(given))


def product(s: Selected, over: list[int], given: dict[str, Any]) -> Any:
    whole = entries_or(s, 1)
    return whole.prod(*over, **keeping(given, "dtype")) if len(over) == 1 else whole.prod(**keeping(given, "dtype"))


def extreme(beyond: float, name: str) -> Any:
    """The largest or smallest, with what is beyond all others in the place of what is not chosen."""

    def found(s: Selected, over: list[int], given: dict[str, Any]) -> Any:
        if not s.raw.is_floating_point() or (not name.startswith("a") and given.keys() > {"x"}):
            raise refused(f"{name} of some")
        whole = getattr(entries_or(s, beyond), name)
        return whole(over, **keeping(given)) if name.startswith("a") else whole()

    return found


REDUCED = {
    "sum": total,
    "mean": mean,
    "var": variance,
    "std": deviation,
    "var_mean": with_mean(variance),
    "std_mean": with_mean(deviation),
    "norm": norm("p"),
    "linalg_vector_norm": norm("ord"),
    "logsumexp": logsumexp,
    "prod": product,
    "max": extreme(-INF, "max"),
    "min": extreme(INF, "min"),
    "amax": extreme(-INF, "amax"),
    "amin": extreme(INF, "amin"),
}
"""Reductions that leave out what is not chosen, by their rows' names."""

SHARED = ("softmax", "log_softmax")
"""What shares something out among the chosen: what is not is -inf there."""
