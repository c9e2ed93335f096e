"""What a network loses on images that nothing was fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from trpexport.choose.distance import distance, worst
from trpexport.inputs import images_of
from trpexport.networks.base import Network
from trpexport.networks.samples import checked_samples
from trpexport.tensors import Array, Arrays

if TYPE_CHECKING:
    from trpexport.choose.base import CalibrationImages

# Of a pass of the original network over all images, unless these would be fewer than so many: an
# error is then known to a few percent of itself.
_MACS, _LEAST = 5e11, 64


class HeldOut:
    """Measures networks against the original one, by output: see :mod:`~trpexport.choose.distance`.

    Args:
        network: the original network.
        name: what the images are, for the reader.
        inputs: they, by name, or of the only one; none where all were fitted to.
        most: how many of them are used, at most; None for all.
    """

    def __init__(
        self, network: Network, name: str, inputs: Array | Arrays, most: int | None = None
    ) -> None:
        self.name = name
        self.count = images_of(inputs) if most is None else min(most, images_of(inputs))
        if self.count:
            samples = checked_samples(inputs, network.inputs)
            self._watch = network.watch(samples.first(self.count))

    @classmethod
    def of(cls, network: Network, images: CalibrationImages) -> Self:
        """Return what measures on images that are not calibrated on: fewer of a costly network."""
        return cls(network, *images.held_out(), max(_LEAST, int(_MACS // (network.cost.macs or 1))))

    def errors(self, network: Network) -> dict[str, float]:
        """Return the error of each output of a network; nothing where there are no images.

        Raises:
            DataError: it makes NaN or infinity of the images.
        """
        if not self.count:
            return {}
        samples = self._watch.samples
        return distance(self._watch, network.watch(samples), samples.batches)

    def facts(self, network: Network) -> dict[str, Any] | None:
        """Return what a network loses, JSON-ready; None where there are no images."""
        errors = self.errors(network)
        if not errors:
            return None
        return {"images": self.count, "split": self.name, **error_facts(errors)}


def error_facts(errors: Mapping[str, float]) -> dict[str, Any]:
    """Return errors by output, and the one that counts, JSON-ready."""
    return {
        "output_error": worst(errors),
        "worst_output": max(errors, key=errors.__getitem__, default=None),
        "output_errors": dict(errors),
    }
