"""Writing weights as safetensors with the architecture beside them, and reading that back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from trpexport.checkpoints.wording import one_line
from trpexport.errors import CheckpointError
from trpexport.files import write_atomically
from trpexport.inputs import Inputs
from trpexport.plan import Plan, parse_plan
from trpexport.schema import MayLack, check, parse_json, text, whole

if TYPE_CHECKING:  # only for the types: the zoo is loaded by name, see docs/architecture.md
    from models_zoo.family import Architecture

METADATA_KEY = "trpexport"
_OWN_KEYS = ("architecture", "num_classes", "in_channels", "plan")
_STORED = {
    "architecture": MayLack((None, text)),
    "num_classes": MayLack(whole(0)),
    "in_channels": MayLack(whole(0)),
}


@dataclass(frozen=True)
class StoredFacts:
    """What :func:`save_checkpoint` wrote beside the weights.

    Attributes:
        architecture: text form of the architecture; None where the network is not of the zoo.
        num_classes: of the architecture.
        in_channels: likewise.
        inputs: what it takes.
        plan: how its layers were made into factors; None for a network that is dense.
        metadata: all of it, with whatever else the writer added.
    """

    architecture: str | None = None
    num_classes: int = 0
    in_channels: int = 0
    inputs: Inputs | None = None
    plan: Plan | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(
    path: str | Path,
    module: nn.Module,
    *,
    architecture: Architecture | None,
    plan: Plan | None = None,
    metadata: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write a network's weights as safetensors that :func:`load_checkpoint` reads without help.

    The file appears whole or not at all. Its header's ``trpexport`` entry holds JSON:
    ``architecture``, ``num_classes``, ``in_channels``, ``input_shape`` or ``inputs``,
    ``plan``, and ``metadata``.

    Args:
        path: the file to write or replace.
        module: the network.
        architecture: what it is; None for one that is not of the zoo.
        plan: how its layers were made into factors; None for a dense network.
        metadata: further JSON data; ``input_shape`` overrides the architecture's.

    Raises:
        OutputError: the file can't be written.
        ValueError: ``metadata`` says something else about the architecture (a programming error).
    """
    import safetensors.torch

    taken = [key for key in _OWN_KEYS if key in metadata]
    if taken:
        raise ValueError(f"metadata must not hold {', '.join(taken)}: give the architecture")
    facts: dict[str, Any] = {}
    if architecture is not None:
        facts = {
            "architecture": str(architecture),
            "num_classes": architecture.num_classes,
            "in_channels": architecture.in_channels,
            "input_shape": architecture.input_shape,
        }
    if plan is not None and plan.rewritten:
        facts["plan"] = plan.to_json()
    header = {
        "format": "pt",  # what other readers of safetensors expect
        METADATA_KEY: json.dumps({**facts, **metadata}, allow_nan=False),
    }
    tensors = {
        # Copied, because safetensors refuses tensors that share memory.
        name: value.detach().cpu().clone().contiguous()
        for name, value in module.state_dict().items()
        if isinstance(value, Tensor)
    }
    write_atomically(Path(path), _in_fixed_order(safetensors.torch.save(tensors, header)))


def stored_facts(path: Path, header: Mapping[str, str]) -> StoredFacts:
    """Read what :func:`save_checkpoint` wrote into a safetensors header; empty for other files.

    Raises:
        CheckpointError: there is such an entry, and it is damaged.
    """
    if METADATA_KEY not in header:
        return StoredFacts()
    try:
        data = parse_json(header[METADATA_KEY])
        check(data, _STORED)
        inputs = Inputs.from_json(data)
    except ValueError as error:
        raise CheckpointError(
            f"{path}: its {METADATA_KEY} metadata is damaged ({one_line(error)}): save it again"
        ) from error
    plan = data.pop("plan", None)
    return StoredFacts(
        architecture=data.get("architecture"),
        num_classes=data.get("num_classes", 0),
        in_channels=data.get("in_channels", 0),
        inputs=inputs,
        plan=None if plan is None else parse_plan(plan, f"{path}: its plan"),
        metadata=data,
    )


def _in_fixed_order(file: bytes) -> bytes:
    """Return a safetensors file whose metadata stand in order: as written, it is random.

    The same weights are then the same bytes. The file begins with the length of its JSON header,
    which is a multiple of 8; where tensors lie is counted from the header's end.
    """
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    written = json.dumps(header, separators=(",", ":")).encode()
    written = written.ljust(-(-len(written) // 8) * 8)
    return len(written).to_bytes(8, "little") + written + file[8 + length :]
