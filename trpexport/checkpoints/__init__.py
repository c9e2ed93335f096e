"""Reading a checkpoint safely and recognising its architecture."""

from __future__ import annotations

from trpexport.checkpoints.bundles import load_bundle, load_network
from trpexport.checkpoints.expectation import expected
from trpexport.checkpoints.identify import Match, identify
from trpexport.checkpoints.keys import KeyDifference, Reading, key_difference
from trpexport.checkpoints.loading import Checkpoint, examined, load_checkpoint
from trpexport.checkpoints.reading import StateFile, read_state_dict
from trpexport.checkpoints.saving import save_checkpoint

__all__ = [
    "Checkpoint",
    "KeyDifference",
    "Match",
    "Reading",
    "StateFile",
    "examined",
    "expected",
    "identify",
    "key_difference",
    "load_bundle",
    "load_checkpoint",
    "load_network",
    "read_state_dict",
    "save_checkpoint",
]
