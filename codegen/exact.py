"""Steps mode in autograd's order of operations, so that its roundings are autograd's too.

autograd multiplies the cotangent by the whole local derivative and sums over broadcast dimensions last. The algebra moves
factors freely, which is equal in mathematics and not in the last bit. What is written here is still what was derived: only
the order of the multiplications is chosen, and a kernel where torch's own fuses them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr

from codegen.derive import COT
from codegen.lowering import tensors as tt
from codegen.lowering.kernels import stable
from codegen.lowering.lower import Lowerer
from codegen.lowering.values import Val
from codegen.ownoutput import OUT
from engine.indexed import Indexed
from engine.notation import BRACKETS, Amax, Floor, Sigma, Sign, Where, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.notation import Index
    from engine.table import Definition

Limits = tuple[tuple["Index", Expr], ...]

KERNELS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("torch.ops.aten.tanh_backward", lambda out: 1 - out**2),
    ("torch.ops.aten.sigmoid_backward", lambda out: out * (1 - out)),
)
"""torch's backward kernels of (cotangent, output) that round differently from the operators, by what they multiply with.

A row is used where this is what sympy derived, up to algebra. It says nothing of any op.
"""
OF_THE_INPUT: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    (
        "torch.ops.aten.gelu_backward",
        lambda x: (1 + sp.erf(x / sp.sqrt(2))) / 2 + x * sp.exp(-(x**2) / 2) / sp.sqrt(2 * sp.pi),
    ),
)
"""The same of (cotangent, input)."""


def is_elementwise(template: Definition) -> bool:
    """Whether an op works element by element: nothing is summed, chosen or compared."""
    return not template.expr.has(Sigma, Amax, Where, Sign, Floor, *BRACKETS)


class ExactLowerer(Lowerer):
    """Lowers what an elementwise op passes back, as autograd computes it."""

    def whole(self, e: Expr) -> Val:
        parts = apart(e)
        if parts is None:
            return self.value(e)
        limits, cot, local = parts
        body = cot * local
        with self.inside(body, limits):
            v = self._scaled(cot, local)
            return self.reduce(v, [i for i, _ in limits]) if limits else v

    def _scaled(self, cot: Indexed, local: Expr) -> Val:
        """The cotangent times a local derivative, or divided by its denominator where there is nothing else."""
        read = [a for a in local.atoms(Indexed) if a.indices == cot.indices]
        if len(read) == 1 == len(local.atoms(Indexed)):
            for kernel, formula in KERNELS if name_of(read[0]) == OUT else OF_THE_INPUT:
                if sp.expand(formula(read[0]) - local) == 0:
                    g, y = self.value(cot), self.value(read[0])
                    return Val(tt.call(kernel, g.t, y.t), g.axes)
        minus = local.could_extract_minus_sign()
        local = -local if minus else local
        g = self.negative(self.value(cot)) if minus else self.value(cot)
        kernel = stable(local) if isinstance(local, sp.Mul) and local.has(sp.exp) else None
        if kernel is not None:  # exponentials over exponentials overflow
            return self.join("*", g, self.kernel(kernel))
        over, under = sp.fraction(local)
        if over == 1:
            return self.join("/", g, self.value(under))
        if under == 1 or not under.has(Indexed):
            v = self.value(local)
            first = v.t.kind == "binary" and v.t.head == "*"  # products are read from the left
            return self.join("*", v, g) if first else self.join("*", g, v)
        return self.join("*", g, self.join("/", self.value(over), self.value(under)))


def apart(e: Expr) -> tuple[Limits, Indexed, Expr] | None:
    """The sum, the cotangent and the local derivative of one term; None where it is no such product."""
    factors = list(sp.Mul.make_args(e))
    sums = [f for f in factors if isinstance(f, Sigma)]
    if len(sums) > 1:
        return None
    limits: Limits = ()
    if sums:
        factors.remove(sums[0])
        factors.extend(sp.Mul.make_args(sums[0].body))
        limits = sums[0].limits
    cots = [f for f in factors if isinstance(f, Indexed) and name_of(f) == COT]
    local = sp.Mul(*[f for f in factors if f not in cots])
    if len(cots) != 1 or local.has(Sigma, Amax, Where, *BRACKETS) or not local.has(Indexed):
        return None
    return limits, cots[0], local
