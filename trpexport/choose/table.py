"""What each layer would lose under each scheme at each rank: measured once, kept as JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trpexport.choose.gathering import Gatherer
from trpexport.choose.planner import Analysis, LayerSpectrum, analyse
from trpexport.cost import parameter_count
from trpexport.errors import NothingToDoError
from trpexport.files import read_json, writable_folder, write_json
from trpexport.lowrank.fit.moments import LayerMoments
from trpexport.lowrank.fit.patches import grouped
from trpexport.lowrank.fit.regression import TYPICAL_RIDGE, Regression
from trpexport.lowrank.fit.tucker import fit_of
from trpexport.lowrank.schemes import SCHEMES, Scheme
from trpexport.networks.torch.network_error import kernel_replaced, relative_distance
from trpexport.networks.torch.trace import CONVOLUTIONS

SCHEMA_VERSION = 5
# Ranks that are tried of each layer and scheme.
_MOST_RANKS = 12
# Images on which a layer's effect on the network's output is measured, one batch at most, and the
# relative squared error of the layer at which it is.
_GAIN_IMAGES = 16
_GAIN_ERROR = 0.03
_TINY = 1e-12


@dataclass(frozen=True)
class Option:
    """One way to write a layer.

    Attributes:
        scheme: name of the scheme; None for the layer as it is.
        rank: the rank; None for the layer as it is.
        macs: MACs for one image, all calls together.
        parameters: weights and bias.
        error: squared output error after calibration with a typical ridge, relative to the
            output's variance, in the metric of the network's output.
    """

    scheme: str | None
    rank: int | None
    macs: int
    parameters: int
    error: float


@dataclass(frozen=True)
class LayerOptions:
    """All ways to write a layer.

    Attributes:
        name: the layer.
        gains: by scheme, the squared error of the network's output for a squared error of the
            layer's, both relative, measured by rewriting this layer alone.
        options: the first is to leave the layer as it is.
    """

    name: str
    gains: Mapping[str, float]
    options: tuple[Option, ...]

    @property
    def gain(self) -> float:
        """The largest gain: no scheme is chosen because its own came out low by chance."""
        return max(self.gains.values(), default=0.0)

    def only(self, scheme: str) -> LayerOptions:
        """Return the layer without other schemes."""
        return replace(
            self,
            gains={name: gain for name, gain in self.gains.items() if name == scheme},
            options=tuple(option for option in self.options if option.scheme in (None, scheme)),
        )


@dataclass(frozen=True)
class SensitivityTable:
    """The layers that may be rewritten, and what each choice would cost and lose.

    Attributes:
        key: SHA-256 of all that the table depends on.
        layers: in the order in which they run.
        fixed_macs: MACs for one image of all that is not in ``layers``.
        fixed_parameters: parameters of all that is not in ``layers``.
    """

    key: str
    layers: tuple[LayerOptions, ...]
    fixed_macs: int
    fixed_parameters: int

    @property
    def schemes(self) -> list[str]:
        """Names of the schemes that any layer may take."""
        options = [option for layer in self.layers for option in layer.options]
        return sorted({option.scheme for option in options if option.scheme is not None})

    def only(self, scheme: str) -> SensitivityTable:
        """Return the table without other schemes."""
        return replace(self, layers=tuple(layer.only(scheme) for layer in self.layers))

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON-ready data, with its schema version."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SensitivityTable:
        """Read what :meth:`to_json` gave.

        Raises:
            ValueError: it is something else.
        """
        if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
            raise ValueError("no table of this version")
        try:
            layers = tuple(
                LayerOptions(
                    str(layer["name"]),
                    {str(name): float(gain) for name, gain in layer["gains"].items()},
                    tuple(_option(option) for option in layer["options"]),
                )
                for layer in data["layers"]
            )
            fixed = int(data["fixed_macs"]), int(data["fixed_parameters"])
            return cls(str(data["key"]), layers, *fixed)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a damaged table: {error}") from None


def _option(data: Mapping[str, Any]) -> Option:
    option = Option(**data)
    if not all(math.isfinite(number) for number in (option.macs, option.parameters, option.error)):
        raise ValueError("a number that is not finite")
    return option


def sensitivity_table(
    model: nn.Module,
    images: NDArray[np.floating[Any]] | Tensor,
    *,
    input_shape: Sequence[int],
    scheme: str = "auto",
    rank_multiple: int = 1,
    cache: Path | None = None,
    gatherer: Gatherer | None = None,
    announce: Callable[[str], None] | None = None,
    **options: Any,
) -> SensitivityTable:
    """Measure what each layer of a network loses on its own at a range of ranks.

    Args:
        model: the network; it is not changed.
        images: calibration images, as for :func:`~.layerwise.calibrate`.
        input_shape: shape of the network's input, batch first.
        scheme: name of the scheme; ``auto`` for all of them.
        rank_multiple: ranks are multiples of it, but for the largest one that saves MACs where
            that is below it.
        cache: folder of tables; a table of the same weights, images and options is read from it,
            a new one is written to it.
        gatherer: of the same network and images, where there is one.
        announce: called with a line on each layer.
        options: ``include``, ``exclude``, ``stride_1_only`` of :func:`trpexport.analyse`.

    Raises:
        TrpexportError: the scheme is unknown.
        PlanError: as :func:`trpexport.analyse`.
        DataError: the images do not fit.
        NothingToDoError: no layer would get cheaper at any rank.
        OutputError: the cache can't be written.
    """
    names = list(SCHEMES) if scheme == "auto" else [scheme]
    gatherer = gatherer or Gatherer(model, images, input_shape)
    key = _key(
        weights=_digest(model),
        images=gatherer.images.digest,
        schemes=names,
        input_shape=list(input_shape),
        rank_multiple=rank_multiple,
        options={name: options[name] for name in sorted(options)},
    )
    path = None if cache is None else writable_folder(cache) / f"sensitivity-{key[:16]}.json"
    found = None if path is None else _read(path, key)
    if found is not None:
        return found
    analyses = {
        name: analyse(model, input_shape=input_shape, scheme=name, **options) for name in names
    }
    table = _measure(
        model, analyses, gatherer, key=key, rank_multiple=rank_multiple, announce=announce
    )
    if path is not None:
        with suppress(ValueError):  # a table with NaN can't be kept: it will be measured again
            write_json(path, table.to_json())
    return table


def candidate_ranks(scheme: Scheme, layer: LayerSpectrum, multiple: int) -> list[int]:
    """Return the ranks to try: spread over the multiples that save MACs, the largest included."""
    largest = scheme.break_even_rank(layer.conv, layer.input_sizes[0])
    ranks = [*range(multiple, largest + 1, multiple)] or [largest][: int(largest > 0)]
    if len(ranks) <= _MOST_RANKS:
        return ranks
    # Closer together at small ranks, where the error falls fastest.
    places = np.geomspace(1, len(ranks), _MOST_RANKS).round().astype(int)
    spread = np.linspace(1, len(ranks), _MOST_RANKS).round().astype(int)
    return [ranks[place - 1] for place in np.unique((places + spread) // 2)]


def _measure(
    model: nn.Module,
    analyses: Mapping[str, Analysis],
    gatherer: Gatherer,
    *,
    key: str,
    rank_multiple: int,
    announce: Callable[[str], None] | None,
) -> SensitivityTable:
    first = next(iter(analyses.values()))
    fixed_macs = first.other_macs
    parameters = sum(parameter.numel() for parameter in model.parameters())
    probe = _Probe(model, gatherer)
    layers = []
    for index, layer in enumerate(first.layers):
        ranks = {
            name: candidate_ranks(analysis.scheme, layer, rank_multiple)
            for name, analysis in analyses.items()
            if analysis.layers[index].values is not None
        }
        dense = layer.macs((layer.conv,))
        if not any(ranks.values()):
            fixed_macs += dense
            continue
        moments = gatherer.gather(layer.name, layer.conv)
        own = parameter_count(layer.conv)
        parameters -= own
        options, gains = [Option(None, None, dense, own, 0.0)], {}
        for name, tried in ranks.items():
            if tried:
                found, gains[name] = _options(
                    model, layer, name, tried, moments=moments, probe=probe
                )
                options += found
        layers.append(LayerOptions(layer.name, gains, tuple(options)))
        if announce is not None:
            announce(f"{layer.name}: {len(options) - 1} ways to write it")
    if not layers:
        raise NothingToDoError(
            "no layer gets cheaper at any rank that may be chosen: allow a smaller multiple of "
            "ranks, or another scheme"
        )
    return SensitivityTable(key, tuple(layers), fixed_macs, parameters)


def _options(
    model: nn.Module,
    layer: LayerSpectrum,
    name: str,
    ranks: Sequence[int],
    *,
    moments: LayerMoments,
    probe: _Probe,
) -> tuple[list[Option], float]:
    """Return the options of a layer under one scheme, and its gain."""
    module = model.get_submodule(layer.name)
    assert isinstance(module, CONVOLUTIONS)
    conv, scheme = layer.conv, SCHEMES[name]
    weight, metric = grouped(module.weight, conv), moments.metric
    both = moments.fit + moments.held_out
    problem = fit_of(Regression(both, weight, TYPICAL_RIDGE, metric), scheme, conv)
    variance = both.variance(metric)
    errors = [error / variance if variance else 0.0 for error in problem.errors(ranks)]
    options = []
    for rank, error in zip(ranks, errors, strict=True):
        factors = scheme.factor_specs(conv, rank)
        options.append(
            Option(
                scheme=name,
                rank=rank,
                macs=layer.macs(factors),
                parameters=sum(map(parameter_count, factors)) + conv.out_channels * (not conv.bias),
                error=error,
            )
        )
    typical = min(options, key=lambda option: abs(math.log(max(option.error, _TINY) / _GAIN_ERROR)))
    assert typical.rank is not None
    kernels = problem.kernels(problem.weights(typical.rank))
    found = probe.squared_error(layer.name, kernels, problem.regression.bias(kernels))
    return options, found / max(typical.error, _TINY)


class _Probe:
    """Measures what the error of one layer does to the output of an otherwise original network."""

    def __init__(self, model: nn.Module, gatherer: Gatherer) -> None:
        self._model = model
        images = gatherer.images
        self._images = images.first(min(_GAIN_IMAGES, images.batch_size))
        self._replay = gatherer.replay(model)
        self._expected = list(self._replay.outputs(self._images))

    def squared_error(self, name: str, kernels: Tensor, bias: Tensor) -> float:
        """Return the squared relative error of the outputs with another kernel in one layer."""
        module = self._model.get_submodule(name)
        assert isinstance(module, CONVOLUTIONS)
        self._replay.advance(name, self._images)
        with kernel_replaced(module, kernels, bias):
            return relative_distance(self._expected, self._replay.outputs(self._images)) ** 2


def _key(**facts: Any) -> str:
    text = json.dumps({"schema_version": SCHEMA_VERSION, **facts}, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(model: nn.Module) -> str:
    """Return the SHA-256 of a network's structure and weights."""
    digest = hashlib.sha256(str(model).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _read(path: Path, key: str) -> SensitivityTable | None:
    """Return a cached table; None where there is none, or none that is whole."""
    try:
        table = SensitivityTable.from_json(read_json(path))
    except (OSError, ValueError):
        return None
    return table if table.key == key else None
