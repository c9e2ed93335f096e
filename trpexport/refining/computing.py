"""How a student is trained on a machine: its layout, its precision, how many images at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trpexport.networks.torch.arguments import Arguments
from trpexport.networks.torch.layout import channels_last, has_images
from trpexport.networks.torch.pupil import Pupil
from trpexport.networks.torch.running import RUN_ERRORS
from trpexport.refining.lesson import Lesson

_MAX_BATCH = 64
_BYTES = 3 << 29  # of what the gradient needs of a batch
_TRIALS = 3
# How much faster bfloat16 has to be, and how far off its loss may be, relative.
_FASTER, _MAX_LOSS_CHANGE = 1.1, 0.05


@dataclass(frozen=True)
class Computing:
    """How a step is computed.

    Attributes:
        batch_size: images a step.
        bf16: whether passes run in bfloat16 where that is safe.
        seconds: what a step takes.
    """

    batch_size: int
    bf16: bool
    seconds: float


def lay_out(pupil: Pupil, batch: Arguments) -> None:
    """Put channels last where the networks run so: convolutions are faster with that."""
    if not has_images(batch):
        return
    pupil.lay_out(torch.channels_last)
    try:
        for model in (pupil.teacher, pupil.student):
            with torch.no_grad():
                channels_last(batch).call(model)
    except RUN_ERRORS:  # a forward that flattens by view, say
        pupil.lay_out(torch.contiguous_format)


def batch_size(lesson: Lesson, one: Arguments, most: int) -> int:
    """Return how many images the gradient is taken over at a time, by what it needs of one.

    Args:
        lesson: the loss.
        one: inputs of one image, or of as few as the network takes.
        most: how many the network takes.
    """
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        lesson.loss(one)
    each = max(1, sum(found.values()) // one.images)
    return max(1, min(most, _MAX_BATCH, _BYTES // each))


def computing(
    lesson: Lesson,
    batch: Arguments,
    weights: list[torch.nn.Parameter],
    bf16: bool | None,
    clock: Callable[[], float] = time.monotonic,
) -> Computing:
    """Return how to compute: in bfloat16 where the processor is faster with it and it is safe.

    Args:
        lesson: the loss.
        batch: of as many images as a step takes.
        weights: what is trained.
        bf16: whether to compute in bfloat16; None to try.
        clock: tells seconds.
    """

    def trial(bf16: bool) -> tuple[float, float]:
        started = clock()
        loss = lesson.loss(batch, bf16=bf16)
        torch.autograd.grad(loss, weights, allow_unused=True)
        value = float(loss.detach())  # which waits for a GPU
        return clock() - started, value

    def pace(of: bool) -> float:
        return min(trial(of)[0] for _ in range(_TRIALS))

    _, exact = trial(False)  # the first one sets up what others reuse
    if bf16 is None and knows_bf16(batch):
        try:
            _, rounded = trial(True)
        except RUN_ERRORS:  # a forward that mixes precisions
            bf16 = False
        else:
            is_safe = abs(rounded - exact) <= _MAX_LOSS_CHANGE * abs(exact)
            bf16 = is_safe and pace(False) > _FASTER * pace(True)
    return Computing(batch.images, bool(bf16), pace(bool(bf16)))


def knows_bf16(batch: Arguments) -> bool:
    """Whether the device of inputs multiplies numbers of bfloat16."""
    device = next(iter(batch.tensors.values())).device
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
