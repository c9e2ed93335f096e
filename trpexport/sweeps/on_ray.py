"""Cells of a sweep on the machines of a Ray cluster.

A machine needs this library, and the network and the data under the same paths. Everything else
travels with the cells: bundles, and the tables of what each layer loses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from trpexport import bundle
from trpexport.choose.alignment import BLOCK_VARIABLE, channel_block
from trpexport.clusters import cancelled, check_device, connected, task
from trpexport.errors import TrpexportError
from trpexport.files import files_of, write_atomically, write_files
from trpexport.importing import started_in
from trpexport.sweeps.cells import Cell
from trpexport.sweeps.journal import Outcome
from trpexport.sweeps.making import Maker
from trpexport.sweeps.order import Order, Turn
from trpexport.sweeps.runners import (
    Done,
    Say,
    attempted,
    is_base,
    made,
    measured,
    timed,
    without_base,
)
from trpexport.sweeps.work import Work

DEVICE = "trpexport_device"
"""The resource by which nodes say that they are the device that is timed on."""

_TABLES = "tables"
_makers: dict[str, Maker] = {}  # of this process, by the name of the sweep

Files = Mapping[str, bytes]
"""Content of the files of a folder, by name."""


@dataclass(frozen=True)
class _Made:
    """What a worker gives back.

    Attributes:
        outcome: what came of the cell.
        files: its bundle; nothing where there is none.
        tables: of what each layer loses.
    """

    outcome: Outcome
    files: Files
    tables: Files


@dataclass(frozen=True)
class OnRay:
    """Works on cells on a Ray cluster; timed ones on nodes that are the device, one a node.

    Attributes:
        address: of the cluster; ``auto`` for the one that runs here.
        label: the resource of the nodes that are the device.
    """

    address: str = "auto"
    label: str = DEVICE

    def make(self, maker: Maker, groups: Sequence[Sequence[Cell]], out: Path, say: Say) -> Done:
        """Make cells and yield what came of each as it ends.

        Raises:
            MissingDependencyError: Ray is not installed.
            TrpexportError: there is no such cluster.
        """
        if not groups:
            return
        with self._cluster(maker.work) as ray:
            yield from _Making(ray, maker.work, out, say)(groups)

    def time(self, work: Work, made: Sequence[tuple[Cell, Outcome]], out: Path, say: Say) -> Done:
        """Time cells that were made, and yield each as it ends.

        Raises:
            MissingDependencyError: Ray is not installed.
            TrpexportError: there is no such cluster, or no node of it is the device.
        """
        if not made:
            return
        with self._cluster(work) as ray:
            check_device(ray, self.label)
            timing = task(ray, _time_apart, resources={self.label: 1})
            shared, place = ray.put(work), str(Path.cwd())
            pending = {
                timing.remote(shared, cell, outcome, _read(out / cell.folder), place): (
                    cell,
                    outcome,
                )
                for cell, outcome in made
            }
            say(f"{len(pending)} cells to time on {ray.cluster_resources()[self.label]:g} nodes")
            with cancelled(ray, pending):
                while pending:
                    (ref,), _ = ray.wait(list(pending), num_returns=1)
                    cell, outcome = pending.pop(ref)
                    yield (
                        cell,
                        _got(ray, ref, lambda line, o=outcome: replace(o, error=line, code=2)),
                    )

    def _cluster(self, work: Work) -> AbstractContextManager[Any]:
        """Connect to the cluster, as :func:`connected`."""
        # Ranks are multiples of the block of one processor: of this one, as without the cluster.
        variables = {BLOCK_VARIABLE: str(channel_block(work.selection.get("provider")))}
        return connected(self.address, variables)


@dataclass
class _Making:
    """Makes the cells of a sweep on a cluster, each with the tables that were measured so far."""

    ray: Any
    work: Work
    out: Path
    say: Say
    pending: dict[Any, Turn] = field(default_factory=dict)

    def __call__(self, groups: Sequence[Sequence[Cell]]) -> Done:
        """Make cells and yield what came of each as it ends."""
        self.task = task(self.ray, _work_apart)
        self.sweep = self.ray.put((uuid4().hex, self.work))
        order = Order(groups)
        self._submit(order.first())
        with cancelled(self.ray, self.pending):
            while self.pending:
                (ref,), _ = self.ray.wait(list(self.pending), num_returns=1)
                turn = self.pending.pop(ref)
                found = _got(self.ray, ref, _lost)
                self._keep(turn.cell, found)
                if turn.place is None:
                    self._submit(order.after(turn))
                    continue
                yield turn.cell, found.outcome
                if is_base(turn.cell, found.outcome):
                    yield from without_base(turn.cell, found.outcome, turn.group)
                elif (following := turn.following()) is not None:
                    self._submit([following])

    def _submit(self, turns: Sequence[Turn]) -> None:
        tables = {} if self.work.cache is None else _read(Path(self.work.cache), "*.json")
        for turn in turns:
            self.say(turn.label)
            stands = turn.cell.precision != bundle.FLOAT32
            files = _read(self.out / turn.cell.folder) if stands else {}
            ref = self.task.remote(self.sweep, turn, files, tables, str(Path.cwd()))
            self.pending[ref] = turn

    def _keep(self, cell: Cell, found: _Made) -> None:
        """Put what came from elsewhere into its places here."""
        if found.files:
            with bundle.staged_directory(self.out / cell.folder, replace=True) as staging:
                write_files(found.files, staging)
        if self.work.cache is not None:
            Path(self.work.cache).mkdir(parents=True, exist_ok=True)
            for name, content in found.tables.items():
                write_atomically(Path(self.work.cache) / name, content)


def _work_apart(
    sweep: tuple[str, Work], turn: Turn, files: Files, tables: Files, directory: str
) -> _Made:
    """Make a cell on a node of the cluster, or measure what several share.

    Args:
        sweep: name of the sweep, and what its cells have in common.
        turn: what is done.
        files: the cell's bundle, where it stands already.
        tables: of what each layer loses, as far as they were measured.
        directory: that the sweep was started in.
    """
    with _folder(directory) as folder:
        place, cache = folder / turn.cell.folder, folder / _TABLES
        write_files(tables, cache)
        if files:
            write_files(files, place)

        def job() -> Outcome:
            maker = _maker(*sweep, cache)
            if turn.place is None:
                return measured(maker, turn.cell.scheme, _silent)
            return made(maker, turn.cell, place, _silent)

        outcome = attempted(job)
        content = {} if outcome.facts is None else _read(place)
        new = {n: found for n, found in _read(cache, "*.json").items() if n not in tables}
        return _Made(outcome, content, new)


def _maker(name: str, work: Work, cache: Path) -> Maker:
    """Return what makes the cells of a sweep in this process: once read, it is kept.

    Args:
        name: of the sweep.
        work: what its cells have in common.
        cache: folder of the tables, for the time being.
    """
    if name not in _makers:
        _makers.clear()
        _makers[name] = Maker.of(work)
    maker = _makers[name]
    maker.work = replace(work, cache=cache)
    return maker


def _time_apart(work: Work, cell: Cell, outcome: Outcome, files: Files, directory: str) -> Outcome:
    """Time a cell on a node of the cluster."""
    with _folder(directory) as folder:
        write_files(files, folder / cell.folder)
        return timed(work, cell, outcome, folder / cell.folder, _silent)


@contextlib.contextmanager
def _folder(directory: str) -> Iterator[Path]:
    """Work in the directory that the sweep was started in, if it is here, and in a folder apart."""
    with started_in(directory), TemporaryDirectory() as folder:
        yield Path(folder)


def _silent(line: str) -> None:
    """Say nothing: nobody reads it there."""


def _got(ray: Any, ref: Any, lost: Any) -> Any:
    """Return what a task gave; what ``lost`` makes of a line where the cluster lost it for good."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayError as error:
        return lost(f"the cluster lost it: {str(error).strip().splitlines()[0]}")


def _lost(line: str) -> _Made:
    return _Made(Outcome(None, error=line, code=TrpexportError.exit_code), {}, {})


def _read(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    return files_of(path for path in folder.glob(pattern) if path.is_file())
