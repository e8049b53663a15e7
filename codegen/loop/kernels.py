# pyright: basic
"""The table of kernels: torch calls that compute several derived statements at once, each as the identity it is."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from codegen.loop.activations import (
    elu_backward_of_result,
    elu_by_exp,
    silu_by_sigmoid,
    softplus_by_sigmoid,
    tanh_of_softplus,
)
from codegen.loop.bags import counted_products, sorted_sums, summed_rows
from codegen.loop.batchnorm import batch_norm, batch_norm_backward, by_columns
from codegen.loop.choices import by_selection
from codegen.loop.columns import by_vectors
from codegen.loop.copies import copied_into_place, copied_once
from codegen.loop.gelus import by_error_function, with_kernels
from codegen.loop.graph import Node, Sized, alike, call, constant, equal, lies_in_rows, seen_as, sizes_of, small
from codegen.loop.images import convolved_back, pooled_by_channels, product_apart
from codegen.loop.layernorm import layer_norm
from codegen.loop.masks import masked
from codegen.loop.mixtures import interpolated, rest_of_product
from codegen.loop.multiples import numbers_together
from codegen.loop.pieces import by_pieces
from codegen.loop.rules import Match, Rule, depends_on, near
from codegen.loop.softmax import softmax_backward
from codegen.loop.tables import looked_up
from codegen.loop.windows import means_of_windows, passed_to_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from codegen.loop.graph import Step


def scattered(step: Step) -> Iterator[Match]:
    """p with p[i] - c put at i is p + s, where s holds -c at i and zeros elsewhere."""
    data = depends_on_data_only(step)
    for n in step.order:
        if n.op != "index_put" or (len(n.args) > 3 and n.args[3]):
            continue
        base, indices, value = cast("tuple[Any, ...]", n.args)[:3]  # pyright: ignore[reportAssignmentType]
        if not isinstance(value, Node) or value.op not in ("sub", "add") or not all(i in data for i in indices):
            continue
        read, c = value.args[:2]
        if not (
            isinstance(read, Node)
            and read.op == "index"
            and read.args[0] is base
            and list(read.args[1]) == list(indices)
        ):
            continue
        if isinstance(c, Node) and c not in data:
            continue
        sign = -1 if value.op == "sub" else 1
        amount = (
            Sized(sign * c.full, sign * c.small)
            if isinstance(c, Sized)
            else sign * c
            if not isinstance(c, Node)
            else None
        )
        if amount is None:
            continue
        yield _spread(step, n, base, indices, amount)


def _spread(step: Step, n: Node, base: Node, indices: Any, amount: Any) -> Match:
    point = torch.zeros_like(base.value)
    point[tuple(i.value for i in indices)] += small((amount,))[0]
    s = Node(
        "spread", (tuple(indices), amount, base.shape), {}, base.shape, base.dtype, point, f"{n.name or 'part'}_at"
    )
    if base.op == "mul" and not isinstance(base.args[1], Node):
        total = call("add", s, base.args[0], alpha=base.args[1], shape=n.shape, dtype=n.dtype)
    else:
        total = call("add", base, s, shape=n.shape, dtype=n.dtype)
    return Match([s, total], [(n, total)])


def depends_on_data_only(step: Step) -> set[Node]:
    """What the batch and constants alone decide."""
    found = {step.inputs[b] for b in step.batch}
    for n in step.order:
        if n.constant is not None or (n.op != "input" and n.reads and all(r in found for r in n.reads)):
            found.add(n)
    return found


def _tanh_formula(g: Tensor, h: Tensor) -> Tensor:
    return g * (1 - h * h)


def _sigmoid_formula(g: Tensor, s: Tensor) -> Tensor:
    return g * s * (1 - s)


BACKWARDS: tuple[tuple[str, str, Callable[[Tensor, Tensor], Tensor]], ...] = (
    ("tanh", "tanh_backward", _tanh_formula),
    ("sigmoid", "sigmoid_backward", _sigmoid_formula),
)
"""A function, the kernel of its backward over the result, and the formula the kernel computes."""


def elementwise_backward(step: Step) -> Iterator[Match]:
    """g (1 - h^2) is tanh_backward(g, h); g s (1 - s) is sigmoid_backward(g, s)."""
    for forward, kernel, formula in BACKWARDS:
        results = {n for n in step.order if n.op == forward}
        for n in step.order:
            if n.op != "mul" or not isinstance(n.args[1], Node):
                continue
            around = near(n, 4)
            for h in [r for r in around if r in results and alike(r, n)]:
                for g in [r for r in around if r.dtype is not None and alike(r, n) and r is not h and r not in results]:
                    if equal(formula(g.value, h.value), n.value):
                        new = call(kernel, g, h, shape=n.shape, dtype=n.dtype)
                        yield Match([new], [(n, new)], key=n.shape)
                        break


def gathers(step: Step) -> Iterator[Match]:
    """x[i] along the first dimension is index_select(x, 0, i)."""
    for n in step.order:
        if n.op != "index" or len(n.args[1]) != 1 or not isinstance(n.args[1][0], Node):
            continue
        (i,) = n.args[1]
        if i.dtype != torch.int64 or not is_row(step, i):
            continue
        x = n.args[0]
        flat, nodes = flattened(i)
        picked = call(
            "index_select",
            x,
            0,
            flat,
            shape=(i.numel, *x.shape[1:]),
            dtype=n.dtype,
        )
        nodes.append(picked)
        new = picked
        if len(i.shape) != 1:
            new = call("view", picked, [*sizes_of(i), *x.shape[1:]], shape=n.shape, dtype=n.dtype)
            nodes.append(new)
        yield Match(nodes, [(n, new)])


def is_row(step: Step, i: Node) -> bool:
    """Whether a tensor is part of the batch as it was given, or a view of that."""
    while i.is_view:
        i = i.args[0]
    return i in [step.inputs[b] for b in step.batch]


def flattened(i: Node) -> tuple[Node, list[Node]]:
    """All of a tensor's elements in one dimension."""
    if len(i.shape) == 1:
        return i, []
    flat = call("reshape", i, [-1], shape=(i.numel,), dtype=i.dtype, name=f"{i.name}_flat")
    flat.op = "view" if lies_in_rows(i) else "reshape"  # of a part of it
    return flat, [flat]


def scatter_adds(step: Step) -> Iterator[Match]:
    """Rows v added to x at i are index_add(x, 0, i, v); so are numbers."""
    for n in step.order:
        if n.op == "scatter_add" and len(n.shape) == 1 and alike(n.args[2], n.args[3]) and is_row(step, n.args[2]):
            x, _, i, v = n.args
            new = call("index_add", x, 0, i, v, shape=n.shape, dtype=n.dtype)
            yield Match([new], [(n, new)])
            continue
        if n.op != "index_put" or len(n.args) < 4 or not n.args[3] or len(n.args[1]) != 1:
            continue
        x, (i,), v = n.args[:3]
        if i is None or not is_row(step, i) or i.dtype != torch.int64:
            continue
        flat, nodes = flattened(i)
        if v.shape != (*i.shape, *x.shape[1:]):
            if len(v.shape) != len(n.shape) + len(i.shape) - 1 or v.shape[-1:] != x.shape[1:]:
                continue  # neither a row for each place nor one for several of them
            sizes = [*sizes_of(i), *x.shape[1:]]
            spread = call("expand", v, sizes, shape=(*i.shape, *x.shape[1:]), dtype=v.dtype)
            v = call("clone", spread, shape=spread.shape, dtype=v.dtype, memory_format=torch.contiguous_format)
            nodes += [spread, v]
        rows = v
        if len(i.shape) != 1:
            rows = call("reshape", v, [-1, *x.shape[1:]], shape=(i.numel, *x.shape[1:]), dtype=v.dtype)
            rows.op = "view" if lies_in_rows(v) else "reshape"
            nodes.append(rows)
        new = call("index_add", x, 0, flat, rows, shape=n.shape, dtype=n.dtype)
        yield Match([*nodes, new], [(n, new)])


def one_hot_products(step: Step) -> Iterator[Match]:
    """Rows v added to x at i are x + oT v, with o[k, c] = [i[k] = c] known from the batch."""
    for n in step.order:
        if n.op != "index_add" or len(n.shape) != 2:
            continue
        x, _, flat, rows = n.args
        width = n.shape[0]
        point = torch.nn.functional.one_hot(flat.value, width).to(rows.value.dtype)
        hot = Node("onehot", (flat, width), {}, (flat.numel, width), rows.dtype, point, f"{flat.name}_onehot")
        turned = call("permute", hot, [1, 0], shape=(width, flat.numel), dtype=rows.dtype)
        new = call("mm", turned, rows, shape=n.shape, dtype=n.dtype)
        nodes = [hot, turned, new]
        if x.constant is None or bool(x.constant.any()):
            new = call("add", x, new, shape=n.shape, dtype=n.dtype)
            nodes.append(new)
        yield Match(nodes, [(n, new)])


def rectified(step: Step) -> Iterator[Match]:
    """relu(z) is clamp_min(z, 0)."""
    for n in step.order:
        if n.op == "relu":
            new = call("clamp_min", n.args[0], 0, shape=n.shape, dtype=n.dtype)
            yield Match([new], [(n, new)])


def rectified_backward(step: Step) -> Iterator[Match]:
    """g where z > 0 and 0 elsewhere is threshold_backward(g, z, 0), and that of relu(z), where something else reads it anyway."""
    relus = [n for n in step.order if n.op in ("relu", "clamp_min") and n.args[1:] in ((), (0,))]
    results: dict[Any, Any] = {n.args[0]: n for n in reversed(relus)}
    for n in step.order:
        if n.op != "where" or not isinstance(n.args[0], Node) or n.args[0].op not in ("le", "gt"):
            continue
        z, threshold = n.args[0].args
        if threshold != 0 or bool((z.value > 0).all()) or not bool((z.value > 0).any()):
            continue  # what is on one side only says nothing of the other
        z = results.get(z, z)
        for given in [a for a in n.args[1:] if isinstance(a, Node) and a.dtype == n.dtype and alike(z, n)]:
            seen = seen_as(given, n)
            if seen is not None and equal(torch.where(z.value > 0, seen[0].value, 0.0), n.value):
                new = call("threshold_backward", seen[0], z, 0, shape=n.shape, dtype=n.dtype)
                yield Match([*seen[1], new], [(n, new)], key=n.shape)
                break


def tanh_by_sigmoid(step: Step) -> Iterator[Match]:
    """tanh(z) = 2 sigmoid(2 z) - 1, where that is as exact as the dtype: its kernel is vectorised, that of tanh is not."""
    for n in step.order:
        if n.op != "tanh" or not close_to_tanh(n.dtype):
            continue
        (z,) = n.args
        doubled = call("mul", z, 2, shape=n.shape, dtype=n.dtype)
        s = call("sigmoid", doubled, shape=n.shape, dtype=n.dtype)
        less = constant(torch.tensor(-1.0, dtype=n.dtype), torch.tensor(-1.0, dtype=torch.float64))
        new = call("add", less, s, alpha=2, shape=n.shape, dtype=n.dtype)
        yield Match([doubled, s, less, new], [(n, new)], key=n.shape)


@cache
def close_to_tanh(dtype: Any) -> bool:
    """Whether 2 sigmoid(2 z) - 1 differs from tanh(z) by at most two units in the last place of 1."""
    z = torch.cat(
        [torch.linspace(-20, 20, 4001, dtype=torch.float64), torch.logspace(-12, 0, 200, dtype=torch.float64)]
    ).to(dtype)
    error = (2 * torch.sigmoid(2 * z) - 1).double() - torch.tanh(z.double())
    return float(error.abs().max()) <= 2 * torch.finfo(dtype).eps


def affine(step: Step) -> Iterator[Match]:
    """x w + b is addmm(b, x, w)."""
    users = step.users()
    for n in step.order:
        if n.op != "add" or n.kwargs or len(n.args) != 2:
            continue
        for product, b in (n.args, n.args[::-1]):
            if (
                isinstance(product, Node)
                and product.op == "mm"
                and isinstance(b, Node)
                and len(users[product]) == 1
                and product.shape == n.shape
            ):
                new = call("addmm", b, *product.args, shape=n.shape, dtype=n.dtype)
                yield Match([new], [(n, new)])
                break


IN_A_ROW = 1024
"""Rows beyond which a product with ones, which adds one after the other, is too far from their sum in float32, and no faster."""


def column_sums(step: Step) -> Iterator[Match]:
    """Sum_i x[i,j] is xT 1."""
    for n in step.order:
        if n.op != "sum" or len(n.args) < 2 or list(n.args[1]) != [0] or (len(n.args) > 2 and n.args[2]):
            continue
        x = n.args[0]
        if len(x.shape) != 2 or not x.dtype.is_floating_point or x.shape[0] > IN_A_ROW:
            continue
        ones = Node(
            "ones",
            (x.shape[0],),
            {},
            (x.shape[0],),
            x.dtype,
            torch.ones(x.value.shape[0], dtype=x.value.dtype),
            "ones",
            constant=torch.ones(x.shape[0], dtype=x.dtype),
        )
        turned = call("permute", x, [1, 0], shape=x.shape[::-1], dtype=x.dtype)
        new = call("mv", turned, ones, shape=n.shape, dtype=n.dtype)
        yield Match([ones, turned, new], [(n, new)], key=x.shape)


def row_means(step: Step) -> Iterator[Match]:
    """Sum_j x[i,j] / n is (x 1)[i] / n; for n that is a power of two x (1/n)."""
    known: dict[Any, Node] = {}
    for n in step.order:
        x, dims = (*n.args, None, None)[:2] if n.op == "mean" else (None, None)
        if (
            not isinstance(x, Node)
            or dims is None
            or len(x.shape) < 2
            or [d % len(x.shape) for d in dims] != [len(x.shape) - 1]
        ):
            continue
        count = x.shape[-1]
        if not x.dtype.is_floating_point or "dtype" in n.kwargs or x.value.shape[-1] != count:
            continue
        exact = count & (count - 1) == 0
        weight = 1 / count if exact else 1.0
        weights = known.get((count, x.dtype)) or constant(
            torch.full((count,), weight, dtype=x.dtype), torch.full((count,), weight, dtype=x.value.dtype)
        )
        known[(count, x.dtype)] = weights
        rows, few = x.numel // count, x.value.numel() // count
        flat, nodes = x, [weights]
        if len(x.shape) > 2:
            flat = call(
                "reshape", x, [rows if rows == few else Sized(rows, few), count], shape=(rows, count), dtype=x.dtype
            )
            flat.op = "view" if lies_in_rows(x) else "reshape"
            nodes.append(flat)
        total = call("mv", flat, weights, shape=(rows,), dtype=n.dtype)
        nodes.append(total)
        if not exact:
            total = call("div", total, count, shape=(rows,), dtype=n.dtype)
            nodes.append(total)
        new = call("view", total, sizes_of(n), shape=n.shape, dtype=n.dtype) if n.shape != total.shape else total
        yield Match([*nodes, *([new] if new is not total else [])], [(n, new)], key=(x.shape, n.shape))


def multiply_add(step: Step) -> Iterator[Match]:
    """c + a b is addcmul(c, a, b); c - a b is addcmul(c, a, b, value=-1)."""
    users = step.users()
    for n in step.order:
        if n.op not in ("add", "sub") or len(n.args) != 2 or n.kwargs or not all(isinstance(a, Node) for a in n.args):
            continue
        for k, product in enumerate(n.args):
            if n.op == "sub" and k == 0:
                continue
            c = n.args[1 - k]
            if (
                product.op == "mul"
                and isinstance(product.args[1], Node)
                and len(users[product]) == 1
                and c.dtype == n.dtype
            ):
                new = call(
                    "addcmul", c, *product.args[:2], value=1 if n.op == "add" else -1, shape=n.shape, dtype=n.dtype
                )
                yield Match([new], [(n, new)])
                break


def reversed_difference(step: Step) -> Iterator[Match]:
    """c - x is (-1) x + c."""
    for n in step.order:
        if n.op == "rsub" and not isinstance(n.args[1], Node):
            full = n.args[1].full if isinstance(n.args[1], Sized) else n.args[1]
            one = constant(
                torch.tensor(float(full), dtype=n.dtype),
                torch.tensor(float(small((n.args[1],))[0]), dtype=torch.float64),
            )
            new = call("sub", one, n.args[0], shape=n.shape, dtype=n.dtype)
            yield Match([one, new], [(n, new)])


def shares(step: Step) -> Iterator[Match]:
    """exp(log_softmax(z)) is softmax(z): the logarithm is left to whoever needs it, a loss at the end of a chunk."""
    for n in step.order:
        logs = n.args[0] if n.op == "exp" else None
        if isinstance(logs, Node) and logs.op == "_log_softmax":
            new = call("_softmax", *logs.args, shape=n.shape, dtype=n.dtype)
            yield Match([new], [(n, new)])


def squares(step: Step) -> Iterator[Match]:
    """x^2 is x x."""
    for n in step.order:
        if n.op == "pow" and n.args[1] == 2:
            new = call("mul", n.args[0], n.args[0], shape=n.shape, dtype=n.dtype)
            yield Match([new], [(n, new)])


def written_out(step: Step) -> Iterator[Match]:
    """tanh_backward(g, h) is g (1 - h h); sigmoid_backward(g, s) is g s (1 - s); threshold_backward(g, z, t) is g where z > t."""
    for n in step.order:
        if n.op == "tanh_backward":
            g, h = n.args
            square = call("mul", h, h, shape=h.shape, dtype=n.dtype)
            slope = call("rsub", square, 1, shape=h.shape, dtype=n.dtype)
            new = call("mul", g, slope, shape=n.shape, dtype=n.dtype)
            yield Match([square, slope, new], [(n, new)])
        elif n.op == "sigmoid_backward":
            g, s = n.args
            other = call("rsub", s, 1, shape=s.shape, dtype=n.dtype)
            slope = call("mul", s, other, shape=s.shape, dtype=n.dtype)
            new = call("mul", g, slope, shape=n.shape, dtype=n.dtype)
            yield Match([other, slope, new], [(n, new)])
        elif n.op == "threshold_backward":
            g, z, threshold = n.args
            below = call("le", z, threshold, shape=n.shape, dtype=torch.bool)
            zero = constant(torch.zeros((), dtype=n.dtype))
            new = call("where", below, zero, g, shape=n.shape, dtype=n.dtype)
            yield Match([below, zero, new], [(n, new)])


PLAIN: tuple[Rule, ...] = (
    Rule(
        "slopes",
        "tanh_backward(g, h) = g (1 - h h); sigmoid_backward(g, s) = g s (1 - s); threshold_backward(g, z, t) = g [z > t]",
        written_out,
        always=True,
    ),
)
"""For a loop that uses no kernels, also where the program does."""

RULES: tuple[Rule, ...] = (
    Rule("gather", "x[i] = index_select(x, 0, i)", gathers, always=True),
    Rule("scatter add", "rows added to x at i = index_add(x, 0, i, rows)", scatter_adds, always=True),
    Rule("shares", "exp(log_softmax(z)) = softmax(z)", shares, always=True),
    Rule("scatter", "p with p[i] - c put at i is p + s, with s known from the batch", scattered),
    Rule(
        "elementwise backward",
        "g (1 - h^2) = tanh_backward(g, h); g s (1 - s) = sigmoid_backward(g, s)",
        elementwise_backward,
    ),
    Rule("softmax backward", "p (g - Sum g p) = _softmax_backward_data(g, p)", softmax_backward),
    Rule("relu", "relu(z) = clamp_min(z, 0)", rectified, always=True),
    Rule("relu backward", "g [z > 0] = threshold_backward(g, z, 0)", rectified_backward),
    Rule(
        "layer norm",
        "(x - mean) / sqrt(var + eps) w + b of every row = native_layer_norm(x, w, b), and its derivative",
        layer_norm,
    ),
    Rule(
        "mask",
        "where(m, -inf, x) = x + z and where(m, 0, x) = x z, with z known from m, which is the same in every step",
        masked,
    ),
    Rule("pieces", "a function in pieces of z = hardswish(z) or hardsigmoid(z), and its derivative", by_pieces),
    Rule(
        "choice",
        "where(m, a, b) = a where m holds and 0 elsewhere + b where it does not and 0 elsewhere, each by a threshold",
        by_selection,
    ),
    Rule("copied once", "a copy of xT in a product = the copy of x there is, turned", copied_once),
    Rule("copied into place", "copies side by side = views that are copied side by side", copied_into_place),
    Rule(
        "vectors",
        "A x = (xT AT)T = Sum_j A[:,j] x[j], for many matrices A with a vector x each",
        by_vectors,
        always=True,
    ),
    Rule("gelu", "z (1 + erf(z / sqrt(2))) / 2 = gelu(z), and its derivative", with_kernels),
    Rule("gelu by erf", "gelu(z) = z p with p = (1 + erf(z / sqrt(2))) / 2, and its derivative", by_error_function),
    Rule("addmm", "x w + b = addmm(b, x, w)", affine),
    Rule("batch norm", "(x - mean) / sqrt(var + eps) w + b = native_batch_norm(x, w, b)", batch_norm),
    Rule(  # always, as the rule after it may take it apart again
        "batch norm backward", "its derivative = native_batch_norm_backward", batch_norm_backward, always=True
    ),
    Rule(
        "batch norm backward by columns",
        "dx = a dz + b (x - mean) + c with a, b, c per column, from two column sums",
        by_columns,
    ),
    Rule(
        "tanh of softplus",
        "tanh(softplus(z)) = w / (2 - w) and mish(z) = z w / (2 - w), with w = s (2 - s), s = sigmoid(z)",
        tanh_of_softplus,
    ),
    Rule(
        "softplus by sigmoid",
        "softplus(z) = max(z, 0) - log(max(s, 1 - s)) with s = sigmoid(z), and its derivative is s",
        softplus_by_sigmoid,
    ),
    Rule(
        "silu by sigmoid",
        "silu(z) = h = z s with s = sigmoid(z), and its derivative is h + s (1 - h)",
        silu_by_sigmoid,
    ),
    Rule(
        "elu backward of result",
        "the derivative of h = elu(z) below zero is a multiple of h plus a number",
        elu_backward_of_result,
        always=True,
    ),
    Rule("elu by exp", "elu(z) = max(z, a exp(b min(z, 0)) - a)", elu_by_exp),
    Rule("tanh by sigmoid", "tanh(z) = 2 sigmoid(2 z) - 1", tanh_by_sigmoid),
    Rule("square", "x^2 = x x", squares, always=True),
    Rule("mixture", "(1 - s) a + s b = lerp(a, b, s)", interpolated),
    Rule("rest of a product", "(1 - s) g = g - s g", rest_of_product),
    Rule("numbers", "a (c x + d) + b = (a c) x + (a d + b)", numbers_together),
    Rule("addcmul", "c + a b = addcmul(c, a, b)", multiply_add),
    Rule("product apart", "addcmul(c, a, b) = c + a b", product_apart, always=True),
    Rule("windows", "avg_pool2d(x) = sums of shifted rows and columns / k k", means_of_windows, always=True),
    Rule(
        "windows backward",
        "a sum over windows passes back what each is given, to all of its places",
        passed_to_windows,
        always=True,
    ),
    Rule("convolution backward", "both gradients of a convolution from one call", convolved_back, always=True),
    Rule("pooling", "max_pool2d(x) = max_pool2d(x with channels last)", pooled_by_channels),
    Rule("reversed difference", "rsub(x, c) = c - x", reversed_difference, always=True),
    Rule(
        "table",
        "(C[x] w)[i] = Sum_t T[t, x[i,t]] with T[t] = C w[t]; backwards, cotangents of equal symbols are added up first",
        looked_up,
    ),
    Rule("sums of rows", "Sum_t C[x[i,t]] = embedding_bag(x, C)", summed_rows, always=True),
    Rule(
        "counts",
        "rows g added at all places x of each = nT g, with n[i, v] = Sum_t [x[i,t] = v] known from the batch",
        counted_products,
        ahead=True,
    ),
    Rule(
        "sums of symbols",
        "rows g added at all places x of each = sums of the rows of g that have each symbol, embedding_bag(order, g)",
        sorted_sums,
        ahead=True,
    ),
    Rule("one-hot product", "index_add(x, 0, i, v) = x + onehot(i)T v", one_hot_products),
    Rule("column sums", "Sum_i x[i,j] = (xT 1)[j]", column_sums),
    Rule("row means", "Sum_j x[i,j] / n = (x 1)[i] / n", row_means),
)

__all__ = ["RULES", "Tensor", "depends_on"]
