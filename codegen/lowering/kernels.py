"""Expressions that torch has a stable kernel for. Each is an identity of the expression, not of an op that made it.

log(sum(exp f)) is logsumexp, log(exp(f) + exp(g)) is logaddexp, exp(f)/(exp(f) + exp(g)) is sigmoid(f - g),
f - log(sum(exp f)) is log_softmax, exp(f)/sum(exp f) is softmax, log(1 + f) is log1p, 1/(1 + exp(-f)) is sigmoid,
log(1 + exp f) is softplus, f / (1 + exp(-f)) is silu, f tanh(log(1 + exp f)) is mish, f (1 + erf(f / sqrt 2))/2 is gelu,
exp(f) - 1 is expm1, sign(f) f is abs, f where it is positive is relu, f within bounds is clamp, the larger of two is maximum:
the naive form overflows or cancels or is longer, the kernel is not.
"""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr

from engine.notation import Equal, Index, Less, LessEqual, Sigma, Sign, Where, canonical, ordered

if TYPE_CHECKING:
    from collections.abc import Sequence

Kernel = tuple[str, tuple[Any, ...]]

IDENTITIES = {
    "logsumexp": "log Σ exp(f) by `logsumexp`, which does not overflow",
    "logaddexp": "log(exp(f) + exp(g)) by `logaddexp`, which does not overflow",
    "softmax": "exp(f) / Σ exp(f) by `softmax`, which does not overflow",
    "log_softmax": "f - log Σ exp(f) by `log_softmax`, which does not overflow",
    "sigmoid": "1 / (1 + exp(-f)) by `sigmoid`, which does not overflow",
    "softplus": "log(1 + exp(f)) by `softplus`, which does not overflow",
    "logsigmoid": "-log(1 + exp(-f)) by `logsigmoid`, which does not overflow",
    "log1p": "log(1 + f) by `log1p`, which keeps the digits of a small f",
    "expm1": "exp(f) - 1 by `expm1`, which keeps the digits of a small f",
    "silu": "f / (1 + exp(-f)) by `silu`, which does not overflow",
    "mish": "f tanh(log(1 + exp(f))) by `mish`, which does not overflow",
    "gelu": "f (1 + erf(f / sqrt 2)) / 2 by `gelu`",
    "gelu_tanh": "f (1 + tanh(sqrt(2 / pi) (f + 0.044715 f^3))) / 2 by `gelu`",
    "abs": "sign(f) f by `abs`",
    "relu": "f where it is positive, else 0, by `relu`",
    "leaky_relu": "f where it is positive, else a fraction of it, by `leaky_relu`",
    "elu": "f where it is positive, else exp(f) - 1, by `elu`",
    "clamp": "f between two bounds by `clamp`",
    "hardtanh": "f between two bounds by `hardtanh`",
    "hardsigmoid": "f / 6 + 1/2 between 0 and 1 by `hardsigmoid`",
    "maximum": "the larger of two by `maximum`",
    "minimum": "the smaller of two by `minimum`",
    "softshrink": "f less a number beyond it, else 0, by `softshrink`",
    "hardshrink": "f beyond a number, else 0, by `hardshrink`",
    "power": "f^g by `**`, which is 0 or 1 where f is 0",
    "huber": "(f - g)^2 / 2 up to a distance, and linear beyond, by `huber_loss`",
    "hardswish": "f (f + 3) / 6 between -3 and 3, else relu(f), by `hardswish`",
}
"""What torch's kernels compute, by their names in emitted statements, for those who wonder where one comes from."""


def stable(e: Expr) -> Kernel | None:
    """The kernel that computes an expression, with its arguments; None if there is none."""
    if isinstance(e, sp.log):
        return _log(e.args[0])
    if isinstance(e, sp.Pow) and e.exp == -1:
        return _sigmoid(e.base)
    if isinstance(e, sp.Mul):
        return _product(e)
    if isinstance(e, Where):
        return _choice(e)
    if isinstance(e, sp.Add):
        return _difference(e)
    return None


def _choice(e: Where) -> Kernel | None:
    """x where it is positive, else nothing, a fraction of it, or exp(x) - 1."""
    condition, one, other = e.args
    if not condition.has(sp.Indexed):
        return _between(e) if condition.has(Index) else None
    bounded = _power(e) or _between(e) or _larger(e) or _softplus(e)
    if bounded is not None:
        return bounded
    below = condition in (LessEqual(other, 0), Less(other, 0))
    if (below and one == 0) or (condition == LessEqual(0, one) and other == 0):
        return "relu", (other if one == 0 else one,)
    pieces = _huber(e) or _elu(e) or _shrunk(e) or _hardswish(e) or _hardtanh(e)
    if pieces is not None:
        return pieces
    if condition != Less(0, one):
        return None
    slope = sp.cancel(other / one)
    return ("leaky_relu", (one, slope)) if slope.is_number and slope != 0 else None


def _power(e: Where) -> Kernel | None:
    """x^y with what it is where x is 0 and y is not negative said beside: 1 where y is 0 too, else 0."""
    condition, inner, other = (cast("Any", a) for a in e.args)
    if not isinstance(other, sp.Pow) or other.exp.is_number:
        return None
    x, y = other.args
    if condition != Equal(x, 0) * LessEqual(0, y):
        return None
    return ("power", (x, y)) if inner.xreplace({x: sp.S.Zero}) == Equal(y, 0) else None


def _between(e: Where) -> Kernel | None:
    """x between two numbers, or on one side of one: ("clamp", (x, lower, upper)), None for a side that is open."""
    condition, one, other = e.args
    if isinstance(other, Where) and one.is_number and condition == Less(other.args[2], one):
        upper, above, x = other.args
        if above.is_number and upper == Less(above, x) and one <= above:
            return "clamp", (x, one, above)
    if isinstance(other, Where) and one.is_number and isinstance(condition, Less):
        x, inner = condition.args[0], other.args[1]
        above = inner.args[2].args[1] if isinstance(inner, Where) and isinstance(inner.args[2], Where) else x
        if above.is_number and one < above and e == clamp_between(x, one, above):
            return "clamp", (x, one, above)
    if other.is_number and other != 0 and condition in (LessEqual(other, one), Less(other, one)):
        return "clamp", (one, other, None)
    if other.is_number and condition in (LessEqual(one, other), Less(one, other)):
        return "clamp", (one, None, other)
    return None


def clamp_between(x: Any, low: Any, high: Any) -> Any:
    """The larger of `low` and the smaller of x and `high`, with half the slope at each, as torch's maximum and minimum have it."""
    below = Where(Less(x, high), x, Where(Less(high, x), high, (x + high) / 2))
    return Where(Less(x, low), low, Where(Less(low, x), below, (x + low) / 2))


def _elu(e: Where) -> Kernel | None:
    """s x where x is positive, else s a (exp(k x) - 1): ("elu", (x, a, s, k))."""
    condition, one, other = (cast("Any", a) for a in e.args)
    if not isinstance(condition, Less):
        return None
    bound, moving = cast("Any", condition.args)
    if bound == 0 and not isinstance(condition, LessEqual):
        x, high, low = moving, one, other
    elif moving == 0:
        x, high, low = bound, other, one
    else:
        return None
    scale: Any = sp.cancel(high / x)
    low: Any = sp.expand(low)
    parts = [t for t in sp.Add.make_args(low) if t.has(sp.exp)]
    if not (scale.is_number and scale.is_positive and len(parts) == 1 and len(sp.Add.make_args(low)) == 2):
        return None
    c, f = parts[0].as_independent(x, as_Add=False)
    k: Any = sp.cancel(f.args[0] / x) if isinstance(f, sp.exp) else x
    if not (k.is_number and k.is_positive and c.is_number and sp.expand(low - parts[0] + c) == 0):
        return None
    return "elu", (x, sp.cancel(c / scale), scale, k)


def three_pieces(e: Where, continuous: bool = False) -> tuple[Any, Any, Any, tuple[Any, Any, Any]] | None:
    """(x, l, h, pieces) of a choice between what stands for x below l, from l to h and above h.

    Where what stands on both sides is the same at l and at h, either may be told to belong to either side.
    """
    condition, below, rest = e.args
    second, above, within = rest.args if isinstance(rest, Where) else (rest, sp.S.One, sp.S.Zero)
    kinds = (Less, LessEqual) if continuous else (Less,)
    if type(condition) not in kinds or type(second) not in kinds:
        return None
    (x, low), (high, again) = condition.args, second.args
    if x != again or not (low.is_number and high.is_number and low < high):
        return None
    return x, low, high, (below, within, above)


def _shrunk(e: Where) -> Kernel | None:
    """Nothing within d of zero; beyond, x itself or x less d."""
    three = three_pieces(e, continuous=True)
    if three is None or three[1] != -three[2] or three[3][1] != 0:
        return None
    x, _, d, (below, _, above) = three
    if (below, above) == (x, x):
        return ("hardshrink", (x, d)) if three_pieces(e) else None
    return ("softshrink", (x, d)) if (sp.expand(below - x - d), sp.expand(above - x + d)) == (0, 0) else None


def huber(difference: Expr, bound: Expr) -> Where:
    """Huber's loss of a difference: half its square up to the bound, linear beyond."""
    size = Sign(difference) * difference
    return Where(LessEqual(size, bound), difference**2 / 2, bound * size - bound**2 / 2)


def _huber(e: Where) -> Kernel | None:
    """Huber's loss of a - b: ("huber", (a, b, bound))."""
    condition, small, _ = e.args
    bound: Any = condition.args[1] if isinstance(condition, LessEqual) else None
    difference: Any = (2 * small).base if isinstance(2 * small, sp.Pow) else None
    if bound is None or not bound.is_positive or not isinstance(difference, sp.Add) or len(difference.args) != 2:
        return None
    if e != huber(difference, bound):
        return None
    one, other = sorted(difference.args, key=lambda t: cast("Any", t).could_extract_minus_sign())
    return "huber", (one, -other, bound)


def _hardswish(e: Where) -> Kernel | None:
    """x (x + 3) / 6 within 3 of zero, nothing below and x above."""
    three = three_pieces(e)
    if three is None or three[1:3] != (-3, 3):
        return None
    x, _, _, (below, within, above) = three
    return ("hardswish", (x,)) if (below, sp.expand(within - x * (x + 3) / 6), above) == (0, 0, x) else None


def _hardtanh(e: Where) -> Kernel | None:
    """x strictly between two numbers, beyond them these; x / 6 + 1/2 between 0 and 1."""
    three = three_pieces(e, continuous=True)
    if three is None:
        return None
    x, low, high, (below, within, above) = three
    if (below, within, above) == (low, x, high):
        return "hardtanh", (x, low, high)
    sixth = (low, high, below, above) == (-3, 3, 0, 1) and sp.expand(within - x / 6) == sp.S.Half
    return ("hardsigmoid", (x,)) if sixth else None


def _larger(e: Where) -> Kernel | None:
    """The larger or the smaller of two, their mean where they are equal."""
    condition, one, second = e.args
    if not isinstance(second, Where):
        return None
    turned, other, equal = second.args
    if sp.expand(one / 2 + other / 2 - equal) != 0:
        return None
    larger = condition == Less(other, one) and turned == Less(one, other)
    if not larger and not (condition == Less(one, other) and turned == Less(other, one)):
        return None
    numbers = [x for x in (one, other) if x.is_number]
    if not numbers:
        tensors = one.has(sp.Indexed) and other.has(sp.Indexed)
        return ("maximum" if larger else "minimum", (one, other)) if tensors else None
    x = one if other.is_number else other
    if larger:
        return ("relu", (x,)) if numbers[0] == 0 else ("clamp", (x, numbers[0], None))
    return "clamp", (x, None, numbers[0])


def _softplus(e: Where) -> Kernel | None:
    """log(1 + exp(x)), or x itself beyond a number: torch's own softplus."""
    condition, one, other = e.args
    threshold = condition.args[0] if condition.has(Less) else None
    beyond = threshold is not None and threshold.is_Integer and condition == Less(threshold, one)
    return ("softplus", (one, threshold)) if beyond and other == sp.log(1 + sp.exp(one)) else None


def _exponent(e: Expr) -> Expr | None:
    return e.args[0] if isinstance(e, sp.exp) else None


def _one_plus_exp(e: Expr) -> Expr | None:
    """f of 1 + exp(f)."""
    if isinstance(e, sp.Add) and len(e.args) == 2 and sp.S.One in e.args:
        return _exponent(e - 1)
    return None


def _two_exponents(e: Expr) -> tuple[Expr, Expr] | None:
    """f and g of exp(f) + exp(g)."""
    found = [f for f in map(_exponent, e.args) if f is not None] if isinstance(e, sp.Add) and len(e.args) == 2 else []
    return (found[0], found[1]) if len(found) == 2 else None


def _several_exponents(e: Expr) -> tuple[Expr, ...] | None:
    """f, g, ... of a exp(f) + b exp(g) + ... for positive numbers a, b, ..., of which there are three or more.

    Of a one beside two or more of them and the first of these, it is log(1 + exp(f)).
    """
    parts = [cast("Any", t).as_coeff_Mul() for t in e.args] if isinstance(e, sp.Add) and len(e.args) > 2 else []
    if not parts or not all(number.is_positive and (f == 1 or isinstance(f, sp.exp)) for number, f in parts):
        return None
    (number, first), *rest = [p for p in parts if p[1] != 1]
    if len(parts) > len(rest) + 1 and (sp.S.One not in e.args or number != 1):
        return None
    one = sp.log(1 + first) if sp.S.One in e.args else first.args[0] + sp.log(number)
    return one, *(f.args[0] + sp.log(number) for number, f in rest)


def _log(e: Expr) -> Kernel | None:
    f = _one_plus_exp(e)
    if f is not None:
        return ("neg", (("logsigmoid", (-f,)),)) if f.could_extract_minus_sign() else ("softplus", (f,))
    two = _two_exponents(e)
    if two is not None:
        return "logaddexp", two
    several = _several_exponents(e)
    if several is not None:
        return "logaddexp", several
    if isinstance(e, Sigma):
        inner = _exponent(e.body)
        if inner is not None:
            return "logsumexp", (inner, e.limits)
    if isinstance(e, sp.Add) and sp.S.One in e.args and e.has(sp.Indexed):
        return "log1p", (e - 1,)
    return None


def _sigmoid(base: Expr) -> Kernel | None:
    f = _one_plus_exp(base)
    return None if f is None else ("sigmoid", (-f,))


def _product(e: Expr) -> Kernel | None:
    """sigmoid and softmax among the factors of a product."""
    factors = list(sp.Mul.make_args(e))
    for s in factors:
        if isinstance(s, Sign) and s.args[0] in factors:
            return "scaled", (("abs", s.args), sp.Mul(*[f for f in factors if f not in (s, s.args[0])]))
        f = _mish(s)
        if f in factors:
            return "scaled", (("mish", (f,)), sp.Mul(*[g for g in factors if g not in (s, f)]))
        x = _gelu(s)
        if x in factors:
            return "scaled", (("gelu", (x,)), 2 * sp.Mul(*[f for f in factors if f not in (s, x)]))
        x = _gelu_tanh(s, factors)
        if x is not None:
            return "scaled", (("gelu_tanh", (x,)), 2 * sp.Mul(*[f for f in factors if f not in (s, x)]))
    for d in factors:
        b, x = d.as_base_exp()
        if not (x.is_Integer and x.is_negative):
            continue
        f = _one_plus_exp(b)
        if f is not None:
            rest = _without(factors, d, b, x)
            if -f in rest:
                rest.remove(-f)
                return "scaled", (("silu", (-f,)), sp.Mul(*rest))
            for g in factors:
                if _exponent(g) is not None and sp.expand(g.args[0] - f) == 0:
                    rest = [r for r in rest if r is not g]
                    return "scaled", (("sigmoid", (f,)), sp.Mul(*rest))
            return "scaled", (("sigmoid", (-f,)), sp.Mul(*rest))
        for one, other in permutations(_two_exponents(b) or (), 2):
            if sp.exp(one) in factors:
                rest = [r for r in _without(factors, d, b, x) if r != sp.exp(one)]
                return "scaled", (("share", (one, other)), sp.Mul(*rest))
        if isinstance(b, Sigma) and _exponent(b.body) is not None:
            for g in factors:
                inner = _exponent(g)
                match = None if inner is None else _same_up_to_indices(inner, b)
                if match is not None:
                    rest = [r for r in _without(factors, d, b, x) if r is not g]
                    limits = tuple((i, n) for i, (_, n) in zip(match, b.limits, strict=True))
                    return "scaled", (("softmax", (inner, limits)), sp.Mul(*rest))
    return None


def _mish(e: Expr) -> Expr | None:
    """x of tanh(log(1 + exp x))."""
    inner = e.args[0] if isinstance(e, sp.tanh) else None
    return _one_plus_exp(inner.args[0]) if isinstance(inner, sp.log) else None


def _gelu(e: Expr) -> Expr | None:
    """x of 1 + erf(x / sqrt 2)."""
    inner: Any = e - 1 if isinstance(e, sp.Add) and len(e.args) == 2 else None
    return sp.sqrt(2) * inner.args[0] if isinstance(inner, sp.erf) else None


def _gelu_tanh(e: Expr, factors: Sequence[Expr]) -> Expr | None:
    """x, one of the factors, of 1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))."""
    inner: Any = e - 1 if isinstance(e, sp.Add) and len(e.args) == 2 else None
    if not isinstance(inner, sp.tanh):
        return None
    found = (x for x in factors if not x.is_number and x is not e and inner.args[0].has(x))
    return next((x for x in found if sp.expand(inner.args[0] - cubic(x)) == 0), None)


def cubic(x: Any) -> Any:
    """What gelu takes the tanh of in its form by tanh."""
    return sp.sqrt(2 / sp.pi) * (x + sp.Rational(44715, 10**6) * x**3)


def with_share(e: Expr) -> Expr:
    """exp(f) sum(c / (exp(f) + exp(g))) with exp(f) inside of the sum, where it does not overflow, and exp(f) times a choice
    of `c / sum(exp f)` with exp(f) inside of the choice; other products as they are.
    """
    factors = list(sp.Mul.make_args(e))
    for s in factors:
        powers = [p.base for p in sp.Mul.make_args(s.body) if isinstance(p, sp.Pow)] if isinstance(s, Sigma) else []
        outside = [sp.exp(f) for b in powers for f in _two_exponents(b) or () if sp.exp(f) in factors]
        if outside:
            rest = [f for f in factors if f is not s and f != outside[0]]
            return sp.Mul(*rest, s.func(s.body * outside[0], *s.args[1:], evaluate=False), evaluate=False)
    for w in factors:
        top = next((g for g in factors if isinstance(w, Where) and _is_share(g, w.args[1:])), None)
        if top is not None:
            rest = [f for f in factors if f is not w and f is not top]
            return sp.Mul(*rest, Where(w.args[0], *[top * branch for branch in w.args[1:]]))
    return e


def _is_share(top: Expr, branches: Sequence[Any]) -> bool:
    """Whether `top` is an exponential that one of the branches divides by the sum of."""
    inner = _exponent(top)
    factors = [f for b in branches for f in sp.Mul.make_args(b)]
    if inner is None:
        return False
    if any(isinstance(f, Where) and _is_share(top, f.args[1:]) for f in factors):
        return True
    sums = [f.base for f in factors if isinstance(f, sp.Pow) and f.exp.is_negative and isinstance(f.base, Sigma)]
    return any(_exponent(s.body) is not None and _same_up_to_indices(inner, s) is not None for s in sums)


def _without(factors: list[Expr], d: Expr, b: Expr, x: Expr) -> list[Expr]:
    """The factors with one power of 1/b taken out."""
    rest = [r for r in factors if r is not d]
    return rest if x == -1 else [*rest, b ** (x + 1)]


def _same_up_to_indices(inner: Expr, total: Sigma) -> tuple[Index, ...] | None:
    """The indices of `inner` whose places the sum's indices take, in their order, if the two agree otherwise."""
    summed = [j for j, _ in total.limits]
    own = ordered(s for s in inner.free_symbols if isinstance(s, Index) and s not in total.free_symbols)
    wanted = canonical(total.body.args[0])
    for choice in permutations(own, len(summed)):
        if canonical(inner.xreplace(dict(zip(choice, summed, strict=True)))) == wanted:
            return choice
    return None


def log_share(e: Expr) -> tuple[Expr, Expr, Expr, tuple[Any, ...]] | None:
    """`c (f - log(sum(exp f)))` among the terms of a sum: the two terms, the number c, and (f, index, size, where f is on that axis).

    Apart, the two terms are as large as f, and their difference has lost its digits where f is large.
    """
    terms = sp.Add.make_args(e)
    for t in terms:
        logs = [x for x in sp.Mul.make_args(t) if isinstance(x, sp.log)]
        total, c = (logs[0].args[0], -t / logs[0]) if len(logs) == 1 else (t, t)
        if not isinstance(total, Sigma) or len(total.limits) != 1 or _exponent(total.body) is None or not c.is_number:
            continue
        ((j, n),) = total.limits
        f = total.body.args[0]
        for u in terms:
            share = u / c
            for where in _places(share):
                if where not in total.free_symbols and canonical(f.xreplace({j: where})) == canonical(share):
                    return u, t, c, (f, j, n, where)
    return None


def _places(e: Expr) -> list[Any]:
    """What tensors are read at in an expression: index symbols, and elements of integer tensors."""
    found = {i for a in e.atoms(sp.Indexed) for i in a.indices if isinstance(i, (Index, sp.Indexed))}
    return ordered(found)


def _difference(e: Expr) -> Kernel | None:
    """exp(f) - 1 is expm1."""
    if len(e.args) == 2 and sp.S.NegativeOne in e.args:
        f = _exponent(e + 1)
        if f is not None:
            return "expm1", (f,)
    return None
