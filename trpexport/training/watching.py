"""Who wants to know how a run goes, and TensorBoard as one who does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from trpexport.errors import MissingDependencyError
from trpexport.files import writing
from trpexport.installing import install_command


class Watcher(Protocol):
    """Who wants to know how a run goes."""

    def begin(self, epochs: int, steps_per_epoch: int, done: int) -> None:
        """A run begins, or goes on after ``done`` steps."""

    def step(self, facts: dict[str, Any]) -> None:
        """A step was done: its number, loss and top-1 of the epoch so far, and what TRP says."""

    def epoch(self, facts: dict[str, Any]) -> None:
        """An epoch was done: a line of the metrics."""

    def end(self) -> None:
        """The run is over, or broke off."""


class Watchers:
    """Several watchers as one.

    Args:
        watchers: who wants to know.
    """

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self.watchers = tuple(watchers)

    def begin(self, epochs: int, steps_per_epoch: int, done: int) -> None:
        """Pass it on."""
        for watcher in self.watchers:
            watcher.begin(epochs, steps_per_epoch, done)

    def step(self, facts: dict[str, Any]) -> None:
        """Pass it on."""
        for watcher in self.watchers:
            watcher.step(facts)

    def epoch(self, facts: dict[str, Any]) -> None:
        """Pass it on."""
        for watcher in self.watchers:
            watcher.epoch(facts)

    def end(self) -> None:
        """Pass it on."""
        for watcher in self.watchers:
            watcher.end()


class TensorBoard:
    """Writes the metrics of each epoch for TensorBoard.

    Args:
        path: the directory to write.

    Raises:
        MissingDependencyError: the package tensorboard is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingDependencyError(
                f"tensorboard is not installed: {install_command('train')}"
            ) from None
        self.path, self.open = path, SummaryWriter
        self.writer: SummaryWriter | None = None

    def begin(self, epochs: int, steps_per_epoch: int, done: int) -> None:
        """Go on behind what was done: later points are those of a run that was broken off.

        Raises:
            OutputError: the directory can't be written.
        """
        with writing(self.path):
            self.writer = self.open(str(self.path), purge_step=done + 1)

    def step(self, facts: dict[str, Any]) -> None:
        """A point a step would be too many."""

    def epoch(self, facts: dict[str, Any]) -> None:
        """Write the points of an epoch.

        Raises:
            OutputError: they can't be written.
        """
        assert self.writer is not None
        with writing(self.path):
            for name, value in facts.items():
                if isinstance(value, int | float) and name not in {"step", "epoch", "test_images"}:
                    self.writer.add_scalar(name, value, facts["step"])
            self.writer.flush()

    def end(self) -> None:
        """Close the files."""
        if self.writer is not None:
            with suppress(OSError):  # what is lost was said by ``epoch``
                self.writer.close()
