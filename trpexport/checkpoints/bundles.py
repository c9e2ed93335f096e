"""Reading the network of a bundle back, factors and all."""

from __future__ import annotations

from pathlib import Path

from trpexport import bundle
from trpexport.checkpoints.loading import Checkpoint, load_checkpoint


def load_network(
    path: str | Path,
    *,
    arch: str | None = None,
    model: str | None = None,
    unsafe_pickle: bool = False,
) -> Checkpoint:
    """Read a bundle by :func:`load_bundle`, or a file by :func:`load_checkpoint`."""
    if bundle.is_directory(Path(path)):
        return load_bundle(path, arch=arch, model=model)
    return load_checkpoint(path, arch=arch, model=model, unsafe_pickle=unsafe_pickle)


def load_bundle(
    directory: str | Path, *, arch: str | None = None, model: str | None = None
) -> Checkpoint:
    """Read the PyTorch network of a bundle: what was exported, to train it further, say.

    Args:
        directory: the bundle.
        arch: the architecture's text form, where it is to be checked.
        model: ``package.module:factory`` that makes the network before the rewrite, for one that
            is not of the zoo.

    Raises:
        ModelError: it is no bundle, or a file of it was changed.
        CheckpointError: the network can't be built.
        ArchitectureError: its architecture is not the one given.
    """
    directory = Path(directory)
    bundle.read_manifest(directory)
    return load_checkpoint(directory / bundle.WEIGHTS, arch=arch, model=model)
