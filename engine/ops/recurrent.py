"""Recurrent layers written out: a cell is two linear maps and its gates, a layer is its cell over the time steps.

Sources: the formulas in the documentation of torch.nn.RNN, LSTM and GRU. The number of time steps is that of the example.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from engine.errors import TraceError
from engine.table import composite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

F = torch.nn.functional


def gated(x: Any, h: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, gates: int) -> list[tuple[Any, Any]]:
    """What the input and the state say to each gate."""
    said, kept = F.linear(x, w_ih, b_ih), F.linear(h, w_hh, b_hh)
    return list(zip(said.chunk(gates, -1), kept.chunk(gates, -1), strict=True)) if gates > 1 else [(said, kept)]


@composite(targets=(torch.rnn_tanh_cell,))
def rnn_tanh_cell(x: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    ((said, kept),) = gated(x, hx, w_ih, w_hh, b_ih, b_hh, 1)
    return (said + kept).tanh()


@composite(targets=(torch.rnn_relu_cell,))
def rnn_relu_cell(x: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    ((said, kept),) = gated(x, hx, w_ih, w_hh, b_ih, b_hh, 1)
    return (said + kept).relu()


@composite(targets=(torch.gru_cell,))
def gru_cell(x: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    reset, update, new = gated(x, hx, w_ih, w_hh, b_ih, b_hh, 3)
    r, z = (reset[0] + reset[1]).sigmoid(), (update[0] + update[1]).sigmoid()
    n = (new[0] + r * new[1]).tanh()
    return n + z * (hx - n)


@composite(targets=(torch.lstm_cell,))
def lstm_cell(x: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    """The next state and the next cell."""
    h: Any = hx[0]
    c: Any = hx[1]
    i, f, g, o = (said + kept for said, kept in gated(x, h, w_ih, w_hh, b_ih, b_hh, 4))
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def projected(x: Any, hx: Any, *weights: Any) -> Any:
    """An LSTM's next state and cell, the state projected by the last of its weights."""
    h, c = lstm_cell(x, hx, *weights[:-1])
    return F.linear(h, weights[-1]), c


def kinds_of(state: Any) -> tuple[Any, ...]:
    """A state as a tuple: that of an LSTM is a pair."""
    return cast("tuple[Any, ...]", state) if isinstance(state, tuple) else (state,)


def over_time(cell: Callable[..., Any], x: Any, state: Any, weights: Sequence[Any], backwards: bool) -> tuple[Any, Any]:
    """The states after each step of (time, batch, features), in the order of time, and the last one."""
    steps = range(int(x.shape[0]))
    out: list[Any] = []
    for t in reversed(steps) if backwards else steps:
        state = cell(x[t], state, *weights)
        out.append(kinds_of(state)[0])
    return torch.stack(out[::-1] if backwards else out), state


def layered(
    cell: Callable[..., Any],
    x: Any,
    states: Sequence[Any],
    weights: Sequence[Any],
    biases: bool,
    layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Any, list[Any]]:
    """All layers and directions of a recurrent network; the output and the last states, one of each kind."""
    each = 4 if biases else 2
    ways = 2 if bidirectional else 1
    if len(weights) != each * layers * ways:
        each, cell = each + 1, projected
    x = x.transpose(0, 1) if batch_first else x
    last: list[list[Any]] = [[] for _ in states]
    for layer in range(layers):
        found: list[Any] = []
        for way in range(ways):
            k = layer * ways + way
            start = states[0][k] if len(states) == 1 else tuple(s[k] for s in states)
            out, end = over_time(cell, x, start, weights[k * each : (k + 1) * each], way == 1)
            found.append(out)
            for kept, value in zip(last, kinds_of(end), strict=True):
                kept.append(value)
        x = torch.cat(found, -1) if ways == 2 else found[0]
        if dropout and training and layer < layers - 1:
            x = F.dropout(x, dropout)
    return (x.transpose(0, 1) if batch_first else x), [torch.stack(kept) for kept in last]


def recurrent(target: Any, cell: Callable[..., Any], pair: bool = False) -> None:
    """Register a whole recurrent network."""

    @composite(targets=(target,))
    def network(
        x: Any,
        hx: Any,
        weights: Any,
        biases: Any,
        layers: Any,
        dropout: Any = 0.0,
        training: Any = False,
        bidirectional: Any = False,
        batch_first: Any = False,
    ) -> Any:
        if isinstance(hx, torch.Tensor) and isinstance(weights, torch.Tensor):
            raise TraceError("packed sequences are not in the table; pad them and mask what is beyond the end")
        states = list(hx) if pair else [hx]
        out, last = layered(cell, x, states, weights, biases, layers, dropout, training, bidirectional, batch_first)
        return (out, *last)


recurrent(torch.rnn_tanh, torch.rnn_tanh_cell)
recurrent(torch.rnn_relu, torch.rnn_relu_cell)
recurrent(torch.gru, torch.gru_cell)
recurrent(torch.lstm, torch.lstm_cell, pair=True)
