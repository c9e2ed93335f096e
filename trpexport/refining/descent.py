"""Gradient descent within a time: the learning rate falls to nothing as the time runs out.

What is random depends on the seed and the step alone, and how many steps there are is settled at
the beginning, from what one takes, and changed only where the machine turns out faster or slower.
So the state is weights, moments and a few numbers, and a run that was killed goes on as if it had
not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trpexport.choose.distance import worst
from trpexport.networks.samples import Samples
from trpexport.networks.torch.arguments import Arguments
from trpexport.networks.torch.pupil import Pupil
from trpexport.refining.exam import Exam
from trpexport.refining.lesson import Lesson
from trpexport.refining.soap import Soap
from trpexport.stages import duration
from trpexport.training.randomness import generator_at

# Relative to the size of a tensor's values: of factors their RMS, of biases that of the outputs.
_RATE = 0.01
_WARM_UP = 0.1  # of the whole run
_EXAMS = 8
# Where an exam finds more than so many times the least error, or NaN, the rate is divided.
_DIVERGED, _SLOWER = 1.5, 3.0
# How far the time left may be from what the steps left take before their number is changed.
_TOLERANCE = 0.02

_SMOOTHING = 0.2  # of what a step takes
_SAVE_SECONDS = 30.0
_USED = 0.99  # of the time: the rest is for what comes after the last step

Batches = Callable[[int], Arguments]


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        total: steps of the whole run.
        step: steps done.
        share: of the run, 0 to 1; the learning rate follows it.
        exams: how many exams were held since the beginning.
        slowness: what the learning rate is divided by.
        seconds: time that was spent.
        before: errors by output when it began.
        best: errors by output of the weights that came closest.
        best_weights: they.
    """

    total: int
    before: dict[str, float]
    best: dict[str, float]
    best_weights: list[Tensor]
    step: int = 0
    share: float = 0.0
    exams: int = 0
    slowness: float = 1.0
    seconds: float = 0.0


@dataclass
class Descent:
    """One run.

    Attributes:
        pupil: student and teacher.
        lesson: the loss.
        exam: measures on held-out images.
        batches: inputs of a step, by its number.
        bf16: whether passes run in bfloat16.
        pace: seconds of a step.
        limit: seconds of the whole run; None where its steps are counted instead.
        save: is called now and then, with a state to go on from.
        say: is called after each step with how far it has come, and what remains.
        started: when the run began, by the clock.
        clock: tells seconds.
    """

    pupil: Pupil
    lesson: Lesson
    exam: Exam
    batches: Batches
    bf16: bool
    pace: float
    limit: float | None
    save: Callable[[dict[str, Any]], None]
    say: Callable[[str], None]
    started: float
    clock: Callable[[], float] = time.monotonic
    _weights: list[torch.nn.Parameter] = field(init=False)
    _optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self._weights = self.pupil.weights
        self._optimizer = Soap(self._groups())

    def begin(self, steps: int | None) -> Progress:
        """Return a run that begins.

        Args:
            steps: how many; None for as many as the time allows.
        """
        before = self.exam.errors()
        total = steps if steps is not None else self._steps_left(_EXAMS)
        return Progress(total, before, before, self._copies())

    def resume(self, state: dict[str, Any]) -> Progress:
        """Return a run that goes on from a state that was saved.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError: the state does not fit.
        """
        progress = Progress(**state["progress"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._put(state["weights"])
        self.bf16 = bool(state["bf16"])
        self.started -= progress.seconds
        return progress

    def run(self, progress: Progress) -> None:
        """Go on to the end, and leave the student with the weights that came closest.

        Args:
            progress: how far it has come; it is updated.
        """
        saved = begun = self.clock()
        while progress.step < progress.total:
            size = self._step(progress)
            progress.step += 1
            progress.share += (1 - progress.share) / max(1, progress.total - progress.step + 1)
            if not math.isfinite(size):
                self._slow_down(progress)
            due = int(progress.share * _EXAMS + 1e-9)
            examined = due > progress.exams
            if examined:
                progress.exams = due
                self._examine(progress)
            self.say(self._told(progress))
            if begun - saved > _SAVE_SECONDS:
                self.save(self.state(progress))
                saved = begun
            now = self.clock()
            if not examined:  # saving counts as well
                self.pace += _SMOOTHING * (now - begun - self.pace)
            begun = now
            self._replan(progress)
        if progress.exams < _EXAMS:
            self._examine(progress)
        self._put(progress.best_weights)

    def state(self, progress: Progress) -> dict[str, Any]:
        """Return all that is needed to go on, exactly."""
        progress.seconds = self.clock() - self.started
        return {
            "progress": dict(vars(progress)),
            "weights": self._copies(),
            "optimizer": self._optimizer.state_dict(),
            "bf16": self.bf16,
        }

    def _groups(self) -> Iterator[dict[str, Any]]:
        """Yield each tensor that is trained, with the size of its values."""
        units: dict[int, float] = {}
        for layer, chain in self.pupil.chains.items():
            if chain.bias is not None:
                units[id(chain.bias)] = self.lesson.units.get(layer, 0.0)
        for weight in self._weights:
            size = float(weight.detach().square().mean().sqrt())
            yield {"params": [weight], "unit": units.get(id(weight)) or size or 1.0}

    def _step(self, progress: Progress) -> float:
        """Go one step unless loss or gradient are not finite; return their sizes together."""
        rate = _RATE / progress.slowness * falling(progress.share)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["unit"]
        self._optimizer.zero_grad(set_to_none=True)
        loss = self.lesson.loss(self.batches(progress.step), bf16=self.bf16)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        # Squared, as the optimizer takes it up.
        size = float(loss.detach() + torch.nn.utils.get_total_norm(gradients).square())
        if math.isfinite(size):
            self._optimizer.step()
        return size

    def _examine(self, progress: Progress) -> None:
        errors = self.exam.errors()
        if worst(errors) < worst(progress.best):
            progress.best, progress.best_weights = errors, self._copies()
        elif not worst(errors) <= _DIVERGED * worst(progress.best):
            self._slow_down(progress)

    def _slow_down(self, progress: Progress) -> None:
        """Go back to the weights that came closest, and on from there in smaller steps."""
        progress.slowness *= _SLOWER
        self._put(progress.best_weights)
        self._optimizer.state.clear()

    def _replan(self, progress: Progress) -> None:
        """Change how many steps are to come where the time left is for fewer, or for more."""
        if self.limit is None:
            return
        left = self._steps_left(_EXAMS - progress.exams, progress.step)
        planned = progress.total - progress.step
        if left < (1 - _TOLERANCE) * planned or left > (1 + _TOLERANCE) * planned + 1:
            progress.total = progress.step + left

    def _steps_left(self, exams: int, done: int = 0) -> int:
        """Return how many steps fit into the time left beside some exams; at first at least one."""
        assert self.limit is not None
        left = _USED * self.limit - (self.clock() - self.started) - exams * self.exam.seconds
        return max(0 if done else 1, int(left / max(self.pace, 1e-6)))

    def _told(self, progress: Progress) -> str:
        seconds = (progress.total - progress.step) * self.pace
        return (
            f"refine: step {progress.step} of {progress.total}, the output moves by "
            f"{worst(progress.best):.1%} of its variation ({worst(progress.before):.1%} before), "
            f"{duration(seconds)} left"
        )

    def _copies(self) -> list[Tensor]:
        return [weight.detach().cpu().clone() for weight in self._weights]

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for weight, value in zip(self._weights, values, strict=True):
            weight.copy_(value)


def falling(share: float) -> float:
    """Return the learning rate at a share of a run, relative to its peak: up briefly, then down."""
    if share < _WARM_UP:
        return share / _WARM_UP + 1e-3
    return 0.5 * (1 + math.cos(math.pi * (share - _WARM_UP) / (1 - _WARM_UP)))


def sample_batches(
    samples: Samples,
    size: int,
    seed: int,
    prepare: Callable[[dict[str, Tensor], torch.Generator], Arguments],
) -> Batches:
    """Return what gives the inputs of a step: each sample once an epoch, in random order.

    Args:
        samples: the inputs.
        size: how many a step.
        seed: of the order.
        prepare: makes arguments of inputs, with random numbers for what it changes.
    """
    an_epoch = max(1, len(samples) // size)

    def at(step: int) -> Arguments:
        epoch, index = divmod(step, an_epoch)
        order = torch.randperm(len(samples), generator=generator_at(seed, epoch)).numpy()
        some = order[index * size : (index + 1) * size]
        values = {name: torch.from_numpy(array[some]) for name, array in samples.values.items()}
        return prepare(values, generator_at(seed, epoch, index + 1))

    return at
