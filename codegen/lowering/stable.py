"""The kernels of torch that `kernels.stable` finds, as calls."""

from __future__ import annotations

from typing import Any, cast

import sympy as sp
from sympy import Expr

from codegen.lowering import tensors as tt
from codegen.lowering.functions import BY_TANH, FunctionMixin
from codegen.lowering.tensors import T
from codegen.lowering.values import Val, broadcast, to_axes
from engine.indexed import Indexed
from engine.notation import (
    Index,
    Less,
    LessEqual,
    Where,
    free_indices,
)

FUNCTIONAL = "torch.nn.functional"
PLAIN = frozenset(
    (
        "logsigmoid",
        "gelu",
        "silu",
        "mish",
        "softshrink",
        "hardshrink",
        "hardswish",
        "hardtanh",
        "hardsigmoid",
        "leaky_relu",
    )
)
"""Its functions that take a tensor and the numbers that were found."""


def running_mask(inner: Expr, limits: tuple[Any, ...]) -> Expr | None:
    """`[j <= k]` of the shares `f_j if j <= k else -oo` in a running sum, which are undefined where all up to k is -oo.

    Those beyond k are 0 even so.
    """
    if len(limits) != 1 or not isinstance(inner, Where) or inner.args[2] != sp.S.NegativeInfinity:
        return None
    bracket, f = inner.args[:2]
    ends = {*bracket.args} - {limits[0][0]} if isinstance(bracket, Less) else set[Any]()
    return bracket if len(ends) == 1 and all(isinstance(i, Index) and i not in f.free_symbols for i in ends) else None


class KernelMixin(FunctionMixin):
    """Lowers stable kernels."""

    def kernel(self, k: tuple[str, tuple[Any, ...]]) -> Val:
        """A stable kernel found by `kernels.stable`."""
        name, args = k
        if name in ("logsumexp", "softmax"):
            running = self._running(*args) if name == "logsumexp" else None
            return running or self._along(name, *args)
        if name == "scaled":
            return self._scaled_kernel(*args)
        if name == "power":
            return self.join("**", self.value(args[0]), self.value(args[1]))
        if name == "neg":
            return self.negative(self.kernel(args[0]))
        if name in ("logaddexp", "maximum", "minimum"):
            return self._of_several(f"torch.{name}", args)
        if name == "huber":
            return self._huber_loss(*args)
        if name == "share":
            return self.map_method("sigmoid", args[0] - args[1])
        if name == "clamp":
            return self._clamped(*args)
        v = self.real(args[0])
        call = self._call(name, v.t, args[1:])
        return Val(tt.method(v.t, name) if call is None else call, v.axes)

    def _running(self, inner: Expr, limits: tuple[Any, ...]) -> Val | None:
        """A logarithm of a running sum of exponentials; None for one of a whole sum."""
        mask = running_mask(inner, limits)
        if not isinstance(mask, LessEqual):
            return None
        ((j, n),) = limits
        (i,) = {*mask.args} - {j}
        with self.inside(inner.args[1], limits):
            v = self.real(inner.args[1])
        if v.axes.count(j) != 1 or sp.expand(self.ranges.get(cast("Index", i), 0) - n) != 0:
            return None
        return self.running_logarithm(v, j, cast("Index", i), last_first=mask.args[0] == i)

    def _along(self, name: str, inner: Expr, limits: tuple[Any, ...]) -> Val:
        """logsumexp or softmax along the indices of a sum."""
        with self.inside(inner, limits):
            v = self.real(inner)
        dims = tuple(v.axes.index(i) for i, _ in limits)
        if name == "logsumexp":
            kept = tuple(None if d in dims else a for d, a in enumerate(v.axes))
            left = tuple(a for d, a in enumerate(v.axes) if d not in dims)
            return Val(tt.method(v.t, name, dims[0] if len(dims) == 1 else dims), left, "float", kept)
        mask = running_mask(inner, limits)
        if mask is not None:
            return self.masked(Val(tt.method(v.t, name, dims[0]), v.axes), [self.value(mask)])
        if len(dims) == 1:
            return Val(tt.method(v.t, name, dims[0]), v.axes)
        if dims == tuple(range(dims[0], dims[-1] + 1)):
            flat = tt.method(tt.method(v.t, "flatten", dims[0], dims[-1]), "softmax", dims[0])
            return Val(tt.method(flat, "unflatten", dims[0], tuple(n for _, n in limits)), v.axes)
        total = tt.method(v.t, "logsumexp", dims, keepdim="True")
        return Val(tt.method(tt.binary("-", v.t, total), "exp"), v.axes)

    def _scaled_kernel(self, inner: tuple[str, tuple[Any, ...]], scale: Expr) -> Val:
        """A kernel times what stands in front of it, the factors over its own indices first."""
        v = self.kernel(inner)
        if scale == -1:
            return self.negative(v)
        few = sp.Mul(*[f for f in sp.Mul.make_args(scale) if free_indices(f) <= {*v.indices}])
        rest = [f for f in (few, sp.Mul(scale, 1 / few)) if f != 1]
        return self._times([v, *[self.value(f) for f in rest]])

    def _of_several(self, function: str, args: tuple[Any, ...]) -> Val:
        """A function of two tensors, of the result and the next one, and so on."""
        first = self.of_two(function, *args[:2])
        for e in args[2:]:
            v = self.typed(self.value(e))
            target = self.target(first, v)
            a, b = to_axes(first, target), to_axes(v, target)
            first = Val(tt.call(function, a.t, b.t), broadcast(a.axes, b.axes))
        return first

    def _huber_loss(self, one: Expr, other: Expr, bound: Expr) -> Val:
        """Huber's loss entry by entry, of two tensors that have to be equally large for torch."""
        a, b = self.value(one), self.value(other)
        target = self.target(a, b)
        a, b = to_axes(a, target), to_axes(b, target)
        pair = [T("starred", "", (tt.call("torch.broadcast_tensors", a.t, b.t),))] if a.axes != b.axes else [a.t, b.t]
        own = {} if bound == 1 else {"delta": self.value(bound).t}
        t = tt.call("torch.nn.functional.huber_loss", *pair, reduction=tt.EACH, **own)
        self.losses = True
        return Val(t, broadcast(a.axes, b.axes))

    def _clamped(self, e: Expr, *bounds: Expr | None) -> Val:
        """A tensor between two bounds, of which one may be missing; positions stay whole numbers between such."""
        position = not e.has(Indexed) and all(x is None or x.is_Integer for x in bounds)
        v = self.value(e) if position else self.real(e)
        lower, upper = (None if x is None else self.value(x).t for x in bounds)
        if lower is None or upper is None:
            side = {"max": upper} if lower is None else {"min": lower}
            return Val(tt.method(v.t, "clamp", **side), v.axes, v.kind)
        return Val(tt.method(v.t, "clamp", lower, upper), v.axes, v.kind)

    def _call(self, name: str, t: T, own: tuple[Any, ...]) -> T | None:
        """An activation as torch's function, with numbers of its `own` where they differ from torch's; None for a method."""
        if name == "gelu_tanh":
            return tt.call(f"{FUNCTIONAL}.gelu", t, approximate=BY_TANH)
        if name == "elu":
            alpha, scale, inner = (float(x) for x in own)
            if scale == inner == 1:
                return tt.call(f"{FUNCTIONAL}.elu", t, *([tt.number(alpha)] if alpha != 1 else []))
            return tt.call("torch.ops.aten.elu", t, *map(tt.number, (alpha, scale, inner)))
        if name == "softplus":  # beyond 40 it is the identity to the last bit of a double; torch's own threshold is 20
            threshold = int(own[0]) if own else 40
            return tt.call(f"{FUNCTIONAL}.softplus", t, **({} if threshold == 20 else {"threshold": threshold}))
        if name in PLAIN:
            return tt.call(f"{FUNCTIONAL}.{name}", t, *[tt.number(float(x)) for x in own])
        return None
