"""The network that another one learns from: what was typed, or what lies in its bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from trpexport import bundle
from trpexport.checkpoints import load_network
from trpexport.errors import ModelError, TrpexportError
from trpexport.files import sha256_of
from trpexport.networks.onnx.network import OnnxNetwork
from trpexport.networks.onnx.reading import OnnxSource, read_model
from trpexport.networks.onnx.watch import in_torch

ORIGINAL = "original"  # the network that a bundle was made of, where it is at hand


@dataclass(frozen=True)
class Teacher:
    """A network whose answers are learnt.

    Attributes:
        path: its file.
        sha256: of the file.
        module: the network in evaluation mode, on the CPU.
        input_shape: of its first input, batch first; None where nobody says.
    """

    path: Path
    sha256: str
    module: nn.Module
    input_shape: tuple[int, ...] | None

    @classmethod
    def read(cls, path: Path, *, model: str | None, unsafe_pickle: bool) -> Teacher:
        """Read a checkpoint, a bundle, or an ONNX file that PyTorch computes.

        Args:
            path: the file, or the bundle's directory.
            model: ``package.module:factory`` that makes the network, for one not of the zoo.
            unsafe_pickle: load files that hold pickled code, **which runs that code**.

        Raises:
            TrpexportError: it can't be read, or computed.
        """
        if path.suffix == ".onnx":
            return cls._of_onnx(path)
        found = load_network(path, model=model, unsafe_pickle=unsafe_pickle)
        return cls(found.path, found.sha256, found.module.eval(), found.input_shape)

    @classmethod
    def _of_onnx(cls, path: Path) -> Teacher:
        source = OnnxSource(path, read_model(path))
        network = OnnxNetwork.open(source)
        module = Answers(in_torch(network.model, network.layers, network.inputs).model)
        if module.network.batch is not None:
            raise ModelError(f"{path} takes batches of {module.network.batch} alone")
        return cls(path, source.sha256, module.eval(), network.inputs.first.shape)


class Answers(nn.Module):
    """A graph as a network of PyTorch is: one output is a tensor, several are a tuple.

    Args:
        network: returns its outputs by name.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the outputs."""
        found = tuple(self.network(*inputs, **named).values())
        return found[0] if len(found) == 1 else found


def originals(source: Path) -> Iterator[Path]:
    """Yield the files at hand that hold the network that a bundle was made of.

    The one in the bundle comes first, then the checkpoint, by its name and its hash: beside the
    bundle, and in the current folder.

    Raises:
        ModelError: the bundle's manifest is damaged.
    """
    if not (bundle.is_directory(source) and bundle.is_bundle(source)):
        return
    if (source / bundle.BASELINE).is_file():
        yield source / bundle.BASELINE
    origin = bundle.read_manifest(source).get("source")
    if isinstance(origin, dict) and isinstance(origin.get("file"), str):
        name = Path(origin["file"]).name
        for path in dict.fromkeys([source.absolute().parent / name, Path.cwd() / name]):
            if path.is_file() and sha256_of(path) == origin.get("sha256"):
                yield path


def teacher_for(
    source: Path,
    teacher: str | Path | None,
    *,
    model: str | None,
    unsafe_pickle: bool,
    announce: Callable[[str], None] | None = None,
) -> Teacher | None:
    """Return whose answers a network learns; None for nobody's.

    Args:
        source: the network: a bundle, or a checkpoint.
        teacher: as for :meth:`Teacher.read`; ``original`` for the network that the bundle was made
            of, where it can be had; None for nobody.
        model: as for :meth:`Teacher.read`.
        unsafe_pickle: likewise.
        announce: called with a line on which is the original network, or why it can't be had.

    Raises:
        TrpexportError: the teacher that was named can't be read, or computed.
    """
    if teacher is None or (teacher == ORIGINAL and not bundle.is_directory(source)):
        return None
    if teacher != ORIGINAL:
        return Teacher.read(Path(teacher), model=model, unsafe_pickle=unsafe_pickle)
    found = None
    line = f"there is no teacher: the original network lies neither in {source} nor beside it"
    for path in originals(source):
        try:
            found = Teacher.read(path, model=model, unsafe_pickle=unsafe_pickle)
        except TrpexportError as error:
            line = f"there is no teacher: {path} can't be one: {error}"
        else:
            line = f"the teacher is {path}, the network before its decomposition"
            break
    if announce is not None:
        announce(line)
    return found
