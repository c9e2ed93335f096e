"""A calibrated choice, its factors trained towards the original network for some minutes."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trpexport.choose.base import CalibrationImages, Choice
from trpexport.choose.distance import worst
from trpexport.choose.held_out import error_facts
from trpexport.errors import DataError, OutputError, PlanError, TrainingError, TrpexportError
from trpexport.inputs import images_of, rows
from trpexport.lowrank.chain import Chain
from trpexport.networks.base import Network
from trpexport.networks.samples import Samples, checked_samples
from trpexport.networks.torch.arguments import Arguments
from trpexport.networks.torch.layout import channels_last
from trpexport.networks.torch.pupil import Pupil
from trpexport.networks.torch.running import RUN_ERRORS, arguments_for
from trpexport.plan import CALIBRATION, Plan
from trpexport.refining import computing
from trpexport.refining.descent import Descent, Progress, sample_batches
from trpexport.refining.exam import Exam
from trpexport.refining.lesson import Lesson
from trpexport.stages import Stages
from trpexport.training.augmentation import Augmentation
from trpexport.training.distributed import joined
from trpexport.training.run_directory import RunDirectory, prune

# What the report says of it, beside what it says of the calibration.
REFINED = "refined"
_FORMAT = 2  # of the state: another one is not gone on from
_SCALED = 256  # images that variations are taken over
# Images that are trained on where nobody says how many: those that fit into so much memory.
_MAX_IMAGES, _IMAGE_BYTES = 10_000, 1 << 29
# What runs that may be gone on from take of the cache, together.
_KEPT_BYTES = 2 << 30
# Images are what has so many channels, and is so large.
_CHANNELS, _MIN_EDGE, _IMAGE_RANK = (1, 3), 8, 4


@dataclass(frozen=True)
class Refinement:
    """Gradient on the calibration images after the closed form, towards the original network.

    Attributes:
        minutes: how long, everything included; or
        steps: how many steps, which makes the result the same for the same seed.
        seed: of the order of the images, and of how they are changed.
        augment: shift and mirror images at random; other inputs stay as they are.
        device: ``auto``, ``cpu`` or ``cuda``.
        bf16: compute in bfloat16; None where the processor is faster with it and it is safe.
        cache: folder in which a run that was killed leaves what the same call goes on from; None to
            keep nothing.
        images: how many images to train on, those to calibrate on first; None for as many as there
            are, up to 10,000 or half a gigabyte.
        clock: tells seconds.
    """

    minutes: float | None = None
    steps: int | None = None
    seed: int = 0
    augment: bool = True
    device: str = "auto"
    bf16: bool | None = None
    cache: str | Path | None = None
    images: int | None = None
    clock: Callable[[], float] = time.monotonic

    def check(self) -> None:
        """Refuse what can't be before any work is done.

        Raises:
            PlanError: not one of minutes and steps is given, or it is out of range.
        """
        if (self.minutes is None) == (self.steps is None):
            raise PlanError("refining takes minutes or steps: give one of them")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise PlanError(
                f"refining for {self.minutes:g} minutes makes no sense: give a number above 0",
                parameters=("refine",),
            )
        if self.steps is not None and self.steps < 1:
            raise PlanError(f"refining takes at least one step, not {self.steps}")
        if self.images is not None and self.images < 1:
            raise PlanError(
                f"refining takes at least one image, not {self.images}",
                parameters=("refine_images",),
            )

    def check_network(self, network: Network, images: CalibrationImages | None) -> None:
        """Refuse a network, or images, that nothing can be refined with.

        Raises:
            ModelError: the network has no gradients.
            PlanError: there are no images.
            DataError: they do not fit the network, or none are held out.
        """
        self.check()
        if images is None:
            raise PlanError("refining goes by images: give some", parameters=("refine",))
        if not images_of(images.held_out()[1]):
            raise DataError(
                "refining needs images that nothing is fitted to, to tell what it gains: give at "
                "least 20 in all",
                parameters=("refine",),
            )
        network.watch(checked_samples(images.inputs, network.inputs)).pupil({})

    def __call__(
        self, network: Network, choice: Choice, images: CalibrationImages, stages: Stages
    ) -> Choice:
        """Return a choice with refined chains, or with the same ones where none come closer.

        Args:
            network: the original network.
            choice: what is to become of it.
            images: unlabelled images, of which those held out tell what is kept.
            stages: times and announces what is going on.

        An interrupt that is heeded leaves the choice as it was.

        Raises:
            TrpexportError: as :meth:`check_network`, or the device is not there.
        """
        with stages("refine"), joined(self.device) as workers, torch.enable_grad():
            try:
                chains, facts = self._refined(network, choice, images, stages, workers.device)
            except TrpexportError:
                raise
            except KeyboardInterrupt as interrupt:
                return stages.settle_for(choice, interrupt)
            except (
                RUN_ERRORS
            ) as error:  # the network is code of others, which may refuse a gradient
                reason = " ".join(str(error).split())[:200]
                note = f"not refined, the calibrated factors are kept ({reason})"
                return replace(choice, notes=(*choice.notes, note))
        found = _told(network, choice, chains, facts)
        if facts["images"] < (self.images or 0):
            note = f"refined on {facts['images']} images, fewer than {self.images}"
            found = replace(found, notes=(*found.notes, note))
        return found

    def _refined(
        self,
        network: Network,
        choice: Choice,
        images: CalibrationImages,
        stages: Stages,
        device: torch.device,
    ) -> tuple[Mapping[str, Chain], dict[str, Any]]:
        """Return the chains that came closest, and facts."""
        started = self.clock()
        name, others = images.held_out()
        given = images.to_train_on(self._count(images))
        watch = network.watch(checked_samples(given, network.inputs))
        held_out = network.watch(checked_samples(others, network.inputs)).samples
        pupil = watch.pupil(choice.chains)
        pupil.move(device)
        descent, steps = self._descent(pupil, watch.samples, held_out, stages, started)
        key = self._key(network, choice.plan, watch.samples, held_out)
        with ExitStack() as stack:
            progress = None
            if self.cache is not None:
                directory = RunDirectory(Path(self.cache) / "refining" / key[:32])
                try:
                    known = directory.begun() == {"key": key}
                    stack.enter_context(directory.opened({"key": key}, restart=not known))
                    prune(directory.path.parent, _KEPT_BYTES)
                except OutputError as error:  # no reason not to refine
                    stages.say(f"refine: nothing is kept to go on from ({error})")
                else:
                    descent.save = partial(_saved, directory)
                    progress = _resumed(descent, directory)
            if progress is None:
                progress = descent.begin(steps)
            descent.run(progress)
            descent.save(descent.state(progress))
        facts = {
            "images": len(watch.samples),
            "steps": progress.step,
            "seconds": self.clock() - descent.started,
            "bf16": descent.bf16,
            "held_out_images": len(descent.exam.samples),
            "split": name,
            "before": error_facts(progress.before),
            "after": error_facts(progress.best),
        }
        if worst(progress.best) >= worst(progress.before):
            return choice.chains, facts
        pupil.move(next(iter(choice.chains.values())).kernels[0].device)
        return pupil.learnt(), facts

    def _count(self, images: CalibrationImages) -> int:
        """Return how many images to train on at most."""
        if self.images is not None:
            return self.images
        inputs = images.inputs
        arrays = inputs.values() if isinstance(inputs, Mapping) else [inputs]
        count = images_of(inputs)
        size = max(1, sum(array.nbytes for array in arrays) // count)
        return max(count, min(_MAX_IMAGES, _IMAGE_BYTES // size))

    def _descent(
        self, pupil: Pupil, samples: Samples, held_out: Samples, stages: Stages, started: float
    ) -> tuple[Descent, int | None]:
        limit = None if self.minutes is None else 60 * self.minutes
        augmentation = self._augmentation(samples)

        def arguments(values: Mapping[str, Tensor]) -> Arguments:
            return channels_last(arguments_for(pupil.student, values))

        def prepare(values: dict[str, Tensor], generator: torch.Generator) -> Arguments:
            if augmentation is not None:
                values = {name: augmentation(x, generator) for name, x in values.items()}
            return arguments(values)

        def first(count: int) -> Arguments:
            some = rows(samples.values, slice(count))
            return arguments({name: torch.from_numpy(array.copy()) for name, array in some.items()})

        small, is_fixed = samples.batch_size, samples.max_batch != Samples.max_batch
        computing.lay_out(pupil, first(small))
        exam = Exam(pupil, held_out, limit, self.clock)
        scaled = min(len(samples), _SCALED, len(exam.samples))
        lesson = Lesson(
            pupil,
            (
                arguments({name: torch.from_numpy(a) for name, a in samples.batch(i).items()})
                for i in range(-(-scaled // small))
            ),
        )
        size = (
            samples.max_batch if is_fixed else computing.batch_size(lesson, first(1), len(samples))
        )
        how = computing.computing(lesson, first(size), pupil.weights, self.bf16, self.clock)
        descent = Descent(
            pupil=pupil,
            lesson=lesson,
            exam=exam,
            batches=sample_batches(samples, size, self.seed, prepare),
            bf16=how.bf16,
            pace=how.seconds,
            limit=limit,
            save=lambda state: None,
            say=stages.progress,
            started=started,
            clock=self.clock,
        )
        return descent, self.steps

    def _augmentation(self, samples: Samples) -> Augmentation | None:
        """Return how inputs are changed at random; None where they are not images, or several.

        What several inputs have to do with each other nobody knows.
        """
        shapes = [array.shape for array in samples.values.values()]
        if not self.augment or len(shapes) > 1 or len(shapes[0]) != _IMAGE_RANK:
            return None
        (array,) = samples.values.values()
        _, channels, height, width = array.shape
        edge = min(height, width)
        if channels not in _CHANNELS or edge < _MIN_EDGE or array.dtype.kind != "f":
            return None
        return Augmentation.for_images(edge, mirror=True)

    def _key(self, network: Network, plan: Plan, samples: Samples, held_out: Samples) -> str:
        """Return what two runs share when one may go on where the other stopped."""
        facts = {
            "format": _FORMAT,
            "network": network.identity(),
            "layers": [[row.name, row.scheme, row.rank] for row in plan.rewritten],
            "images": samples.digest,
            "held_out": held_out.digest,
            "settings": [self.minutes, self.steps, self.seed, self.augment, self.bf16],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _saved(directory: RunDirectory, state: Mapping[str, Any]) -> None:
    with suppress(OutputError):  # the one before stands
        directory.write_state(state)


def _resumed(descent: Descent, directory: RunDirectory) -> Progress | None:
    """Return the run that a directory holds the state of; None where there is none that fits."""
    try:
        state = directory.read_state()
        return None if state is None else descent.resume(state)
    except (TrainingError, KeyError, TypeError, ValueError, RuntimeError, AttributeError):
        return None


def _told(
    network: Network, choice: Choice, chains: Mapping[str, Chain], facts: Mapping[str, Any]
) -> Choice:
    """Return a choice with other chains, and a plan that says how they came about.

    Where these lose more by a metric than they may, it keeps its own.
    """
    told: dict[str, Any] = {REFINED: facts}
    notes = choice.notes
    if chains is choice.chains:
        notes = (*notes, "refining came no closer on held-out images: the calibrated factors stay")
    elif choice.drop is not None:
        judge, limit = choice.drop.judge, choice.drop.limit
        judged = judge.facts(network.rewritten(chains))
        if choice.drop.admits(judged):
            told["judged"] = judged
        else:
            chains = choice.chains
            told[REFINED] = {**facts, "after": facts["before"]}
            notes = (
                *notes,
                f"refined, the network loses {judge.lost(judged['after']):.3g} {judge.unit}, more "
                f"than {limit:g}: the calibrated factors stay",
            )
    rows = [
        replace(row, weight_error=chains[row.name].distance(network.weights(row.name)[0]) ** 0.5)
        if row.is_rewritten
        else row
        for row in choice.plan.layers
    ]
    calibration = {**choice.plan.options.get(CALIBRATION, {}), **told}
    options = {**choice.plan.options, CALIBRATION: calibration}
    plan = replace(choice.plan, layers=tuple(rows), options=options)
    return replace(choice, plan=plan, chains=chains, notes=notes)
