"""Reading the network of a bundle back, factors and all."""

from __future__ import annotations

from pathlib import Path

from trpexport import bundle
from trpexport.checkpoints.loading import Checkpoint, load_checkpoint


def load_bundle(directory: str | Path, *, model: str | None = None) -> Checkpoint:
    """Read the PyTorch network of a bundle: what was exported, to train it further, say.

    Args:
        directory: the bundle.
        model: ``package.module:factory`` that makes the network before the rewrite, for one that
            is not of the zoo.

    Raises:
        ModelError: it is no bundle, or a file of it was changed.
        CheckpointError: the network can't be built.
    """
    directory = Path(directory)
    bundle.read_manifest(directory)
    return load_checkpoint(directory / bundle.WEIGHTS, model=model)
