"""Finding the weights among what a training script saved with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from trpexport.checkpoints.torch_files import OddTensor
from trpexport.checkpoints.wording import shorten
from trpexport.errors import CheckpointError

# In this order of preference. Averaged weights come last: which of the two a user wants is theirs
# to say, and the plain ones are what a training reports unless it says otherwise.
_PLAIN = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
)
_AVERAGED = ("ema", "model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "params_ema")
_MAX_DEPTH = 8
_COUNTERS = ("total_ops", "total_params")  # buffers that the profiler thop leaves behind


@dataclass(frozen=True)
class Contents:
    """What a file holds once its wrappers are off.

    Attributes:
        tensors: parameters and buffers by name.
        module: the network itself, where it was pickled whole; ``tensors`` is then its state dict.
        notes: what was taken and what was left, for the reader.
    """

    tensors: Mapping[str, Tensor | OddTensor]
    module: nn.Module | None
    notes: tuple[str, ...]


def unwrap(root: object) -> Contents:
    """Find the state dict, or the whole network, in what a checkpoint file holds.

    A wrapper is a dict with the weights under one of the usual names (``state_dict``, ``model``,
    ``ema``, ...), or under any one name where nothing else in it holds weights.

    Raises:
        CheckpointError: there are no weights, or several sets under names that say nothing.
    """
    trail: list[str] = []
    averaged: list[str] = []
    for _ in range(_MAX_DEPTH):
        if not isinstance(root, Mapping):
            break
        name = _wrapper(root)
        if name is None:
            break
        if name not in _AVERAGED:
            averaged += [key for key in _AVERAGED if _holds_weights(root.get(key))]
        trail.append(name)
        root = root[name]
    notes = []
    if trail:
        notes.append(f"took the weights under {'.'.join(trail)!r}")
    if averaged:
        notes.append(f"left the averaged weights (EMA) under {averaged[0]!r}")
    if isinstance(root, nn.Module):
        return Contents(_bare(root).state_dict(), _bare(root), tuple(notes))
    tensors, more = _state_dict(root)
    return Contents(tensors, None, (*notes, *more))


def _wrapper(root: Mapping[object, object]) -> str | None:
    """Return the key under which the weights lie, or None where ``root`` is the state dict."""
    holders = [key for key, value in root.items() if isinstance(key, str) and _holds_weights(value)]
    for name in (*_PLAIN, *_AVERAGED):
        if name in holders:
            return name
    if any(isinstance(value, Tensor | OddTensor) for value in root.values()):
        return None
    if len(holders) > 1:
        raise CheckpointError(
            f"holds several sets of weights ({shorten(holders)}): save the one you want alone"
        )
    return holders[0] if holders else None


def _holds_weights(value: object) -> bool:
    """Whether a network, or a dict with named tensors at any depth, is in ``value``."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, nn.Module):
            return True
        # "param_groups" marks an optimizer's state, whose tensors are no weights.
        if not isinstance(item, Mapping) or "param_groups" in item or id(item) in seen:
            continue
        seen.add(id(item))
        named = [child for key, child in item.items() if isinstance(key, str)]
        if any(isinstance(child, Tensor | OddTensor) for child in named):
            return True
        waiting += named
    return False


def _bare(module: nn.Module) -> nn.Module:
    """Take the wrapper of data-parallel training off a network."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return module.module if isinstance(module, wrappers) else module


def _state_dict(root: object) -> tuple[dict[str, Tensor | OddTensor], list[str]]:
    if not isinstance(root, Mapping):
        raise CheckpointError(
            f"holds a {type(root).__name__.lstrip('_')}, not weights: save the network's "
            "state_dict() with torch.save"
        )
    tensors: dict[str, Tensor | OddTensor] = {}
    counters: list[str] = []
    others: list[str] = []
    for name, value in root.items():
        if not isinstance(name, str) or not isinstance(value, Tensor | OddTensor):
            others.append(name if isinstance(name, str) else f"a {type(name).__name__}")
        elif not name.isprintable():
            raise CheckpointError(f"is damaged: {name!a} names a tensor; download or save it again")
        elif name.rpartition(".")[2] in _COUNTERS or name == "n_averaged":
            counters.append(name)
        else:
            tensors[name] = value
    if not tensors:
        raise CheckpointError("holds no weights: save the network's state_dict() with torch.save")
    notes = []
    if counters:
        notes.append(f"ignored counters that are no weights: {shorten(counters)}")
    if others:
        notes.append(f"ignored entries that are no tensors: {shorten(others)}")
    return tensors, notes
