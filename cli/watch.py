"""A training run as the terminal shows it: a bar where somebody watches, else a line an epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .console import progress_bar, say
from .interrupts import defer, end_deferral

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class EpochLines:
    """Prints one line an epoch on standard error."""

    def begin(self, epochs: int, steps_per_epoch: int, done: int) -> None:
        """Say where the run stands."""
        self.epochs = epochs
        if done >= epochs * steps_per_epoch:
            self.say("the run in this directory is finished")
        elif done:
            self.say(f"going on after step {done} of {epochs * steps_per_epoch}")

    def step(self, facts: dict[str, Any]) -> None:
        """A line a step would be too many."""

    def epoch(self, facts: dict[str, Any]) -> None:
        """Print the line."""
        self.say(f"epoch {facts['epoch']} of {self.epochs}: {epoch_text(facts)}")

    def end(self) -> None:
        """Nothing is left to do."""

    def say(self, text: str) -> None:
        """Print a line."""
        say(text)


class EpochBar(EpochLines):
    """Shows a bar over all steps, on one line, and a line for each epoch that is done."""

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.task: TaskID | None = None

    def begin(self, epochs: int, steps_per_epoch: int, done: int) -> None:
        """Start the bar."""
        self.bar = progress_bar()
        self.task = self.bar.add_task("training", total=epochs * steps_per_epoch, completed=done)
        self.bar.start()
        super().begin(epochs, steps_per_epoch, done)

    def step(self, facts: dict[str, Any]) -> None:
        """Move the bar."""
        assert self.bar is not None and self.task is not None
        text = step_text(facts) if "loss" in facts else None
        self.bar.update(self.task, completed=facts["step"], description=text)

    def end(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.stop()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        assert self.bar is not None
        self.bar.console.print(text, markup=False)


class Silence:
    """Says nothing: for all workers but the first."""

    def begin(self, epochs: int, steps_per_epoch: int, done: int) -> None:
        """Say nothing."""

    def step(self, facts: dict[str, Any]) -> None:
        """Say nothing."""

    def epoch(self, facts: dict[str, Any]) -> None:
        """Say nothing."""

    def end(self) -> None:
        """Say nothing."""


class Stoppable(Silence):
    """Lets a signal to end the run wait for the end of a step, where its state is saved."""

    def begin(self, epochs: int, steps_per_epoch: int, done: int) -> None:
        """Let signals wait."""
        defer()

    def end(self) -> None:
        """Let them interrupt again."""
        end_deferral()


def step_text(facts: dict[str, Any]) -> str:
    """Return what the bar says in front of itself: short, for a terminal of 80 columns."""
    share, ratio = facts.get("mean_rank_share"), facts.get("macs_ratio")
    text = f"loss {facts['loss']:.3f}"
    text += f" top-1 {facts['top1']:.1f} %" if "top1" in facts else ""
    text += "" if share is None else f" rank {share:.2f}"
    return text if ratio is None else f"{text} MACs {ratio:.2f}"


def epoch_text(facts: dict[str, Any]) -> str:
    """Return what is said of an epoch."""
    if "top1" in facts:
        done = f"top-1 {facts['top1']:.2f} %, test {facts['test_top1']:.2f} %"
    else:
        done = f"test {facts['test_loss']:.3f}"
    return (
        f"loss {facts['loss']:.3f}, {done}{low_rank_text(facts)}, {facts['seconds'] / 60:.1f} min"
    )


def low_rank_text(facts: dict[str, Any]) -> str:
    """Return how far the network's rank has come; nothing for plain training."""
    share, ratio = facts.get("mean_rank_share"), facts.get("macs_ratio")
    text = "" if share is None else f", mean rank {share:.2f} of full"
    return text if ratio is None else f"{text}, {1 / ratio:.2f}x fewer MACs"
