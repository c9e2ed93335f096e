"""What of trpexport works on this machine, tried: packages, execution providers."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from trpexport.errors import MissingDependencyError, TrpexportError
from trpexport.foreign import first_line
from trpexport.installing import DISTRIBUTION, install_command
from trpexport.measure.machine import machine_facts
from trpexport.runtime.providers import PROVIDERS, find_provider
from trpexport.runtime.session import open_session

EXTRAS: Mapping[str, str] = {
    "edge": "run, verify, bench, eval and gate ONNX files",
    "cpu": "decompose, tune, quantize, export, finetune",
    "cuda": "the same with an NVIDIA GPU",
    "data": "data sets of images",
    "train": "TensorBoard while training",
    "page": "reports as pages",
    "plot": "pictures of plots",
    "ray": "sweeps on several machines",
}
"""What each extra of the package is for."""

# What a package is imported as, where that is not its name with underscores.
_MODULES = {"pillow": "PIL", "scikit-learn": "sklearn", "onnxruntime-gpu": "onnxruntime"}
_REQUIREMENT = re.compile(r"""([\w.-]+).*\bextra *== *["']([\w-]+)["']""")


def diagnose() -> dict[str, Any]:
    """Return what is installed and what works, JSON-ready.

    - ``machine``: see :func:`~trpexport.measure.machine.machine_facts`; None without ONNX Runtime.
    - ``extras``: for each of the package's, its ``packages`` with their versions, or None and why
      in ``missing``, and the command that ``install``s them.
    - ``providers``: for each that ONNX Runtime could have, whether it ``works``, which is tried
      with a small network, and if not, the ``reason`` with the way to it.
    """
    try:
        machine: dict[str, Any] | None = machine_facts()
    except MissingDependencyError:
        machine = None
    return {
        "machine": machine,
        "extras": {name: _extra(name, found) for name, found in _requirements().items()},
        "providers": {name: _provider(name) for name in PROVIDERS},
    }


def _requirements() -> dict[str, list[str]]:
    """Return the packages of each extra, as the installed package declares them."""
    declared = metadata.requires(DISTRIBUTION) or []
    pairs = [match.groups() for one in declared if (match := _REQUIREMENT.match(one))]
    return {extra: [package for package, of in pairs if of == extra] for extra in EXTRAS}


def _extra(name: str, packages: list[str]) -> dict[str, Any]:
    versions: dict[str, str | None] = {}
    missing: dict[str, str] = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
            importlib.import_module(_MODULES.get(package, package.replace("-", "_")))
        except metadata.PackageNotFoundError:
            versions[package], missing[package] = None, "not installed"
        except Exception as error:  # whatever a package raises that can't be imported
            missing[package] = f"does not import: {first_line(error)}"
    return {
        "packages": versions,
        "missing": missing,
        "install": install_command(name) if missing else None,
    }


def _provider(name: str) -> dict[str, Any]:
    try:
        find_provider(name)
        open_session(small_network(), provider=name)
    except TrpexportError as error:
        return {"works": False, "reason": str(error)}
    except ModuleNotFoundError as error:
        return {"works": False, "reason": f"{error.name} is not installed"}
    return {"works": True, "reason": None}


def small_network() -> bytes:
    """Return a network of one convolution, which every provider has."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((4, 4, 3, 3), np.float32), "w")
    shape = [1, 4, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "a small network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content
