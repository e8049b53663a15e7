"""Lines of emitted Python joined: a nameless tensor that is read once is written where it is read."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from codegen.closed.writer import Block

WIDTH = 100


class _Put(ast.NodeTransformer):
    def __init__(self, name: str, value: ast.expr) -> None:
        self.name, self.value = name, value

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.value if node.id == self.name else node


def identifiers(text: str) -> list[str]:
    """The identifiers in a Python expression as often as they stand there, attribute names left out."""
    return [x.id for x in ast.walk(ast.parse(text.strip(), mode="eval")) if isinstance(x, ast.Name)]


def joined(blocks: Sequence[Block], nameless: Callable[[str], bool]) -> list[Block]:
    """Blocks of one line `name = value`; what is `nameless` and read once, by a later line that stays short, is put there."""
    out = list(blocks)
    for k in range(len(out)):
        block = out[k]
        if not nameless(block.name) or len(block.lines) != 1:
            continue
        readers = [j for j in range(len(out)) if j != k for line in out[j].lines if block.name in identifiers(value_of(line))]
        uses = sum(identifiers(value_of(line)).count(block.name) for j in readers for line in out[j].lines)
        if len(readers) != 1 or uses != 1 or len(out[readers[0]].lines) != 1 or '"' in block.lines[0]:
            continue
        reader = out[readers[0]]
        inner = ast.parse(value_of(block.lines[0]), mode="eval").body
        whole = _Put(block.name, inner).visit(ast.parse(value_of(reader.lines[0]), mode="eval"))
        line = f"{reader.name} = {ast.unparse(whole)}"
        if len(line) <= WIDTH and '"' not in reader.lines[0]:
            out[readers[0]] = replace(reader, lines=(line,))
            out[k] = replace(block, lines=())
    return [b for b in out if b.lines]


def value_of(line: str) -> str:
    """The right side of an assignment."""
    return line.split("=", 1)[1].strip()
