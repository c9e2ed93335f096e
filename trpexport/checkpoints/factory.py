"""A user's own network, named as ``package.module:factory``."""

from __future__ import annotations

import importlib
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from trpexport.errors import CheckpointError
from trpexport.foreign import told
from trpexport.inputs import Inputs, InputsLike
from trpexport.networks.torch.arguments import Arguments, are_keywords, drawn
from trpexport.networks.torch.copying import uncover_methods
from trpexport.networks.torch.running import evaluating


@contextmanager
def importable_working_directory() -> Iterator[None]:
    """Let modules in the current directory be imported, as ``python -m`` does."""
    directory = str(Path.cwd())
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        if directory in sys.path:
            sys.path.remove(directory)


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
    module_name, _, attribute = text.partition(":")
    if not all(part.isidentifier() for part in f"{module_name}.{attribute}".split(".")):
        raise _refused(repr(text), "it must be package.module:factory, as in nets.resnet:make_net")
    with importable_working_directory():
        factory = _attribute(text, _import(text, module_name), attribute)
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


def _import(text: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if f"{module_name}.".startswith(f"{missing}."):
            remedy = "run from the folder that has it, or install it"
            raise _refused(text, f"there is no module {missing}: {remedy}") from error
        reason = f"{module_name} needs the module {missing}: install it"
        raise _refused(text, reason) from error
    except (Exception, SystemExit) as error:  # foreign code; a script may also exit
        raise _refused(
            text,
            f"importing {module_name} raised {told(error)}; "
            "keep what runs a training behind if __name__ == '__main__'",
        ) from error


def _attribute(text: str, module: ModuleType, attribute: str) -> Callable[[], object]:
    try:
        factory = operator.attrgetter(attribute)(module)
    except AttributeError as error:
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        choice = f"it has {', '.join(sorted(public)[:8])}" if public else "it has no functions"
        raise _refused(text, f"{module.__name__} has no {attribute}; {choice}") from error
    if not callable(factory):
        kind = type(factory).__name__
        raise _refused(text, f"{attribute} is a {kind}, not a function or class")
    return factory  # type: ignore[no-any-return]


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
