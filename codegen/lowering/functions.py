"""Powers and functions of elements, by the names that torch has for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from codegen.lowering import tensors as tt
from codegen.lowering.factors import FactorMixin
from codegen.lowering.values import ELEMENTWISE, Val, broadcast, scalar, to_axes
from engine.errors import DerivationError
from engine.indexed import Indexed
from engine.normal import erfcx, log_ndtr
from engine.notation import (
    BRACKETS,
    Floor,
    Index,
    Sigma,
    fresh,
)

if TYPE_CHECKING:
    from codegen.lowering.tensors import T

METHODS: dict[Any, str] = {
    sp.exp: "exp", sp.log: "log", sp.sin: "sin", sp.cos: "cos", sp.tan: "tan", sp.asin: "asin", sp.acos: "acos",
    sp.atan: "atan", sp.sinh: "sinh", sp.cosh: "cosh", sp.tanh: "tanh", sp.asinh: "asinh", sp.acosh: "acosh",
    sp.atanh: "atanh", sp.erf: "erf", sp.erfc: "erfc", sp.erfinv: "erfinv", sp.loggamma: "lgamma", sp.digamma: "digamma", sp.Abs: "abs",
    sp.sign: "sign", sp.floor: "floor", Floor: "floor", sp.ceiling: "ceil",
}  # fmt: skip
CALLS: dict[Any, str] = {erfcx: "torch.special.erfcx", log_ndtr: "torch.special.log_ndtr"}
"""Functions that torch has no method for."""

BY_TANH = tt.name('"tanh"')
"""How torch is told which form of gelu is meant."""
OF_TWO = {
    "atan2": "torch.atan2",
    "TanhBackward": "torch.ops.aten.tanh_backward",
    "GeluBackward": "torch.ops.aten.gelu_backward",
    "GeluTanhBackward": "torch.ops.aten.gelu_backward",
    "SiluBackward": "silu_backward",
    "MishBackward": "mish_backward",
    "SigmoidBackward": "torch.ops.aten.sigmoid_backward",
    "ThresholdBackward": "torch.ops.aten.threshold_backward",
    "LeakyReluBackward": "torch.ops.aten.leaky_relu_backward",
    "SoftplusBackward": "torch.ops.aten.softplus_backward",
    "EluBackward": "torch.ops.aten.elu_backward",
    "ShrinkBackward": "torch.ops.aten.softshrink_backward",
    "HardtanhBackward": "torch.ops.aten.hardtanh_backward",
}
"""Functions of two tensors, and of the numbers where there are further arguments."""

WHOLE = ("abs", "sign", "floor", "ceil")
"""Methods that torch has for integers too."""


class FunctionMixin(FactorMixin):
    """Lowers powers and functions."""

    def power_of(self, e: sp.Pow) -> Val:
        """Powers; roots and reciprocals have torch's own names."""
        if isinstance(e.base, BRACKETS) and e.exp.is_positive:
            return self.value(e.base)
        b, x = e.args
        v = self.value(b)
        if v.kind == "bool" and x.is_Integer and x.is_positive:  # truth and its powers are one
            return v
        if v.is_number and not x.atoms(Indexed, Index):
            return Val(tt.binary("**", v.t, self.value(x).t), (), "number")
        if x in (sp.S.Half, -sp.S.Half):
            return self.root(self.typed(v), x)
        if x == -1:
            return self.join("/", scalar(1), v, "float")
        if x.could_extract_minus_sign():
            return self.join("/", scalar(1), self.value(1 / e), "float")
        return self.join("**", v, self.value(x))

    def map_method(self, name: str, argument: Expr) -> Val:
        """A torch method of one tensor."""
        v = self.value(argument)
        if v.is_number:
            v = self.typed(v)
        if v.is_number:
            v = Val(tt.call("torch.tensor", v.t), (), "float")
        if v.kind == "bool" and name == "relu":
            return v
        if name not in WHOLE:
            v = self.typed(v)
        return Val(tt.method(v.t, name), v.axes, "float", v.kept if name in ELEMENTWISE else None)

    def function(self, e: Expr) -> Val:
        """A function by its torch method."""
        if isinstance(e, sp.polygamma):
            v = self.typed(self.value(e.args[1]))
            return Val(tt.method(v.t, "polygamma", self.value(e.args[0]).t), v.axes)
        if isinstance(e, sp.besseli):
            return self.bessel(e)
        if isinstance(e, sp.log) and isinstance(e.args[0], sp.gamma):  # what sympy makes of loggamma for whole numbers
            return self.map_method("lgamma", e.args[0].args[0])
        if e.func.__name__ in OF_TWO:
            one, other, *numbers = e.args
            rest = [self.value(x).t for x in numbers]
            if e.func.__name__ == "SoftplusBackward":  # beta
                rest = [tt.number(1), *rest]
            if e.func.__name__ == "LeakyReluBackward":  # whether what is read is the result
                rest = [*rest, tt.name("False")]
            if e.func.__name__ == "EluBackward":
                between = (*[tt.number(float(x)) for x in numbers], tt.name("False"))
                return self.of_two(OF_TWO[e.func.__name__], one, other, between=between)
            if e.func.__name__ == "GeluTanhBackward":
                return self.of_two(OF_TWO[e.func.__name__], one, other, approximate=BY_TANH)
            return self.of_two(OF_TWO[e.func.__name__], one, other, *rest)
        if e.func.__name__ == "SoftmaxBackward":
            g, p, j, n = e.args
            return self.softmax_backward(g, p, cast("Index", j), n)
        if e.func.__name__ == "LogcumsumexpBackward":
            g, x, out, j, _, sign = e.args
            return self.logcumsumexp_backward(g, x, out, cast("Index", j), sign)
        if e.func in CALLS:
            v = self.real(e.args[0])
            return Val(tt.call(CALLS[e.func], v.t), v.axes)
        name = METHODS.get(e.func)
        if name is None or len(e.args) != 1:
            raise DerivationError(f"no torch form for {type(e).__name__}: {e}")
        if isinstance(e, Floor):
            over, under = sp.fraction(sp.together(e.args[0]))
            whole = [self.value(x) for x in (over, under)] if under != 1 and under.is_integer else []
            if whole and whole[0].kind == "int":  # a quotient of whole numbers stays one, so that it may be an index
                return self.join("//", whole[0], whole[1])
        return self.map_method(name, e.args[0])

    def real(self, e: Expr) -> Val:
        """An expression as floats: torch has its kernels for no integers and truth values."""
        v = self.typed(self.value(e))
        if v.kind == "float" or v.is_number:
            return v
        return Val(tt.binary("*", v.t, tt.number(1.0)), v.axes, "float", v.kept)

    def of_two(self, name: str, one: Expr, other: Expr, *rest: T, between: tuple[T, ...] = (), **own: T) -> Val:
        """A function that torch has for two tensors only."""
        a, b = (self.typed(self.value(e)) for e in (one, other))
        if a.is_number or b.is_number:
            raise DerivationError(f"{name} of {one} and {other} has no tensor form")
        target = self.target(a, b)
        a, b = to_axes(a, target), to_axes(b, target)
        return Val(tt.call(name, a.t, *between, b.t, *rest, **own), broadcast(a.axes, b.axes))

    def softmax_backward(self, g: Expr, p: Expr, j: Index, n: Expr) -> Val:
        """`p (g - Sum_j g p)`, by torch's kernel where both lie alike."""
        a, b = (self.typed(self.value(e)) for e in (g, p))
        target = self.target(a, b)
        a, b = to_axes(a, target), to_axes(b, target)
        if a.axes != b.axes:
            k = fresh()
            return self.value(p * (g - Sigma((g * p).xreplace({j: k}), (k, n))))
        return Val(tt.call("softmax_backward", a.t, b.t, b.axes.index(j)), a.axes)

    def logcumsumexp_backward(self, g: Expr, x: Expr, out: Expr, j: Index, sign: Expr) -> Val:
        """`Sum_k [j <= k] g_k exp(x_j - out_k)`, or over k up to j, by a function that the file has unless g is one."""
        if g == 1:
            logarithm = self.running_logarithm(self.typed(self.value(-out)), j, j, last_first=sign == 1)
            v = self.join("+", logarithm, self.value(x))
            return Val(tt.method(v.t, "exp"), v.axes)
        values = [self.typed(self.value(e)) for e in (g, x, out)]
        target = self.target(*values)
        ours = [to_axes(v, target) for v in values]
        axes = broadcast(broadcast(ours[0].axes, ours[1].axes), ours[2].axes)
        d = axes.index(j) - len(axes)
        turned = [v.t if sign == 1 else tt.method(v.t, "flip", d) for v in ours]
        t = tt.call("logcumsumexp_backward", *turned, d)
        return Val(t if sign == 1 else tt.method(t, "flip", d), axes)

    def running_logarithm(self, v: Val, j: Index, i: Index, last_first: bool) -> Val:
        """`log Sum_j [j <= i] exp(f_j)` as the logcumsumexp that it is, and `log Sum_j [i <= j] exp(f_j)` as one from the end."""
        d = v.axes.index(j)
        t = tt.method(tt.method(v.t, "flip", d) if last_first else v.t, "logcumsumexp", d)
        return Val(tt.method(t, "flip", d) if last_first else t, tuple(i if a == j else a for a in v.axes))
