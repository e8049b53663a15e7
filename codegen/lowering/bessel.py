"""Modified Bessel functions: torch has those of order 0 and 1, and both times exp(-|x|), which are finite where these overflow."""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from codegen.lowering import tensors as tt
from codegen.lowering.values import LowererBase, Val
from engine.notation import Sign


class BesselMixin(LowererBase):
    """Lowers `besseli`."""

    def bessel(self, e: Expr, scaled: bool = False) -> Val:
        """I_n(x), or exp(-|x|) I_n(x); from order 2 on by I_n = I_{n-2} - 2 (n - 1) / x I_{n-1}, which is 0 for x = 0."""
        order, x = int(e.args[0]), e.args[1]
        v = self.typed(self.value(x))
        if order < 2:
            return Val(tt.call(f"torch.special.i{order}{'e' if scaled else ''}", v.t), v.axes)
        lower, before = (self.bessel(sp.besseli(k, x), scaled).t for k in (order - 2, order - 1))
        zero = tt.binary("==", v.t, tt.number(0))
        safe = tt.call("torch.where", zero, tt.number(1), v.t)  # so that what is not chosen has a derivative, too
        quotient = tt.binary("/", tt.binary("*", tt.number(2 * (order - 1)), before), safe)
        return Val(tt.call("torch.where", zero, tt.number(0), tt.binary("-", lower, quotient)), v.axes)

    def scaled_bessel(self, e: Expr) -> Val | None:
        """A product with exp(-|x|) and a combination of I_n(x), as that of torch's scaled ones; None for any other product."""
        for d in e.args:
            for f in e.args if isinstance(d, sp.exp) else ():
                found = [t for term in sp.Add.make_args(f) for t in sp.Mul.make_args(term) if isinstance(t, sp.besseli)]
                if len(found) != len(sp.Add.make_args(f)) or any(
                    d != sp.exp(-Sign(t.args[1]) * t.args[1]) for t in found
                ):
                    continue
                total: Val | None = None
                for term, t in zip(sp.Add.make_args(f), found, strict=True):
                    value = self.bessel(t, scaled=True)
                    value = value if term == t else self.join("*", self.value(term / t), value)
                    total = value if total is None else self.join("+", total, value)
                rest = sp.Mul(*[g for g in e.args if g not in (d, f)])
                return total if rest == 1 or total is None else self.join("*", self.value(rest), total)
        return None


__all__ = ["BesselMixin"]
