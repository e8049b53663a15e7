"""Layout rows: shapes, orders, pieces, joins and padding."""

from __future__ import annotations

from typing import Any

from tests.ops.samples.call import Call, call, calls, i, named, spelled, t


def each(target: Any, *xs: Any) -> Any:
    """Several tensors, given one by one."""
    return target(*xs)


SAMPLES: dict[str, list[Call]] = {
    "view": [*calls((t(2, 6), (3, 4)), (t(2, 6), (-1,)), (t(1, 4), (2, -1)), (t(2, 3, 4), (6, 2, 2)), (t(), (1, 1)))],
    "view_as": [call(t(2, 6), t(4, 3)), call(t(1, 2), t(2, 1))],
    "flatten": [
        call(t(2, 3, 4)), call(t(1, 1)), call(t()), named("flatten", t(2, 3, 4), 1),
        named("flatten", t(2, 3, 1, 2), 1, 2),
    ],
    "unflatten": [call(t(6, 2), 0, (2, 3)), call(t(2, 6), -1, (3, -1)), call(t(1, 2), 0, (1, 1))],
    "permute": [call(t(2, 3, 4), (2, 0, 1)), call(t(2, 3, 4), dims=(2, 0, 1)), call(t(1, 3), (1, 0))],
    "transpose": [call(t(2, 3, 4), 0, 2), call(t(1, 3), 0, 1), call(t(2, 1, 4), -1, -2)],
    "t": [call(t(2, 3)), call(t(1, 3)), named(".t", t(4))],
    "mT": [call(t(2, 3)), call(t(2, 1, 3))],
    "movedim": [call(t(2, 3, 4), 0, 2), call(t(2, 1, 4), (0, 1), (2, 0))],
    "squeeze": [call(t(1, 3, 1)), call(t(1, 3, 1), 0), call(t(2, 3), 1), call(t(1, 1)), call(t(1, 3, 1), (0, 2)), call(t(1, 3, 1), ())],
    "unsqueeze": [call(t(3), 0), call(t(2, 3), -1), call(t(), 0)],
    "expand": [
        call(t(1, 3), (2, 3)), call(t(3), (2, 1, 3)), named("expand", t(2, 1), (-1, 4)), call(t(), (2,)),
        call(t(1), (1,)),
    ],
    "expand_as": [call(t(1, 3), t(2, 3)), call(t(1), t(1, 1))],
    "broadcast_tensors": [call(t(2, 1), t(3)), call(t(1), t(1, 1))],
    "atleast_1d": [call(t()), call(t(2)), spelled(each, t(), t(3))],
    "atleast_2d": [call(t()), call(t(2)), call(t(2, 3)), spelled(each, t(), t(3))],
    "atleast_3d": [call(t()), call(t(2)), call(t(2, 3)), call(t(2, 1, 3))],
    "meshgrid": [call(t(2), t(3), indexing="ij"), call(t(2), t(1), indexing="xy")],
    "sum_to_size": [call(t(2, 3), (2, 1)), call(t(4, 2, 3), (1, 3)), call(t(1, 3), (1, 3))],
    "pixel_shuffle": [call(t(2, 4, 3, 2), 2), call(t(9, 1, 1), 3)],
    "pixel_unshuffle": [call(t(2, 1, 4, 6), 2), call(t(1, 3, 3), 3)],
    "channel_shuffle": [call(t(1, 6, 2, 2), 2), call(t(2, 6, 1, 2), 3)],
    "pad": [
        call(t(2, 3), (1, 2)),
        call(t(2, 3), (1, 0, 2, 1), value=1.5),
        call(t(1, 4), (-1, 1)),
        named("functional", t(2, 3, 4), (2, 1), mode="reflect"),
        named("functional", t(1, 2, 3, 4), (1, 2, 2, 1), mode="replicate"),
        named("functional", t(2, 3, 4), (2, 4), mode="circular"),
    ],
    "cat": [
        call([t(2, 3), t(1, 3), t(4, 3)]),
        call([t(2, 3), t(2, 1)], 1),
        call([t(2, 1), t(2, 1), t(2, 1)], -1),
        call([t(3)]),
        call([t(2, 3), t(0, 3)]),
    ],
    "stack": [call([t(2, 3), t(2, 3), t(2, 3)]), call([t(3), t(3)], 1), call([t(1)], -1), call([t(), t()])],
    "hstack": [call([t(2, 3), t(2, 1)]), call([t(2), t(3)]), call([t(), t()]), call([t(), t(3)])],
    "column_stack": [call([t(3), t(3, 2)]), call([t(1), t(1)])],
    "vstack": [call([t(3), t(2, 3)]), call([t(1), t(1)])],
    "dstack": [call([t(2, 3), t(2, 3)]), call([t(2), t(2)])],
    "hsplit": [call(t(2, 6), 3), call(t(6), 2)],
    "vsplit": [call(t(6, 2), 3), call(t(3, 1), 3)],
    "dsplit": [call(t(2, 1, 4), 2)],
    "narrow": [call(t(2, 5), 1, 1, 3), call(t(4, 1), 0, -2, 1)],
    "split": [
        named(".split$", t(6, 2), [1, 2, 3]), named(".split$", t(2, 5), 2, 1), named("_split$", t(6, 1), 2),
        named("split_copy", t(4), 4), named("split_with", t(3, 1), (1, 2), 0),
    ],
    "chunk": [call(t(6, 2), 3), call(t(2, 5), 2, 1), call(t(1, 2), 2)],
    "tensor_split": [call(t(5, 2), 2), call(t(2, 6), (1, 4), 1), call(t(3), (2, 2, 9))],
    "unbind": [
        named("unbind", t(3, 2)), named("unbind", t(2, 3), 1),
        spelled(lambda f, x: list(f(x)), t(3, 2), only="__iter__"), named("unbind", t(1, 2)),
    ],
    "select": [call(t(3, 2), 0, 1), call(t(2, 1, 4), -1, -2)],
    "repeat": [call(t(2, 3), 2, 1), call(t(3), 2, 3), call(t(1), 3), call(t(), 2)],
    "tile": [call(t(2, 3), (2,)), call(t(3), (2, 1, 2)), call(t(1, 2), (3, 1))],
    "repeat_interleave": [call(t(2, 3), 2, 1), call(t(1, 2), 3, dim=0)],
    "tril": [call(t(3, 4)), call(t(2, 3, 3), 1), call(t(4, 2), -1), call(t(1, 3))],
    "triu": [call(t(3, 4)), call(t(2, 3, 3), 1), call(t(4, 2), -1), call(t(3, 1))],
    "diagonal": [call(t(3, 4)), call(t(3, 4), 1), call(t(4, 3), -2), call(t(2, 3, 4), 0, 1, 2), call(t(1, 3))],
    "linalg_diagonal": [call(t(2, 3, 4)), call(t(3, 3), offset=-1)],
    "diag_embed": [call(t(3)), call(t(2, 3), 1), call(t(2, 3), -2), call(t(2, 1, 3), 0, 0, 2)],
    "diag": [call(t(3)), call(t(3), 1), call(t(2), -2), call(t(1)), call(t(3, 4)), call(t(4, 2), -1)],
    "diagflat": [call(t(3)), call(t(2, 2), 1), call(t(1))],
    "trace": [call(t(3, 4)), call(t(1, 2)), call(t(3, 3))],
    "block_diag": [call(t(2, 3), t(1, 2), t(2)), call(t(2, 2))],
    "cartesian_prod": [call(t(2), t(3)), call(t(3))],
    "flip": [call(t(2, 3), (0,)), call(t(2, 3), dims=(1,)), named("torch.flip", input=t(2, 3), dims=[0, 1]), call(t(2, 3, 1), (1, 2)), call(t(1), (0,))],
    "fliplr": [call(t(2, 3)), call(t(2, 1))],
    "flipud": [call(t(2, 3)), call(t(1, 3))],
    "rot90": [call(t(2, 3)), call(t(2, 3), 2), call(t(2, 3, 4), 3, (1, 2)), call(t(1, 2), -1), call(t(2, 2), 0)],
    "roll": [
        call(t(4), 1, 0), call(t(2, 3), (1, -2), (0, 1)), call(t(2, 3), 2), call(t(3, 1), -7, 0),
        call(t(1, 2), 5, 1),
    ],
    "slice_scatter": [
        call(t(4, 3), t(2, 3), 0, 1, 3), call(t(4, 3), t(4, 2), 1, 0, 3, 2), call(t(1, 3), t(1, 1), 1, 2),
    ],
    "select_scatter": [call(t(4, 3), t(3), 0, 1), call(t(4, 3), t(4), 1, -1), call(t(1, 2), t(2), 0, 0)],
    "diagonal_scatter": [call(t(3, 4), t(3)), call(t(3, 3), t(2), 1), call(t(2, 3, 3), t(2, 2), -1, 1, 2)],
    "unfold": [
        named("Tensor", t(7), 0, 3, 2),
        named("unfold_copy", t(7), 0, 3, 2),
        named("Tensor", t(2, 5, 3), 1, 2, 1),
        named("Tensor", t(1, 4), -1, 4, 1),
        named("functional", t(2, 3, 4, 5), 2),
        named("functional", t(1, 2, 5, 4), (2, 3), 1, 1, (2, 1)),
        named("functional", t(2, 2, 5, 5), 2, 2),
    ],
    "__getitem__": [
        call(t(4, 3), 1),
        call(t(4, 3), -1),
        call(t(4, 3), (slice(1, 3), slice(None, None, 2))),
        call(t(4, 3), (slice(None), None, 1)),
        call(t(2, 3, 4), (Ellipsis, 2)),
        call(t(4, 3), i(4, 5)),
        call(t(4, 3), i(4, 5) - 4),
        call(t(4, 3), (i(4, 2, 3), i(3, 1, 3))),
        call(t(2, 3, 4), (slice(None), i(3, 5))),
        call(t(2, 3, 4), (i(2, 5), slice(None), i(4, 5))),
        call(t(2, 3, 4), (0, slice(None), i(4, 5))),
        call(t(4, 3), [0, -1, 2]),
        call(t(1, 3), (slice(None), slice(-2, None))),
        call(t(5), slice(-9, 4, 3)),
    ],
}  # fmt: skip
