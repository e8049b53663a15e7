"""The tensors that one call makes, as they are taken apart: `i, f = z.chunk(2, 1)`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from codegen.closed.write.tidy import read_by, value_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codegen.closed.write.blocks import Block

MOST = 8
"""How many tensors are taken apart in one statement at most."""


def taken_apart(blocks: Sequence[Block], several: Mapping[str, int]) -> set[str]:
    """The tensors of the calls of `several` that make more than one tensor which is read: they keep their names until they are unpacked."""
    found: dict[str, list[str]] = {}
    for b in blocks:
        whole = value_of(b.lines[0]).partition("[")[0]
        if len(b.lines) == 1 and several.get(whole, 0) <= MOST and read_by(b.lines[0]) == (whole,):
            found.setdefault(whole, []).append(b.name)
    return {n for whole, parts in found.items() if whole in several and len(parts) > 1 for n in parts}


def unpacked(blocks: Sequence[Block], several: Mapping[str, int]) -> list[Block]:
    """Blocks in which what one call makes is taken apart where it is made, if nothing reads it as a whole.

    Args:
        blocks: statements, of which those of `several` make more than one tensor.
        several: how many tensors stand together under a name.
    """
    out = list(blocks)
    reads = [n for b in out for line in b.lines for n in read_by(line)]
    for k, block in enumerate(out):
        count = several.get(block.name, 0)
        names = ["_"] * count
        parts = [j for j, b in enumerate(out) if b.lines and read_by(b.lines[0]) == (block.name,)]
        for j in parts:
            place = value_of(out[j].lines[0]).removeprefix(f"{block.name}[").removesuffix("]")
            if len(out[j].lines) == 1 and place.isdigit() and int(place) < count:
                names[int(place)] = out[j].name
        made = [n for n in names if n != "_"]
        if not 1 < count <= MOST or not 1 < len(made) == len(parts) == reads.count(block.name):
            continue
        out[k] = replace(block, lines=(f"{', '.join(names)} = {value_of(block.lines[0])}",))
        for j in parts:
            out[j] = replace(out[j], lines=())
    return [b for b in out if b.lines]


__all__ = ["taken_apart", "unpacked"]
