"""Trained Rank Pruning: a network that is low-rank already when its training ends.

Xu et al., "TRP: Trained Rank Pruning for Efficient Deep Neural Networks" (arXiv 2004.14566),
sections 3.1 to 3.3. Every few steps of the optimizer each chosen convolution is replaced by its
best approximation of low rank, and in between the nuclear norm pulls it there. Its subgradient
U V^T comes from the same decomposition, and is kept until the next.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trpexport.choose.alignment import AUTO, aligned, find_alignment
from trpexport.choose.selection import Selection
from trpexport.errors import TrainingError
from trpexport.lowrank.spectrum import Svd
from trpexport.lowrank.subspace import energy_of
from trpexport.networks.torch.probing import probed
from trpexport.networks.torch.trace import TorchLayer, declared, trace
from trpexport.training.projection import Spectrum, Stack, exchange, stacks
from trpexport.training.sharing import team_of_this_run, unwrapped
from trpexport.training.steering import VALUE, Prices, Schedule, prices, reaching, steer
from trpexport.training.trp_settings import check, trainable, trained


@dataclass(frozen=True)
class Status:
    """How low-rank the network is, as its last projection left it.

    Attributes:
        mean_rank_share: mean over the layers of rank / full rank.
        macs_ratio: MACs after / before a decomposition at the value threshold, as
            :class:`trpexport.ByCriterion` makes it by default; None without an input shape.
        energy: share of its energy that the last projection left every layer, at least; None
            where there was none.
        ranks: the rank of each layer at the value threshold.
    """

    mean_rank_share: float
    macs_ratio: float | None
    energy: float | None
    ranks: Mapping[str, int]


class TrainedRankPruning:
    """Keeps the convolutions of a network low-rank while any optimizer trains it.

    Three lines in anyone's own loop, and one after it::

        trp = TrainedRankPruning(model, scheme="spatial", energy=0.9, nuclear_weight=3e-4)
        for x, y in batches:
            optimizer.zero_grad()
            loss(model(x), y).backward()
            trp.before_step()
            optimizer.step()
            trp.after_step()
        trp.project()

    The layers are those that :func:`trpexport.analyse` would rewrite. With an ``input_shape`` one
    forward pass tells which convolution is the stem and which the classifier; without one, the
    order in which the network declares them does. A class with a forward of its own counts as what
    it is found to compute, as convolutions that pad by themselves; one that computes more is left
    alone, with a warning that names it once.

    In a distributed run (``torch.distributed``) every process makes the same calls; the layers
    are shared out among the processes, and all end with the same weights. With a gradient scaler,
    unscale the gradients before :meth:`before_step`.

    With ``energy``, a layer is cut to the rank that holds this share of its energy, whether or not
    a chain of that rank is cheaper, as in the paper. A layer that nobody touched since it was cut
    is not cut again: projection is a ratchet. With ``target_macs``, ranks follow from what they are
    worth for their MACs (:mod:`trpexport.training.steering`), and a layer that the planner would
    leave dense at its rank is left whole: to cut it would cost accuracy and save nothing.

    Args:
        model: the network; it may be wrapped by DistributedDataParallel or ``torch.compile``.
        scheme: name of the scheme that will decompose it.
        energy: share of the sum of squared singular values that a projection keeps, above 0 and
            at most 1; None to leave the weights alone (nuclear norm only).
        period: optimizer steps between projections.
        nuclear_weight: weight of the nuclear norm; 0 for none (projection only).
        input_shape: shape of the network's input, batch first; needed to count MACs.
        include: as in :func:`trpexport.analyse`.
        exclude: as in :func:`trpexport.analyse`.
        stride_1_only: as in :func:`trpexport.analyse`.
        rank_multiple: ranks are rounded up to multiples of it, as :class:`trpexport.ByCriterion`
            does; ``auto`` for the channel block of this processor, or what is left of it after
            halving until the target can be met.
        target_macs: MACs of the decomposed network, as a share of the original's; ``energy`` is
            then found rather than given.
        total_steps: optimizer steps of the whole run; the target is reached half-way.

    Raises:
        TrpexportError: a value is out of range, or the scheme is unknown.
        PlanError: the network can't run such an input, or a pattern matches no layer.
        TrainingError: the scheme cuts more than one matrix of a kernel, no convolution is left to
            train, or no ranks reach the target.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        scheme: str = "spatial",
        energy: float | None = 0.9,
        period: int = 20,
        nuclear_weight: float = 3e-4,
        input_shape: Sequence[int] | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        stride_1_only: bool = False,
        rank_multiple: int | str = "auto",
        target_macs: float | None = None,
        total_steps: int | None = None,
    ) -> None:
        check(
            energy=energy,
            period=period,
            nuclear_weight=nuclear_weight,
            target_macs=target_macs,
            total_steps=total_steps,
            input_shape=input_shape,
        )
        self._scheme = trainable(scheme)
        self._energy = None if target_macs is not None else energy
        self._period = period
        self._nuclear_weight = nuclear_weight
        model = unwrapped(model)
        with probed(model, input_shape) as unread:
            traced = declared(model) if input_shape is None else trace(model, input_shape)
        for line in unread:
            warnings.warn(line, stacklevel=2)
        selection = Selection(include=include, exclude=exclude, stride_1_only=stride_1_only)
        self._layers = trained(traced, selection, self._scheme)
        self._full = {layer.name: self._scheme.full_rank(layer.op) for layer in self._layers}
        self._multiple = find_alignment(rank_multiple).multiple
        self._prices: Prices | None = None
        if input_shape is not None:
            self._prices = prices(traced, self._scheme, self._full, self._multiple)
        self._schedule: Schedule | None = None
        if target_macs is not None and total_steps is not None and self._prices is not None:
            free = rank_multiple == AUTO
            self._prices = reaching(self._prices, target_macs, may_halve=free)
            self._multiple = self._prices.multiple
            self._schedule = Schedule(target_macs, total_steps)
        self._step = 0
        self._last_energy: float | None = None
        # By layer name, as the last projection left them.
        self._subgradients: dict[str, Tensor] = {}
        self._values: dict[str, Tensor] = {}
        self._ranks: dict[str, int] = {}
        self._norms: dict[str, float] = {}
        self._status: Status | None = None  # asked for at every step, and new at a projection

    @property
    def rank_multiple(self) -> int:
        """What ranks are multiples of, as far as that is cheaper."""
        return self._multiple

    @property
    def least_macs_ratio(self) -> float | None:
        """MACs after / before at the lowest ranks; None without an input's shape."""
        return None if self._prices is None else self._prices.least

    @torch.no_grad()
    def before_step(self) -> None:
        """Add the weighted subgradient of the nuclear norm to the gradients.

        Call it after ``loss.backward()``.

        Raises:
            TrainingError: there are no gradients, or a weight holds NaN or infinity.
        """
        if not self._nuclear_weight:
            return
        if not self._subgradients:
            self._refresh(cut=False)
        # A weight that two modules share has one gradient.
        pulled = {
            id(layer.module.weight): (layer.module.weight.grad, self._subgradients[layer.name])
            for layer in self._layers
        }
        pairs = [(grad, pull) for grad, pull in pulled.values() if grad is not None]
        if not pairs:
            raise TrainingError(
                "no layer has a gradient: call before_step() after loss.backward(), "
                "before the gradients are zeroed"
            )
        grads, pulls = zip(*pairs, strict=True)
        torch._foreach_add_(list(grads), list(pulls), alpha=self._nuclear_weight)

    def after_step(self) -> None:
        """Count a step, and project once in every period. Call it after ``optimizer.step()``.

        Raises:
            TrainingError: a weight holds NaN or infinity.
        """
        self._step += 1
        if self._step % self._period == 0:
            self._refresh(None if self._schedule is None else self._schedule(self._step))

    def project(self, *, final: bool = True) -> None:
        """Project now: the end of every run. A run that is steered is brought to its target.

        Args:
            final: false within a run, as for a checkpoint: a run that is steered is then brought
                to what its schedule asks for by now.

        Raises:
            TrainingError: a weight holds NaN or infinity.
        """
        ratio = None
        if self._schedule is not None:
            ratio = self._schedule.target if final else self._schedule(self._step)
        self._refresh(ratio)

    @property
    def status(self) -> Status:
        """How low-rank the network is. Costs next to nothing."""
        if self._status is None:
            self._status = self._found()
        return self._status

    def _found(self) -> Status:
        full = self._full
        ranks = full
        if self._values:
            ranks = {
                name: self._aligned(name, max(1, int((values >= VALUE.value).sum())))
                for name, values in self._values.items()
            }
        return Status(
            mean_rank_share=math.fsum(ranks[name] / full[name] for name in full) / len(full),
            macs_ratio=None if self._prices is None else self._prices.ratio(ranks),
            energy=self._last_energy,
            ranks=ranks,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what an exact continuation needs: tensors and plain numbers, not nested."""
        state: dict[str, Any] = {"step": self._step}
        if self._last_energy is not None:
            state["energy"] = self._last_energy
        for name, subgradient in self._subgradients.items():
            state[f"{name}.subgradient"] = subgradient
            state[f"{name}.values"] = self._values[name]
            state[f"{name}.rank"] = self._ranks[name]
            state[f"{name}.norm"] = self._norms[name]
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken, with bit-identical results.

        Raises:
            TrainingError: the state belongs to another network, or other settings.
        """
        subgradients, values, ranks, norms = {}, {}, {}, {}
        try:
            step, energy = int(state["step"]), state.get("energy")
            for layer in self._layers if len(state) > 1 else ():
                name, weight = layer.name, layer.module.weight
                subgradient = state[f"{name}.subgradient"]
                values[name] = torch.as_tensor(state[f"{name}.values"]).cpu()
                if subgradient.shape != weight.shape or values[name].shape != (self._full[name],):
                    raise ValueError(f"{name} has another shape")
                subgradients[name] = torch.empty_like(weight).copy_(subgradient.detach())
                ranks[name] = int(state[f"{name}.rank"])
                norms[name] = float(state[f"{name}.norm"])
            known = 1 + ("energy" in state) + 4 * len(ranks)
            if len(state) != known:
                raise ValueError(f"it has {len(state)} entries, not {known}")
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise TrainingError(
                f"the TRP state belongs to another run ({error}): resume with the network and "
                "the settings that it was saved with"
            ) from None
        self._step, self._last_energy = step, energy
        self._subgradients, self._values = subgradients, values
        self._ranks, self._norms = ranks, norms
        self._status = None

    @torch.no_grad()
    def _refresh(self, ratio: float | None = None, *, cut: bool = True) -> None:
        """Decompose the layers, cut them where that is asked for, and keep their subgradients."""
        norms = self._measure()
        energy = self._energy if cut else None
        layers = self._layers
        if energy is not None:
            self._last_energy = energy
            layers = [layer for layer in layers if not self._is_done(layer, norms)]
        team = team_of_this_run()
        stacked = stacks(layers, self._scheme)
        owners = team.owners([stack.cost for stack in stacked])
        work = dict(zip(stacked, owners, strict=True))
        found: dict[Stack, Svd] = {}
        spectra: dict[str, Spectrum] = {}
        ranks: Mapping[str, int] = {}
        device = self._layers[0].module.weight.device
        with torch.autocast(device.type, enabled=False):
            # The ranks of the last projection tell how much to look for. Where more is needed: all.
            pending, sought, before = stacked, energy, self._ranks
            while pending:
                own: dict[str, Spectrum] = {}
                for stack in pending:
                    if work[stack] == team.rank:
                        found[stack], some = stack.decompose(
                            sought, before, self._subgradients, self._multiple
                        )
                        own |= some
                spectra |= exchange(own, pending, team)
                ranks, needed = self._choose(spectra, energy, ratio)
                pending = [stack for stack in stacked if stack.lacks(spectra, needed)]
                sought, before = None, {}
            for stack, owner in work.items():
                both = team.tell(stack.truncated(found.get(stack), ranks), owner)
                self._write(stack, both, ranks)
        for name, spectrum in spectra.items():
            places = torch.arange(len(spectrum.values))
            self._values[name] = torch.where(places < ranks[name], spectrum.values, 0.0)
        self._ranks = {**self._ranks, **ranks}
        self._norms = self._measure()
        self._status = None

    def _is_done(self, layer: TorchLayer, norms: Mapping[str, float]) -> bool:
        """Say whether a layer is as the last projection cut it: nobody touched it since."""
        name = layer.name
        return self._norms.get(name) == norms[name] and self._ranks[name] < self._full[name]

    def _write(self, stack: Stack, both: Tensor, ranks: Mapping[str, int]) -> None:
        """Replace the kernels that are cut, and note the subgradients."""
        kernels, pulls = stack.fold(both[0]), stack.fold(both[1])
        for layer in stack.layers:
            weight = layer.module.weight
            if ranks[layer.name] < self._full[layer.name]:
                weight.copy_(kernels[layer.name])
            self._subgradients[layer.name] = torch.empty_like(weight).copy_(pulls[layer.name])

    def _choose(
        self, spectra: Mapping[str, Spectrum], energy: float | None, ratio: float | None
    ) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Return the rank to cut each layer to, and how many ranks must be known to say so.

        A layer that stays whole has its full rank.
        """
        full = {name: len(found.values) for name, found in spectra.items()}
        if energy is not None:
            ranks = {
                name: self._aligned(name, found.energy_rank(energy))
                for name, found in spectra.items()
            }
            return ranks, ranks
        if ratio is None or self._prices is None:
            return full, full
        steered = steer(spectra, self._prices, ratio)
        self._last_energy = steered.energy
        whole = {
            name: full[name]
            for name, rank in steered.ranks.items()
            if self._prices.stays_dense(name, rank)
        }
        return {**steered.ranks, **whole}, {**steered.needed, **whole}

    def _aligned(self, name: str, rank: int) -> int:
        """Return the rank at which a layer will be decomposed where ``rank`` is asked for."""
        if self._prices is not None:
            return self._prices.aligned(name, rank)
        return aligned(rank, self._multiple, self._full[name])

    def _measure(self) -> dict[str, float]:
        """Return the sum of squares of each layer: what tells a weight that changed.

        A change that leaves the norm of every filter as it was, to the last bit of float32, does
        not make the layer less low-rank.

        Raises:
            TrainingError: naming the first layer whose weights are not finite.
        """
        norms = [energy_of(layer.module.weight.flatten(1)[None])[0] for layer in self._layers]
        found = dict(zip((x.name for x in self._layers), torch.stack(norms).tolist(), strict=True))
        for name, norm in found.items():
            if not math.isfinite(norm):
                raise TrainingError(
                    f"the weight of {name} holds NaN or infinity after step {self._step}: "
                    "the training diverged, try a lower learning rate"
                )
        return found
