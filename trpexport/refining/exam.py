"""How far a student is from the original network, on images that nothing is fitted to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from trpexport.choose.distance import output_errors
from trpexport.errors import DataError
from trpexport.inputs import rows
from trpexport.networks.samples import Samples
from trpexport.networks.torch.pupil import Pupil

_MIN_IMAGES = 16
# What one exam may take of the whole time, and its answers of memory.
_SHARE, _BYTES = 0.01, 1 << 28


class Exam:
    """Errors of a student on held-out images, by output: see :mod:`trpexport.choose.distance`.

    Args:
        pupil: student and teacher.
        samples: the images; so many of them are used as the time allows.
        seconds: what all of the training may take; None for all images.
        clock: tells seconds.

    Attributes:
        samples: the images that are used.
        seconds: what one exam takes.
    """

    def __init__(
        self,
        pupil: Pupil,
        samples: Samples,
        seconds: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pupil, self._clock = pupil, clock
        first = replace(samples, values=rows(samples.values, slice(samples.batch_size)))
        pupil.outputs_of(pupil.teacher, first, 0)  # the first run sets up what others reuse
        started = clock()
        found = pupil.outputs_of(pupil.teacher, first, 0)
        each = max(0.0, clock() - started) / len(first)
        size = sum(output[0].numel() for output in found.values()) * 4
        most = min(len(samples), _BYTES // size)
        if seconds is not None and each:
            most = min(most, int(_SHARE * seconds / each))
        # Whole batches: a network may take no others.
        batches = max(1, -(-_MIN_IMAGES // samples.batch_size), most // samples.batch_size)
        if most < len(samples):
            samples = replace(
                samples, values=rows(samples.values, slice(batches * samples.batch_size))
            )
        self.samples = samples
        self.seconds = each * len(samples)
        self._wanted = [
            {name: output.float() for name, output in outputs.items()}
            for outputs in self._outputs(pupil.teacher)
        ]

    def errors(self) -> dict[str, float]:
        """Return the error of each output of the student as it is; infinite where it diverged."""
        wanted = ({name: output.double() for name, output in each.items()} for each in self._wanted)
        try:
            return output_errors(wanted, self._outputs(self._pupil.student))
        except DataError:
            return dict.fromkeys(self._wanted[0], math.inf)

    def _outputs(self, model: torch.nn.Module) -> Iterator[Mapping[str, Tensor]]:
        return (
            self._pupil.outputs_of(model, self.samples, index)
            for index in range(self.samples.batches)
        )
