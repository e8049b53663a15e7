# pyright: basic
"""How calls are written in plain torch: with `out=` where torch has it, and as an expression otherwise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch

from codegen.loop.graph import Node, Sized

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATORS = frozenset(
    ["tanh_backward", "sigmoid_backward", "threshold_backward", "softplus_backward", "silu_backward", "elu_backward", "mish",
     "softplus", "silu", "elu", "leaky_relu", "leaky_relu_backward", "hardtanh", "hardtanh_backward", "hardsigmoid",
     "hardsigmoid_backward", "hardswish", "softshrink", "softshrink_backward", "hardshrink", "hardshrink_backward"]
)  # fmt: skip
"""Elementwise calls that torch has with `out=` or `grad_input=` as operators only, and not as methods that change a tensor."""

ELEMENTWISE = frozenset(
    ["add", "sub", "mul", "div", "sqrt", "rsqrt", "exp", "log", "tanh", "sigmoid", "neg", "reciprocal", "abs", "log1p",
     "expm1", "square", "pow", "sin", "cos", "erf", "addcmul", "addcdiv", "maximum", "minimum", "sign", "floor",
     "clamp_min", "clamp_max", "lerp", "bracket", *OPERATORS]
)  # fmt: skip
"""Calls that may write over an operand of the same shape."""

NAMED = frozenset(
    [
        "mm",
        "bmm",
        "mv",
        "addmm",
        "addmv",
        "index_select",
        *ELEMENTWISE - OPERATORS - {"bracket"},
    ]
)
"""Calls `torch.NAME(*args, out=...)` with the arguments they were recorded with."""

PRODUCTS = frozenset(["mm", "bmm", "mv"])

COMPARISONS = frozenset(
    [
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "logical_not",
        "logical_and",
        "logical_or",
        "bitwise_and",
        "bitwise_or",
        "bitwise_not",
    ]
)


def number(a: Any) -> str:
    """A literal."""
    value = a.full if isinstance(a, Sized) else a
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


Text = "Callable[[Any], str]"


def argument(a: Any, name: Callable[[Node], str]) -> str:
    """An argument as text."""
    if isinstance(a, Node):
        return name(a)
    if isinstance(a, (list, tuple)):
        items = [argument(x, name) for x in cast("list[Any]", a)]
        return "(" + ", ".join(items) + ("," if len(items) == 1 else "") + ")"
    if isinstance(a, str):
        return repr(a)
    return str(a) if not isinstance(a, (int, float, Sized)) or isinstance(a, bool) else number(a)


def elementwise(n: Node) -> bool:
    """Whether a call may write over an operand."""
    return n.op in ELEMENTWISE and not n.write


WITHOUT_METHOD = frozenset(("maximum", "minimum", "bracket", *OPERATORS))


def in_place(n: Node, over: Node) -> bool:
    """Whether a call is a method of its first argument that changes it."""
    return (
        elementwise(n)
        and n.op not in WITHOUT_METHOD
        and n.args[0] is over
        and (n.shape, n.dtype) == (over.shape, over.dtype)
        and scalars_fit(n)
        and "dtype" not in n.kwargs
    )


FILLED = ("spread", "onehot", "repeated")
"""What is written into memory of its own by several statements, and is no expression."""


def has_out(n: Node) -> bool:
    """Whether a call is written with `out=` (or in place into a copy)."""
    if n.op in ("native_batch_norm", *FILLED):
        return True
    if n.dtype is None or n.write or n.op in ("part", "input") or n.constant is not None:
        return False
    if n.kwargs.get("memory_format") is torch.channels_last:
        return False
    return n.op in OUT or (n.op in NAMED and scalars_fit(n) and "dtype" not in n.kwargs) or n.op in COMPARISONS


def scalars_fit(n: Node) -> bool:
    """Whether torch's function of the same name takes the arguments as they are."""
    if n.op in ("add", "sub", "mul", "div", "pow", "maximum", "minimum", "addcmul"):
        return isinstance(n.args[0], Node) and n.dtype.is_floating_point == n.args[0].dtype.is_floating_point
    return True


def dims(a: Any) -> Any:
    """A dimension, or several."""
    found = list(a)
    return found[0] if len(found) == 1 else tuple(found)


def reduction(name: str) -> Callable[[Node, Any, str], str]:
    """`torch.NAME(x, dim, keepdim=..., out=...)`."""

    def text(n: Node, f: Any, out: str) -> str:
        if len(n.args) == 1:
            return f"torch.{name}({f(n.args[0])}, {dims(range(len(n.args[0].shape)))}, out={out})"
        keep = ", keepdim=True" if len(n.args) > 2 and n.args[2] else ""
        return f"torch.{name}({f(n.args[0])}, {dims(n.args[1])}{keep}, out={out})"  # pyright: ignore[reportGeneralTypeIssues]

    return text


def approximation(n: Node) -> str:
    """The keyword of a gelu that is not exact."""
    return f", approximate={n.kwargs['approximate']!r}" if "approximate" in n.kwargs else ""


def into(name: str) -> str:
    """How an operator calls the tensor that it fills."""
    return "grad_input" if name.endswith("_backward") else "out"


def operator(name: str) -> Callable[[Node, Any, str], str]:
    """`NAME(*args, out=...)`, or `grad_input=` for a backward."""
    return lambda n, f, out: f"{name}({', '.join(map(f, n.args))}, {into(name)}={out})"


OUT: dict[str, Callable[[Node, Any, str], str]] = {
    "sum": reduction("sum"),
    "mean": reduction("mean"),
    "amax": reduction("amax"),
    "amin": reduction("amin"),
    "logsumexp": reduction("logsumexp"),
    "_softmax": lambda n, f, out: f"torch.softmax({f(n.args[0])}, {n.args[1]}, out={out})",
    "_log_softmax": lambda n, f, out: f"torch.log_softmax({f(n.args[0])}, {n.args[1]}, out={out})",
    "_log_softmax_backward_data": lambda n, f, out: (
        f"log_softmax_backward({f(n.args[0])}, {f(n.args[1])}, {n.args[2]}, {n.dtype}, out={out})"
    ),
    "_softmax_backward_data": lambda n, f, out: (
        f"softmax_backward({f(n.args[0])}, {f(n.args[1])}, {n.args[2]}, {n.dtype}, grad_input={out})"
    ),
    **{op: operator(op) for op in sorted(OPERATORS)},
    "gelu": lambda n, f, out: f"gelu({f(n.args[0])}{approximation(n)}, out={out})",
    "gelu_backward": lambda n, f, out: (
        f"gelu_backward({f(n.args[0])}, {f(n.args[1])}{approximation(n)}, grad_input={out})"
    ),
    "bracket": lambda n, f, out: f"torch.{n.args[2]}({f(n.args[0])}, {f(n.args[1])}, out={out})",
    "where": lambda n, f, out: f"torch.where({f(n.args[0])}, {f(n.args[1])}, {f(n.args[2])}, out={out})",
    "cat": lambda n, f, out: f"torch.cat({f(n.args[0])}, {n.args[1] if len(n.args) > 1 else 0}, out={out})",
    "clone": lambda n, f, out: f"{out}.copy_({f(n.args[0])})",
    "_to_copy": lambda n, f, out: f"{out}.copy_({f(n.args[0])})",
}
"""Calls whose text with `out=` is spelled out."""


PUBLIC = frozenset(
    [
        "index_put",
        "rsub",
        "index_add",
        "index_select",
        "gather",
        "scatter",
        "scatter_add",
        "cumsum",
        "flip",
        "roll",
        "native_layer_norm",
    ]
)
"""Calls that torch has under their own name with the arguments they were recorded with."""


def written(n: Node, out: str, name: Callable[[Node], str]) -> str:
    """A call that fills `out`."""

    def f(a: Any) -> str:
        return argument(a, name)

    if n.op in OUT:
        return OUT[n.op](n, f, out)
    parts = [*[f(a) for a in n.args], *[f"{k}={f(v)}" for k, v in said(n)], f"out={out}"]
    return f"torch.{n.op}({', '.join(parts)})"


def said(n: Node) -> list[tuple[str, Any]]:
    """The arguments by name that are not what torch takes without them."""
    return [(k, v) for k, v in n.kwargs.items() if v is not None and not (k in ("alpha", "beta", "value") and v == 1)]


def changed(n: Node, name: Callable[[Node], str]) -> str:
    """A call that changes its first argument."""
    rest = [
        *[argument(a, name) for a in n.args[1:]],
        *[f"{k}={argument(v, name)}" for k, v in said(n)],
    ]
    return f"{name(n.args[0])}.{n.op}_({', '.join(rest)})"


def expression(n: Node, name: Callable[[Node], str]) -> str:
    """A call as an expression that makes a new tensor."""

    def f(a: Any) -> str:
        return argument(a, name)

    a = n.args
    if n.op == "t" or (n.op == "permute" and list(a[1]) == [1, 0]):
        return f"{f(a[0])}.t()"
    if n.op in ("view", "_unsafe_view", "permute", "expand", "reshape"):
        inside = ", ".join(f(x) for x in sizes(n)) or "()"
        return f"{f(a[0])}.{'view' if n.op == '_unsafe_view' else n.op}({inside})"
    if n.op == "as_strided":
        begin = f"{f(a[0])}.storage_offset()" + (f" + {f(a[3])}" if f(a[3]) != "0" else "")
        return f"{f(a[0])}.as_strided({f(a[1])}, {f(a[2])}, {begin})"
    if n.op == "part":  # one of the results of a call
        return f"{f(a[0])}[{a[1]}]"
    if n.op in ("squeeze", "unsqueeze", "transpose", "select", "diagonal", "unfold"):
        return f"{f(a[0])}.{n.op}({', '.join(f(x) for x in a[1:])})"
    if n.op == "slice":
        dim, start, stop, step = (*a[1:], *[None] * 4)[:4]
        dim = (dim or 0) % len(a[0].shape)
        inside = (
            f"{f(start) if start else ''}:{f(stop) if stop is not None and number(stop) != '9223372036854775807' else ''}"
            + (f":{f(step)}" if step not in (None, 1) else "")
        )
        return f"{f(a[0])}[{':, ' * dim}{inside}]"
    if n.op == "clone" and n.kwargs.get("memory_format") is not None:
        return f"{f(a[0])}.clone(memory_format={n.kwargs['memory_format']})"
    if n.op == "index":
        return f"{f(a[0])}[{', '.join(':' if x is None else f(x) for x in a[1])}]"
    if n.op in ("sum", "mean", "amax", "amin", "logsumexp") and "dtype" not in n.kwargs:
        if len(a) == 1:
            return f"{f(a[0])}.{n.op}()"
        return f"{f(a[0])}.{n.op}({f(dims(a[1]))}{', keepdim=True' if len(a) > 2 and a[2] else ''})"
    if n.op in ("add", "sub", "mul", "div") and not n.kwargs and len(a) == 2:
        return f"{f(a[0])} { {'add': '+', 'sub': '-', 'mul': '*', 'div': '/'}[n.op] } {f(a[1])}"
    if n.op in (
        "sqrt",
        "rsqrt",
        "exp",
        "log",
        "tanh",
        "sigmoid",
        "neg",
        "reciprocal",
        "abs",
        "log1p",
        "expm1",
        "square",
    ):
        return f"{f(a[0])}.{n.op}()"
    if n.op in ("native_batch_norm_backward", "native_layer_norm_backward"):
        return f"{n.op}({', '.join(f(x) for x in a[:-1])}, {list(a[-1])})"
    if n.op == "moments":
        return f"moments({f(a[0])}, None, None, 0.0)"
    if n.op == "bag":
        return f"bag({', '.join(f(x) for x in a)}, False, 0, False, None, False, -1)[0]"
    if n.op == "_to_copy":
        return f"{f(a[0])}.to({n.dtype})"
    if n.op in NAMED and (not n.overload or n.op in PRODUCTS) and not n.kwargs:  # made by a rule, or of one form only
        return f"torch.{n.op}({', '.join(f(x) for x in a)})"
    operator = (
        f"torch.{n.op}" if n.op in PUBLIC else ".".join(["torch.ops.aten", n.op, *([n.overload] if n.overload else [])])
    )
    parts = [*[f(x) for x in a], *[f"{k}={f(v)}" for k, v in n.kwargs.items() if v is not None]]
    return f"{operator}({', '.join(parts)})"


def sizes(n: Node) -> list[Any]:
    """The sizes of a view, with the batch's own filled in."""
    given = list(n.args[1])
    return given
