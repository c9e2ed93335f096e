"""Layers that were fitted to images: what came of them, kept for a calibration that was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trpexport._version import __version__
from trpexport.arrays import read_arrays, write_arrays
from trpexport.errors import ModelError, OutputError
from trpexport.files import writable_folder
from trpexport.lowrank.chain import Chain
from trpexport.lowrank.fit.base import with_bias
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.base import Network
from trpexport.networks.samples import Samples
from trpexport.plan import LayerPlan, Plan
from trpexport.tensors import Array, Arrays

_FOLDER = "calibration"
_FORMAT = 2  # raised where layers come to be fitted otherwise, or are kept otherwise
# What fits that may be gone on from take of the cache, together.
_KEPT_BYTES = 2 << 30
_FACTS, _BIAS = "facts", "bias"
_NUMBERS = ("ridge", "weight_error", "error_before", "error_after")


@dataclass(frozen=True)
class LayerCalibration:
    """What calibration did to one layer. Errors are relative; outputs are those on the images.

    What counts of an output error is what it does to the network's: see
    :mod:`~trpexport.networks.torch.curvature`.

    Attributes:
        name: the layer.
        scheme: name of its scheme.
        rank: its rank.
        ridge: weight of the original kernel in the regression, relative to an input's variance.
        weight_error: kernel of the factors against the original one, Frobenius. It may be large:
            what the images never excite is free.
        error_before: output of the SVD's factors against the target, RMS.
        error_after: output of the calibrated factors against the target, RMS.
    """

    name: str
    scheme: str
    rank: int
    ridge: float
    weight_error: float
    error_before: float
    error_after: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.name}: output error {self.error_before:.3f} -> {self.error_after:.3f}"


Fit = tuple[Chain, LayerCalibration]


class FitStore:
    """Keeps the fitted layers of one network on some images, so that a stopped calibration goes on.

    What a layer is fitted to hangs on those before it: it is known by all rows of the plan up to
    its own. Any number of processes may use a folder at once; files that were used longest ago are
    removed while all take more than 2 GB.

    Args:
        cache: folder of what is kept from run to run; None to keep nothing.
        network: the network.
        samples: what its layers are fitted to.

    Raises:
        OutputError: the folder can't be made or written to.
    """

    def __init__(self, cache: str | Path | None, network: Network, samples: Samples) -> None:
        self._folder = None if cache is None else writable_folder(Path(cache) / _FOLDER)
        self._network = network
        self._samples = samples

    def recalled(self, plan: Plan, names: Collection[str]) -> dict[str, Fit | None]:
        """Return the fits of a plan that are known; None for layers whose rank can't be fitted.

        Args:
            plan: which layers are rewritten, how, and at which ranks.
            names: those that are fitted.
        """
        found: dict[str, Fit | None] = {}
        if self._folder is None:
            return found
        _prune(self._folder, _KEPT_BYTES)
        keys = self._keys(plan)
        for row in plan.rewritten:
            arrays = self._read(keys[row.name]) if row.name in names else None
            if arrays is not None:
                with suppress(KeyError, TypeError, ValueError, RuntimeError):  # not written here
                    found[row.name] = _fit(row, arrays, self._network) if arrays else None
        return found

    def keep(self, plan: Plan, name: str, fit: Fit | None) -> None:
        """Keep what came of a layer of a plan: None where its rank can't be fitted."""
        if self._folder is not None:
            self._write(self._keys(plan)[name], {} if fit is None else _arrays(*fit))

    def errors(self, plan: Plan) -> dict[str, float] | None:
        """Return the errors by output that a finished calibration ended with, if known."""
        arrays = None if self._folder is None else self._read(self._keys(plan)[""])
        if not arrays or any(array.shape for array in arrays.values()):
            return None
        return {name: float(array) for name, array in arrays.items()}

    def keep_errors(self, plan: Plan, errors: Mapping[str, float]) -> None:
        """Keep the errors, by output, that the calibration by a plan ended with."""
        if self._folder is not None:
            self._write(
                self._keys(plan)[""], {name: np.asarray(error) for name, error in errors.items()}
            )

    @cached_property
    def origin(self) -> str:
        """What all fits hang on, whatever the plan."""
        facts = {
            "format": _FORMAT,
            "versions": [__version__, torch.__version__],
            "network": self._network.identity(),
            "device": self._network.device.type,
            "images": self._samples.digest,
        }
        return json.dumps(facts, sort_keys=True)

    def _keys(self, plan: Plan) -> dict[str, str]:
        """Return what the fit of each layer is known by; under no name, the end."""
        digest = hashlib.sha256(self.origin.encode())
        found = {}
        for row in plan.rewritten:
            digest.update(json.dumps([row.name, row.scheme, row.rank]).encode())
            found[row.name] = digest.hexdigest()
        digest.update(b"errors")
        return {**found, "": digest.hexdigest()}

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{key[:32]}.npz"

    def _read(self, key: str) -> dict[str, Array] | None:
        """Return what was kept; None where nothing was, or it is damaged."""
        path = self._path(key)
        with suppress(ModelError, OSError):
            if path.is_file():
                path.touch()  # in use: what was used longest ago is removed first
                return read_arrays(path)
        return None

    def _write(self, key: str, arrays: Arrays) -> None:
        with suppress(OutputError):  # no reason not to go on
            write_arrays(self._path(key), arrays)


def _arrays(chain: Chain, told: LayerCalibration) -> dict[str, Array]:
    """Return a fitted layer as arrays."""
    assert chain.bias is not None
    kernels = {str(index): _array(kernel) for index, kernel in enumerate(chain.kernels)}
    facts = np.array([getattr(told, name) for name in _NUMBERS])
    return {_FACTS: facts, _BIAS: _array(chain.bias), **kernels}


def _fit(row: LayerPlan, arrays: Arrays, network: Network) -> Fit:
    """Return a fitted layer from arrays.

    Raises:
        KeyError, TypeError, ValueError, RuntimeError: they are something else.
    """
    assert row.scheme is not None
    assert row.rank is not None
    ops = with_bias(SCHEMES[row.scheme].factor_ops(row.op, row.rank))
    kernels = tuple(
        _tensor(arrays[str(index)], network).reshape(
            op.out_channels, op.in_channels // op.groups, *op.kernel
        )
        for index, op in enumerate(ops)
    )
    bias = _tensor(arrays[_BIAS], network).reshape(ops[-1].out_channels)
    told = dict(zip(_NUMBERS, arrays[_FACTS].tolist(), strict=True))
    chain = Chain(row.op, row.scheme, ops, kernels, bias, is_truncation=False)
    return chain, LayerCalibration(row.name, row.scheme, row.rank, **told)


def _array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().numpy()


def _tensor(array: Array, network: Network) -> Tensor:
    return torch.from_numpy(array).to(network.device)


def _prune(folder: Path, limit: int) -> None:
    """Remove the files of a folder that were used longest ago, while all take more than ``limit``.

    Args:
        folder: of fits.
        limit: in bytes.
    """
    files = []
    for path in folder.glob("*.npz"):
        with suppress(OSError):  # another process removes it as well
            facts = path.stat()
            files.append((facts.st_mtime_ns, facts.st_size, path))
    taken = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if taken <= limit:
            return
        with suppress(OSError):
            path.unlink()
        taken -= size
