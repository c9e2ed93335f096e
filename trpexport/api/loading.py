"""Networks of PyTorch from Python, out of checkpoints and bundles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trpexport.checkpoints import Checkpoint


def load(
    path: str | Path,
    *,
    arch: str | None = None,
    factory: str | None = None,
    unsafe_pickle: bool = False,
) -> Checkpoint:
    """Read the PyTorch network of a checkpoint or of a bundle.

    Args:
        path: a file of ``torch.save``, a safetensors file, or a bundle.
        arch: its architecture, where it can't be recognised or is to be checked.
        factory: ``package.module:factory`` that makes the network, before any rewrite.
        unsafe_pickle: load a file that holds pickled code, **which runs that code**.

    Raises:
        TrpexportError: it can't be read, or the network can't be built.
    """
    from trpexport.checkpoints import load_network

    return load_network(path, arch=arch, model=factory, unsafe_pickle=unsafe_pickle)
