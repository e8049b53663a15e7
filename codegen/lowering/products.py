"""Products of elements: numbers first, factors over few indices before they meet the large ones, then divisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr

from codegen.lowering import tensors as tt
from codegen.lowering.factors import long_number
from codegen.lowering.kernels import stable
from codegen.lowering.spellings import SpellingMixin
from engine.indexed import Indexed
from engine.notation import (
    BRACKETS,
    Delta,
    Equal,
    Index,
    Less,
    Quo,
    Rem,
    Where,
    name_of,
)

if TYPE_CHECKING:
    from codegen.lowering.values import Val


def has_functions(e: Expr) -> bool:
    """Whether an expression in sizes is more than Python's arithmetic: torch takes it, in the precision of the result."""
    return any(not isinstance(f, (Quo, Rem)) for f in e.atoms(sp.Function, sp.exp))


def is_cotangent(name: str) -> bool:
    """Whether a tensor of a statement is a cotangent: of a step, or of a region's cell."""
    return name.startswith(("_cot", "d_"))


def with_sizes_cancelled(e: Expr) -> Expr:
    """A product whose sizes are in lowest terms, where that is shorter: `n (1 - 1/n) / (n - 1)^2` as `1 / (n - 1)`."""
    sizes = [f for f in sp.Mul.make_args(e) if not f.atoms(Indexed, Index) and not f.is_number]
    if not any(f.has(sp.Add) for f in sizes) or len(sizes) < 2:
        return e
    known = sp.Mul(*sizes)
    if has_functions(known):
        return e
    short = sp.factor(sp.cancel(known))
    return e / known * short if sp.count_ops(short) < sp.count_ops(known) else e


def mask_in(f: Expr) -> tuple[Expr, Expr]:
    """(c, 1 - [..]) of c - c [..]; anything else with the factor 1."""
    c, rest = f.as_content_primitive()
    return (c, rest) if c != 1 and isinstance(1 - rest, BRACKETS) else (sp.S.One, f)


def numbers_out(e: Any) -> tuple[Any, list[Any]]:
    """The number in front of a product, with those inside of its choices between something and 0, and the other factors."""
    number, factors = e.as_coeff_mul()
    out: list[Any] = []
    for f in factors:
        inner = [a for a in f.args[1:] if a != 0] if isinstance(f, Where) else []
        own = inner[0].as_coeff_Mul()[0] if len(inner) == 1 else sp.S.One
        if own.is_Rational and own != 1:
            number, f = number * own, f.func(f.args[0], *[a / own for a in f.args[1:]])
        out.append(f)
    return number, out


def is_inverse(f: Any) -> bool:
    """Whether a factor is one that others are divided by."""
    return isinstance(f, sp.Pow) and f.exp.could_extract_minus_sign() and not isinstance(f.base, sp.exp)


def vanishes_with(choice: Any, divisor: Any) -> bool:
    """Whether a divisor may be 0 where a choice between something and 0 is 0: a count, or one made of the same choice."""
    if divisor.is_integer and divisor.has(Indexed) and not divisor.is_positive:
        return True
    taken = 1 if choice.args[1] == 0 else 2
    same = {w: w.args[taken] for w in divisor.atoms(Where) if w.args[0] == choice.args[0]}
    return bool(same) and divisor.xreplace(same) == 0


class ProductMixin(SpellingMixin):
    """Lowers products."""

    def product_of(self, e: Expr) -> Val:
        """A product: numbers first, factors over few indices before they meet the large ones, then divisions."""
        for shortcut in (
            self.triangle,
            self.scaled_bessel,
            self.one_root,
            self.mean_of,
            self.scaled_first,
            self.scaled_inside,
            self.chosen_multiple,
        ):
            found = shortcut(e)
            if found is not None:
                return found
        coefficient, factors = numbers_out(with_sizes_cancelled(e))
        if any(isinstance(f, sp.Add) and f.has(*BRACKETS) for f in factors):
            parts = [mask_in(f) for f in factors]
            coefficient, factors = sp.Mul(coefficient, *[c for c, _ in parts]), [f for _, f in parts]
        sign = coefficient.is_negative
        coefficient = -coefficient if sign else coefficient
        if long_number(coefficient) or any(f.is_number and not f.has(Indexed) for f in factors):
            coefficient = sp.Mul(coefficient, *[f for f in factors if f.is_number])
            factors = [f for f in factors if not f.is_number]
        top: list[Expr] = []
        bottom: list[Expr] = []
        scale_up: list[Expr] = []
        scale_down: list[Expr] = []
        for f in factors:
            inverse = is_inverse(f)
            if not f.atoms(Indexed, Index):
                (scale_down if inverse else scale_up).append(1 / f if inverse else f)
            else:
                (bottom if inverse else top).append(1 / f if inverse else f)
        masks, top = self._unmasked(top, bottom)
        bottom += [1 / f for f in top if is_inverse(f)]  # what is chosen beside 0
        top = [f for f in top if not is_inverse(f)]
        numbers = [f for f in top if f.is_number and f.is_finite]
        if numbers:  # what is chosen beside 0
            chosen = sp.Mul(*numbers)
            sign, top = sign != bool(chosen.is_negative), [f for f in top if f not in numbers]
            coefficient *= abs(chosen)
        top = self._cot_first(top)
        with self.under_condition(bool(masks)):
            numerator = [self.value(f) for f in top]
        mean = self._mean_among(top, numerator, sp.Mul(coefficient, *scale_up, *[1 / f for f in scale_down]))
        if mean is not None:
            coefficient, scale_up, scale_down, numerator = mean
        up, down = self._scale(coefficient)
        scale_up, scale_down = [*up, *scale_up], [*down, *scale_down]
        if not any(v.kind == "float" for v in numerator):
            numerator, masks = [*numerator, *masks], []
        divisor = [self.value(f) for f in bottom]
        inside = self._masked_first(top, numerator, divisor, masks)
        if inside:
            rest = [v for v in numerator if v not in inside]
            numerator = [*rest, self.masked(self._grouped(inside, divisor, scale_up, scale_down), masks)]
            divisor, scale_up, scale_down, masks = [], [], [], []
        apart = [self.unsigned(v) for v in numerator]
        sign, numerator = sign != (sum(negated for negated, _ in apart) % 2 == 1), [v for _, v in apart]
        if sign and scale_up and scale_up[0].is_Number:
            scale_up, sign = [-scale_up[0], *scale_up[1:]], False
        small = self._smallest(numerator) if sign else None
        if small is not None:
            numerator[small], sign = self.negative(numerator[small]), False
        widest = max((len(v.indices) for v in numerator), default=0)
        few = all(len(v.indices) < widest for v in divisor)
        if sign and not masks and scale_down and scale_down[0].is_Number and numerator and few:
            scale_down, sign = [-scale_down[0], *scale_down[1:]], False
        value = self._grouped(numerator, divisor, scale_up, scale_down)
        value = self.negative(value) if sign else value
        return self.masked(value, masks) if masks else value

    def _unmasked(self, factors: list[Expr], divisors: list[Expr]) -> tuple[list[Val], list[Expr]]:
        """Brackets, and choices between something and 0, apart from other factors: a mask is 0 beside infinity too.

        Not where a divisor may be 0 by the same choice, for 0/0 is undefined; what is passed back to something masked is 0
        even so, as it is in torch.
        """
        passed_back = any(is_cotangent(name_of(a)) for f in factors for a in f.atoms(Indexed))
        masks: list[Val] = []
        rest: list[Expr] = []
        left = list(reversed(factors))
        several = sum(isinstance(f, (*BRACKETS, Where)) for f in factors) > 1  # one may guard what another one reads
        while left:
            f = left.pop()
            chosen = f.args if isinstance(f, Where) and 0 in f.args[1:] else None
            one_call = (
                chosen is not None and not passed_back and stable(f) is not None
            )  # as relu: no mask is made for it
            if one_call or (chosen is not None and not passed_back and any(vanishes_with(f, d) for d in divisors)):
                rest.append(f)
                continue
            masking = chosen is not None or isinstance(f, (Less, Equal, Delta, sp.Add, Indexed))
            with self.under_condition(several):
                v = self.value(chosen[0] if chosen else f) if masking else None
            if v is None or v.kind != "bool":
                rest.append(f)
            elif chosen is None:
                masks.append(v)
            else:
                masks.append(self._inverted(v) if chosen[1] == 0 else v)
                left.extend(x for x in chosen[1:] if x not in (0, 1))
        return masks, rest

    def _masked_first(self, factors: list[Expr], values: list[Val], divisor: list[Val], masks: list[Val]) -> list[Val]:
        """The factors that are masked before they meet larger ones: those over the masks' indices, if the larger are plain tensors.

        autograd does so too: what a mask over few indices passes back is 0 before it is multiplied by anything larger. Not
        where the larger is computed with a mask tensor: it may be nan where everything is masked, and is masked last.
        """
        names = {n for v in masks for t in tt.walk(v.t) if t.kind == "name" for n in [str(t.head)] if self.is_mask(n)}
        over = {i for v in masks for i in v.indices}
        large = [f for f, v in zip(factors, values, strict=True) if not set(v.indices) <= over] if masks else []
        plain = all(isinstance(f, Indexed) and not names & self.tensors[name_of(f)].sources for f in large)
        fits = plain and all(set(v.indices) <= over for v in divisor)
        small = [v for v in values if set(v.indices) <= over]
        return small if large and fits and any(v.kind == "float" for v in small) else []

    def is_mask(self, name: str) -> bool:
        """Whether a tensor holds truth values."""
        return name in self.tensors and self.tensors[name].kind == "bool"

    @staticmethod
    def _smallest(values: list[Val]) -> int | None:
        """The factor over the fewest indices, which costs least to negate; None where all are alike."""
        floats = [k for k, v in enumerate(values) if v.kind == "float"]
        sizes = [len(v.indices) for v in values]
        least = min(floats, key=lambda k: sizes[k], default=None)
        return least if least is not None and sizes[least] < max(sizes) else None
