"""Loading what ``torch.save`` wrote with full pickle, which runs its code: on request only."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from trpexport.checkpoints.wording import one_line
from trpexport.errors import CheckpointError
from trpexport.importing import importable_working_directory


def load_with_pickle(path: Path) -> object:
    """Load a file of ``torch.save`` with full pickle, **which runs whatever code it asks for**.

    Raises:
        CheckpointError: its classes can't be imported or made, or it is damaged.
    """
    try:
        # A file object, because torch.load judges a path by its suffix.
        with importable_working_directory(), warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # torch's words to its own developers
            return torch.load(file, map_location="cpu", weights_only=False)
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{path} needs the module {error.name}: run from the folder that has it, or install it"
        ) from error
    except Exception as error:  # foreign code runs here
        raise CheckpointError(
            f"{path} can't be unpickled ({type(error).__name__}: {one_line(error)}): make its "
            "classes importable, or save the state_dict instead"
        ) from error
