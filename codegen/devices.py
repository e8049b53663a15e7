"""Tensors that emitted code makes of nothing, as `torch.arange(n)`: they are made where its other tensors are.

Not places between brackets that are made of sizes alone: torch takes whole numbers from anywhere as places in a tensor.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

FACTORIES = (
    "arange", "bartlett_window", "blackman_window", "empty", "eye", "full", "hamming_window", "hann_window", "linspace",
    "logspace", "normal", "ones", "rand", "randint", "randn", "randperm", "tensor", "tril_indices", "triu_indices", "zeros",
)  # fmt: skip
PUTS = ("index_put", "index_put_")
CALLED = re.compile(rf"\btorch\.({'|'.join(FACTORIES)})\(")


def on_device(line: str, like: str, sizes: Collection[str] = ()) -> str:
    """A statement in which every tensor that is made of nothing is made where `like` is, or the tensor that it takes its dtype from.

    `sizes` are the names that are no tensors.
    """
    tree = parsed(line)
    if tree is None:
        return line
    text = line.encode()
    for call in sorted(
        made_of_nothing(tree, frozenset((*sizes, "torch"))), key=lambda c: c.end_col_offset or 0, reverse=True
    ):
        end = (call.end_col_offset or 0) - 1
        dtype = next((ast.unparse(k.value) for k in call.keywords if k.arg == "dtype"), "")
        owner = dtype.removesuffix(".dtype") if dtype.endswith(".dtype") else like
        more = f"{', ' if call.args or call.keywords else ''}device={owner}.device".encode()
        text = text[:end] + more + text[end:]
    return text.decode()


def parsed(line: str) -> ast.AST | None:
    """A statement that makes a tensor of nothing; None for any other, and for the head of a block."""
    try:
        return ast.parse(line) if CALLED.search(line) else None
    except SyntaxError:
        return None


def tensor_in(line: str, sizes: Collection[str]) -> str | None:
    """The first tensor that a statement reads which makes another one of nothing."""
    tree = parsed(line)
    read = [x for x in ast.walk(tree) if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Load)] if tree else []
    return next((x.id for x in read if x.id != "torch" and x.id not in sizes), None)


def made_of_nothing(tree: ast.AST, sizes: frozenset[str]) -> Iterator[ast.Call]:
    """The calls that make a tensor without saying where, but for places between brackets that are made of sizes alone."""
    places: ast.AST | None = None
    if isinstance(tree, ast.Subscript):
        places = tree.slice
    elif isinstance(tree, ast.Call) and isinstance(tree.func, ast.Attribute) and tree.func.attr in PUTS:
        places = tree.args[0]
    for child in ast.iter_child_nodes(tree):
        inside = (child.elts if isinstance(child, ast.Tuple) else [child]) if child is places else []
        for x in inside or [child]:
            if not inside or any(isinstance(n, ast.Name) and n.id not in sizes for n in ast.walk(x)):
                yield from made_of_nothing(x, sizes)
    call = factory(tree)
    if call is not None and not any(k.arg in ("device", None) for k in call.keywords):
        yield call


def factory(tree: ast.AST) -> ast.Call | None:
    """A call of a function of torch that makes a tensor of nothing."""
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Attribute) or tree.func.attr not in FACTORIES:
        return None
    return tree if isinstance(tree.func.value, ast.Name) and tree.func.value.id == "torch" else None


__all__ = ["on_device", "tensor_in"]
