"""Recurrent layers and cells, and what else came after the others: samples are drawn one after the other."""

from __future__ import annotations

import torch

from tests.ops.samples.call import Call, call, i, t
from tests.ops.samples.losses import reduced

CELL = (t(2, 3), t(2, 4))
LAST = (1, 0.0, False, False)
"""Layers, dropout, training, both directions."""

SAMPLES: dict[str, list[Call]] = {
    "rnn_tanh_cell": [call(*CELL, t(4, 3), t(4, 4), t(4), t(4)), call(t(1, 3), t(1, 1), t(1, 3), t(1, 1))],
    "rnn_relu_cell": [call(*CELL, t(4, 3), t(4, 4), t(4), t(4)), call(*CELL, t(4, 3), t(4, 4))],
    "gru_cell": [call(*CELL, t(12, 3), t(12, 4), t(12), t(12)), call(*CELL, t(12, 3), t(12, 4))],
    "lstm_cell": [call(t(2, 3), [t(2, 4), t(2, 4)], t(16, 3), t(16, 4), t(16), t(16))],
    "rnn_tanh": [call(t(5, 2, 3), t(1, 2, 4), [t(4, 3), t(4, 4), t(4), t(4)], True, *LAST, False)],
    "rnn_relu": [call(t(2, 5, 3), t(1, 2, 4), [t(4, 3), t(4, 4)], False, *LAST, True)],
    "gru": [call(t(5, 2, 3), t(1, 2, 4), [t(12, 3), t(12, 4), t(12), t(12)], True, *LAST, False)],
    "lstm": [call(t(5, 2, 3), [t(1, 2, 4), t(1, 2, 4)], [t(16, 3), t(16, 4), t(16), t(16)], True, *LAST, False)],
    "embedding_bag": [
        call(i(5, 2, 3), t(5, 4)),
        call(i(5, 2, 3), t(5, 4), mode="sum"),
        call(i(5, 1, 1), t(5, 1), mode="max"),
        call(i(5, 3, 4), t(5, 2).round(), mode="max"),
    ],
    "tanh_backward": [call(t(3, 4), t(3, 4)), call(t(1), t(1))],  # tensors of one shape only
    "sigmoid_backward": [call(t(3, 4), t(3, 4)), call(t(1), t(1))],
    "gelu_backward": [call(t(3, 4), t(3, 4)), call(t(3, 4), t(3, 4), approximate="tanh")],
    "multilabel_margin_loss": reduced(t(2, 3), torch.tensor([[2, 0, -1], [1, -1, 0]])),
}
