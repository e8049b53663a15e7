"""Index notation as text and as LaTeX, with readable index letters."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr
from sympy.printing.latex import LatexPrinter
from sympy.printing.str import StrPrinter

from engine.indexed import Indexed, IndexedBase
from engine.notation import (
    BINDERS,
    Amax,
    Delta,
    Equal,
    Index,
    Less,
    LessEqual,
    Product,
    Quo,
    Rem,
    Sigma,
    Smallest,
    Where,
    element,
    in_wholes,
    name_of,
    negated,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LONG = 10**6
"""Fractions of larger integers are numbers that the forward gave as decimals; formulas show eight digits of them."""
POWER = r"\cdot 10^{{{}}}"
"""How a power of ten is written."""
SHORT = 8
"""Decimals of at most this many characters are printed as such, other fractions as fractions."""
SMALL = 8
"""Fractions of at most this denominator are no decimals."""
_GREEK = (
    *(
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "eta",
        "theta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
    ),
    *("", "pi", "rho", "varsigma", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
)
GREEK = {chr(0x3B1 + k): "\\" + name for k, name in enumerate(_GREEK) if name}
MARK = "\x00"
LETTERS = ("i", "j", "k", "l", "m", "p", "q", "r", "s", "t", "u", "v", "w")
NUMBERED = [Index(f"{c}{n}") for n in range(1, 9) for c in LETTERS]


def lettered(e: Expr, indices: Sequence[Expr], avoid: Iterable[str] = ()) -> tuple[Expr, tuple[Expr, ...]]:
    """An expression and its output indices with i, j, k, ... for its indices, outputs first, then as they are met."""
    taken = avoid if isinstance(avoid, AbstractSet) else {*avoid}
    letters = [*(Index(c) for c in LETTERS if c not in taken), *NUMBERED]
    bound_in = {i for b in e.atoms(*BINDERS) for i, _ in cast("Any", b).limits}
    mapping: dict[Any, Any] = {}
    for i in [*indices, *(x for x in sp.preorder_traversal(e) if isinstance(x, Index) and x not in bound_in)]:
        if isinstance(i, Index) and i not in mapping:
            mapping[i] = letters[len(mapping)]
    return relettered(e, mapping, letters), tuple(sp.sympify(i).xreplace(mapping) for i in indices)


def relettered(e: Any, mapping: Mapping[Any, Any], letters: Sequence[Index]) -> Any:
    """An expression with other indices; those that a sum binds have the first letters that are free where it stands."""
    if isinstance(e, Index):
        return mapping.get(e, e)
    if not e.args or not e.has(Index):
        return e
    if isinstance(e, BINDERS):
        taken = {*mapping.values()}
        free = (x for x in letters if x not in taken)
        mapping = {**mapping, **{i: next(free) for i, _ in cast("Any", e).limits}}
    args = [relettered(a, mapping, letters) for a in e.args]
    return e.func(*args) if any(x is not y for x, y in zip(args, e.args, strict=True)) else e


def named(e: Expr, names: Mapping[str, str]) -> Expr:
    """An expression with its tensors renamed, each keeping what is known of its sign."""
    mapping: dict[Any, Any] = {}
    for b in e.atoms(sp.IndexedBase):
        label = b.label
        if str(label) in names:
            known = {k: v for k, v in label.assumptions0.items() if k in ("positive", "real", "integer")}
            mapping[b] = IndexedBase(sp.Symbol(names[str(label)], **known))
    return e.xreplace(mapping)


class TextPrinter(StrPrinter):
    """`Σ_j emb[i,j] w1[j,k]`: products by juxtaposition, sums by Σ, brackets as [ ]."""

    printmethod = "_none"  # no class prints itself here

    def __init__(self, ranks: Mapping[str, int]) -> None:
        super().__init__()
        self.ranks = dict(ranks)

    def _print_Indexed(self, expr: Any) -> str:
        if self.ranks.get(name_of(expr)) == 0:
            return name_of(expr)
        return f"{name_of(expr)}[{','.join(self._print(i) for i in expr.indices)}]"

    def _print_Sigma(self, expr: Sigma) -> str:
        body = self._print(expr.body)
        indices = ",".join(str(i) for i, _ in expr.limits)
        below = indices if len(expr.limits) == 1 else f"{{{indices}}}"
        return f"Σ_{below} ({body})" if expr.body.is_Add else f"Σ_{below} {body}"

    def _print_Product(self, expr: Product) -> str:
        body = self._print(expr.body)
        indices = ",".join(str(i) for i, _ in expr.limits)
        below = indices if len(expr.limits) == 1 else f"{{{indices}}}"
        return f"Π_{below} ({body})" if expr.body.is_Add else f"Π_{below} {body}"

    def _print_Amax(self, expr: Amax) -> str:
        name = "min" if isinstance(expr, Smallest) else "max"
        return f"{name}_{','.join(str(i) for i, _ in expr.limits)} {self._print(expr.body)}"

    _print_Largest = _print_Smallest = _print_Amax

    def _print_Delta(self, expr: Any) -> str:
        return f"[{self.said(expr)}]"

    _print_Equal = _print_Less = _print_LessEqual = _print_Delta

    def said(self, e: Any) -> str:
        """A condition without its brackets."""
        if not isinstance(e, (Less, Equal, Delta)):
            other = negated(e)
            return self._print(e) if other is None else f"not {self._print(other)}"
        left, right = cast("Any", e.args)
        sign = "≤" if isinstance(e, LessEqual) else "<" if isinstance(e, Less) else "="
        if sign == "≤" and left.is_integer and left.is_Add and sp.S.One in left.args:
            left, sign = left - 1, "<"
        if sign == "=" and left.is_number:
            left, right = right, left
        return f"{self._print(left)} {sign} {self._print(right)}"

    def _print_Sign(self, expr: Any) -> str:
        return f"{type(expr).__name__.lower()}({self._print(expr.args[0])})"

    _print_Floor = _print_Sign

    def _print_Parity(self, expr: Any) -> str:
        return f"ε[{','.join(self._print(i) for i in expr.args)}]"

    def _print_Quo(self, expr: Any) -> str:
        return f"{self.whole(expr.args[0])}//{self.whole(expr.args[1])}"

    def _print_Rem(self, expr: Any) -> str:
        return f"{self.whole(expr.args[0])}%{self.whole(expr.args[1])}"

    def whole(self, e: Any) -> str:
        """An operand of a division of whole numbers, which may be one itself."""
        return f"({self._print(e)})" if isinstance(e, (Quo, Rem)) else self.parenthesize(e, 60)

    def _print_Where(self, expr: Any) -> str:
        """A choice; one within another that has the same alternative is one under several conditions."""
        condition, one, other = expr.args
        conditions = [condition]
        while isinstance(one, Where) and one.args[2] == other:
            conditions.append(one.args[0])
            one = one.args[1]
        if isinstance(one, (Less, Equal, Delta)) and other == 0:
            return " ".join(f"[{c}]" for c in self.together([*conditions, one]))
        return f"({self._print(one)} if {' and '.join(self.together(conditions))} else {self._print(other)})"

    def together(self, conditions: Sequence[Any]) -> list[str]:
        """Several conditions, two bounds of one number as one."""
        said: dict[Any, str] = {}
        for c in sorted(conditions, key=lambda c: not (isinstance(c, LessEqual) and c.args[0] == 0)):
            if isinstance(c, Less) and c.args[0] in said:
                said[c.args[0]] += self.said(c).removeprefix(self._print(c.args[0]))
            elif isinstance(c, LessEqual) and c.args[0] == 0 and c.args[1] not in said:
                said[c.args[1]] = self.said(c)
            else:
                said[c] = self.said(c)
        return list(said.values())

    def _print_Pow(self, expr: Any, rational: bool = False) -> str:
        if expr.exp == sp.S.Half:
            return f"sqrt({self._print(expr.base)})"
        if expr.exp == -sp.S.Half:
            return f"1/sqrt({self._print(expr.base)})"
        if expr.exp == -1:
            return f"1/{self.parenthesize(expr.base, 60)}"
        exponent = (
            f"({expr.exp.p}/{expr.exp.q})"
            if expr.exp.is_Rational and expr.exp.q != 1
            else self.parenthesize(expr.exp, 60)
        )
        base = f"({self._print(expr.base)})" if isinstance(expr.base, BINDERS) else self.parenthesize(expr.base, 70)
        return f"{base}^{exponent}"

    def _print_Mul(self, expr: Any) -> str:
        c, rest = minus_inside(*expr.as_coeff_Mul())
        sign = "-" if c.is_negative else ""
        c, rest = root_below(c, rest)
        top: list[str] = []
        bottom: list[str] = []
        c = abs(c)
        if not c.is_Rational or max(c.p, c.q) > LONG or decimal(c, POWER):
            top.append(self._print(c))
        else:
            if c.p != 1:
                top.append(str(c.p))
            if c.q != 1:
                bottom.append(str(c.q))
        factors = sorted(
            sp.Mul.make_args(rest),
            key=lambda f: (isinstance(f, (Sigma, Product)), not f.is_Symbol, "_cot" not in str(f)),
        )
        sigma = [f for f in factors if isinstance(f, (Sigma, Product))]
        for f in factors:
            if isinstance(f, sp.Pow) and f.exp.could_extract_minus_sign():
                root = f.exp == -sp.S.Half
                bottom.append(f"sqrt({self._print(f.base)})" if root else self.factor(1 / f, 55))
            elif f in sigma:
                continue
            else:
                top.append(self.whole(f) if isinstance(f, (Quo, Rem)) else self.factor(f, 50))
        for k, s in enumerate(sigma):
            text = self._print(s)
            top.append(text if k == len(sigma) - 1 and not bottom else f"({text})")
        over, under = " ".join(top) or "1", " ".join(bottom)
        if not bottom:
            return f"{sign}{over}"
        return f"{sign}{over} / ({under})" if loose(under) else f"{sign}{over} / {under}"

    def _print_Add(self, expr: Any, order: Any = None) -> str:
        terms = sorted(expr.as_ordered_terms(), key=lambda t: (t.could_extract_minus_sign(), t.is_number))
        text = self._print(terms[0])
        for t in terms[1:]:
            text += f" - {self.parenthesize(-t, 45)}" if t.could_extract_minus_sign() else f" + {self._print(t)}"
        return text

    def factor(self, e: Expr, level: int) -> str:
        """A factor, in parentheses where it is a sum."""
        return self._print(e) if isinstance(e, (Indexed, sp.Symbol)) else self.parenthesize(e, level)

    def _print_Rational(self, expr: Any) -> str:
        value = float(expr)
        if max(abs(expr.p), expr.q) > LONG:
            return f"{value:.8g}"
        return repr(value) if decimal(expr, POWER) else f"{expr.p}/{expr.q}"


def minus_inside(c: Any, rest: Any) -> tuple[Any, Any]:
    """A coefficient and the rest of a product with `-(s - 1) s` as `(1 - s) s`: what a number is taken from takes the minus."""
    factors = list(sp.Mul.make_args(rest))
    for k, f in enumerate(factors) if c.is_negative and len(factors) > 1 else ():
        if isinstance(f, sp.Add) and len(f.args) == 2 and f.as_coeff_Add()[0].is_negative:
            return -c, sp.Mul(*factors[:k], -f, *factors[k + 1 :])
    return c, rest


def root_below(c: Any, rest: Expr) -> tuple[Any, Expr]:
    """A coefficient and the rest of a product with `sqrt(2) / 2` as `1 / sqrt(2)`, and roots of numbers below as one root."""
    factors = list(sp.Mul.make_args(rest))
    roots = [f for f in factors if isinstance(f, sp.Pow) and f.exp == sp.S.Half and f.base.is_Integer]
    if len(roots) != 1 or c.q % roots[0].base:
        return c, rest
    below = [f for f in factors if isinstance(f, sp.Pow) and f.exp == -sp.S.Half and f.base.is_number]
    kept = [f for f in factors if f not in (*roots, *below)]
    joined = sp.Pow(roots[0].base * sp.Mul(*[f.base for f in below]), -sp.S.Half, evaluate=False)
    return c * roots[0].base, sp.Mul(*kept, joined, evaluate=False) if kept else joined


def loose(text: str) -> bool:
    """Whether a text has a space outside of all parentheses and brackets."""
    depth = 0
    for c in text:
        depth += (c in "([") - (c in ")]")
        if c == " " and not depth:
            return True
    return False


def bare(text: str) -> str:
    """A text without parentheses around all of it."""
    if not text.startswith("("):
        return text
    depth = 0
    for k, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if not depth:
            return text[1:-1] if k == len(text) - 1 else text
    return text


def told(e: Any) -> Any:
    """An expression as it is printed: sizes as wholes, and `1 - [a < b]` as what it asks, `[b <= a]`."""
    e = in_wholes(e)
    asked: dict[Any, Any] = {}
    for x in e.atoms(sp.Add):
        bracket = 1 - x
        if isinstance(bracket, Less):
            a, b = cast("Any", bracket.args)
            beyond = a.is_integer and b.is_integer and a.as_coeff_Add()[0].is_positive  # of whole numbers, [k + 1 <= l]
            strict = isinstance(bracket, LessEqual)
            asked[x] = LessEqual(b, a - 1) if strict and beyond else Less(b, a) if strict else LessEqual(b, a)
    return e.xreplace(asked) if asked else e


def text_formula(e: Expr, ranks: Mapping[str, int] | None = None) -> str:
    """An expression as one line of text."""
    return bare(TextPrinter(ranks or {}).doprint(told(e)))


@lru_cache(maxsize=2**12)
def text_template(
    e: Expr, indices: tuple[Expr, ...], scalars: frozenset[str], avoid: frozenset[str]
) -> tuple[str, str]:
    """Output indices and text of an expression whose tensors' names stand between marks, so that equal ones are printed once.

    `scalars` are the tensors of rank 0, `avoid` the letters that are no index.
    """
    names = sorted({str(b.label) for b in e.atoms(sp.IndexedBase)})
    right, at = lettered(named(told(e), {n: f"{MARK}{n}{MARK}" for n in names}), indices, avoid)
    printer = TextPrinter({f"{MARK}{n}{MARK}": 0 for n in scalars})
    return ",".join(map(str, at)), printer.doprint(right)


def filled(template: str, names: Mapping[str, str]) -> str:
    """A template's text with what its tensors are called."""
    return re.sub(f"{MARK}(.*?){MARK}", lambda m: names.get(m[1], m[1]), template)


class MathPrinter(LatexPrinter):
    """LaTeX with tensor names upright where they have more than one letter."""

    def __init__(self, ranks: Mapping[str, int]) -> None:
        super().__init__()
        self.ranks = dict(ranks)

    def _print_Indexed(self, expr: Any) -> str:
        name = tex_name(name_of(expr))
        if self.ranks.get(name_of(expr)) == 0:
            return name
        return f"{name}_{{{','.join(self._print(i) for i in expr.indices)}}}"

    def _print_Symbol(self, expr: Any, style: str = "plain") -> str:
        return tex_name(str(expr))

    def _print_Add(self, expr: Any, order: Any = None) -> str:
        """What is subtracted comes last."""
        terms = sorted(expr.as_ordered_terms(), key=lambda t: t.could_extract_minus_sign())
        text = self._print(terms[0])
        for t in terms[1:]:
            minus = t.could_extract_minus_sign()
            inner = self._print(-t if minus else t)
            text += f" - {self._grouped(-t, inner)}" if minus else f" + {inner}"
        return text

    def _grouped(self, e: Any, text: str) -> str:
        return rf"\left({text}\right)" if e.is_Add else text

    def _print_Rational(self, expr: Any) -> str:
        return decimal(expr, POWER) or cast("Any", super())._print_Rational(expr)

    def _print_Mul(self, expr: Any) -> str:
        """Sums among other factors stand in parentheses, so that it is plain where they end."""
        expr = sp.Mul(*minus_inside(*expr.as_coeff_Mul()))
        sums = [f for f in expr.args if isinstance(f, (Sigma, Product))]
        minus = "- " if expr.could_extract_minus_sign() else ""
        positive = sp.Mul.make_args(-expr if minus else expr)
        above = [f for f in positive if not (isinstance(f, sp.Pow) and f.exp.could_extract_minus_sign())]
        if not sums or len(expr.args) == 1:
            return super()._print_Mul(expr)
        if above == sums and len(sums) == 1:
            below = self._print(sums[0] / sp.Mul(*positive))
            return minus + (self._print(sums[0]) if below == "1" else rf"\frac{{{self._print(sums[0])}}}{{{below}}}")
        tokens = {s: sp.Symbol(f"zzsum{k}") for k, s in enumerate(sums)}
        text = super()._print_Mul(expr.xreplace(tokens))
        for s, token in tokens.items():
            text = text.replace(tex_name(str(token)), rf"\left({self._print(s)}\right)")
        return text


def decimal(e: Any, power: str) -> str:
    """A fraction as the decimal that the forward wrote, if it is a short one; `power` formats its power of ten.

    Halves and the like mostly come from calculus, and stay fractions; fifths come from decimals.
    """
    if e.q <= SMALL and e.q != 5:
        return ""
    text = repr(float(e))
    if len(text) > SHORT or sp.Rational(text) != e:
        return f"{float(e):.8g}" if max(abs(e.p), e.q) > LONG and "e" not in f"{float(e):.8g}" else ""
    digits, _, exponent = text.partition("e")
    if not exponent:
        return text
    scale = power.format(int(exponent))
    return scale.split(" ", 1)[1] if digits == "1" else f"{digits} {scale}"


def tex_name(name: str) -> str:
    """A Python name as LaTeX: one letter in italics, longer ones upright, Greek letters by their command."""
    if len(name) == 1:
        return GREEK.get(name, name if name.isascii() else rf"\text{{{name}}}")
    escaped = name.replace("_", r"\_")
    return rf"\mathrm{{{escaped}}}" if name.isascii() else rf"\text{{{escaped}}}"


def latex_formula(e: Expr, ranks: Mapping[str, int] | None = None) -> str:
    r"""An expression as LaTeX, without `\operatorname`, which GitHub refuses."""
    return MathPrinter(ranks or {}).doprint(told(e)).replace(r"\operatorname", r"\mathrm")


def left_side(name: str, indices: Sequence[Expr]) -> Expr:
    """`name[i,j]` as an expression."""
    return element(IndexedBase(sp.Symbol(name, real=True)), indices)


def lettered_sides(
    left: Expr, right: Expr, indices: Sequence[Expr], avoid: Iterable[str] = ()
) -> tuple[Expr, Expr, tuple[Expr, ...]]:
    """Both sides of an equation and its indices, with the letters that `lettered` gives."""
    both, at = lettered(cast("Any", sp.Tuple(left, right)), indices, avoid)
    one, other = cast("Any", both).args
    return one, other, at


def equation_text(
    left: Expr, right: Expr, indices: Sequence[Expr], ranks: Mapping[str, int], avoid: Iterable[str] = ()
) -> str:
    """An equation with readable indices, as one line of text."""
    one, other, _ = lettered_sides(left, right, indices, avoid)
    return f"{text_formula(one, ranks)} = {text_formula(other, ranks)}"
