"""Which output pixels of a layer are used: a part, where there are many more than unknowns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from trpexport.lowrank.fit.patches import Pixels
from trpexport.networks.samples import Samples

# Output pixels that are used, at least and for each element of a patch, if there are so many: the
# error of a regression grows by one part in so many.
_PIXELS, _PIXELS_PER_INPUT = 65_536, 64
# Where nothing is regressed, since the layer itself is what its outputs are made by: so many times
# fewer.
_IMPLIED = 8
# Multiples of it, taken modulo 1, are spread more evenly than those of any other number.
_GOLDEN = (5**0.5 - 1) / 2


def share_of(count: int, inputs: int, *, implied: bool = False) -> float:
    """Return which share of a layer's output pixels is used, 1 where they are not many.

    Args:
        count: of output pixels in all images.
        inputs: elements of a patch.
        implied: whether the outputs follow from the patches, and only these are looked at.
    """
    wanted = max(_PIXELS, _PIXELS_PER_INPUT * inputs)
    return min(1.0, (wanted // _IMPLIED if implied else wanted) / max(1, count))


@dataclass(frozen=True)
class Sampling:
    """Which pixels of the calls of a layer on one batch are used, and for what.

    Each image gives the same share of its pixels, within a few. They form a lattice with
    another origin in each image, which its content says: so each row, column and border has its
    share, and neither the order of the images nor how they are batched makes a difference.

    Attributes:
        held_out: which images are, (images,), bool.
        phases: origins of their lattices, from 0 to below 1, (images,).
        calls_of_one: how often the layer is called for one image.
    """

    held_out: Tensor
    phases: Tensor
    calls_of_one: int

    @classmethod
    def of(cls, samples: Samples, index: int, calls_of_one: int) -> Self:
        """Return that of one batch."""
        held_out, phases = samples.held_out(index), samples.phases(index)
        return cls(torch.from_numpy(held_out), torch.from_numpy(phases), calls_of_one)

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.held_out)

    def places(self, rows: int, place: int, calls: int) -> tuple[Tensor, Tensor]:
        """Return whose the rows of a layer's input are, and which of its rows each is, (rows,).

        Args:
            rows: as many as images, more where frames, patches or tokens are folded into the
                batch; those of one image where a network goes through its batch image by image.
            place: of this call among those of one pass.
            calls: how many there are.
        """
        each = torch.arange(rows)
        if calls == self.calls_of_one and rows % self.images == 0:
            of_one = rows // self.images
            return each // of_one, each % of_one + place * of_one
        each, total = each + place * rows, calls * rows
        image = (each * self.images // total).clamp_max(self.images - 1)
        return image, each - -(-image * total // self.images)

    def is_held_out(self, rows: int, place: int, calls: int) -> Tensor:
        """Return which rows of a layer's input come from images that are held out, (rows,)."""
        return self.held_out[self.places(rows, place, calls)[0]]

    def pixels(
        self, rows: int, pixels: int, place: int, calls: int, share: float
    ) -> tuple[Pixels, Pixels]:
        """Return the pixels of one call to fit to, and those held out.

        Args:
            rows: of the layer's output.
            pixels: of each row.
            place: of this call among those of one pass.
            calls: how many there are.
            share: of the pixels, from 0 to 1.
        """
        image, row = self.places(rows, place, calls)
        each = row[:, None] * pixels + torch.arange(pixels)
        used = (each * _GOLDEN + self.phases[image, None]) % 1 < share
        out = self.held_out[image, None]
        fit, held_out = (Pixels(*torch.nonzero(used & some).unbind(1)) for some in (~out, out))
        return fit, held_out
