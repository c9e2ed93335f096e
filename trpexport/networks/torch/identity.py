"""What tells a network of PyTorch from others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import nn

from trpexport.inputs import Inputs
from trpexport.networks.torch.running import evaluating, example_input, tensor_leaves

# Digits to which outputs are told apart: fewer than any order of summation changes.
_DIGITS = 3


def identity(model: nn.Module, inputs: Inputs, outputs: Sequence[str] = ()) -> str:
    """Return what tells a network from others, for caches: by its weights and by its behaviour.

    Two architectures may have the same text and the same weights: so what it makes of an example
    counts as well.

    Args:
        model: the network.
        inputs: what it takes.
        outputs: globs of the names of the outputs whose errors count.
    """
    digest = hashlib.sha256(f"{model}{inputs}{outputs or ''}".encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        values = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(values.numpy())
    with evaluating(model):
        found = tensor_leaves(example_input(model, inputs).call(model))
    for output in found:
        values = output.detach().double().cpu()
        scale = (float(values.abs().max()) if values.numel() else 0.0) or 1.0
        digest.update((values / scale).round(decimals=_DIGITS).abs().numpy().tobytes())
    return digest.hexdigest()
