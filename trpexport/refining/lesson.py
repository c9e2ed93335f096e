"""What a student is taught: the outputs of the original network, and what stands behind its layers.

Both in units of their own variation over the images, as the error that is measured; so a learning
rate means the same for every network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trpexport.choose.distance import variations
from trpexport.networks.torch.arguments import Arguments
from trpexport.networks.torch.modules import by_channel
from trpexport.networks.torch.outputs import named_tensors, picked
from trpexport.networks.torch.pupil import Pupil
from trpexport.networks.torch.replay import by_sample
from trpexport.networks.torch.running import noting

# What the outputs of layers count beside those of the network.
_FEATURES = 5.0


@dataclass
class _Answers:
    """What the teacher makes of a batch.

    Attributes:
        outputs: by name (samples, elements).
        features: by layer, what each of its calls gives.
    """

    outputs: dict[str, Tensor]
    features: dict[str, list[Tensor]] = field(default_factory=dict)


class Lesson:
    """The loss of a student.

    Args:
        pupil: student and teacher.
        batches: inputs over which variations are taken.

    Attributes:
        units: root mean square of what varies in the outputs of each layer, by layer.
    """

    def __init__(self, pupil: Pupil, batches: Iterable[Arguments]) -> None:
        self._pupil = pupil
        self._ops = {layer: chain.op for layer, chain in pupil.chains.items()}
        totals: dict[str, list[float]] = {layer: [] for layer in self._ops}
        seen = []
        for batch in batches:
            answers = self._answers(batch)
            seen.append({name: output.cpu() for name, output in answers.outputs.items()})
            for layer, features in answers.features.items():
                totals[layer] += [self._variance(layer, feature) for feature in features]
        self._scales = variations(seen)
        self.units = {
            layer: (sum(found) / len(found)) ** 0.5 for layer, found in totals.items() if found
        }

    def loss(self, batch: Arguments, *, bf16: bool = False) -> Tensor:
        """Return how far the student is from the teacher on a batch.

        The mean over outputs of the squared error over the variation, and the mean over layers of
        the same.

        Args:
            batch: inputs on the device of the networks.
            bf16: run both in bfloat16 where that is safe.
        """
        device = next(iter(batch.tensors.values())).device.type

        def casting() -> AbstractContextManager[Any]:
            return torch.autocast(device, torch.bfloat16, enabled=bf16)

        with casting():
            answers = self._answers(batch)
            terms: list[Tensor] = []
            with torch.enable_grad(), noting(self._comparing(answers, terms)):
                outputs = self._outputs(self._pupil.student, batch)
        errors = [
            (output - answers.outputs[name]).square().mean() * self._scale(name, output)
            for name, output in outputs.items()
        ]
        total = torch.stack(errors).mean()
        if terms:
            total = total + _FEATURES * torch.stack(terms).mean().to(total.dtype)
        return total

    def _scale(self, name: str, output: Tensor) -> float:
        """Return what the mean squared error of an output is multiplied with."""
        variation = self._scales[name] / output.shape[1]
        return 1.0 / variation if variation else 0.0

    def _answers(self, batch: Arguments) -> _Answers:
        features: dict[str, list[Tensor]] = {}

        def keep(layer: str) -> Callable[..., None]:
            def kept(_: nn.Module, __: Any, ___: Any, output: Tensor) -> None:
                # A copy: what follows may overwrite it.
                features.setdefault(layer, []).append(output.detach().clone())

            return kept

        with torch.no_grad(), noting({m: keep(n) for n, m in self._pupil.layers.items()}):
            return _Answers(self._outputs(self._pupil.teacher, batch), features)

    def _comparing(self, answers: _Answers, terms: list[Tensor]) -> dict[nn.Module, Any]:
        """Return what adds the errors of the student's layers to ``terms``, by module."""

        def compare(layer: str, wanted: list[Tensor]) -> Callable[..., None]:
            def compared(_: nn.Module, __: Any, ___: Any, output: Tensor) -> None:
                if wanted and output.shape == wanted[0].shape:
                    # At once: what follows may overwrite it.
                    difference = (output - wanted.pop(0)).float()
                    terms.append(difference.square().mean() / self.units[layer] ** 2)

            return compared

        return {
            module: compare(layer, answers.features[layer])
            for layer, module in self._pupil.chains.items()
            if self.units.get(layer) and layer in answers.features
        }

    def _outputs(self, model: nn.Module, batch: Arguments) -> dict[str, Tensor]:
        found = picked(named_tensors(batch.clone().call(model), batch.tensors), self._pupil.outputs)
        return by_sample(found, batch.images)

    def _variance(self, layer: str, feature: Tensor) -> float:
        """Return the mean square of a layer's output about the mean of each channel."""
        rows = by_channel(self._ops[layer], feature).float().transpose(0, 1).flatten(1)
        return float((rows - rows.mean(1, keepdim=True)).square().mean())
