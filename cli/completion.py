"""What a shell offers where a value is typed: names of the registries, for Typer."""

from __future__ import annotations

from collections.abc import Iterable


def schemes(incomplete: str) -> list[str]:
    """Offer schemes."""
    from trpexport.lowrank.schemes import SCHEMES

    return _starting([*SCHEMES, "auto"], incomplete)


def criteria(incomplete: str) -> list[str]:
    """Offer criteria; their values are the user's."""
    from trpexport.lowrank.criteria import CRITERIA

    return _starting(CRITERIA, incomplete)


def architectures(incomplete: str) -> list[str]:
    """Offer architectures of the zoo."""
    from importlib import import_module

    return _starting(import_module("trpexport.models_zoo").PRESETS, incomplete)


def providers(incomplete: str) -> list[str]:
    """Offer execution providers."""
    from trpexport.runtime.providers import PROVIDERS

    return _starting(PROVIDERS, incomplete)


def recipes(incomplete: str) -> list[str]:
    """Offer recipes of training."""
    from trpexport.training.recipe import RECIPES

    return _starting(RECIPES, incomplete)


def devices(incomplete: str) -> list[str]:
    """Offer where PyTorch computes."""
    from trpexport.networks.torch.devices import DEVICES

    return _starting(DEVICES, incomplete)


def data(incomplete: str) -> list[str]:
    """Offer data sets, with a colon where a path belongs behind it; paths are the shell's."""
    from trpexport.datasets import DATASETS

    return _starting(DATASETS, incomplete)


def precisions(incomplete: str) -> list[str]:
    """Offer precisions; behind a comma, further ones."""
    from trpexport.artifact.passes import PRECISIONS

    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in _starting(["fp32", *PRECISIONS], last)]


def metrics(incomplete: str) -> list[str]:
    """Offer metrics."""
    from trpexport.judge.metrics import METRICS

    return _starting(METRICS, incomplete)


def arm_cpus(incomplete: str) -> list[str]:
    """Offer processors that are emulated."""
    from trpexport.device.emulate.arm_cpus import CPUS

    return _starting(CPUS, incomplete)


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
