"""Lines of emitted Python joined: a nameless tensor that is read once is written where it is read."""

from __future__ import annotations

import ast
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from codegen.closed.write.blocks import Block

WIDTH = 100


class _Put(ast.NodeTransformer):
    def __init__(self, name: str, value: ast.expr) -> None:
        self.name, self.value = name, value

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.value if node.id == self.name else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """`a + (b + c)` is `b + c + a`, to the bit, without its parentheses."""
        node = cast("ast.BinOp", self.generic_visit(node))
        if not isinstance(node.op, ast.Add) or not _is_sum(node.right) or _is_sum(node.left):
            return node
        return ast.BinOp(node.right, node.op, node.left)


def _is_sum(e: ast.expr) -> bool:
    return isinstance(e, ast.BinOp) and isinstance(e.op, (ast.Add, ast.Sub))


@lru_cache(maxsize=2**12)
def read_by(line: str) -> tuple[str, ...]:
    """The identifiers that a statement reads, as often as they stand there; attribute names are left out.

    What it puts something in is left out, the places are not: `a[i, torch.arange(n)] = b` reads i, n and b.
    """
    statement = ast.parse(line.strip()).body[0]
    parts: list[ast.AST] = [statement]
    if isinstance(statement, ast.Assign):
        parts = [statement.value, *[t.slice for t in statement.targets if isinstance(t, ast.Subscript)]]
    return tuple(x.id for part in parts for x in ast.walk(part) if isinstance(x, ast.Name))


def joined(blocks: Sequence[Block], nameless: Callable[[str], bool]) -> list[Block]:
    """Blocks of one line `name = value`; what is `nameless` and read once, by a later line that stays short, is put there."""
    out = list(blocks)
    reads = [[read_by(line) for line in b.lines] for b in out]
    readers: dict[str, list[int]] = {}
    for j, lines in enumerate(reads):
        for names in lines:
            for n in names:
                readers.setdefault(n, []).append(j)
    for k, block in enumerate(out):
        where = readers.get(block.name, [])
        if not nameless(block.name) or len(block.lines) != 1 or len(where) != 1 or len(out[where[0]].lines) != 1:
            continue
        reader, block = out[where[0]], out[k]
        if '"' in block.lines[0] or '"' in reader.lines[0]:
            continue
        inner = ast.parse(value_of(block.lines[0]), mode="eval").body
        whole = _Put(block.name, inner).visit(ast.parse(value_of(reader.lines[0]), mode="eval"))
        line = f"{reader.name} = {ast.unparse(whole)}"
        if len(line) > WIDTH:
            continue
        out[where[0]], out[k] = replace(reader, lines=(line,)), replace(block, lines=())
        for n in read_by(block.lines[0]):
            readers[n] = [where[0] if j == k else j for j in readers[n]]
    return [b for b in out if b.lines]


def in_place(blocks: Sequence[Block], nameless: Callable[[str], bool]) -> list[Block]:
    """Blocks that begin with a copy of a `nameless` new tensor that nothing else reads begin with that tensor itself."""
    out = list(blocks)
    reads = [n for b in out for line in b.lines for n in read_by(line)]
    made = {b.name: k for k, b in enumerate(out)}
    for k, block in enumerate(out):
        source = value_of(block.lines[0]).removesuffix(".clone()")
        at = made.get(source)
        if at is None or len(block.lines) < 2 or not value_of(block.lines[0]).endswith(".clone()"):
            continue
        fresh = len(out[at].lines) == 1 and isinstance(
            ast.parse(value_of(out[at].lines[0]), mode="eval").body, ast.BinOp
        )
        if fresh and nameless(source) and reads.count(source) == 1:
            first = f"{block.name} = {value_of(out[at].lines[0])}"
            out[k], out[at] = replace(block, lines=(first, *block.lines[1:])), replace(out[at], lines=())
    return [b for b in out if b.lines]


def continued(blocks: Sequence[Block], fresh: Callable[[str], bool]) -> list[Block]:
    """Blocks that begin with a copy of a tensor that only they read go on with that tensor itself; what is negated there is subtracted.

    The tensor has to be new memory, as sums and zeros are.
    """
    out = list(blocks)
    reads = [n for b in out for line in b.lines for n in read_by(line)]
    made = {b.name: k for k, b in enumerate(out)}
    for k, block in enumerate(out):
        first = value_of(block.lines[0])
        source = first.removesuffix(".clone()")
        lines, comment = list(block.lines), block.comment
        if first != source and source in made and len(lines) > 1 and fresh(source) and is_new(out[made[source]]):
            written = sum(read_by(line).count(source) for line in out[made[source]].lines)
            if reads.count(source) == 1 + written:
                lines[0] = f"{block.name} = {source}"
        for j, line in enumerate(lines[1:], 1):
            place, called, added = line.partition(".add_(")
            name = added.removesuffix(")")
            if not called or name not in made or reads.count(name) != 1 or len(out[made[name]].lines) != 1:
                continue
            minus = value_of(out[made[name]].lines[0])
            if fresh(name) and minus.startswith("-") and minus[1:].isidentifier():
                lines[j] = f"{place}.sub_({minus[1:]})"
                comment = (*out[made[name]].comment, *comment)
                out[made[name]] = replace(out[made[name]], lines=())
        out[k] = replace(block, comment=comment, lines=tuple(lines))
    return [b for b in out if b.lines]


def unturned(blocks: Sequence[Block], nameless: Callable[[str], bool]) -> list[Block]:
    """Blocks without a `nameless` tensor that is turned around and turned back by its only reader: both are copies."""
    out = list(blocks)
    reads = [n for b in out for line in b.lines for n in read_by(line)]
    for k, block in enumerate(out):
        if len(block.lines) != 1 or not nameless(block.name) or reads.count(block.name) != 1:
            continue
        inner, _, axis = value_of(block.lines[0]).rpartition(".flip(")
        again = f"{block.name}.flip({axis}"
        where = [j for j, b in enumerate(out) if b.lines and again in b.lines[0] and len(b.lines) == 1]
        tree = ast.parse(value_of(block.lines[0]), mode="eval").body
        if not inner or len(where) != 1 or not isinstance(tree, ast.Call) or ast.unparse(tree.func) != f"{inner}.flip":
            continue
        reader = out[where[0]]
        comment = (*block.comment, *reader.comment)
        out[where[0]] = replace(reader, comment=comment, lines=(reader.lines[0].replace(again, inner),))
        out[k] = replace(block, lines=())
    return [b for b in out if b.lines]


NEW = ("zeros_like", "new_zeros", "zeros", "addcmul", "addmm")
"""Calls that give a tensor of its own."""


def is_new(block: Block) -> bool:
    """Whether the tensor that a block makes is new memory."""
    value = ast.parse(value_of(block.lines[0]), mode="eval").body
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        return value.func.attr in NEW
    return isinstance(value, ast.BinOp)


def value_of(line: str) -> str:
    """The right side of an assignment."""
    return line.split("=", 1)[1].strip()
