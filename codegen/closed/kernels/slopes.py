# pyright: basic
"""Products with the slope of a function, as torch's kernel for them: `g (1 - h^2)` is `tanh_backward(g, h)` for a tanh h.

The slopes of relu, leaky_relu and softplus are choices by x, and the kernels read x too, or a result that has its sign.
The slope of gelu, `(1 + erf(x/sqrt 2))/2 + x exp(-x^2/2)/sqrt(2 pi)`, is `gelu_backward`, which reads x alone, as the one of its
form by tanh does. So do
`silu_backward`, for `s + x s (1 - s)` with s = sigmoid(x), and `mish_backward`, for `t + x s (1 - t^2)` with t = tanh(log(1 + exp x)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp

from codegen.closed.algebra.matching import holding
from codegen.closed.algebra.sums import rebuilt
from codegen.closed.definitions.logistic import DEPTH, gate_argument
from codegen.closed.kernels.cubicgate import gelu_tanh_of, slope_of_gelu_tanh
from codegen.closed.regions.cells import at, substituted
from codegen.lowering.kernels import three_pieces
from engine.indexed import Indexed
from engine.notation import BRACKETS, Delta, Equal, Index, Less, LessEqual, Sigma, Sign, Where, accesses, bound, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from codegen.closed.regions.cells import Cell

CHOICES = (*BRACKETS, Where)
"""What a kernel is not put around: a product with one of these is computed where it holds."""


class TanhBackward(sp.Function):
    """`TanhBackward(g, h)` is `g (1 - h^2)`."""

    nargs = 2


class GeluBackward(sp.Function):
    """`GeluBackward(g, x)` is g times the slope of gelu at x."""

    nargs = 2


class GeluTanhBackward(sp.Function):
    """`GeluTanhBackward(g, x)` is g times the slope at x of gelu as a tanh of a cubic."""

    nargs = 2


class SiluBackward(sp.Function):
    """`SiluBackward(g, x)` is g times the slope of x sigmoid(x)."""

    nargs = 2


class MishBackward(sp.Function):
    """`MishBackward(g, x)` is g times the slope of x tanh(log(1 + exp x))."""

    nargs = 2


class SigmoidBackward(sp.Function):
    """`SigmoidBackward(g, s)` is `g s (1 - s)`."""

    nargs = 2


class ThresholdBackward(sp.Function):
    """`ThresholdBackward(g, x, t)` is 0 where x is at most t, else g."""

    nargs = 3


class LeakyReluBackward(sp.Function):
    """`LeakyReluBackward(g, x, k)` is g where x is positive, else k g."""

    nargs = 3


class SoftplusBackward(sp.Function):
    """`SoftplusBackward(g, x, t)` is g times sigmoid(x), or g where x exceeds t, from where on softplus(x) is x."""

    nargs = 3


class EluBackward(sp.Function):
    """`EluBackward(g, x, a, s, k)` is s g where x is positive, else s a k exp(k x) g."""

    nargs = 5


class ShrinkBackward(sp.Function):
    """`ShrinkBackward(g, x, d)` is g where |x| exceeds d, else 0."""

    nargs = 3


class HardtanhBackward(sp.Function):
    """`HardtanhBackward(g, x, l, h)` is g where l < x < h, else 0."""

    nargs = 4


KERNELS = (
    TanhBackward,
    GeluBackward,
    GeluTanhBackward,
    SiluBackward,
    MishBackward,
    SigmoidBackward,
    ThresholdBackward,
    LeakyReluBackward,
    SoftplusBackward,
    EluBackward,
    ShrinkBackward,
    HardtanhBackward,
)
"""All of them are linear in what they multiply by the slope."""


def tanh_of(e: Any, cells: Mapping[str, Cell]) -> Indexed | None:
    """h of `1 - h^2`, where a cell says that it is a tanh."""
    if not isinstance(e, sp.Add) or len(e.args) != 2 or sp.S.One not in e.args:
        return None
    root = (1 - e).as_base_exp()
    h = root[0] if root[1] == 2 and isinstance(root[0], Indexed) else None
    cell = None if h is None else cells.get(name_of(h))
    return h if cell is not None and isinstance(cell.expr, sp.tanh) else None


def sigmoid_of(e: Any, cells: Mapping[str, Cell]) -> tuple[Any, Indexed] | None:
    """What a product multiplies `s (1 - s)` by, and s, where a cell says that s is a sigmoid."""
    for f in e.args:
        for s, sign in ((1 - f, 1), (1 + f, -1)) if isinstance(f, sp.Add) else ():
            cell = cells.get(name_of(s)) if isinstance(s, Indexed) and s in e.args else None
            if cell is not None and cell.expr is not None and gate_argument(cell.expr) is not None:
                return sign * (e / f / s), cast("Indexed", s)
    return None


def gelu_of(e: Any, cells: Mapping[str, Cell]) -> tuple[Indexed, Any] | None:
    """x and c of c times the slope of gelu at x, with what cells hold of it written out."""
    if not isinstance(e, sp.Add) or not e.has(sp.exp):
        return None
    whole = sp.expand(with_erf(e, cells))
    for f in sorted(whole.atoms(sp.erf), key=str):
        x, number = named(sp.sqrt(2) * f.args[0], cells), 2 * whole.coeff(f)
        if x is not None and number.is_number and same(whole, number * slope_of_gelu(x), cells):
            return x, number
    return None


def named(e: Any, cells: Mapping[str, Cell]) -> Indexed | None:
    """The element of a tensor that an expression is, or that holds it: `x / 0.07` may have a name."""
    if isinstance(e, Indexed):
        return e
    found = (holding(c, cast("Any", c.expr), e) for c in products(cells).values())
    return next((x for x in found if x is not None), None)


def same(a: Any, b: Any, cells: Mapping[str, Cell]) -> bool:
    """Whether two expressions are equal where cells that are products are written out."""
    rest, written = sp.expand(a - b), products(cells)
    for _ in range(DEPTH):
        if rest == 0:
            return True
        rest = sp.expand(substituted(rest, written))
    return rest == 0


def products(cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """Cells that are products of powers of tensors, as `x^2` and multiples are."""
    return {
        n: c
        for n, c in cells.items()
        if c.expr is not None
        and isinstance(c.expr, (sp.Mul, sp.Pow))
        and not isinstance(c.expr, sp.exp)
        and all(f.is_number or isinstance(f.as_base_exp()[0], Indexed) for f in sp.Mul.make_args(c.expr))
    }


def with_erf(e: Any, cells: Mapping[str, Cell]) -> Any:
    """An expression with what cells hold of an error function written out, down to what that is a multiple of."""
    known = {n: c for n, c in cells.items() if c.expr is not None and (c.expr.has(sp.erf) or is_shifted(c, cells))}
    for _ in range(DEPTH):
        step = substituted(e, known)
        multiples = {r for f in step.atoms(sp.erf) for r in map(name_of, accesses(f)) if is_multiple_in(r, cells)}
        step = substituted(step, {n: cells[n] for n in multiples})
        if step == e:
            break
        e = step
    return e


def is_shifted(cell: Cell, cells: Mapping[str, Cell]) -> bool:
    """Whether a cell is a number and an error function that is a cell."""
    terms = [t for t in sp.Add.make_args(cell.expr) if accesses(t)]
    inner = cells.get(name_of(terms[0])) if len(terms) == 1 and isinstance(terms[0], Indexed) else None
    return inner is not None and isinstance(inner.expr, sp.erf)


def gated_slope(e: Any, cells: Mapping[str, Cell]) -> tuple[Any, Indexed, Any] | None:
    """The kernel, x and c of c times the slope of silu or mish at x, where a cell says that s is sigmoid(x)."""
    if not isinstance(e, sp.Add):
        return None
    for s in sorted(accesses(e), key=str):
        cell = cells.get(name_of(s))
        x = None if cell is None or cell.expr is None else gate_argument(at(cell, s.indices))
        if not isinstance(x, Indexed):
            continue
        whole = sp.expand(substituted(e, {n: c for n, c in cells.items() if n != name_of(s) and made_of(c, x, cells)}))
        t = next((h for h in accesses(whole) if is_mish_gate(cells.get(name_of(h)), h, x, cells)), None)
        slopes: list[tuple[Any, Any, Any]] = [(SiluBackward, s, s + x * s * (1 - s))]
        if t is not None:
            slopes.append((MishBackward, t, t + x * s * (1 - t**2)))
        zero = dict.fromkeys((x, *made_from(x, cells)), sp.S.Zero)
        for kernel, leading, slope in slopes:
            number = sp.sympify(whole.coeff(leading)).xreplace(zero)
            if number.is_number and number != 0 and same(whole, number * slope, cells):
                return kernel, x, number
    return None


def made_from(x: Indexed, cells: Mapping[str, Cell]) -> list[Indexed]:
    """What a tensor that is a product is made of."""
    cell = products(cells).get(name_of(x))
    return accesses(at(cell, x.indices)) if cell is not None else []


def made_of(cell: Cell, x: Indexed, cells: Mapping[str, Cell]) -> bool:
    """Whether a cell is a product of x and gates, sigmoid or tanh, which are cells."""
    gates = {n for n in cell.reads for c in [cells.get(n)] if c is not None and is_gate(c)}
    return isinstance(cell.expr, sp.Mul) and name_of(x) in cell.reads and {*cell.reads} <= {name_of(x), *gates}


def is_gate(cell: Cell) -> bool:
    """Whether a cell is a sigmoid or a tanh."""
    return isinstance(cell.expr, sp.tanh) or (cell.expr is not None and gate_argument(cell.expr) is not None)


def is_mish_gate(cell: Cell | None, h: Indexed, x: Indexed, cells: Mapping[str, Cell]) -> bool:
    """Whether a cell's element is tanh(log(1 + exp x))."""
    if cell is None or not isinstance(cell.expr, sp.tanh):
        return False
    softplus = {n: c for n, c in cells.items() if isinstance(c.expr, sp.log)}
    return bool(substituted(at(cell, h.indices), softplus) == sp.tanh(sp.log(1 + sp.exp(x))))


def slope_of_gelu(x: Any) -> Any:
    """The derivative of x (1 + erf(x / sqrt 2)) / 2."""
    return (1 + sp.erf(x / sp.sqrt(2))) / 2 + x * sp.exp(-(x**2) / 2) / sp.sqrt(2 * sp.pi)


def chosen_slope(e: Any, cells: Mapping[str, Cell]) -> tuple[Any, Any, Any] | None:
    """(kernel, x, its number) and what is in front of it, of `c if t < x else c k` and `c if t < x else c sigmoid(x)`."""
    if (
        isinstance(e, Where)
        and isinstance(e.args[0], LessEqual)
        and e.args[0].args[1].is_number
        and e.args[2].is_number
    ):
        (x, bound), below, above = e.args[0].args, *e.args[1:]
        e = Where(Less(bound, x), above, below)
    within = hardtanh_slope(e) if isinstance(e, Where) else None
    if within is not None:
        return within
    if isinstance(e, Where) and isinstance(e.args[2], (Where, Less)):
        return three_slopes(e)
    if not isinstance(e, Where) or type(e.args[0]) is not Less or not e.args[1].is_number or e.args[1] == 0:
        return None
    (bound, x), one, other = e.args[0].args, e.args[1], e.args[2] / e.args[1]
    if not bound.is_number or not x.has(Indexed) or x.has(Sigma, Where):
        return None
    if bound == 0 and other.is_number and other != 0:
        return LeakyReluBackward, (x, other), one
    if bound == 0 and one.is_positive:
        return exponential_slope(x, one, e.args[2], cells)
    return (SoftplusBackward, (x, bound), one) if bound > 0 and is_sigmoid(other, x, cells) else None


def exponential_slope(x: Any, one: Any, other: Any, cells: Mapping[str, Cell]) -> tuple[Any, Any, Any] | None:
    """The kernel of the slope `s if 0 < x else c exp(k x)`."""
    c, f = other.as_coeff_Mul()
    cell = cells.get(name_of(f)) if isinstance(f, Indexed) else None
    f = at(cell, f.indices) if cell is not None and isinstance(cell.expr, sp.exp) else f
    if not (isinstance(f, sp.exp) and isinstance(x, Indexed)):
        return None
    k = sp.cancel(substituted(f.args[0], {n: d for n, d in cells.items() if n != name_of(x) and is_multiple(d)}) / x)
    if not (k.is_number and k.is_positive and c.is_number):
        return None
    return EluBackward, (x, sp.cancel(c / one / k), one, k), sp.S.One


def is_multiple(cell: Cell) -> bool:
    """Whether a cell is a number times another one."""
    moving = [f for f in sp.Mul.make_args(cell.expr) if not f.is_number] if cell.expr is not None else []
    return len(moving) == 1 and isinstance(moving[0], Indexed)


def is_multiple_in(name: str, cells: Mapping[str, Cell]) -> bool:
    """Whether a tensor is a cell that is a number times another one."""
    cell = cells.get(name)
    return cell is not None and is_multiple(cell)


def three_slopes(e: Where) -> tuple[Any, Any, Any] | None:
    """The kernel of `1 if x < -d else (1 if d < x else 0)`, and of `0 if x < -3 else (1 if 3 < x else x/3 + 1/2)`."""
    three = three_pieces(e)
    if three is None or three[0].has(Sigma, Where):
        return None
    x, low, high, (below, within, above) = three
    symmetric = low == -high and below == above
    return (ShrinkBackward, (x, high), below) if symmetric and below.is_number and within == 0 else None


def hardtanh_slope(e: Where) -> tuple[Any, Any, Any] | None:
    """The kernel of `0 if x <= l else (0 if h <= x else c)`."""
    condition, below, rest = e.args
    beyond, above, c = rest.args if isinstance(rest, Where) else (1 - rest, sp.S.Zero, sp.S.One)
    if not (isinstance(condition, LessEqual) and isinstance(beyond, LessEqual) and below == above == 0 and c.is_number):
        return None
    (x, low), (high, again) = condition.args, beyond.args
    fits = x == again and low.is_number and high.is_number and low < high and not x.has(Sigma, Where)
    return (HardtanhBackward, (x, low, high), c) if fits else None


def is_sigmoid(e: Any, x: Any, cells: Mapping[str, Cell]) -> bool:
    """Whether an expression is sigmoid(x), as a cell or as one less the cell of sigmoid(-x), up to cells that are multiples."""
    multiples = {n: c for n, c in cells.items() if is_multiple(c)}
    for s, sign in ((e, 1), (1 - e, -1)):
        cell = cells.get(name_of(s)) if isinstance(s, Indexed) else None
        g = None if cell is None or cell.expr is None else gate_argument(at(cell, s.indices))
        if g is not None and sp.expand(substituted(g - sign * x, multiples)) == 0:
            return True
    return False


def written_out(e: Any) -> Any:
    """An expression as the formula that its kernels compute."""
    e = e.replace(TanhBackward, lambda g, h: g * (1 - h**2))
    e = e.replace(SigmoidBackward, lambda g, s: g * s * (1 - s))
    e = e.replace(ThresholdBackward, lambda g, x, t: Where(LessEqual(x, t), 0, g))
    e = e.replace(LeakyReluBackward, lambda g, x, k: g * Where(Less(0, x), 1, k))
    e = e.replace(SoftplusBackward, lambda g, x, t: g * Where(Less(t, x), 1, 1 / (1 + sp.exp(-x))))
    e = e.replace(EluBackward, lambda g, x, a, s, k: g * Where(Less(0, x), s, s * a * k * sp.exp(k * x)))
    e = e.replace(HardtanhBackward, lambda g, x, low, high: g * Where(LessEqual(x, low), 0, 1 - LessEqual(high, x)))
    e = e.replace(ShrinkBackward, lambda g, x, d: g * Where(Less(x, -d), 1, Less(d, x)))
    e = e.replace(SiluBackward, lambda g, x: g * (1 + x * (1 - sigmoid(x))) * sigmoid(x))
    e = e.replace(MishBackward, lambda g, x: g * slope_of_mish(x))
    e = e.replace(GeluTanhBackward, lambda g, x: g * slope_of_gelu_tanh(x))
    return e.replace(GeluBackward, lambda g, x: g * slope_of_gelu(x))


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + sp.exp(-x))


def slope_of_mish(x: Any) -> Any:
    """The derivative of x tanh(log(1 + exp x))."""
    t = sp.tanh(sp.log(1 + sp.exp(x)))
    return t + x * (1 - t**2) * sigmoid(x)


def with_slopes(e: Any, cells: Mapping[str, Cell]) -> Any:
    """An expression whose terms have their slopes of tanh and gelu in kernels."""
    if isinstance(e, sp.Add):
        terms = [with_slope_alone(with_slopes(t, cells), cells) for t in e.args]
        return e if all(x is y for x, y in zip(terms, e.args, strict=True)) else of_one_slope(terms)
    if isinstance(e, Where) and isinstance(e.args[0], Less) and e.args[1].has(Indexed):
        slope = chosen_slope(Where(e.args[0], 1, sp.cancel(e.args[2] / e.args[1])), cells)
        alike = slope is not None and running(e.args[1]) <= running(slope[1][0])
        if slope is not None and alike and not e.args[1].has(*CHOICES):
            return slope[0](e.args[1], *slope[1])
    if isinstance(e, Where) and isinstance(e.args[0], LessEqual) and e.args[1] == 0 and e.args[2].has(Indexed):
        (x, bound), rest = e.args[0].args, e.args[2]
        if isinstance(x, Indexed) and bound.is_number and running(x) == running(rest) and not rest.has(*CHOICES):
            return ThresholdBackward(rest, x, bound)
    if isinstance(e, Where):
        return e.func(e.args[0], *[with_slopes(a, cells) for a in e.args[1:]])
    if not isinstance(e, sp.Mul):
        return e
    places = [f for f in e.args if is_diagonal(f) or is_diagonal(1 - f)]
    if places:
        inner = sp.Mul(*[f for f in e.args if f not in places])
        whole = with_slopes(inner, cells)
        return e if whole is inner else sp.Mul(*places) * whole
    chosen = [(f, found) for f in e.args for found in [chosen_slope(f, cells)] if found is not None]
    if len(chosen) == 1:
        f, (kernel, own, number) = chosen[0]
        rest = number * e / f
        if rest.has(Indexed) and not rest.has(*CHOICES) and running(rest) <= running(own[0]):
            return kernel(rest, *own)
    if e.has(Delta, Less, Equal, Where):
        return sp.Mul(*[with_slopes(f, cells) if isinstance(f, sp.Add) and f.has(Where) else f for f in e.args])
    slopes = [(f, h, sign) for f in e.args for sign in (1, -1) for h in [tanh_of(sign * f, cells)] if h is not None]
    rest = sp.Mul(
        *[sign for _, _, sign in slopes], *[with_slopes(f, cells) for f in e.args if f not in [s for s, _, _ in slopes]]
    )
    if slopes and rest.has(Indexed):
        for _, h, _ in slopes:
            rest = TanhBackward(rest, h)
        return rest
    gate = sigmoid_of(e, cells)
    if gate is not None:
        rest, s = gate
        if rest.has(Indexed) and running(rest) <= running(s):
            return SigmoidBackward(rest, s)
    for f in e.args:
        found = gelu_of(f, cells)
        if found is not None and running(found[0]) == running(e / f):
            return GeluBackward(found[1] * e / f, found[0])
        found = gelu_tanh_of(f, cells)
        if found is not None and running(found[0]) == running(e / f):
            return GeluTanhBackward(found[1] * e / f, found[0])
        for beside in (sp.S.One, *[s for s in e.args if isinstance(f, sp.Add) and is_gate_of(s, cells)]):
            gated = gated_slope(f if beside == 1 else sp.expand(f * beside), cells)
            if gated is not None and running(gated[1]) == running(e / f / beside):
                return gated[0](gated[2] * e / f / beside, gated[1])
    return e


def with_slope_alone(t: Any, cells: Mapping[str, Cell]) -> Any:
    """A term that is a multiple of the slope of softplus as the kernel, which multiplies that number: `s(x) - y` of targets y."""
    number, f = t.as_coeff_Mul()
    found = chosen_slope(f, cells)
    if found is None or found[0] is not SoftplusBackward or not isinstance(found[1][0], Indexed):
        return t
    return found[0](number * found[2], *found[1])


def is_gate_of(s: Any, cells: Mapping[str, Cell]) -> bool:
    """Whether a factor is an element of a cell that is a sigmoid or a tanh."""
    cell = cells.get(name_of(s)) if isinstance(s, Indexed) else None
    return cell is not None and is_gate(cell)


def is_diagonal(d: Any) -> bool:
    """Whether a factor is one on a diagonal and else zero."""
    return isinstance(d, Delta) and all(isinstance(i, Index) for i in d.args)


def of_one_slope(terms: list[Any]) -> Any:
    """A sum in which what is multiplied by the same slope is added first: `a f'(x) + b f'(x)` takes the slope once."""
    added: dict[Any, Any] = {}
    for t in terms:
        number, kernel = t.as_coeff_Mul()
        linear = isinstance(kernel, KERNELS) and not kernel.args[0].has(*KERNELS)
        key = (kernel.func, *kernel.args[1:]) if linear else t
        added[key] = added.get(key, 0) + (number * kernel.args[0] if linear else t)
    return sp.Add(*[key[0](g, *key[1:]) if isinstance(key, tuple) else g for key, g in added.items()])


def by_clamps(e: Any, cells: Mapping[str, Cell]) -> Any:
    """An expression with `[l <= x <= h]` as `[x = c]`, where a cell c is clamp(x, l, h)."""
    if isinstance(e, Where) and type(e.args[0]) is Less and e.args[1] == 0 and type(1 - e.args[2]) is Less:
        (x, low), (high, again) = e.args[0].args, (1 - e.args[2]).args
        if x == again and isinstance(x, Indexed) and low.is_number and high.is_number:
            for cell in cells.values():
                read = cell.expr.args[0].args[0] if isinstance(cell.expr, Where) else None
                if not isinstance(read, Indexed) or name_of(read) != name_of(x) or low == high:
                    continue
                clamp = Where(Less(read, low), low, Where(Less(high, read), high, read))
                own = holding(cell, read, x) if cell.expr == clamp else None
                if own is not None:
                    return Equal(x, own)
    return e if isinstance(e, Indexed) or not e.args or not e.has(Where) else rebuilt(e, lambda a: by_clamps(a, cells))


def by_sizes(e: Any) -> Any:
    """An expression with `1 if x <= -d else [d <= x]` as `[d <= |x|]`."""
    if isinstance(e, Where):
        (x, low), one, other = e.args[0].args if isinstance(e.args[0], Less) else (e, e), *e.args[1:]
        high = other.args if isinstance(other, Less) else ()
        if high == (-low, x) and one == 1 and low.is_number and low.is_negative and type(other) is type(e.args[0]):
            return type(other)(-low, Sign(x) * x)
    return e if isinstance(e, Indexed) or not e.args or not e.has(Where) else rebuilt(e, by_sizes)


def running(e: Any) -> frozenset[Any]:
    """The indices that run in an expression, without those that it sums over."""
    return frozenset(i for i in e.free_symbols if isinstance(i, Index)) - (bound(e) if e.has(Sigma) else set())


__all__ = ["GeluBackward", "TanhBackward", "tanh_of", "with_slopes", "written_out"]
