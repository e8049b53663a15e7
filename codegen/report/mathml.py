"""Index notation as MathML, which browsers render by themselves."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr

from codegen.formula import LONG, decimal
from engine.indexed import Indexed
from engine.notation import (
    Amax,
    Delta,
    Equal,
    Fixed,
    Floor,
    Less,
    LessEqual,
    Parity,
    Product,
    Quo,
    Rem,
    Sigma,
    Sign,
    Smallest,
    Where,
    in_wholes,
    name_of,
    negated,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SUM, PRODUCT, POWER, ATOM = 1, 2, 3, 4
"""How tightly an expression holds together; what is looser than its place demands stands in parentheses."""

APPLY, TIMES = "<mo>&#x2061;</mo>", '<mo>&#x2062;</mo><mspace width="0.22em"></mspace>'

STRUT = '<mspace height="0.9em"></mspace>'
"""Keeps the bar of a root off a tall letter where no font with mathematics is installed."""


class MathML:
    """Presentation MathML of expressions. `ranks` says which tensors have rank 0, so that their index is not shown."""

    def __init__(self, ranks: Mapping[str, int] | None = None) -> None:
        self.ranks = dict(ranks or {})

    def equation(self, left: Expr, right: Expr, before: str = "") -> str:
        """`left = right` as a displayed formula; `before` is markup between the sign and the right side."""
        return formula(f'<mrow class="left">{self.at(left, SUM)}</mrow><mo>=</mo>{before}{self.at(right, SUM)}')

    def at(self, e: Any, place: int) -> str:
        """An expression as markup, in parentheses where it is looser than its place."""
        text, level = self._written(in_wholes(e))
        if level < place:
            return f"<mrow><mo>(</mo>{text}<mo>)</mo></mrow>"
        return text if is_one(text) else f"<mrow>{text}</mrow>"

    def _written(self, e: Any) -> tuple[str, int]:
        for kind, write in _WRITERS:
            if isinstance(e, kind):
                return write(self, e)
        return f"<mtext>{escape(str(e))}</mtext>", ATOM

    # -- leaves --------------------------------------------------------------------------------------------------

    def of_indexed(self, e: Indexed) -> tuple[str, int]:
        name = identifier(name_of(e))
        if self.ranks.get(name_of(e)) == 0:
            return name, ATOM
        return f"<msub>{name}<mrow>{self._listed(e.indices)}</mrow></msub>", ATOM

    def _listed(self, items: Sequence[Any]) -> str:
        return '<mo separator="true">,</mo>'.join(self.at(i, SUM) for i in items)

    def of_symbol(self, e: sp.Symbol) -> tuple[str, int]:
        return identifier(str(e)), ATOM

    def of_number(self, e: Any) -> tuple[str, int]:
        if e.is_negative:
            return f"<mo>&#x2212;</mo>{self.of_number(-e)[0]}", SUM
        if e.is_Integer:
            return f"<mn>{e}</mn>", ATOM
        text = decimal(e, "<mo>·</mo> <msup><mn>10</mn><mn>{}</mn></msup>")
        if not text:
            return f"<mfrac><mn>{e.p}</mn><mn>{e.q}</mn></mfrac>", ATOM
        digits, _, power = text.partition("<")
        return (f"<mn>{digits.strip()}</mn>" if digits else "") + (f"<{power}" if power else ""), ATOM

    def of_constant(self, e: Any) -> tuple[str, int]:
        names = {
            sp.pi: "<mi>π</mi>",
            sp.E: "<mi>e</mi>",
            sp.S.Infinity: "<mi>∞</mi>",
            sp.S.NegativeInfinity: "<mo>&#x2212;</mo><mi>∞</mi>",
        }
        return names.get(e, f"<mtext>{escape(str(e))}</mtext>"), ATOM

    # -- arithmetic ----------------------------------------------------------------------------------------------

    def of_add(self, e: sp.Add) -> tuple[str, int]:
        terms = sorted(e.as_ordered_terms(), key=lambda t: t.could_extract_minus_sign())
        text = self.at(terms[0], SUM)
        for t in terms[1:]:
            minus = t.could_extract_minus_sign()
            text += f"<mo>{'&#x2212;' if minus else '+'}</mo>{self.at(-t if minus else t, PRODUCT if minus else SUM)}"
        return text, SUM

    def of_mul(self, e: Any) -> tuple[str, int]:
        c, rest = e.as_coeff_Mul()
        minus = "<mo>&#x2212;</mo>" if c.is_negative else ""
        c = abs(c)
        top: list[str] = []
        bottom: list[str] = []
        if max(c.p, c.q) > LONG or decimal(c, "{}"):
            top.append(self.of_number(c)[0])
        else:
            top.extend([f"<mn>{c.p}</mn>"] if c.p != 1 else [])
            bottom.extend([f"<mn>{c.q}</mn>"] if c.q != 1 else [])
        above: list[Any] = []
        below: list[Any] = []
        for f in sorted(
            sp.Mul.make_args(rest), key=lambda f: (isinstance(f, (Sigma, Product, Where)), not f.is_Symbol)
        ):
            inverse = isinstance(f, sp.Pow) and not isinstance(f, sp.exp) and f.exp.could_extract_minus_sign()
            (below if inverse else above).append(1 / f if inverse else f)
        top.extend(self._factors(above, alone=not top and len(above) == 1))
        bottom.extend(self._factors(below, alone=not bottom and len(below) == 1))
        over = TIMES.join(top) or "<mn>1</mn>"
        if not bottom:
            return minus + over, SUM if minus else PRODUCT
        return f"{minus}<mfrac><mrow>{over}</mrow><mrow>{TIMES.join(bottom)}</mrow></mfrac>", SUM if minus else PRODUCT

    def _factors(self, factors: list[Any], alone: bool) -> list[str]:
        """Factors side by side; a sum of many terms closes with a parenthesis unless it comes last."""
        last = len(factors) - 1
        return [
            self.at(f, SUM if alone else PRODUCT)
            if not isinstance(f, (Sigma, Product)) or k == last
            else self.at(f, ATOM)
            for k, f in enumerate(factors)
        ]

    def of_pow(self, e: sp.Pow) -> tuple[str, int]:
        if e.exp == sp.S.Half:
            return f"<msqrt>{STRUT}{self.at(e.base, SUM)}</msqrt>", ATOM
        if e.exp.could_extract_minus_sign():
            return f"<mfrac><mn>1</mn>{self.at(1 / e, SUM)}</mfrac>", PRODUCT
        return f"<msup>{self.at(e.base, ATOM)}{self.at(e.exp, SUM)}</msup>", POWER

    # -- heads ---------------------------------------------------------------------------------------------------

    def of_sigma(self, e: Sigma) -> tuple[str, int]:
        lower = self._listed([i for i, _ in e.limits])
        body = self.at(e.body, PRODUCT)
        return f'<munder><mo movablelimits="false">∑</mo><mrow>{lower}</mrow></munder>{body}', PRODUCT

    def of_product(self, e: Product) -> tuple[str, int]:
        lower = self._listed([i for i, _ in e.limits])
        body = self.at(e.body, ATOM)
        return f'<munder><mo movablelimits="false">∏</mo><mrow>{lower}</mrow></munder>{body}', PRODUCT

    def of_amax(self, e: Amax) -> tuple[str, int]:
        if isinstance(e, Fixed):
            return f"<mover>{self.at(e.args[0], SUM)}<mo>¯</mo></mover>", ATOM
        lower = self._listed([i for i, _ in e.limits])
        name = "min" if isinstance(e, Smallest) else "max"
        return f"<munder><mi>{name}</mi><mrow>{lower}</mrow></munder>{APPLY}{self.at(e.body, PRODUCT)}", PRODUCT

    def of_delta(self, e: Delta) -> tuple[str, int]:
        return f"<msub><mi>δ</mi><mrow>{self._listed(e.args)}</mrow></msub>", ATOM

    def of_parity(self, e: Parity) -> tuple[str, int]:
        return f"<msub><mi>ε</mi><mrow>{self._listed(e.args)}</mrow></msub>", ATOM

    def of_bracket(self, e: Any) -> tuple[str, int]:
        sign = "=" if isinstance(e, Equal) else "≤" if isinstance(e, LessEqual) else "&lt;"
        a, b = (self.at(x, SUM) for x in e.args)
        return f"<mo>[</mo>{a}<mo>{sign}</mo>{b}<mo>]</mo>", ATOM

    def of_where(self, e: Where) -> tuple[str, int]:
        condition, a, b = e.args
        other = negated(condition)
        said = (
            self.of_bracket(condition)[0] if isinstance(condition, (Less, Equal)) else self.at(other or condition, SUM)
        )
        why = "if" if other is None else "if not"
        rows = [(a, f"<mtext>{why}\N{NO-BREAK SPACE}</mtext>{said}"), (b, "<mtext>else</mtext>")]
        cells = "".join(f"<mtr><mtd>{self.at(v, SUM)}</mtd><mtd>{why}</mtd></mtr>" for v, why in rows)
        return f'<mo>{{</mo><mtable columnalign="left">{cells}</mtable>', ATOM

    def of_quo(self, e: Quo) -> tuple[str, int]:
        a, b = (self.at(x, PRODUCT) for x in e.args)
        return f"<mo>⌊</mo>{a}<mo>/</mo>{b}<mo>⌋</mo>", ATOM

    def of_rem(self, e: Rem) -> tuple[str, int]:
        a, b = (self.at(x, PRODUCT) for x in e.args)
        return f"{a}<mo>mod</mo>{b}", SUM

    def of_floor(self, e: Any) -> tuple[str, int]:
        return f"<mo>⌊</mo>{self.at(e.args[0], SUM)}<mo>⌋</mo>", ATOM

    def of_exp(self, e: Any) -> tuple[str, int]:
        return f"<msup><mi>e</mi>{self.at(e.args[0], SUM)}</msup>", POWER

    def of_function(self, e: Any) -> tuple[str, int]:
        name = "sign" if isinstance(e, Sign) else type(e).__name__.lower()
        inner = '<mo separator="true">,</mo>'.join(self.at(a, SUM) for a in e.args)
        return f"<mi>{escape(name)}</mi>{APPLY}<mrow><mo>(</mo>{inner}<mo>)</mo></mrow>", POWER


_TAG = re.compile(r"<(/?)[^>]*>")

_WRITERS: tuple[tuple[Any, Callable[[MathML, Any], tuple[str, int]]], ...] = (
    (Indexed, MathML.of_indexed),
    (sp.Symbol, MathML.of_symbol),
    (sp.Rational, MathML.of_number),
    ((sp.core.numbers.NumberSymbol, sp.core.numbers.Infinity, sp.core.numbers.NegativeInfinity), MathML.of_constant),
    (sp.Add, MathML.of_add),
    (sp.Mul, MathML.of_mul),
    (sp.exp, MathML.of_exp),
    (sp.Pow, MathML.of_pow),
    (Sigma, MathML.of_sigma),
    (Amax, MathML.of_amax),
    (Product, MathML.of_product),
    (Delta, MathML.of_delta),
    (Parity, MathML.of_parity),
    ((Less, Equal), MathML.of_bracket),
    (Where, MathML.of_where),
    (Quo, MathML.of_quo),
    (Rem, MathML.of_rem),
    ((Floor, sp.floor), MathML.of_floor),
    (sp.Function, MathML.of_function),
)


def is_one(text: str) -> bool:
    """Whether markup is a single element, so that it needs no row around it."""
    depth = 0
    for tag in _TAG.finditer(text):
        depth += -1 if tag[1] else 1
        if depth == 0:
            return tag.end() == len(text)
    return False


def identifier(name: str) -> str:
    """A name, in italics if it is one letter; browsers set longer ones upright."""
    return f"<mi>{escape(name)}</mi>"


def formula(body: str) -> str:
    """Markup as a displayed formula."""
    return f'<math xmlns="http://www.w3.org/1998/Math/MathML" display="block"><mrow>{body}</mrow></math>'


__all__ = ["MathML", "formula", "identifier"]
