"""The parts of a cotangent written inside of the statement that adds them up: `dx = dy * w + dz`, without a name for `dy * w`."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from codegen.closed.write.tidy import read_by, value_of
from engine.indexed import Indexed
from engine.notation import name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from codegen.closed.write.blocks import Block, Labels, Term

LONGEST = 200
"""Characters of a statement at most: a longer one hides what it adds up."""


def put_in(values: dict[str, ast.expr], e: ast.expr) -> ast.expr:
    """A sum with the values of some of its terms in it: what is negated there is subtracted."""
    if isinstance(e, ast.Name):
        return values.get(e.id, e)
    if isinstance(e, ast.BinOp) and isinstance(e.op, ast.Sub):
        return ast.BinOp(put_in(values, e.left), e.op, e.right)
    if not isinstance(e, ast.BinOp) or not isinstance(e.op, ast.Add):
        return e
    left, right = put_in(values, e.left), put_in(values, e.right)
    if _is_sum(right) and not _is_sum(left):
        left, right = right, left
    positive = negated(right)
    if positive is not None:
        return ast.BinOp(left, ast.Sub(), positive)
    return ast.BinOp(left, e.op, right)


def _is_sum(e: ast.expr) -> bool:
    return isinstance(e, ast.BinOp) and isinstance(e.op, (ast.Add, ast.Sub))


def negated(e: ast.expr) -> ast.expr | None:
    """What is negated: x of `-x`, and `x * y` of `x * -y`; None where nothing is."""
    if isinstance(e, ast.UnaryOp) and isinstance(e.op, ast.USub):
        return e.operand
    if isinstance(e, ast.BinOp) and isinstance(e.op, (ast.Mult, ast.Div)):
        left, right = negated(e.left), negated(e.right)
        if left is not None and right is None:
            return ast.BinOp(left, e.op, e.right)
        if right is not None and left is None:
            return ast.BinOp(e.left, e.op, right)
    return None


def terms_of(e: ast.expr) -> list[str]:
    """The names that a sum adds up as they are."""
    if isinstance(e, ast.BinOp) and isinstance(e.op, ast.Sub):
        return [e.left.id] if isinstance(e.left, ast.Name) else terms_of(e.left)
    if isinstance(e, ast.BinOp) and isinstance(e.op, ast.Add):
        return [n for side in (e.left, e.right) for n in ([side.id] if isinstance(side, ast.Name) else terms_of(side))]
    return []


def copied_out(e: ast.expr) -> ast.expr | None:
    """x of `x.expand(n, d)`; None for anything else."""
    expands = isinstance(e, ast.Call) and isinstance(e.func, ast.Attribute) and e.func.attr == "expand"
    return cast("ast.Attribute", cast("ast.Call", e).func).value if expands else None


def with_parts_inside(
    blocks: Sequence[Block], sums: Mapping[str, int], kept: Collection[str], labels: Labels
) -> list[Block]:
    """Blocks in which the `sums` that add up tensors read by nothing else are statements of what these are made of.

    Args:
        blocks: statements in order.
        sums: the tensors that are sums of others by their first line, and how many terms of each have its whole shape.
        kept: tensors that stay what they are, as results.
        labels: how formulas are written.
    """
    out = list(blocks)
    reads = [n for b in out for line in b.lines for n in read_by(line)]
    made = {b.name: k for k, b in enumerate(out)}
    for k, block in enumerate(out):
        if block.name not in sums or not block.terms:
            continue
        first = ast.parse(value_of(block.lines[0]), mode="eval").body
        inner = {n: out[made[n]] for n in terms_of(first) if n in made and n not in kept}
        inner = {n: b for n, b in inner.items() if len(b.lines) == 1 and b.terms and reads.count(n) == 1}
        values = {n: ast.parse(value_of(b.lines[0]), mode="eval").body for n, b in inner.items()}
        copies = sum(copied_out(e) is not None for e in values.values())
        if copies < sums[block.name]:  # something else has the whole shape
            values = {n: copied_out(e) or e for n, e in values.items()}
        if not values or any('"' in b.lines[0] for b in inner.values()):
            continue
        line = f"{block.name} = {ast.unparse(put_in(values, first))}"
        if len(line) > LONGEST:
            continue
        terms = tuple(t for term in block.terms for t in parts_of(term, inner))
        comment = labels.text(block.name, terms)
        out[k] = replace(block, comment=comment, lines=(line, *block.lines[1:]), terms=terms)
        for n in values:
            out[made[n]] = replace(out[made[n]], lines=())
    return [b for b in out if b.lines]


def parts_of(term: Term, inner: dict[str, Block]) -> tuple[Term, ...]:
    """What a term of a sum is made of, where it is a tensor that is written inside."""
    own = term.expr
    return inner[name_of(own)].terms if isinstance(own, Indexed) and name_of(own) in inner else (term,)


__all__ = ["with_parts_inside"]
