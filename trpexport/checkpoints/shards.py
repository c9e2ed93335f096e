"""A checkpoint in several files beside the index that names them, as of Hugging Face."""

from __future__ import annotations

from pathlib import Path

from trpexport.errors import CheckpointError
from trpexport.schema import each, fits, parse_json, read_text, text

_SUFFIX = ".index.json"
_MAP = "weight_map"
_MAX_BYTES = 1 << 24
_MAX_SHARDS = 1000


def is_index(path: Path) -> bool:
    """Whether a file is such an index, by its name."""
    return path.name.endswith(_SUFFIX) and path.is_file()


def read_index(path: Path) -> dict[str, Path]:
    """Return the file of each tensor, by the tensor's name; all lie beside the index.

    Raises:
        CheckpointError: the index can't be read, is damaged, or names files elsewhere.
    """
    try:
        found = parse_json(read_text(path, _MAX_BYTES))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read as JSON: download it again") from error
    weights = found.get(_MAP) if isinstance(found, dict) else None
    if not weights or not fits(weights, each(text)):
        raise CheckpointError(
            f"{path} has no {_MAP!r} that says which file holds each tensor: give the checkpoint"
        )
    files = {str(name) for name in weights.values()}
    for name in sorted(files):
        if Path(name).name != name or "\\" in name or name.endswith(_SUFFIX):
            raise CheckpointError(
                f"{path} names the file {name!r}, which is not beside it: download it again"
            )
    if len(files) > _MAX_SHARDS:
        raise CheckpointError(f"{path} names {len(files)} files, more than any checkpoint has")
    return {str(tensor): path.with_name(file) for tensor, file in weights.items()}
