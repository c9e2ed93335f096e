"""What a run is told: how it pulls towards low rank, how it computes, on which images."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from trpexport.errors import TrainingError
from trpexport.training.recipe import RECIPES, Recipe


@dataclass(frozen=True)
class LowRank:
    """How a run pulls the network towards low rank.

    Attributes:
        scheme: the scheme that it is going to be decomposed with.
        energy: share of each layer's spectrum that a projection keeps; None not to project.
        period: steps between projections.
        nuclear_weight: of the nuclear norm's subgradient; 0 for none.
        target_macs: MACs to be reached at the value threshold, relative to the dense network;
            None to leave it to ``energy``.
        stride_1_only: leave strided convolutions alone, as the original code does.
        rank_multiple: ranks are rounded up to multiples of it; ``auto`` for the channel block of
            this processor.
    """

    scheme: str = "spatial"
    energy: float | None = 0.9
    period: int = 20
    nuclear_weight: float = 3e-4
    target_macs: float | None = None
    stride_1_only: bool = False
    rank_multiple: int | str = "auto"


@dataclass(frozen=True)
class Compute:
    """How a run computes; none of it changes what is computed but for rounding.

    Attributes:
        device: ``auto``, ``cpu`` or ``cuda``.
        bf16: run the forward pass in bfloat16 where that is safe.
        compile: compile the network.
        sync_bn: take batch-norm statistics over all workers.
        save_seconds: time between two states within an epoch.
        decoders: processes that decode image files, for each worker; None for one a core.
        cuda_graphs: record the training passes through the network as CUDA graphs and replay them:
            a step of a small network is mostly waiting for the processor.

    Raises:
        TrainingError: the time between two states makes no sense.
    """

    device: str = "auto"
    bf16: bool = False
    compile: bool = False
    sync_bn: bool = False
    save_seconds: float = 60.0
    decoders: int | None = None
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.save_seconds < math.inf:
            raise TrainingError(f"save seconds {self.save_seconds} make no sense: give 0 or more")


@dataclass(frozen=True)
class RunSettings:
    """What training and fine-tuning have in common.

    Attributes:
        data: the data set, as in ``cifar10:DIR``.
        recipe: how long and how fast.
        seed: of everything random.
        augment: shift and mirror the training images, or cut and mirror larger ones.
        size: height and width of the input, in pixels; None for that of the images, or, where they
            differ, of the architecture.
        resize: length of the shorter edge of a test image before its centre is cut out; None for
            size / 0.875.
        compute: how it computes.
    """

    data: str
    recipe: Recipe = RECIPES["original"]
    seed: int = 0
    augment: bool = True
    size: int | None = None
    resize: int | None = None
    compute: Compute = Compute()

    def facts(self) -> dict[str, Any]:
        """Return what two runs share when one may go on where the other stopped."""
        settings = asdict(self)
        compute = settings.pop("compute")
        # On other devices a run goes on as well, if not to the same last bit.
        return {**settings, "bf16": compute["bf16"], "sync_bn": compute["sync_bn"]}
