"""A training run's directory: its settings, its state, its checkpoints, its metrics.

::

    run.json           what the run is: settings, data, versions
    state.pt           all that is needed to go on, exactly
    last.safetensors   the network after the last whole epoch
    best.safetensors   the network after the epoch with the best accuracy
    metrics.jsonl      one line an epoch
    tensorboard/       the same for TensorBoard, if asked for

Every file but the metrics appears whole or not at all: a run can be killed at any moment. While
one goes on, it holds the directory's lock.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from trpexport.checkpoints.formats import recognise_format
from trpexport.checkpoints.torch_files import read_torch_file
from trpexport.errors import CheckpointError, OutputError, TrainingError
from trpexport.files import (
    append_text,
    cannot_write,
    leftovers,
    read_json,
    staged_file,
    sweep,
    write_atomically,
    write_json,
    writing,
)
from trpexport.locks import locked

RUN, STATE, METRICS, TENSORBOARD = "run.json", "state.pt", "metrics.jsonl", "tensorboard"
LAST, BEST = "last.safetensors", "best.safetensors"
LOCK = ".trpexport-lock"


class RunDirectory:
    """The directory of one run.

    Args:
        path: the directory; it is made when it is first written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def opened(self, facts: Mapping[str, Any], *, restart: bool) -> Iterator[None]:
        """Make the directory, or check that the run in it is the same one; no other enters it.

        Args:
            facts: JSON data that two runs share when one may go on where the other stopped.
            restart: throw away the run in it, if it is another one or not.

        Raises:
            OutputError: the directory can't be written, holds something else, or another process
                trains in it.
            TrainingError: it holds a run with other settings; the message names them.
        """
        with ExitStack() as stack:
            with writing(self.path):
                self._check_ours()
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.path / LOCK, self.path))
                for name in (RUN, STATE, METRICS, LAST, BEST):
                    sweep(self.path / name)
                goes_on = (self.path / RUN).is_file() and not restart
                for name in () if goes_on else (STATE, METRICS):
                    (self.path / name).unlink(missing_ok=True)
            if goes_on:
                self._check_same(facts)
            else:  # the checkpoints stand until better ones replace them
                write_json(self.path / RUN, dict(facts))
            yield

    def _check_ours(self) -> None:
        """Refuse a directory with files in it, of which none says that they are a run's."""
        if not self.path.is_dir() or (self.path / RUN).is_file():
            return
        ours = {self.path / LOCK, *leftovers(self.path / RUN, ".tmp")}  # a run killed as it began
        if set(self.path.iterdir()) - ours:
            raise OutputError(
                f"{self.path} holds files that are no training run: choose another place",
                parameters=("out",),
            )

    def begun(self) -> dict[str, Any]:
        """Return the settings of the run in it; empty where there is none, or it is damaged."""
        try:
            found = read_json(self.path / RUN)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _check_same(self, facts: Mapping[str, Any]) -> None:
        try:
            found = read_json(self.path / RUN)
            differing = [
                f"{key} {found.get(key)!r} then, {value!r} now"
                for key, value in json.loads(json.dumps(facts)).items()
                if found.get(key) != value
            ]
        except (OSError, ValueError, AttributeError) as error:
            raise TrainingError(
                f"{self.path / RUN} is damaged ({error}): restart the run", parameters=("restart",)
            ) from None
        if differing:
            raise TrainingError(
                f"{self.path} holds a run with other settings ({'; '.join(differing)}): "
                "choose another place, or restart the run",
                parameters=("out", "restart"),
            )

    def read_state(self) -> dict[str, Any] | None:
        """Return the state that was written last; None where there is none.

        Raises:
            TrainingError: it is damaged.
        """
        path = self.path / STATE
        if not path.is_file():
            return None
        try:
            state = read_torch_file(path, recognise_format(path))
        except CheckpointError:
            raise TrainingError(
                f"{path} is damaged: restart the run", parameters=("restart",)
            ) from None
        if not isinstance(state, dict):
            raise TrainingError(
                f"{path} is no training state: restart the run", parameters=("restart",)
            )
        return state

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Replace the state.

        Raises:
            OutputError: it can't be written; the one before stands.
        """
        path = self.path / STATE
        try:
            with staged_file(path) as file:
                torch.save(dict(state), file)
        except RuntimeError as error:  # torch may wrap what the disk says
            cause = error.__context__
            if not isinstance(cause, OSError):
                full = "file write failed" in str(error)
                cause = OSError(errno.ENOSPC if full else errno.EIO, str(error))
            raise cannot_write(path, cause) from error

    def cut_metrics(self, step: int) -> None:
        """Drop the metrics of steps after ``step``, which are going to be done again."""
        path = self.path / METRICS
        if not path.is_file():
            return
        kept = []
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # half a line: the run was killed
        write_atomically(path, b"".join(kept))

    def add_metrics(self, facts: Mapping[str, Any]) -> None:
        """Add a line to the metrics."""
        append_text(self.path / METRICS, json.dumps(facts, allow_nan=False) + "\n")


def prune(folder: Path, limit: int) -> None:
    """Remove the runs in a folder that were written to longest ago, while all take too much.

    A run that is in use stays, and so does what is no run.

    Args:
        folder: of run directories; it need not be there.
        limit: bytes that all runs together may take.
    """
    runs = []
    for path in folder.glob(f"*/{RUN}"):
        with suppress(OSError):  # another process removes it as well
            facts = [file.stat() for file in path.parent.iterdir()]
            written, size = (max(f.st_mtime_ns for f in facts), sum(f.st_size for f in facts))
            runs.append((written, path.parent, size))
    taken = sum(size for _, _, size in runs)
    for _, path, size in sorted(runs):
        if taken <= limit:
            return
        with suppress(OutputError, OSError), locked(path / LOCK, path):
            shutil.rmtree(path, ignore_errors=True)
            taken -= size
