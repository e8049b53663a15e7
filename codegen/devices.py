"""Tensors that emitted code makes of nothing, as `torch.arange(n)`: they are made where its other tensors are.

Not those that stand between brackets alone: torch takes whole numbers from anywhere as places in a tensor.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FACTORIES = (
    "arange", "bartlett_window", "blackman_window", "empty", "eye", "full", "hamming_window", "hann_window", "linspace",
    "logspace", "ones", "rand", "randint", "randn", "randperm", "tensor", "tril_indices", "triu_indices", "zeros",
)  # fmt: skip
VIEWS = ("expand", "flatten", "permute", "reshape", "squeeze", "transpose", "unsqueeze", "view")
CALLED = re.compile(rf"\btorch\.({'|'.join(FACTORIES)})\(")


def on_device(line: str, like: str) -> str:
    """A statement in which every tensor that is made of nothing is made where `like` is, or the tensor that it takes its dtype from."""
    if not CALLED.search(line):
        return line
    try:
        tree = ast.parse(line)
    except SyntaxError:  # the head of a block, which makes nothing
        return line
    text = line.encode()
    for call in sorted(made_of_nothing(tree), key=lambda c: c.end_col_offset or 0, reverse=True):
        end = (call.end_col_offset or 0) - 1
        dtype = next((ast.unparse(k.value) for k in call.keywords if k.arg == "dtype"), "")
        owner = dtype.removesuffix(".dtype") if dtype.endswith(".dtype") else like
        more = f"{', ' if call.args or call.keywords else ''}device={owner}.device".encode()
        text = text[:end] + more + text[end:]
    return text.decode()


def made_of_nothing(tree: ast.AST) -> Iterator[ast.Call]:
    """The calls that make a tensor without saying where, but for whole places between brackets."""
    places: ast.AST | None = None
    if isinstance(tree, ast.Subscript):
        places = tree.slice
    elif isinstance(tree, ast.Call) and isinstance(tree.func, ast.Attribute) and tree.func.attr == "index_put_":
        places = tree.args[0]
    for child in ast.iter_child_nodes(tree):
        inside = (child.elts if isinstance(child, ast.Tuple) else [child]) if child is places else []
        for x in inside or [child]:
            if not inside or factory(seen(x)) is None:
                yield from made_of_nothing(x)
    call = factory(tree)
    if call is not None and not any(k.arg in ("device", None) for k in call.keywords):
        yield call


def seen(tree: ast.AST) -> ast.AST:
    """What an expression is a view of."""
    while True:
        if isinstance(tree, ast.Subscript):
            tree = tree.value
        elif isinstance(tree, ast.Call) and isinstance(tree.func, ast.Attribute) and tree.func.attr in VIEWS:
            tree = tree.func.value
        else:
            return tree


def factory(tree: ast.AST) -> ast.Call | None:
    """A call of a function of torch that makes a tensor of nothing."""
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Attribute) or tree.func.attr not in FACTORIES:
        return None
    return tree if isinstance(tree.func.value, ast.Name) and tree.func.value.id == "torch" else None


__all__ = ["on_device"]
