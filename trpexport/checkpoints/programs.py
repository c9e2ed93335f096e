"""Programs of ``torch.export``: ``.pt2`` files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch import nn

from trpexport.checkpoints.torch_files import TRUST
from trpexport.checkpoints.wording import one_line
from trpexport.errors import CheckpointError, UnsafeCheckpointError
from trpexport.inputs import Inputs
from trpexport.networks.torch.program import inputs_of, network_of


def is_program(path: Path) -> bool:
    """Whether a file is a program of ``torch.export``, by the names of its records."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] or name for name in archive.namelist()}
    except Exception:  # a damaged archive fails in any way: BadZipFile, UnicodeDecodeError, ...
        return False
    return "archive_format" in names or "serialized_exported_program.json" in names


def read_program(path: Path, *, unsafe_pickle: bool) -> tuple[nn.Module, Inputs | None]:
    """Read a program as a network, and what it takes; None where the file does not say.

    Loading one is running code of the file: sizes in it are expressions that Python evaluates,
    functions of torch are called by the name that the file has for them, examples may be pickled,
    and compiled libraries are loaded.

    Raises:
        UnsafeCheckpointError: ``unsafe_pickle`` is False.
        CheckpointError: it can't be read.
    """
    if not unsafe_pickle:
        raise UnsafeCheckpointError(
            f"{path} is a program of torch.export, and to load one runs what the file says, which "
            "is not done: save the weights alone with torch.save(model.state_dict(), "
            f"'weights.pth'), {TRUST}"
        )
    try:
        program = torch.export.load(path)
        return network_of(program), inputs_of(program)
    except Exception as error:  # a damaged file, or one of another version, fails in any way
        raise CheckpointError(
            f"{path} can't be loaded by torch.export ({one_line(error)}): export it again with "
            f"torch {torch.__version__}"
        ) from error
