"""Training from Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trpexport.datasets import Preprocessing
    from trpexport.training.settings import Compute, LowRank
    from trpexport.training.watching import Watcher


def train(
    arch: str,
    data: str,
    out: str | Path,
    *,
    low_rank: LowRank | None = None,
    recipe: str = "original",
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    init: str | Path | None = None,
    preprocessing: Preprocessing | None = None,
    watcher: Watcher | None = None,
    restart: bool = False,
    seed: int = 0,
    augment: bool = True,
    size: int | None = None,
    resize: int | None = None,
    compute: Compute | None = None,
) -> dict[str, Any]:
    """Train a network of the zoo, towards low rank if so asked; go on where it was stopped.

    Args:
        arch: text form of the architecture, as in ``resnet20``.
        data: the data set, as in ``cifar10:DIR``.
        out: the run's directory.
        low_rank: how it is pulled towards low rank; None for plain training.
        recipe: name of the recipe.
        epochs: how many, where not as the recipe says.
        batch_size: images in a step of all workers together, likewise.
        lr: learning rate, likewise.
        init: a checkpoint or bundle to start from.
        preprocessing: how images become input; as ``init`` or the data set says where it is None.
        watcher: is told how it goes.
        restart: throw away what an earlier run left in ``out``.
        seed: of everything random.
        augment: shift and mirror the training images, or cut and mirror larger ones.
        size: height and width of the input, in pixels; None for that of the images.
        resize: length of the shorter edge of a test image before its centre is cut out; None for
            size / 0.875.
        compute: how it computes: the device, the precision.

    Returns:
        The last epoch's line of the metrics.

    Raises:
        TrpexportError: the data or ``init`` can't be read, or the training can't go on.
    """
    from trpexport.training.recipe import RECIPES
    from trpexport.training.settings import Compute, RunSettings
    from trpexport.training.train import train as run
    from trpexport.training.watching import Watchers

    chosen = RECIPES[recipe].changed(epochs=epochs, batch_size=batch_size, lr=lr)
    return run(
        arch,
        RunSettings(data, chosen, seed, augment, size, resize, compute or Compute()),
        low_rank,
        Path(out),
        init=None if init is None else Path(init),
        preprocessing=preprocessing,
        watcher=watcher or Watchers(()),
        restart=restart,
    )
