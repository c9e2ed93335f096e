"""The training loop: steps, epochs, and a state from which it goes on exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trpexport.errors import TrainingError
from trpexport.training.batches import Batch, Batches
from trpexport.training.distributed import Workers
from trpexport.training.objectives import Loss, as_floats, called, samples_of
from trpexport.training.randomness import seed_of
from trpexport.training.recipe import Recipe
from trpexport.training.run_directory import BEST, LAST, RunDirectory
from trpexport.training.trp import TrainedRankPruning
from trpexport.training.watching import Watcher

# How often the loss is fetched from a CUDA device, in steps: each time, the device runs dry.
_CUDA_CHECK_STEPS = 20


@dataclass(frozen=True)
class Score:
    """How a network does on test images.

    Attributes:
        top1: in percent; None where outputs are no scores of classes.
        loss: mean cross-entropy; or of the loss that is trained by.
        images: how many.
    """

    top1: float | None
    loss: float
    images: int

    @property
    def goodness(self) -> float:
        """What the best of several has most of."""
        return -self.loss if self.top1 is None else self.top1


@dataclass
class Totals:
    """Sums over an epoch so far: loss, right answers, images; and all three in float64."""

    sums: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))

    def add(self, loss: Tensor, hits: Tensor, count: int) -> None:
        """Count a batch: its mean loss, how many answers are right, of how many images."""
        new = torch.stack([loss.detach().double() * count, hits.double(), hits.new_tensor(count)])
        self.sums = self.sums.to(new.device) + new

    @classmethod
    def restored(cls, sums: Tensor, workers: Workers) -> Totals:
        """Return this worker's part of the sums of all, (workers, 3).

        After a change of their number, the first takes it all.
        """
        parts = sums.reshape(-1, 3)
        if len(parts) == workers.count:
            return cls(parts[workers.rank])
        return cls(parts.sum(0) if workers.is_first else torch.zeros_like(parts[0]))

    def facts(self, workers: Workers) -> tuple[float, float]:
        """Return the mean loss and the top-1 accuracy in percent, over all workers."""
        loss, hits, count = workers.sum(self.sums.to(workers.device)).tolist()
        return loss / max(count, 1), 100 * hits / max(count, 1)


@dataclass
class Loop:
    """One run.

    Attributes:
        model: the network; its memory format and device are set.
        net: the same for the forward pass: compiled, or averaging gradients over workers.
        batches: the training images.
        test: makes the batches of this worker's share of the test images.
        recipe: how long and how fast.
        optimizer: its learning rate is set anew for each step.
        workers: the processes that train together.
        directory: where state and metrics go.
        save: writes a checkpoint with the facts of an epoch.
        trp: the TRP step; None for plain training.
        loss: of (what the network gives, labels, inputs).
        counts_classes: whether the network gives scores of classes, so that some are right.
        bf16: run the forward pass in bfloat16 where that is safe.
        seed: of the run, for what the network itself draws (dropout).
        save_seconds: time between two states within an epoch.
        watcher: who wants to know.
        should_stop: asked after each step whether the run is to end there, to be gone on with;
            None for never.
    """

    model: nn.Module
    net: nn.Module
    batches: Batches
    test: Callable[[], Iterable[Batch]]
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    workers: Workers
    directory: RunDirectory
    save: Callable[[Path, dict[str, Any]], None]
    trp: TrainedRankPruning | None
    loss: Loss
    bf16: bool
    seed: int
    save_seconds: float
    watcher: Watcher
    counts_classes: bool = True
    should_stop: Callable[[], bool] | None = None
    started: float = field(default_factory=time.monotonic)

    def run(self) -> dict[str, Any]:
        """Train to the end, from the state in the directory on; return the last epoch's facts.

        Raises:
            KeyboardInterrupt: the run was to stop; its state stands.
            TrainingError: the loss became NaN or infinite; the last state stands.
            OutputError: something can't be written; what was there stands.
        """
        begun = self._restore()
        epochs, steps = self.recipe.epochs, len(self.batches)
        self.watcher.begin(epochs, steps, begun.epoch * steps + begun.step)
        facts = begun.facts
        try:
            for epoch in range(begun.epoch, epochs):
                resumed = epoch == begun.epoch
                totals = begun.totals if resumed else Totals()
                self._train_epoch(epoch, begun.step if resumed else 0, totals, begun)
                facts = self._end_epoch(epoch, totals, begun)
        finally:
            self.watcher.end()
        return facts

    def _train_epoch(self, epoch: int, first: int, totals: Totals, begun: _Progress) -> None:
        self.net.train()
        saved, pending = time.monotonic(), []
        on_cuda = self.workers.device.type == "cuda"
        check_steps = _CUDA_CHECK_STEPS if on_cuda else 1
        for step, (images, labels) in enumerate(self.batches.epoch(epoch, first), first):
            place = epoch * len(self.batches) + step
            torch.manual_seed(seed_of(self.seed, epoch, step, self.workers.rank))
            loss, hits = self._step(place, images, labels)
            totals.add(loss, hits, samples_of(images))
            pending.append(loss.detach())
            last = step + 1 == len(self.batches)
            checked = last or len(pending) == check_steps
            if checked:
                self._check_finite(pending, place)
                pending = []
            self.watcher.step(self._step_facts(place, totals, on_cuda))
            if last or not checked:
                continue
            stops = self.workers.any_says(self.should_stop is not None and self.should_stop())
            if stops or self.workers.first_says(time.monotonic() - saved > self.save_seconds):
                self._write_state(_Progress(epoch, step + 1, totals, begun.best, begun.facts))
                saved = time.monotonic()
            if stops:
                raise KeyboardInterrupt

    def _step(self, place: int, images: Any, labels: Any) -> tuple[Tensor, Tensor]:
        """Do one step; return the mean loss and how many answers were right."""
        rate = self.recipe.learning_rate(place, len(self.batches))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.workers.device.type, torch.bfloat16, enabled=self.bf16):
            outputs = called(self.net, images)
        outputs = as_floats(outputs)
        loss = self.loss(outputs, labels, images)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.trp:
            self.trp.before_step()
        self.optimizer.step()
        if self.trp:
            self.trp.after_step()
        if not self.counts_classes:
            return loss, torch.zeros((), device=loss.device)
        return loss, (outputs.argmax(1) == labels).sum()

    def _check_finite(self, losses: list[Tensor], place: int) -> None:
        """Stop at the first loss that is no number, before anything of it is written."""
        values = self.workers.sum(torch.stack(losses).double()).tolist()
        for index, value in enumerate(values):
            if not math.isfinite(value):
                step = place - len(values) + 1 + index
                raise TrainingError(
                    f"the loss became {value} at step {step + 1} (epoch "
                    f"{step // len(self.batches) + 1}): the checkpoints before it stand in "
                    f"{self.directory.path}; try a lower learning rate, or a longer warm-up",
                    parameters=("lr",),
                )

    def _end_epoch(self, epoch: int, totals: Totals, begun: _Progress) -> dict[str, Any]:
        # An epoch ends with a projection, so that every checkpoint is of low rank as it stands.
        if self.trp:
            self.trp.project(final=epoch + 1 == self.recipe.epochs)
        own = None if self.counts_classes else self.loss
        score = evaluate(self.model, self.test(), self.workers, self.bf16, own)
        loss, top1 = totals.facts(self.workers)
        facts = {
            "epoch": epoch + 1,
            "step": (epoch + 1) * len(self.batches),
            "lr": self.optimizer.param_groups[0]["lr"],
            "loss": loss,
            "test_loss": score.loss,
            **({} if score.top1 is None else {"top1": top1, "test_top1": score.top1}),
            "test_images": score.images,
            **self._trp_facts(),
            "seconds": round(time.monotonic() - self.started, 1),
        }
        if not math.isfinite(score.loss):
            raise TrainingError(
                f"the network gives no numbers on the test images after epoch {epoch + 1}: "
                f"the checkpoints before it stand in {self.directory.path}; try a lower "
                "learning rate",
                parameters=("lr",),
            )
        self.workers.first_does(
            partial(self._write_checkpoints, facts, score.goodness > begun.best)
        )
        begun.best = max(begun.best, score.goodness)
        self._write_state(_Progress(epoch + 1, 0, Totals(), begun.best, facts))
        self.watcher.epoch(facts)
        return facts

    def _write_checkpoints(self, facts: dict[str, Any], is_best: bool) -> None:
        self.directory.add_metrics(facts)
        self.save(self.directory.path / LAST, facts)
        if is_best:
            self.save(self.directory.path / BEST, facts)

    def _step_facts(self, place: int, totals: Totals, on_cuda: bool) -> dict[str, Any]:
        facts: dict[str, Any] = {"step": place + 1}
        if not on_cuda or place % _CUDA_CHECK_STEPS == 0:
            loss, hits, count = totals.sums.tolist()
            facts |= {"loss": loss / count}
            facts |= {"top1": 100 * hits / count} if self.counts_classes else {}
        return facts | self._trp_facts()

    def _trp_facts(self) -> dict[str, Any]:
        status = self.trp.status if self.trp else None
        if status is None:
            return {}
        return {
            "mean_rank_share": status.mean_rank_share,
            "macs_ratio": status.macs_ratio,
            "energy": status.energy,
        }

    def _restore(self) -> _Progress:
        state = self.directory.read_state()
        if state is None:
            return _Progress(0, 0, Totals(), -math.inf, {})
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.trp:
                self.trp.load_state_dict(state["trp"])
            found = _Progress(
                state["epoch"],
                state["step"],
                Totals.restored(state["totals"], self.workers),
                state["best"],
                state["facts"],
            )
            self.started -= state["seconds"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise TrainingError(
                f"the state in {self.directory.path} does not fit ({reason}): restart the run",
                parameters=("restart",),
            ) from None
        done = found.epoch * len(self.batches)
        self.workers.first_does(lambda: self.directory.cut_metrics(done))
        return found

    def _write_state(self, progress: _Progress) -> None:
        state = {
            "epoch": progress.epoch,
            "step": progress.step,
            "totals": self.workers.gather(progress.totals.sums.to(self.workers.device)),
            "best": progress.best,
            "facts": progress.facts,
            "seconds": time.monotonic() - self.started,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "trp": self.trp.state_dict() if self.trp else None,
        }
        self.workers.first_does(lambda: self.directory.write_state(state))


@dataclass
class _Progress:
    """How far a run has come: whole epochs, steps of the next one, and what they gave."""

    epoch: int
    step: int
    totals: Totals
    best: float
    facts: dict[str, Any]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    workers: Workers,
    bf16: bool = False,
    loss: Loss | None = None,
) -> Score:
    """Return how a network does on the test images that all workers see together.

    All workers use the first one's buffers. Without a loss they are classified.
    """
    workers.share_buffers(model)
    model.eval()
    sums = torch.zeros(3, dtype=torch.float64, device=workers.device)
    for images, labels in batches:
        with torch.autocast(workers.device.type, torch.bfloat16, enabled=bf16):
            outputs = called(model, images)
        outputs, count = as_floats(outputs), samples_of(images)
        if loss is None:
            found = cross_entropy(outputs, labels, reduction="sum")
            hits = (outputs.argmax(1) == labels).sum()
        else:
            found, hits = count * loss(outputs, labels, images), sums.new_zeros(())
        sums += torch.stack([found.double(), hits.double(), sums.new_tensor(count)])
    loss_sum, hit_sum, total = workers.sum(sums).tolist()
    top1 = None if loss is not None else 100 * hit_sum / max(total, 1)
    return Score(top1, loss_sum / max(total, 1), int(total))
