"""Layers: products, normalizations, convolutions, poolings, attention, dropout."""

from __future__ import annotations

from tests.ops.samples.call import Call, b, call, named, p, running, t

SAMPLES: dict[str, list[Call]] = {
    "matmul": [
        named("matmul", t(2, 3), t(3, 4)), named("matmul", t(5, 2, 3), t(3, 4)),
        named("matmul", t(5, 1, 2, 3), t(4, 3, 1)), named("matmul", t(3), t(2, 3, 4)),
        named("matmul", t(2, 3), t(3)), named("matmul", t(1, 1), t(1, 2)), named(".mm", t(2, 3), t(3, 1)),
        named("bmm", t(2, 3, 4), t(2, 4, 1)),
        named("mv", t(2, 3), t(3)), named("dot", t(3), t(3)), named("dot", t(1), t(1)),
    ],
    "__rmatmul__": [call(t(3, 4), t(2, 3)), call(t(3), t(2, 3))],
    "linear": [
        call(t(2, 3), t(4, 3)), call(t(2, 5, 3), t(4, 3), t(4)), call(t(3), t(1, 3), t(1)), call(t(1, 1), t(2, 1)),
    ],
    "addmm": [
        named("addmm", t(2, 4), t(2, 3), t(3, 4)), named("addmm", t(4), t(1, 3), t(3, 4), beta=0.5, alpha=2.0),
        named("addmv", t(2), t(2, 3), t(3)),
        named("baddbmm", t(2, 3, 1), t(2, 3, 4), t(2, 4, 1)),
    ],
    "inner": [call(t(3), t(3)), call(t(2, 3), t(4, 3)), call(t(3, 3), t(3, 3)), call(t(), t(2))],
    "outer": [call(t(2), t(3)), call(t(1), t(3)), call(t(2), t(1))],
    "linalg_vecdot": [call(t(2, 3), t(2, 3)), call(t(2, 3), t(2, 1), dim=0), call(t(3), t(3))],
    "addbmm": [call(t(3, 4), t(2, 3, 5), t(2, 5, 4)), call(t(3, 1), t(1, 3, 2), t(1, 2, 1), beta=0.5, alpha=2.0)],
    "addr": [call(t(2, 3), t(2), t(3)), call(t(2, 1), t(2), t(1), beta=0.5, alpha=2.0)],
    "bilinear": [call(t(4, 2), t(4, 3), t(5, 2, 3), t(5)), call(t(1, 2), t(1, 1), t(2, 2, 1))],
    "linalg_multi_dot": [named("linalg", [t(2, 3), t(3, 1), t(1, 4)])],
    "tensordot": [call(t(2, 3, 4), t(3, 4, 5)), call(t(2, 3), t(4, 2), dims=([0], [1])), call(t(2), t(3), dims=0)],
    "kron": [call(t(2, 3), t(1, 2)), call(t(2), t(3)), call(t(2, 1, 2), t(3, 2))],
    "cross": [call(t(4, 3), t(4, 3), dim=1), call(t(3, 2), t(3, 1), dim=0)],
    "einsum": [
        call("ij,jk->ik", t(2, 3), t(3, 4)), call("bij,bkj->bik", t(2, 3, 4), t(2, 5, 4)), call("ii->i", t(3, 3)),
        call("...i,i->...", t(2, 3, 4), t(4)),
        call("i,j", t(2), t(1)), call("ij->", t(2, 3)), call("bi,bj,ij->b", t(2, 3), t(2, 4), t(3, 4)),
    ],
    "layer_norm": [
        call(t(2, 3, 4), (4,)), call(t(2, 3, 4), (3, 4), t(3, 4), t(3, 4), 1e-3), call(t(3, 1), (1,)),
        call(t(1, 3), (3,), t(3)),
    ],
    "rms_norm": [call(t(2, 3, 4), (4,)), call(t(2, 3, 4), (3, 4), t(3, 4), 1e-3), call(t(3, 1), (1,))],
    "batch_norm": [
        call(t(5, 3), None, None, t(3), t(3), training=True), call(t(2, 3, 4, 1), None, None, training=True, eps=1e-3),
        running(t(5, 3), t(3), p(3), t(3), t(3)), running(t(1, 3, 2), t(3), p(3)),
        running(t(5, 3), t(3), p(3), t(3), t(3), training=True),
    ],
    "instance_norm": [
        call(t(2, 3, 4)), call(t(2, 3, 4, 2), weight=t(3), bias=t(3)),
        running(t(2, 3, 4), t(3), p(3), use_input_stats=False),
    ],
    "group_norm": [call(t(2, 4), 2), call(t(2, 4, 3), 4, t(4), t(4)), call(t(1, 4, 2, 3), 1, t(4), t(4), 1e-3)],
    "local_response_norm": [call(t(2, 5, 3), 3), call(t(2, 4, 3, 2), 2, 1e-2, 0.5, 2.0)],
    "conv1d": [
        call(t(2, 3, 7), t(4, 3, 3)), call(t(3, 7), t(4, 3, 1), t(4), stride=2),
        call(t(2, 4, 7), t(6, 2, 3), t(6), padding=2, groups=2, dilation=2),
        call(t(1, 2, 5), t(1, 2, 3), padding="same"),
    ],
    "conv2d": [
        call(t(2, 3, 5, 4), t(4, 3, 3, 2)), call(t(3, 5, 5), t(2, 3, 3, 3), t(2), 2, 1),
        call(t(2, 4, 5, 5), t(4, 1, 3, 3), padding=(1, 0), groups=4),
        call(t(1, 2, 6, 7), t(2, 2, 2, 3), stride=(2, 1), dilation=(2, 1)), call(t(2, 1, 1, 1), t(3, 1, 1, 1), t(3)),
        call(t(1, 2, 5, 4), t(2, 2, 3, 1), padding="same"),
    ],
    "conv3d": [call(t(1, 2, 3, 4, 3), t(2, 2, 2, 2, 2), t(2), padding=1)],
    "conv_transpose1d": [
        call(t(2, 3, 4), t(3, 2, 3), t(2)), call(t(2, 3, 4), t(3, 2, 2), stride=2, padding=1, output_padding=1),
    ],
    "conv_transpose2d": [call(t(1, 3, 3, 2), t(3, 2, 2, 3), t(2)), call(t(2, 2, 3, 3), t(2, 1, 2, 2), stride=2)],
    "avg_pool1d": [call(t(2, 3, 7), 2), call(t(3, 7), 3, 2, 1), call(t(2, 3, 7), 3, 2, 1, count_include_pad=False)],
    "avg_pool2d": [
        call(t(2, 3, 6, 5), 2), call(t(3, 6, 5), (3, 2), 2, 1),
        call(t(2, 3, 6, 5), 3, 2, 1, count_include_pad=False), call(t(1, 1, 4, 4), 2, divisor_override=3),
    ],
    "max_pool1d_with_indices": [call(t(2, 3, 7), 2), call(t(3, 7), 3, 2, 1)],
    "max_pool1d": [call(t(2, 3, 7), 2), call(t(3, 7), 3, 2, 1)],
    "max_pool2d_with_indices": [call(t(2, 3, 6, 5), 2), call(t(3, 6, 5), (3, 2), 2, 1)],
    "max_pool2d": [
        call(t(2, 3, 6, 5), 2), call(t(3, 6, 5), (3, 2), 2, 1), call(t(1, 1, 5, 5), 2, ceil_mode=True),
        call(t(1, 1, 5, 5), 2, 1, 0, 2),
    ],
    "max_pool3d_with_indices": [call(t(1, 2, 4, 4, 3), 2)],
    "max_pool3d": [call(t(1, 2, 4, 4, 3), 2)],
    "adaptive_avg_pool1d": [call(t(2, 3, 6), 3), call(t(2, 3, 7), 3), call(t(3, 5), 1)],
    "adaptive_avg_pool2d": [call(t(2, 3, 6, 4), 2), call(t(2, 3, 5, 7), (2, 3)), call(t(3, 5, 4), (None, 1))],
    "adaptive_max_pool1d_with_indices": [call(t(2, 3, 7), 3)],
    "adaptive_max_pool1d": [call(t(2, 3, 7), 3), call(t(3, 5), 1)],
    "adaptive_max_pool2d_with_indices": [call(t(2, 3, 5, 7), (2, 3))],
    "adaptive_max_pool2d": [call(t(2, 3, 6, 4), 2), call(t(2, 3, 5, 7), (None, 3))],
    "lp_pool1d": [call(t(2, 3, 6), 2, 2), call(p(2, 3, 7), 3, 3, 2)],
    "lp_pool2d": [call(t(2, 3, 6, 4), 2, 2), call(p(1, 1, 5, 5), 1.5, (2, 3), 1)],
    "interpolate": [
        call(t(2, 3, 4), scale_factor=2), call(t(1, 2, 3, 2), size=(6, 4)), call(t(2, 1, 3), scale_factor=1),
    ],
    "scaled_dot_product_attention": [
        call(t(2, 4, 3), t(2, 5, 3), t(2, 5, 2)), call(t(2, 2, 4, 3), t(2, 2, 4, 3), t(2, 2, 4, 3), is_causal=True),
        call(t(1, 4, 3), t(1, 5, 3), t(1, 5, 2), b(4, 5)),
        call(t(2, 4, 3), t(2, 5, 3), t(2, 5, 2), t(4, 5), scale=0.3),
        call(t(2, 4, 4, 3), t(2, 2, 4, 3), t(2, 2, 4, 3), enable_gqa=True),
        call(t(2, 4, 3), t(2, 4, 3), t(2, 4, 3), dropout_p=0.5),
    ],
    "multi_head_attention_forward": [
        call(t(4, 2, 6), t(5, 2, 6), t(5, 2, 6), 6, 3, t(18, 6), t(18), None, None, False, 0.0, t(6, 6), t(6)),
        call(t(4, 1, 4), t(4, 1, 4), t(4, 1, 4), 4, 2, t(12, 4), None, None, None, False, 0.5, t(4, 4), None, True,
             attn_mask=t(4, 4)),
        call(t(3, 2, 4), t(5, 2, 2), t(5, 2, 3), 4, 2, None, t(12), None, None, False, 0.0, t(4, 4), t(4),
             use_separate_proj_weight=True, q_proj_weight=t(4, 4), k_proj_weight=t(4, 2), v_proj_weight=t(4, 3)),
    ],
    "dropout": [
        call(t(3, 4), 0.3, True), call(t(3, 4), 0.3, False), call(t(1), 0.9, True), call(t(3), 0.0, True),
        named("functional", t(4)),
    ],
    "dropout1d": [call(t(3, 4, 2), 0.3), call(t(3, 4), 0.5)],
    "dropout2d": [named("functional", t(3, 4, 2, 2), 0.3), call(t(3, 4, 2, 1), 0.5, True)],
    "dropout3d": [call(t(3, 4, 2, 1, 2), 0.3), call(t(4, 2, 1, 2), 0.5)],
    "alpha_dropout": [call(t(3, 4), 0.3, False)],
    "glu": [call(t(3, 4)), call(t(6, 1), 0), call(t(2))],
    "prelu": [call(t(3, 4), t(1)), call(t(3, 4), t(4)), call(t(2, 3, 1), t(3)), call(t(4), t(1))],
    "polygamma": [
        named("torch.poly", 0, p(3)), named("special", 1, p(3, 1), tolerance=1e-9),
        named("Tensor", p(3), 2, tolerance=1e-9),
    ],
    "mvlgamma": [call(p(3) + 2, 2), call(p(3) + 2, 1)],
}  # fmt: skip
