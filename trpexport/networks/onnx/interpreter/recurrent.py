"""Recurrent layers: step after step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trpexport.networks.onnx.interpreter.registry import Use, operator

_Step = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def _activations(use: Use, defaults: list[str], direction: int) -> list[Callable[[Tensor], Tensor]]:
    names = use.get("activations")
    if use.get("clip") is not None:
        raise ValueError("recurrent layers that clip are not computed")
    count = len(defaults)
    chosen = defaults if names is None else names[direction * count : (direction + 1) * count]
    return [_ACTIVATIONS[name.lower()] for name in chosen]


def _run(
    use: Use,
    x: Tensor,
    lengths: Tensor | None,
    states: list[Tensor],
    steps: list[_Step],
) -> tuple[Tensor, ...]:
    """Run each direction over a sequence (time, batch, inputs).

    Args:
        use: the use of the operator.
        x: the sequence, batch first where ``layout`` says so.
        lengths: how long each sequence of the batch is, or None.
        states: what is carried on, (directions, batch, hidden) each.
        steps: what a step makes of its input and of the states, one a direction.

    Returns:
        All first states, (time, directions, batch, hidden), and the last of each state.
    """
    is_batch_first = bool(use.get("layout", 0))
    if is_batch_first:
        x, states = x.transpose(0, 1), [state.transpose(0, 1) for state in states]
    outputs, lasts = [], []
    for direction, step in enumerate(steps):
        is_back = direction == 1 or use.get("direction", "forward") == "reverse"
        now = tuple(state[direction] for state in states)
        found: list[Tensor] = []
        for time in reversed(range(len(x))) if is_back else range(len(x)):
            new = step(x[time], now)
            seen = new[0]
            if lengths is not None:
                runs = (time < lengths)[:, None]
                new = tuple(torch.where(runs, n, o) for n, o in zip(new, now, strict=True))
                seen = torch.where(runs, seen, 0)
            now = new
            found.append(seen)
        outputs.append(torch.stack(found[::-1] if is_back else found))
        lasts.append(now)
    sequence = torch.stack(outputs, 1)
    last = [torch.stack(parts) for parts in zip(*lasts, strict=True)]
    if is_batch_first:
        sequence, last = sequence.movedim(2, 0), [state.transpose(0, 1) for state in last]
    return (sequence, *last)[: use.outputs]


def _directions(use: Use) -> int:
    return 2 if use.get("direction", "forward") == "bidirectional" else 1


def _state(use: Use, given: Tensor | None, x: Tensor, hidden: int) -> Tensor:
    if given is not None:
        return given
    shape = (_directions(use), x.shape[0 if use.get("layout", 0) else 1])
    return x.new_zeros(*(shape[::-1] if use.get("layout", 0) else shape), hidden)


def _biases(bias: Tensor | None, like: Tensor, direction: int) -> tuple[Tensor, Tensor]:
    """Return what is added to the products with the input and with the state."""
    if bias is None:
        zero = like.new_zeros(like.shape[1])
        return zero, zero
    first, second = bias[direction].chunk(2)
    return first, second


@operator("RNN")
def _rnn(
    use: Use,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    first: Tensor | None = None,
) -> tuple[Tensor, ...]:
    def step(d: int) -> _Step:
        (f,) = _activations(use, ["tanh"], d)
        wb, rb = _biases(b, w, d)
        return lambda x, state: (f(x @ w[d].T + wb + state[0] @ r[d].T + rb),)

    state = _state(use, first, x, r.shape[-1])
    return _run(use, x, lengths, [state], [step(d) for d in range(len(w))])


@operator("GRU")
def _gru(
    use: Use,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    first: Tensor | None = None,
) -> tuple[Tensor, ...]:
    is_late = bool(use.get("linear_before_reset", 0))

    def step(d: int) -> _Step:
        f, g = _activations(use, ["sigmoid", "tanh"], d)
        wb, rb = _biases(b, w, d)
        rz, rr, rh = r[d].chunk(3)
        bz, br, bh = rb.chunk(3)

        def run(x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            (h,) = state
            z, reset, new = (x @ w[d].T + wb).chunk(3, -1)
            z, reset = f(z + h @ rz.T + bz), f(reset + h @ rr.T + br)
            past = reset * (h @ rh.T + bh) if is_late else (reset * h) @ rh.T + bh
            return ((1 - z) * g(new + past) + z * h,)

        return run

    state = _state(use, first, x, r.shape[-1])
    return _run(use, x, lengths, [state], [step(d) for d in range(len(w))])


@operator("LSTM")
def _lstm(
    use: Use,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    first: Tensor | None = None,
    cell: Tensor | None = None,
    peepholes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    if use.get("input_forget", 0):
        raise ValueError("LSTMs that couple input and forget gates are not computed")

    def step(d: int) -> _Step:
        f, g, last = _activations(use, ["sigmoid", "tanh", "tanh"], d)
        wb, rb = _biases(b, w, d)
        pi, po, pf = (0, 0, 0) if peepholes is None else peepholes[d].chunk(3)

        def run(x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            h, c = state
            i, o, forget, new = (x @ w[d].T + wb + h @ r[d].T + rb).chunk(4, -1)
            c_new = f(forget + pf * c) * c + f(i + pi * c) * g(new)
            return f(o + po * c_new) * last(c_new), c_new

        return run

    hidden = r.shape[-1]
    states = [_state(use, given, x, hidden) for given in (first, cell)]
    return _run(use, x, lengths, states, [step(d) for d in range(len(w))])
