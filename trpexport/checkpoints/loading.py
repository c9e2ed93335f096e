"""From a checkpoint file to a network that runs."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.fx import GraphModule

from trpexport.checkpoints.evidence import examine
from trpexport.checkpoints.factory import build_from_factory
from trpexport.checkpoints.identify import (
    Match,
    identify,
    match_architecture,
    match_network,
    outline_of,
)
from trpexport.checkpoints.keys import Reading
from trpexport.checkpoints.reading import StateFile, read_state_dict
from trpexport.checkpoints.saving import StoredFacts, stored_facts
from trpexport.checkpoints.weights import float32_weights
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.errors import ArchitectureError, CheckpointError
from trpexport.inputs import INPUT, MAX_INPUT, Inputs, InputsLike
from trpexport.networks.torch.folding import fold
from trpexport.networks.torch.rewrite import with_factors
from trpexport.plan import Plan
from trpexport.shown import Shown
from trpexport.tensors import Array, Arrays, shape_text

if TYPE_CHECKING:  # only for the types: the zoo is loaded by name, see docs/architecture.md
    from models_zoo.family import Architecture


@dataclass(frozen=True, repr=False)
class Checkpoint(Shown):
    """A network with its weights, and where they come from.

    Attributes:
        path: the file.
        sha256: its SHA-256 as hexadecimal text.
        module: the network in evaluation mode, float32, on the CPU.
        architecture: what it is; None for a network that is not of the zoo.
        label: what to call it: the architecture's text, the factory's, or the class's name.
        inputs: what it takes; None where nobody says.
        plan: how its layers were made into factors; None for a dense network.
        reading: what was stripped, cast or ignored, for the reader.
        evidence: what speaks for the architecture and against it, for the reader.
        is_recognised: whether names and shapes alone say what it is.
        metadata: what :func:`save_checkpoint` stored beside the weights.
    """

    path: Path
    sha256: str
    module: nn.Module
    architecture: Architecture | None
    label: str
    inputs: Inputs | None
    plan: Plan | None
    reading: tuple[str, ...]
    metadata: Mapping[str, Any]
    evidence: tuple[str, ...] = ()
    is_recognised: bool = False

    @property
    def known_inputs(self) -> Inputs:
        """What it takes, where somebody says.

        Raises:
            CheckpointError: nobody does.
        """
        if self.inputs is None:
            raise CheckpointError(
                f"{self.path} does not say which input {self.label} takes: "
                "give its shape, as in 1x3x224x224",
                parameters=["input_shape"],
            )
        return self.inputs

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Shape of its first input, batch first; None where nobody says."""
        return None if self.inputs is None else self.inputs.first.shape

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader should know."""
        return (*self.reading, *self.evidence)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How images become its input; None where nobody says.

        Raises:
            DataError: what its metadata say makes no sense.
        """
        data = self.metadata.get("preprocessing")
        return None if data is None else Preprocessing.from_json(data, str(self.path))

    def shown(self) -> dict[str, object]:
        """Return what to show of it in a session."""
        inputs = {} if self.inputs is None else {"inputs": self.inputs}
        return {"path": self.path, "network": self.label, **inputs}


def load_checkpoint(
    path: str | Path,
    *,
    arch: str | None = None,
    model: str | None = None,
    inputs: InputsLike | None = None,
    unsafe_pickle: bool = False,
    examine: bool = True,
) -> Checkpoint:
    """Read a checkpoint file, recognise its architecture, and build the network.

    Args:
        path: a file of ``torch.save`` (either format) or a safetensors file.
        arch: the architecture's text form, where it can't be recognised or is to be checked.
        model: ``package.module:factory`` that makes the network, for one that is not of the zoo.
        inputs: what it takes, or the shape of its only input, batch first; else as the file or the
            architecture says.
        unsafe_pickle: load a file that holds pickled code, **which runs that code**.
        examine: look at what its batch norms recorded, on artificial images: not needed before it
            is :func:`examined` on real ones.

    Raises:
        UnsafeCheckpointError: the file holds pickled code, and ``unsafe_pickle`` is False.
        ArchitectureError: its architecture is unknown or ambiguous, or not the one given.
        CheckpointError: it can't be read, or holds weights that can't be used.
    """
    path = Path(path)
    if arch is not None and model is not None:
        raise CheckpointError(
            "an architecture and a factory exclude each other: give one of them",
            parameters=("arch", "model"),
        )
    state = read_state_dict(path, unsafe_pickle=unsafe_pickle)
    weights, cast_notes = float32_weights(path, state.tensors)
    stored = stored_facts(path, state.metadata)
    if state.inputs is not None:
        stored = replace(stored, inputs=state.inputs)
    try:
        taken = stored.inputs if inputs is None else Inputs.of(inputs)
        built = _build(state, weights, stored, arch, model, inputs=taken)
    except ArchitectureError as error:
        raise ArchitectureError(f"{path}: {error}") from error
    taken = _inputs(path, built.architecture, inputs, stored)
    notes = (*state.notes, built.reading.note, *cast_notes)
    checkpoint = Checkpoint(
        path=path,
        sha256=state.sha256,
        module=built.module.eval(),
        architecture=built.architecture,
        label=built.label,
        inputs=taken,
        plan=stored.plan,
        reading=tuple(note for note in notes if note),
        metadata=stored.metadata,
        is_recognised=(
            built.architecture is not None and arch is None and stored.architecture is None
        ),
    )
    return examined(checkpoint) if examine else checkpoint


def examined(checkpoint: Checkpoint, images: Array | Arrays | None = None) -> Checkpoint:
    """Return a checkpoint with what its batch norms say of its architecture.

    One that was recognised by names and shapes becomes the look-alike that they recorded. Factors
    are not examined: their errors would speak against any network.

    Args:
        checkpoint: the checkpoint.
        images: inputs of the network, better than the artificial ones that are made without.
    """
    several = checkpoint.inputs is not None and len(checkpoint.inputs) > 1
    if isinstance(images, Mapping):
        images = next(iter(images.values()))
    if checkpoint.plan is not None or several or (images is not None and images.ndim != 4):
        return checkpoint
    found = examine(
        checkpoint.module,
        checkpoint.architecture,
        checkpoint.label,
        checkpoint.input_shape,
        is_recognised=checkpoint.is_recognised,
        images=images,
    )
    label = checkpoint.label if found.architecture is None else str(found.architecture)
    return replace(
        checkpoint,
        module=found.module,
        architecture=found.architecture,
        label=label,
        evidence=found.notes,
    )


@dataclass(frozen=True)
class _Built:
    module: nn.Module
    architecture: Architecture | None
    label: str
    reading: Reading


def _build(
    state: StateFile,
    weights: Mapping[str, Tensor],
    stored: StoredFacts,
    arch: str | None,
    model: str | None,
    *,
    inputs: Inputs | None,
) -> _Built:
    """Build the network that the user named, else the one pickled, stored or recognised."""
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if model is not None:
        network = build_from_factory(model, inputs)
        if stored.plan is not None:  # its kernels are plain parameters in the file
            fold(network, {name.removesuffix(".weight") for name in weights})
        network = _factorized(network, stored)
        built = _Built(network, None, model, match_network(network, f"model {model}", shapes))
    elif arch is None and state.module is not None:
        kind = type(state.module).__name__
        label = state.path.stem if isinstance(state.module, GraphModule) else kind
        return _Built(state.module.float(), None, label, Reading({}, None))
    elif stored.plan is not None:
        architecture = _stored_architecture(stored, arch)
        # First without memory: what the file claims of itself may be anything.
        outline = _factorized(outline_of(architecture), stored)
        reading = match_network(outline, f"{architecture} and its plan", shapes)
        network = _factorized(architecture.build(), stored)
        built = _Built(network, architecture, str(architecture), reading)
    else:
        match = _match(shapes, stored, arch)
        architecture = match.architecture
        built = _Built(architecture.build(), architecture, str(architecture), match.reading)
    _fill(
        state.path, built.module, {name: weights[old] for name, old in built.reading.names.items()}
    )
    return built


def _factorized(network: nn.Module, stored: StoredFacts) -> nn.Module:
    return network if stored.plan is None else with_factors(network, stored.plan)


def _stored_architecture(stored: StoredFacts, arch: str | None) -> Architecture:
    """Return the architecture that a plan was made for; the weights can't tell it any more."""
    text = arch or stored.architecture
    if text is None:
        raise ArchitectureError(
            "it holds factors of a network that is not of the zoo: name what makes the network "
            "before the rewrite, as package.module:factory"
        )
    zoo = importlib.import_module("trpexport.models_zoo")
    architecture: Architecture = zoo.parse_architecture(
        text, num_classes=stored.num_classes, in_channels=stored.in_channels
    )
    return architecture


def _match(shapes: Mapping[str, tuple[int, ...]], stored: StoredFacts, arch: str | None) -> Match:
    if arch is not None:
        remedy = "leave the name out to have the architecture recognised, or give another"
        return match_architecture(arch, shapes, remedy=remedy)
    if stored.architecture is not None:
        remedy = "the file's metadata is wrong, name the architecture"
        return match_architecture(stored.architecture, shapes, remedy=remedy)
    return identify(shapes)


def _fill(path: Path, network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights, whose names and shapes are known to fit, into a network.

    All but batch counters, which inference ignores: those are taken where they fit.
    """
    fitting = {}
    for name, target in network.state_dict().items():
        if not isinstance(target, Tensor) or name not in weights:
            continue  # a module's extra state, a batch counter
        if target.is_floating_point() and not weights[name].is_floating_point():
            raise CheckpointError(
                f"{path}: {name} holds integers ({weights[name].dtype}), the network wants floats: "
                "give the float checkpoint that it was made from"
            )
        if weights[name].shape == target.shape:
            fitting[name] = weights[name]
    network.load_state_dict(fitting, strict=False)


def _inputs(
    path: Path, architecture: Architecture | None, given: InputsLike | None, stored: StoredFacts
) -> Inputs | None:
    inputs, source = (stored.inputs, "stored") if given is None else (Inputs.of(given), "given")
    if inputs is None:
        return Inputs.of(architecture.input_shape) if architecture else None
    for name, one in inputs.items():
        shape, text = one.shape, shape_text(one.shape)
        which = "" if name == INPUT else f" of {name}"
        if len(shape) < 2 or math.prod(shape) > MAX_INPUT:
            raise CheckpointError(
                f"the {source} input shape {text}{which} is none: give batch, channels and sizes, "
                "such as 1x3x32x32",
                parameters=("input_shape",),
            )
    shape = inputs.first.shape
    if architecture is not None and shape[1] != architecture.in_channels:
        raise CheckpointError(
            f"{path} has {architecture.in_channels} input channels, the {source} input shape "
            f"{shape[1]} ({shape_text(shape)}): give the shape that the network was trained on",
            parameters=("input_shape",),
        )
    return inputs
