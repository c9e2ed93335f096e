"""What each layer of a module gets and gives: whether its chain is the layer that its plan says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from trpexport.errors import PlanError
from trpexport.networks.torch.arguments import Arguments
from trpexport.networks.torch.chain_check import LayerCheck, check_chain, relative_rms
from trpexport.networks.torch.modules import LAYERS, FactorChain, kernel_of
from trpexport.networks.torch.running import argument, evaluating, noting, outputs_of
from trpexport.plan import Plan


def check_layers(
    original: nn.Module, factorized: nn.Module, plan: Plan, x: Tensor | Arguments
) -> tuple[LayerCheck, ...]:
    """Compare every rewritten layer with its plan, on the inputs that it gets in ``original``.

    Args:
        original: the network before the rewrite.
        factorized: the network after it.
        plan: the plan that was applied.
        x: inputs of the network, batch first.

    Returns:
        One check a rewritten layer, in the order in which they run.
    """
    layers = {layer.name: layer for layer in plan.rewritten}
    originals, chains = dict(original.named_modules()), dict(factorized.named_modules())
    with evaluating(original, factorized):
        found = []
        for name, run in _runs(original, layers, x).items():
            module, chain = originals[name], chains.get(name)
            assert isinstance(module, LAYERS)
            if not isinstance(chain, FactorChain):
                raise PlanError(f"the plan is for another network: {name} is no chain of factors")
            bias = None if module.bias is None else module.bias.detach()
            kernel = kernel_of(module).detach()
            found.append(check_chain(layers[name], chain.chain, kernel, bias, run.input))
        return tuple(found)


def first_drift(
    reference: nn.Module,
    candidate: nn.Module,
    names: Sequence[str],
    x: Tensor | Arguments,
    tolerance: float,
) -> str | None:
    """Return the first of the modules ``names`` whose output differs between two networks.

    Args:
        reference: a network.
        candidate: another one, with modules of the same names.
        names: modules to compare, in the order in which they run.
        x: inputs of both, batch first.
        tolerance: largest relative RMS difference that is no drift.
    """
    with evaluating(reference, candidate):
        expected, actual = _runs(reference, names, x), _runs(candidate, names, x)
    for name in names:
        if not relative_rms(expected[name].output, actual[name].output) <= tolerance:
            return name
    return None


class _Run(NamedTuple):
    """What went into a module and what came out, at its first call."""

    input: Tensor
    output: Tensor


def _runs(model: nn.Module, names: Collection[str], x: Tensor | Arguments) -> dict[str, _Run]:
    """Return the first run of each of the modules ``names``, in the order in which they ran."""
    runs: dict[str, _Run] = {}

    def keep(name: str, _: nn.Module, inputs: Any, keywords: Any, output: Tensor) -> None:
        # Copies, because a ReLU that follows may work in place.
        if name not in runs:
            runs[name] = _Run(argument(inputs, keywords).clone(), output.clone())

    modules = {
        module: partial(keep, name) for name, module in model.named_modules() if name in names
    }
    with noting(modules):
        outputs_of(model, x)
    return runs
