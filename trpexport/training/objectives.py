"""What networks of any outputs are trained to do: a loss of one's own, or another's outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trpexport.errors import TrainingError
from trpexport.foreign import told
from trpexport.importing import importable_working_directory, imported

Loss = Callable[[Any, Any, Any], Tensor]  # of what a network gives, labels and its inputs

_USAGE = "package.module:function, as in losses:dice"
_LEAST_VARIATION = 1e-12  # of an output that is the same for all samples


@dataclass(frozen=True)
class OwnLoss:
    """A function of the user's.

    It gets what the network gives, a tensor or several as the network has them, in float32, and the
    labels of the batch, a tensor or several by output. It returns the mean loss.

    Attributes:
        name: what the user calls it.
        function: the function.
    """

    name: str
    function: Callable[..., Any]

    @classmethod
    def imported(cls, text: str) -> OwnLoss:
        """Import what ``package.module:function`` names, from the current directory too.

        Raises:
            TrainingError: there is no such function.
        """

        def refused(why: str) -> TrainingError:
            return TrainingError(f"the loss {text} can't be used: {why}", parameters=("loss",))

        with importable_working_directory():
            return cls(text, imported(text, refused, _USAGE))

    def __call__(self, outputs: Any, labels: Any, inputs: Any) -> Tensor:
        """Return the mean loss of a batch.

        Raises:
            TrainingError: the function fails, or returns no number.
        """
        try:
            loss = self.function(outputs, labels)
        except Exception as error:  # foreign code
            raise TrainingError(
                f"the loss {self.name} raised {told(error)}: it is called with what the network "
                "gives and the labels",
                parameters=("loss",),
            ) from error
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            what = (
                f"a tensor of {tuple(loss.shape)}"
                if isinstance(loss, Tensor)
                else f"a {type(loss).__name__}"
            )
            raise TrainingError(
                f"the loss {self.name} returned {what}: return the mean of the batch, a tensor of "
                "one number",
                parameters=("loss",),
            )
        return loss.reshape(())


@dataclass(frozen=True)
class Imitation:
    """The squared difference to another network's outputs, each over its own variation.

    Attributes:
        teacher: that network, in evaluation mode, on the same device.
    """

    teacher: nn.Module

    def __call__(self, outputs: Any, labels: Any, inputs: Any) -> Tensor:
        """Return the mean over outputs.

        Raises:
            TrainingError: the two give other outputs.
        """
        with torch.no_grad():
            answers = [*each_output(as_floats(called(self.teacher, inputs)))]
        given = [*each_output(outputs)]
        if [one.shape for one in given] != [one.shape for one in answers]:
            shapes = (
                ", ".join("x".join(map(str, one.shape[1:])) for one in some)
                for some in (answers, given)
            )
            raise TrainingError(
                "the teacher gives outputs of {}, the network of {}: give the network that it was "
                "made of".format(*shapes),
                parameters=("teacher",),
            )
        terms = [
            (one - answer).square().mean()
            / (answer - answer.mean()).square().mean().clamp_min(_LEAST_VARIATION)
            for one, answer in zip(given, answers, strict=True)
            if answer.is_floating_point()
        ]
        return torch.stack(terms).mean()


@dataclass(frozen=True)
class Mixed:
    """Two losses, weighted.

    Attributes:
        first: the one.
        second: the other.
        weight: share of the second, 0 to 1.
    """

    first: Loss
    second: Loss
    weight: float

    def __call__(self, outputs: Any, labels: Any, inputs: Any) -> Tensor:
        """Return the weighted mean."""
        losses = (one(outputs, labels, inputs) for one in (self.first, self.second))
        first, second = losses
        return (1 - self.weight) * first + self.weight * second


def called(network: nn.Module, inputs: Any) -> Any:
    """Return what a network gives for a batch: of one input, or of several by name."""
    return network(**inputs) if isinstance(inputs, Mapping) else network(inputs)


def as_floats(outputs: Any) -> Any:
    """Return outputs in their structure, those in half precision in float32."""
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.is_floating_point() else outputs
    if isinstance(outputs, Mapping):
        return {name: as_floats(one) for name, one in outputs.items()}
    if isinstance(outputs, tuple | list):
        return tuple(map(as_floats, outputs))
    return outputs


def each_output(outputs: Any) -> Iterator[Tensor]:
    """Yield the tensors of outputs, whatever their structure."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Mapping | tuple | list):
        for one in outputs.values() if isinstance(outputs, Mapping) else outputs:
            yield from each_output(one)


def samples_of(inputs: Any) -> int:
    """Return how many samples a batch holds."""
    return len(next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs)
