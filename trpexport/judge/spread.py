"""Networks that the machines of a cluster run, each for a part of the images. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar, cast
from uuid import uuid4

import numpy as np

from trpexport.clusters import connected, result_of, task
from trpexport.errors import ModelError
from trpexport.files import files_of, write_files
from trpexport.inputs import images_of, rows
from trpexport.judge.examples import Judged
from trpexport.onnxfile.external_data import external_paths
from trpexport.runtime.session import Session, open_session, run_in_batches
from trpexport.tensors import Array, Arrays

J = TypeVar("J", bound=Judged)
_BATCH = 32  # images that a machine gets at a time
_MODEL = "model.onnx"
_sessions: dict[str, Session] = {}  # of this process, by the name of the network


@dataclass(frozen=True)
class Spread(Generic[J]):
    """Networks, and how many images to give them at a time.

    Attributes:
        models: the networks.
        batch: how many; None as is usual.
    """

    models: Sequence[J]
    batch: int | None


@contextmanager
def spread(
    models: Sequence[J], address: str | None, batch: int | None, **options: Any
) -> Iterator[Spread[J]]:
    """Have a cluster run networks while the block runs, the images shared out among its cores.

    Args:
        models: the networks, open here.
        address: of the cluster, as for :func:`connected`; None to run them here.
        batch: images at a time; None as is usual.
        options: those of :func:`open_session`.

    Raises:
        MissingDependencyError: Ray is not installed.
        TrpexportError: there is no such cluster.
    """
    if address is None:
        yield Spread(models, batch)
        return
    with connected(address) as ray:
        parts = max(1, int(ray.cluster_resources().get("CPU", 1)))
        found: list[Any] = []
        for model in models:
            session = _SpreadSession(model.session, model.path, ray, parts, options)
            found.append(replace(cast(Any, model), session=session))
        yield Spread(found, parts * (batch or _BATCH))


class _SpreadSession(Session):
    """A network of which each run is shared out among the cores of a cluster.

    Args:
        session: the network, open here.
        path: its file, which travels there.
        ray: Ray.
        parts: how many parts there are.
        options: how it is opened there.
    """

    def __init__(
        self, session: Session, path: Path, ray: Any, parts: int, options: Mapping[str, Any]
    ) -> None:
        vars(self).update(vars(session))
        self._ray = ray
        self._parts = parts
        files = {**files_of(external_paths(path)), _MODEL: path.read_bytes()}
        self._network = ray.put((uuid4().hex, files, dict(options)))
        self._task = task(ray, _run_apart)

    @property
    def batch_size(self) -> int | None:
        """None: each part is split into batches of the network's where it is run."""
        return None

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Run the network on any number of images, the parts at the same time."""
        count = images_of(inputs)
        size = -(-count // self._parts)
        refs = [
            self._task.remote(self._network, rows(inputs, slice(start, start + size)))
            for start in range(0, count, size)
        ]
        found: list[Arrays] = result_of(self._ray, refs)
        for name, array in found[0].items():
            if array.shape[:1] != (min(size, count),):
                raise ModelError(
                    f"the output {name} of {self.label} does not have one entry an image, so that "
                    "images can't be shared out: run it on one machine",
                    parameters=("ray",),
                )
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _run_apart(
    network: tuple[str, Mapping[str, bytes], Mapping[str, Any]], inputs: Arrays
) -> dict[str, Array]:
    """Run a network in a process of the cluster, which opens it once."""
    name, files, options = network
    if name not in _sessions:
        _sessions.clear()
        with TemporaryDirectory() as folder:
            write_files(files, Path(folder))
            _sessions[name] = open_session(Path(folder) / _MODEL, **options)
    return run_in_batches(_sessions[name], inputs)
