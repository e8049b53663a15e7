"""The arithmetic of elements: sums, products, powers and functions, in the spelling and order a person would choose."""

from __future__ import annotations

from typing import Any, cast

import sympy as sp
from sympy import Expr

from codegen import tensors as tt
from codegen.formula import LONG
from codegen.kernels import log_share, stable
from codegen.tensors import T
from codegen.triangles import is_of_indices, order_of
from codegen.values import ELEMENTWISE, INFINITY, LowererBase, Val, broadcast, fits, integral, scalar, to_axes
from engine.errors import DerivationError
from engine.fromstart import from_start
from engine.indexed import Indexed
from engine.normal import erfcx, log_ndtr
from engine.notation import (
    BRACKETS,
    Delta,
    Equal,
    Floor,
    Index,
    Less,
    LessEqual,
    Quo,
    Rem,
    Sigma,
    Where,
    bound,
    canonical,
    free_indices,
    fresh,
    name_of,
)
from engine.sizes import evaluate

METHODS: dict[Any, str] = {
    sp.exp: "exp", sp.log: "log", sp.sin: "sin", sp.cos: "cos", sp.tan: "tan", sp.asin: "asin", sp.acos: "acos",
    sp.atan: "atan", sp.sinh: "sinh", sp.cosh: "cosh", sp.tanh: "tanh", sp.asinh: "asinh", sp.acosh: "acosh",
    sp.atanh: "atanh", sp.erf: "erf", sp.erfc: "erfc", sp.erfinv: "erfinv", sp.loggamma: "lgamma", sp.digamma: "digamma", sp.Abs: "abs",
    sp.sign: "sign", sp.floor: "floor", Floor: "floor", sp.ceiling: "ceil",
}  # fmt: skip
CALLS: dict[Any, str] = {erfcx: "torch.special.erfcx", log_ndtr: "torch.special.log_ndtr"}
"""Functions that torch has no method for."""


Fraction = tuple[list[Val], list[Val]]
"""What is multiplied, and what that is divided by."""

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


def has_functions(e: Expr) -> bool:
    """Whether an expression in sizes is more than Python's arithmetic: torch takes it, in the precision of the result."""
    return any(not isinstance(f, (Quo, Rem)) for f in e.atoms(sp.Function, sp.exp))


def put_into(values: list[tuple[bool, Val]]) -> list[tuple[bool, Val]]:
    """Terms with their signs, of which one that puts values into zeros puts them into another one of its shape instead."""
    put = next((v for minus, v in values if not minus and tt.puts_into_zeros(v.t) and None not in v.axes), None)
    if put is None:
        return values
    for k, (minus, v) in enumerate(values):
        if (
            v is not put
            and not minus
            and v.kind == put.kind == "float"
            and sorted(map(str, v.axes)) == sorted(map(str, put.axes))
        ):
            whole = Val(tt.method(to_axes(v, put.axes).t, "scatter_add", *put.t.args[1:]), put.axes)
            return [(m, whole if n == k else w) for n, (m, w) in enumerate(values) if w is not put]
    return values


def long_number(c: Any) -> bool:
    """Whether a positive number is written as a decimal: it is irrational, or a fraction of large integers."""
    return not c.is_Rational or (max(c.p, c.q) > LONG and len(repr(float(c))) > 5)


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


def running_mask(inner: Expr, limits: tuple[Any, ...]) -> Expr | None:
    """`[j <= k]` of the shares `f_j if j <= k else -oo` in a running sum, which are undefined where all up to k is -oo.

    Those beyond k are 0 even so.
    """
    if len(limits) != 1 or not isinstance(inner, Where) or inner.args[2] != sp.S.NegativeInfinity:
        return None
    bracket, f = inner.args[:2]
    ends = {*bracket.args} - {limits[0][0]} if isinstance(bracket, Less) else set[Any]()
    return bracket if len(ends) == 1 and all(isinstance(i, Index) and i not in f.free_symbols for i in ends) else None


class ScalarMixin(LowererBase):
    """Lowers Add, Mul, Pow and functions."""

    def constant(self, e: Expr) -> Val:
        """A number."""
        if e.is_Integer:  # torch takes no whole number beyond its integers, but a float as large
            return scalar(int(e) if abs(int(e)) < 2**63 else float(int(e)))
        if e in (sp.S.Infinity, sp.S.NegativeInfinity):
            return Val(INFINITY if e is sp.S.Infinity else tt.unary("neg", INFINITY), (), "number")
        if e is sp.S.NaN:
            return Val(tt.call("float", '"nan"'), (), "number")
        value = float(sp.N(e, 30))
        if e.is_Rational and len(repr(value)) > 8:
            p, q = e.p, e.q
            if len(f"{p}{q}") <= 6:
                return Val(tt.binary("/", tt.number(p), tt.number(q)), (), "number")
        return scalar(value)

    def floated(self, v: Val) -> Val:
        """A truth value as a number, so that it can be added."""
        return self.typed(v) if v.kind == "bool" else v

    def sum_of(self, e: sp.Add) -> Val:
        """Terms added from left to right, positive ones first."""
        share = log_share(e)
        if share is not None:
            done = self.log_softmax(e, *share)
            if done is not None:
                return done
        terms = list(e.as_ordered_terms())
        numbers = [t for t in terms if not t.free_symbols]
        if 1 < len(numbers) < len(terms):  # as log(2) and log(pi)
            terms = [*(t for t in terms if t.free_symbols), sp.Add(*numbers)]
        if len(terms) == 2 and terms.count(sp.S.One) == 1:
            other = terms[0] if terms[1] == 1 else terms[1]
            if isinstance(-other, (Less, Equal, Delta, Indexed)):
                v = self.value(-other)
                if v.kind == "bool":
                    return self._inverted(v)
        half = {abs(t.as_coeff_Mul()[0]) for t in terms} == {sp.S.Half}
        if half and all(t.has(Indexed) for t in terms):  # exact, and one division for all of them
            return self.join("/", self.value(sp.Add(*[2 * t for t in terms])), self.constant(sp.Integer(2)))
        signed = [(bool(t.is_negative if t.is_number else t.could_extract_minus_sign()), t) for t in terms]
        signed.sort(key=lambda s: (s[0], -len(s[1].atoms(Indexed)) if not s[1].is_number else 1))
        values: list[tuple[bool, Val]] = []
        for minus, t in signed:
            v = self.value(-t if minus else t)
            negated, v = self.unsigned(self.floated(v) if minus else v)
            values.append((minus != negated, v))
        values = self.small_ones_first(values) if self.fills else values
        values.sort(key=lambda v: (v[0], v[1].kind == "bool"))  # torch adds truth values to floats, not to one another
        values = put_into(values)
        all_minus, total = values[0][0], self.floated(values[0][1])
        for minus, v in values[1:]:
            v = v if total.kind == "float" else self.floated(v)
            total = self.join("-" if minus and not all_minus else "+", total, v)
        return self.negative(total) if all_minus else total

    def small_ones_first(self, values: list[tuple[bool, Val]]) -> list[tuple[bool, Val]]:
        """Terms with their signs, of which those over the same indices, fewer than all, are one: the large ones meet them once."""
        whole = {i for _, v in values for i in v.indices}
        groups: dict[Any, list[tuple[bool, Val]]] = {}
        for n, (minus, v) in enumerate(values):
            small = v.kind == "float" and {*v.indices} < whole
            groups.setdefault(frozenset(v.indices) if small else n, []).append((minus, v))
        out: list[tuple[bool, Val]] = []
        for group in groups.values():
            (all_minus, total), *rest = sorted(group, key=lambda t: t[0])
            for minus, v in rest:
                total = self.join("-" if minus and not all_minus else "+", total, v)
            out.append((all_minus, total))
        return out

    def log_softmax(self, e: Expr, one: Expr, other: Expr, c: Expr, share: tuple[Any, ...]) -> Val | None:
        """A sum with `c (f - log(sum(exp f)))` in it, read along the axis or at one place per row; None where it is neither."""
        f, j, n, where = share
        self.ranges[j] = n
        outer = self.order
        self.order = self.natural_order(f, [j if i == where else i for i in outer if i == where or i in f.free_symbols])
        v = self.real(f)
        self.order = outer
        if j not in v.axes:
            return None
        t = tt.method(v.t, "log_softmax", v.axes.index(j))
        if isinstance(where, Index):
            whole = Val(t, tuple(where if a == j else a for a in v.axes))
        elif v.axes == (*where.indices, j):
            at = [tt.call("torch.arange", self.ranges[i]) for i in where.indices]
            whole = Val(self.read_at(t, at[0], where), tuple(where.indices)) if len(at) == 1 else None
        else:
            whole = None
        rest = e - one - other
        if whole is None:
            return None
        minus = bool(c.is_negative)
        whole = whole if abs(c) == 1 else self.join("*", self.value(abs(c)), whole)
        if rest == 0:
            return self.negative(whole) if minus else whole
        return self.join("-" if minus else "+", self.value(rest), whole)

    def read_at(self, t: T, rows: T, where: Indexed) -> T:
        """One element of every row of a matrix, where an integer tensor says."""
        places = self.value(where).t
        if not from_start(where, lambda n: self.tensors[n].from_start):
            return tt.item(t, rows, places)
        return tt.method(tt.method(t, "gather", 1, tt.method(places, "unsqueeze", 1)), "squeeze", 1)

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

    def _inverted(self, v: Val) -> Val:
        if v.t.kind == "binary" and v.t.head in ("==", "!="):
            return Val(tt.binary("!=" if v.t.head == "==" else "==", *v.t.args), v.axes, "bool")
        plain = v.t.kind == "unary" and v.t.head == "~"
        return Val(v.t.args[0] if plain else tt.unary("~", v.t), v.axes, "bool")

    def masked(self, v: Val, masks: list[Val]) -> Val:
        """A tensor where all masks hold, 0 elsewhere, whatever the tensor is there."""
        mask = self._times(masks)
        target = self.target(mask, v)
        mask, v = to_axes(mask, target), to_axes(v, target)
        inverted = mask.t.head in ("~", "!=")
        holds = self._inverted(mask).t if inverted else mask.t
        chosen = (holds, tt.number(0), v.t) if inverted else (holds, v.t, tt.number(0))
        return Val(tt.call("torch.where", *chosen), broadcast(mask.axes, v.axes), v.kind)

    def one_root(self, e: Expr) -> Val | None:
        """sqrt(a)/sqrt(n) as sqrt(a/n): sympy takes roots of products of positive factors apart."""
        roots = [f for f in e.args if isinstance(f, sp.Pow) and f.exp in (sp.S.Half, -sp.S.Half)]
        loose = [f for f in roots if not f.atoms(Indexed)]
        tied = [f for f in roots if f.atoms(Indexed)]
        if len(tied) != 1 or not loose or ((loose[0].exp * tied[0].exp).is_positive and len(loose) > 1):
            return None
        exponent = tied[0].exp
        v = self.value(sp.Mul(*[f.base if f.exp == exponent else 1 / f.base for f in (*loose, *tied)]))
        root = Val(tt.method(v.t, "sqrt" if exponent == sp.S.Half else "rsqrt"), v.axes, "float", v.kept)
        rest = sp.Mul(*[f for f in e.args if f not in roots])
        return root if rest == 1 else self.join("*", self.value(rest), root)

    def chosen_multiple(self, e: Expr) -> Val | None:
        """A tensor times one of two numbers, as a choice between its multiples: numbers alone would become float32."""
        choices = [
            f for f in e.args if isinstance(f, Where) and not any(x == 0 or x.has(Indexed, Index) for x in f.args[1:])
        ]
        plain = [f for f in e.args if isinstance(f, Indexed) and self.tensors[name_of(f)].kind == "float"]
        if len(choices) != 1 or not plain:
            return None
        condition, a, b = choices[0].args
        factor = self._cot_first([*plain])[0]
        multiple = Where(condition, a * factor, b * factor)
        return self.value(sp.Mul(multiple, *[f for f in e.args if f not in (choices[0], factor)]))

    def mean_of(self, e: Expr) -> Val | None:
        """A sum divided by its count is `mean`."""
        sums = [f for f in e.args if isinstance(f, Sigma)]
        if len(sums) != 1:
            return None
        count = sp.Mul(*[n for _, n in sums[0].limits])
        rest = sp.cancel(sp.Mul(*[f for f in e.args if f is not sums[0]]) * count)
        if rest.free_symbols & count.free_symbols or rest.has(Indexed, Index):
            return None
        if not count.free_symbols and (rest not in (1, -1) or count == 1):  # else it is any number that a sum has
            return None
        total = self.value(sums[0])
        if total.t.kind == "unary" and total.t.head == "neg":
            total, rest = self.negative(total), -rest
        if total.t.kind != "method" or total.t.head != "sum" or total.kind != "float":
            return None
        mean = Val(T("method", "mean", total.t.args, total.t.keywords), total.axes, total.kind, total.kept)
        if rest in (1, -1):
            return mean if rest == 1 else self.negative(mean)
        return self.join("*", self.value(rest), mean)

    def _mean_among(
        self, factors: list[Expr], values: list[Val], scale: Expr
    ) -> tuple[Any, list[Expr], list[Expr], list[Val]] | None:
        """Factors beside a number in which a sum over n is `mean`, for 1/n in the number, and what is left of that."""
        for k, (f, v) in enumerate(zip(factors, values, strict=True)):
            if not isinstance(f, Sigma) or v.t.kind != "method" or v.t.head != "sum" or v.kind != "float":
                continue
            count = sp.Mul(*[n for _, n in f.limits])
            rest = sp.cancel(scale * count)
            number, sizes = rest.as_coeff_Mul()
            if sizes.free_symbols & count.free_symbols or not number.is_positive:
                continue
            if not count.free_symbols and (rest != 1 or count == 1):  # else it is any number that a sum has
                continue
            up, down = sizes.as_numer_denom()
            mean = Val(T("method", "mean", v.t.args, v.t.keywords), v.axes, v.kind, v.kept)
            sides = [[x for x in sp.Mul.make_args(side) if x != 1] for side in (up, down)]
            return number, sides[0], sides[1], [*values[:k], mean, *values[k + 1 :]]
        return None

    def scaled_inside(self, e: Expr) -> Val | None:
        """`c (2 a - w)` for a single number c as `2 c a - c w`, where w is smaller than a: a is multiplied with one number, once."""
        sums = [f for f in e.args if isinstance(f, sp.Add)]
        if not self.fills or len(sums) != 1:
            return None
        scale = sp.Mul(*[f for f in e.args if f is not sums[0]])
        own = [frozenset(i for i in t.free_symbols if isinstance(i, Index) and i in self.ranges) for t in sums[0].args]
        every = frozenset[Any]().union(*own)
        large = [t for t, indices in zip(sums[0].args, own, strict=True) if indices == every]
        single = scale.has(Indexed) and not scale.atoms(Index)
        if not single or len(large) != 1 or abs(cast("Any", large[0]).as_coeff_Mul()[0]) == 1 or len(own) < 2:
            return None
        return self.sum_of(sp.Add(*[scale * t for t in sums[0].args]))

    def scaled_first(self, e: Expr) -> Val | None:
        """`c a @ b` for a number c as `(c a) @ b`, where a has less than half as many elements as the product."""
        sums = [f for f in e.args if isinstance(f, Sigma)]
        if len(sums) != 1 or not self.example:
            return None
        (total,) = sums
        scale = sp.Mul(*[f for f in e.args if f is not total])
        factors = sp.Mul.make_args(total.body)
        plain = all(isinstance(f, Indexed) and all(i == 0 or isinstance(i, Index) for i in f.indices) for f in factors)
        if scale in (1, -1) or scale.atoms(Index) or not plain:
            return None
        sizes = {**self.ranges, **dict(total.limits)}
        groups: set[frozenset[Any]] = {frozenset(i for i in cast("Any", f).indices if i != 0) for f in factors}
        every = frozenset[Any]().union(*groups)
        if not every <= sizes.keys() or any(a < b for a in groups for b in groups) or len(groups) < 2:
            return None
        result, *counts = [
            evaluate(cast("Expr", sp.Mul(*[sizes[i] for i in g])), self.example)
            for g in (every - bound(total), *groups)
        ]
        whole = cast("Expr", total.func(scale * total.body, *total.args[1:]))
        return self.value(whole) if 2 * min(counts) < result else None

    def _scale(self, c: Any) -> tuple[list[Expr], list[Expr]]:
        """What a positive number multiplies with and divides by: a fraction of small integers, else one decimal."""
        if long_number(c):
            up, down = float(sp.N(c, 30)), float(sp.N(1 / c, 30))
            if len(repr(up)) <= len(repr(down)) + 2:
                return [sp.Float(up, 17)], []
            return [], [sp.Integer(int(down)) if down == int(down) else sp.Float(down, 17)]
        if c.p != 1 and not self._short(c) and self._short(1 / c):
            return [], [1 / c]
        up_part: list[Expr] = [] if c.p == 1 else [c] if self._short(c) else [sp.Integer(c.p)]
        return up_part, [] if c.q == 1 or (up_part and up_part[0] == c) else [sp.Integer(c.q)]

    def _short(self, c: Any) -> bool:
        return c.is_Integer or len(repr(float(c))) <= 5

    def _cot_first(self, factors: list[Expr]) -> list[Expr]:
        def key(f: Expr) -> tuple[int, int]:
            return (0 if any(name_of(a).startswith("_cot") for a in f.atoms(Indexed)) else 1, factors.index(f))

        return sorted(factors, key=key)

    def _grouped(self, top: list[Val], bottom: list[Val], up: list[Expr], down: list[Expr]) -> Val:
        """The product; brackets choose between it and zero, so that nothing masked out can be infinite or nan."""
        brackets = [v for v in top if v.kind == "bool"]
        rest = [v for v in top if v.kind != "bool"]
        if brackets and not (rest or bottom or up or down):
            return self._times(brackets)
        if not any(v.indices for v in brackets) or not (rest or bottom):
            return self._multiplied(top, bottom, up, down)
        condition, value = self._times(brackets), self._multiplied(rest, bottom, up, down)
        if value.is_number:
            return self.join("*", condition, value)
        target = self.target(condition, value)
        condition, value = to_axes(condition, target), to_axes(value, target)
        axes = condition.axes if value.is_number else broadcast(condition.axes, value.axes)
        return Val(
            tt.call("torch.where", condition.t, value.t, tt.number(0)),
            axes,
            "float" if value.kind == "number" else value.kind,
        )

    def _multiplied(self, top: list[Val], bottom: list[Val], up: list[Expr], down: list[Expr]) -> Val:
        groups: dict[frozenset[Any], tuple[list[Val], list[Val]]] = {}
        for v in top:
            groups.setdefault(frozenset(v.indices), ([], []))[0].append(v)
        for v in bottom:
            groups.setdefault(frozenset(v.indices), ([], []))[1].append(v)
        single = self.fills and (frozenset() in groups or bool(up) or bool(down))  # it goes into the smallest tensor
        ordered = sorted(groups.items(), key=lambda g: (len(g[0]), self.elements(g[0]) if single else 0))
        scalars = [self.value(x) for x in up], [self.value(x) for x in down]
        if not ordered:
            return self._ratio(*scalars)
        if self.fills and all(scalars) and len(ordered) == 1 and ordered[0][0]:  # one pass over a tensor
            scalars = [self._ratio(*scalars)], list[Val]()
        ordered[0] = (ordered[0][0], ([*scalars[0], *ordered[0][1][0]], [*scalars[1], *ordered[0][1][1]]))
        built: list[tuple[Val | None, Val | None]] = []
        for over, under in self._small_ones_first(ordered):
            if over or len(ordered) == 1:
                built.append((self._ratio(over, under), None))
            else:
                built.append((None, self._times(under)))
        result, divisor = built[-1]
        for other, under in reversed(built[:-1]):
            if other is not None:
                if result is not None and result.kind == other.kind == "bool":
                    result = self.floated(result)
                several = other.t.kind == "binary" and other.t.head == "*"
                first = self.fills and result is not None and several and leads(other, result)
                pair = (other, result) if first else (result, other)  # `a * (2 * g)` is written without parentheses
                result = other if result is None else self.join("*", *pair)  # pyright: ignore[reportArgumentType]
            if under is not None:
                divisor = under if divisor is None else self.join("*", divisor, under)
        if result is None:
            result = scalar(1)
        return result if divisor is None else self.join("/", result, divisor)

    def _small_ones_first(self, groups: list[tuple[frozenset[Any], Fraction]]) -> list[Fraction]:
        """Factors and divisors by their indices, those over few with those over more, as long as these are not over all."""
        every = frozenset[Any]().union(*[indices for indices, _ in groups])
        left = list(groups)
        out: list[Fraction] = []
        while left:
            mine, (over, under) = left.pop(0)
            wider = next((k for k, (theirs, _) in enumerate(left) if mine < theirs < every), None)
            if wider is None:
                out.append((over, under))
                continue
            theirs, (above, below) = left[wider]
            both = ([self._ratio(over, under), *above], below) if over else (above, [self._times(under), *below])
            left[wider] = (theirs, both)
        return out

    def _times(self, values: list[Val]) -> Val:
        total = values[0]
        for v in values[1:]:
            both = total.kind == v.kind == "bool"
            total = self.join("&", total, v, "bool") if both else self.join("*", total, v)
        return total

    def _ratio(self, over: list[Val], under: list[Val]) -> Val:
        top = self._times(over) if over else scalar(1)
        if not under:
            return top
        numbers = top.is_number and all(u.is_number for u in under)
        return self.join("/", top, self._times(under), None if numbers else "float")

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
            v = self.typed(v)
            return Val(tt.method(v.t, "sqrt" if x == sp.S.Half else "rsqrt"), v.axes, "float", v.kept)
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

    def norm(self, e: Where) -> Val | None:
        """The root of a sum of squares that is 0 where the sum is; None where a choice is anything else."""
        condition, zero, root = e.args
        square = condition.args[0] if isinstance(condition, Equal) and condition.args[1] == zero == 0 else None
        if not isinstance(square, Sigma) or square.body.as_base_exp()[1] != 2:
            return None
        if canonical(root) != canonical(sp.sqrt(square)):
            return None
        inner = square.body.as_base_exp()[0]
        with self.inside(inner, square.limits):
            v = self.real(inner)
        if not all(i in v.axes for i, _ in square.limits):
            return None
        dims = tuple(sorted(v.axes.index(i) for i, _ in square.limits))
        kept = tuple(None if d in dims else a for d, a in enumerate(v.axes))
        own = {} if len(dims) == len(v.axes) else {"dim": dims[0] if len(dims) == 1 else dims}
        return Val(
            tt.method(v.t, "norm", **own), tuple(a for d, a in enumerate(v.axes) if d not in dims), "float", kept
        )

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

    def kernel(self, k: tuple[str, tuple[Any, ...]]) -> Val:
        """A stable kernel found by `kernels.stable`."""
        name, args = k
        if name in ("logsumexp", "softmax"):
            inner, limits = args
            mask = running_mask(inner, limits)
            if name == "logsumexp" and isinstance(mask, LessEqual):
                ((j, n),) = limits
                (i,) = {*mask.args} - {j}
                with self.inside(inner.args[1], limits):
                    v = self.real(inner.args[1])
                if v.axes.count(j) == 1 and sp.expand(self.ranges.get(cast("Index", i), 0) - n) == 0:
                    return self.running_logarithm(v, j, cast("Index", i), last_first=mask.args[0] == i)
            with self.inside(inner, limits):
                v = self.real(inner)
            dims = tuple(v.axes.index(i) for i, _ in limits)
            mask = mask if name == "softmax" else None
            if mask is not None:
                return self.masked(Val(tt.method(v.t, name, dims[0]), v.axes), [self.value(mask)])
            if name == "softmax" and len(dims) > 1 and dims == tuple(range(dims[0], dims[-1] + 1)):
                flat = tt.method(tt.method(v.t, "flatten", dims[0], dims[-1]), "softmax", dims[0])
                return Val(tt.method(flat, "unflatten", dims[0], tuple(n for _, n in limits)), v.axes)
            if name == "softmax" and len(dims) > 1:
                total = tt.method(v.t, "logsumexp", dims, keepdim="True")
                return Val(tt.method(tt.binary("-", v.t, total), "exp"), v.axes)
            t = tt.method(v.t, name, dims[0] if len(dims) == 1 else dims)
            if name == "softmax":
                return Val(t, v.axes)
            kept = tuple(None if d in dims else a for d, a in enumerate(v.axes))
            return Val(t, tuple(a for d, a in enumerate(v.axes) if d not in dims), "float", kept)
        if name == "scaled":
            kernel, factors = self.kernel(args[0]), sp.Mul.make_args(args[1])
            if args[1] == -1:
                return self.negative(kernel)
            few = sp.Mul(*[f for f in factors if free_indices(f) <= {*kernel.indices}])
            rest = [f for f in (few, sp.Mul(args[1], 1 / few)) if f != 1]
            return self._times([kernel, *[self.value(f) for f in rest]])
        if name == "power":
            return self.join("**", self.value(args[0]), self.value(args[1]))
        if name == "neg":
            return self.negative(self.kernel(args[0]))
        if name in ("logaddexp", "maximum", "minimum"):
            first = self.of_two(f"torch.{name}", *args[:2])
            for e in args[2:]:
                v = self.typed(self.value(e))
                target = self.target(first, v)
                a, b = to_axes(first, target), to_axes(v, target)
                first = Val(tt.call(f"torch.{name}", a.t, b.t), broadcast(a.axes, b.axes))
            return first
        if name == "huber":
            return self.huber_loss(*args)
        if name == "share":
            return self.map_method("sigmoid", args[0] - args[1])
        position = name == "clamp" and not args[0].has(Indexed) and all(x is None or x.is_Integer for x in args[1:])
        v = self.value(args[0]) if position else self.real(args[0])
        if name == "clamp":
            lower, upper = (None if x is None else self.value(x).t for x in args[1:])
            if lower is None or upper is None:
                side = {"max": upper} if lower is None else {"min": lower}
                return Val(tt.method(v.t, "clamp", **side), v.axes, v.kind)
            return Val(tt.method(v.t, "clamp", lower, upper), v.axes, v.kind)
        if name == "gelu_tanh":
            return Val(tt.call("torch.nn.functional.gelu", v.t, approximate=BY_TANH), v.axes)
        if name in ("logsigmoid", "gelu", "silu", "mish"):
            return Val(tt.call(f"torch.nn.functional.{name}", v.t), v.axes)
        if name == "elu":
            alpha, scale, inner = (float(x) for x in args[1:])
            if scale == inner == 1:
                return Val(tt.call("torch.nn.functional.elu", v.t, *([tt.number(alpha)] if alpha != 1 else [])), v.axes)
            return Val(tt.call("torch.ops.aten.elu", v.t, *map(tt.number, (alpha, scale, inner))), v.axes)
        if name in ("softshrink", "hardshrink", "hardswish", "hardtanh", "hardsigmoid"):
            return Val(tt.call(f"torch.nn.functional.{name}", v.t, *[tt.number(float(x)) for x in args[1:]]), v.axes)
        if name == "leaky_relu":
            return Val(tt.call("torch.nn.functional.leaky_relu", v.t, tt.number(float(args[1]))), v.axes)
        if name == "softplus":  # beyond 40 it is the identity to the last bit of a double; torch's own threshold is 20
            threshold = int(args[1]) if len(args) > 1 else 40
            own = {} if threshold == 20 else {"threshold": threshold}
            return Val(tt.call("torch.nn.functional.softplus", v.t, **own), v.axes)
        return Val(tt.method(v.t, name), v.axes)

    def huber_loss(self, one: Expr, other: Expr, bound: Expr) -> Val:
        """Huber's loss entry by entry, of two tensors that have to be equally large for torch."""
        a, b = self.value(one), self.value(other)
        target = self.target(a, b)
        a, b = to_axes(a, target), to_axes(b, target)
        pair = [T("starred", "", (tt.call("torch.broadcast_tensors", a.t, b.t),))] if a.axes != b.axes else [a.t, b.t]
        own = {} if bound == 1 else {"delta": self.value(bound).t}
        t = tt.call("torch.nn.functional.huber_loss", *pair, reduction=tt.EACH, **own)
        self.losses = True
        return Val(t, broadcast(a.axes, b.axes))

    def compare(self, symbol: str, e: Any) -> Val:
        """A bracket as a tensor of truth values; `i + 1 <= j` of whole numbers is `i < j`, `i < j + 1` is `i <= j`."""
        sides = e.args
        if symbol != "==":
            one, other, strict = order_of(e)
            symbol, sides = "<" if strict else "<=", (one, other)
            if is_of_indices(e) and one in self.ranges and other in self.ranges:
                return self.triangle_of_truths(cast("Index", one), cast("Index", other), strict=strict)
        a, b = (self.value(x) for x in sides)
        if a.is_number and not b.is_number:
            turned = {"<": ">", "<=": ">=", "==": "=="}[symbol]
            return self.join(turned, b, a, "bool")
        if a.is_number:
            return Val(tt.binary(symbol, a.t, b.t), (), "number")
        return self.join(symbol, a, b, "bool")

    def choice(self, e: Where) -> Val:
        """torch.where, torch's norm for `0 if Sum x^2 = 0 else sqrt(Sum x^2)`, triangles of matrices, and stacks."""
        known = self.norm(e) or self.chosen_triangle(e) or self.stacked(e)
        if known is not None:
            return known
        condition = self.value(e.args[0])
        with self.under_condition():
            a, b = (self.value(x) for x in e.args[1:])
        if condition.is_number:
            condition = Val(tt.call("torch.tensor", condition.t), (), "bool")
        if condition.kind != "bool":
            condition = self.join("!=", condition, scalar(0), "bool")
        target = self.target(condition, a, b)
        condition, a, b = (to_axes(v, target) for v in (condition, a, b))
        axes = condition.axes
        for v in (a, b):
            if not v.is_number:
                axes = broadcast(axes, v.axes)
        kind = "float" if "float" in (a.kind, b.kind) else "int"
        sides = [v for v in (a, b) if not v.is_number]
        whole = (
            bool(sides) and all(v.kind == "int" for v in sides) and all(integral(v.t) for v in (a, b) if v.is_number)
        )
        if not any(v.kind == "float" for v in (a, b)) and not self.counting and not (whole and self.like is None):
            a, kind = self.typed(a), "float"  # torch would make integers of integers, and float32 of other numbers
            b = b if b.is_number else self.typed(b)
        return Val(tt.call("torch.where", condition.t, a.t, b.t), axes, kind)


def leads(product: Val, other: Val) -> bool:
    """Whether a product is written before another factor: as it lies beside that, or with an index of its own.

    Behind the other one its factors would be multiplied one by one, from left to right.
    """
    return fits(product.kept or product.axes, other.axes) or not {*product.indices} <= {*other.indices}
