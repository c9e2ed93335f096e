"""A user's own network, named as ``package.module:factory``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from trpexport.errors import CheckpointError
from trpexport.foreign import told
from trpexport.importing import importable_working_directory, imported
from trpexport.inputs import Inputs, InputsLike
from trpexport.networks.torch.arguments import Arguments, are_keywords, drawn
from trpexport.networks.torch.copying import uncover_methods
from trpexport.networks.torch.running import evaluating


def build_from_factory(text: str, inputs: InputsLike | None = None) -> nn.Module:
    """Import a factory and make a network with it, in float32 on the CPU.

    One that is compiled is given as it was before.

    Args:
        text: ``package.module:factory``; the factory takes no arguments and returns the network.
            Modules in the current directory can be imported.
        inputs: those on which lazy modules get their parameters.

    Raises:
        CheckpointError: the text, the module, the factory or what it returns can't be used.
    """
    with importable_working_directory():
        usage = "package.module:factory, as in nets.resnet:make_net"
        factory = imported(text, partial(_refused, text), usage)
        network = _call(text, factory)
        network = getattr(network, "_orig_mod", network)
        if not isinstance(network, nn.Module):
            reason = f"it must return a torch.nn.Module, not {type(network).__name__}"
            raise _refused(text, reason)
        uncover_methods(network)
        if _is_lazy(network) and inputs is not None:
            doing = f"running it on {Inputs.of(inputs)}"
            _call(text, partial(_run_once, network, inputs), doing)
    if _is_lazy(network):
        reason = "the network has lazy parameters: give the input shape, or let the factory run it"
        raise _refused(text, reason)
    return network.float().cpu()


def _is_lazy(network: nn.Module) -> bool:
    return any(map(is_lazy, [*network.parameters(), *network.buffers()]))


def _run_once(network: nn.Module, inputs: InputsLike) -> None:
    with evaluating(network):
        zeros = {name: torch.zeros_like(x) for name, x in drawn(Inputs.of(inputs)).items()}
        Arguments(zeros, are_keywords(network, zeros)).call(network)


def _call(
    text: str, call: Callable[[], object], doing: str = "calling it without arguments"
) -> object:
    try:
        return call()
    except (Exception, SystemExit) as error:  # foreign code
        raise _refused(text, f"{doing} raised {told(error)}") from error


def _refused(text: str, reason: str) -> CheckpointError:
    return CheckpointError(f"model {text}: {reason}", parameters=("model",))
