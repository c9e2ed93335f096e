"""Times on the nodes of a Ray cluster that are the device, one at a time a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from trpexport.clusters import cancelled, check_device, connected, result_of, task
from trpexport.errors import DeviceError
from trpexport.files import files_of, write_files
from trpexport.foreign import first_line
from trpexport.latency.stopwatch import (
    Conditions,
    ElsewhereStopwatch,
    LocalStopwatch,
    Session,
    Timed,
)
from trpexport.measure.profile.profile import Profile
from trpexport.onnxfile.external_data import external_paths
from trpexport.turns import alone

T = TypeVar("T")
_Files = Sequence[tuple[str, Mapping[str, bytes]]]
"""Networks: the name of the file, and the content of all that belongs to it."""


class RayStopwatch(ElsewhereStopwatch):
    """Times networks on a node of a Ray cluster that is the device, while it does nothing else.

    Args:
        conditions: under which.
        address: of the cluster; ``auto`` for the one that runs here.
        label: the resource of the nodes that are the device.
    """

    def __init__(self, conditions: Conditions, address: str, label: str) -> None:
        super().__init__(conditions)
        self._address = address
        self._label = label

    def _asked(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._done(lambda clock, files: clock.facts()["device"], ())
        return found

    def profiles(self, files: Sequence[Path], runs: int) -> list[Profile]:
        """Return where networks spend their time, in turns."""
        return self._done(lambda clock, there: clock.profiles(there, runs), files)

    def race(
        self, files: Sequence[Path], seconds: float, sessions: Sequence[Session] = ()
    ) -> list[Timed]:
        """Time networks against the first one, in turns."""
        return self._done(lambda clock, there: clock.race(there, seconds, sessions), files)

    def _done(self, job: Callable[[LocalStopwatch, Sequence[Path]], T], files: Sequence[Path]) -> T:
        """Return what a job makes of files on a node.

        Raises:
            DeviceError: the cluster lost it.
            TrpexportError: there is no such cluster, no node of it is the device, or as the job.
        """
        content = [(file.name, files_of((file, *external_paths(file)))) for file in files]
        with connected(self._address) as ray:
            check_device(ray, self._label)
            # No core: it begins at once, and waits there for what is at work.
            timing = task(ray, _timed_apart, cores=0, resources={self._label: 1})
            pending = {timing.remote(job, self.conditions, content): files}
            with cancelled(ray, pending):
                (ref,) = pending
                try:
                    found: T = result_of(ray, ref)
                except ray.exceptions.RayError as error:
                    raise DeviceError(
                        f"the cluster lost a network that it timed: {first_line(error)}"
                    ) from error
                pending.clear()
                return found


def _timed_apart(
    job: Callable[[LocalStopwatch, Sequence[Path]], T], conditions: Conditions, content: _Files
) -> T:
    """Do a job with files on a node of the cluster, alone."""
    with TemporaryDirectory() as folder, alone(lambda line: None):
        files = []
        for index, (name, those) in enumerate(content):
            place = Path(folder) / str(index)
            write_files(those, place)
            files.append(place / name)
        return job(LocalStopwatch(conditions), files)
