"""What each layer would lose under each scheme at each rank: measured once, kept as JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trpexport.choose.alignment import UNALIGNED, Alignment
from trpexport.choose.base import Price
from trpexport.choose.candidates import candidate_ranks, free_layers
from trpexport.choose.distance import output_errors, worst
from trpexport.choose.estimate import calibration_seconds
from trpexport.choose.gathering import Gatherer
from trpexport.choose.prices import PRICES
from trpexport.choose.selection import Selection
from trpexport.errors import NothingToDoError
from trpexport.files import read_json, writable_folder, write_json
from trpexport.latency.ways import Way
from trpexport.lowrank.chain import Chain
from trpexport.lowrank.fit.base import LayerFit, with_bias
from trpexport.lowrank.fit.layer import layer_fit
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.base import Network
from trpexport.ops import Layer, LinearOp
from trpexport.schema import check, each, fits, not_negative, number, text, whole
from trpexport.stages import Countdown, duration

SCHEMA_VERSION = 9
# Images on which a layer's effect on the network's output is measured, fewer if they are large, and
# the relative squared error of the layer at which it is.
_GAIN_IMAGES = 16
_GAIN_ERROR = 0.03
_TINY = 1e-12
_OPTION = {
    "scheme": (None, text),
    "rank": (None, whole(1)),
    "costs": each(not_negative),
    "error": not_negative,
}
_TABLE = {
    "schema_version": lambda version: version == SCHEMA_VERSION,
    "key": text,
    "fixed": each(number),
    "layers": [
        {
            "name": text,
            "gains": each(not_negative),
            "options": [lambda option: fits(option, _OPTION) and len(option) == len(_OPTION)],
        }
    ],
}


@dataclass(frozen=True)
class Option:
    """One way to write a layer.

    Attributes:
        scheme: name of the scheme; None for the layer as it is.
        rank: the rank; None for the layer as it is.
        costs: what it needs of each resource.
        error: squared output error after calibration with a typical ridge, relative to the
            output's variance, in the metric of the network's output.
    """

    scheme: str | None
    rank: int | None
    costs: Mapping[str, float]
    error: float

    @property
    def way(self) -> Way | None:
        """The scheme and the rank; None for the layer as it is."""
        if self.scheme is None or self.rank is None:
            return None
        return Way(self.scheme, self.rank)


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
        fixed: what all that is not in ``layers`` needs of each resource.
    """

    key: str
    layers: tuple[LayerOptions, ...]
    fixed: Mapping[str, float]

    @property
    def schemes(self) -> list[str]:
        """Names of the schemes that any layer may take."""
        options = [option for layer in self.layers for option in layer.options]
        return sorted({option.scheme for option in options if option.scheme is not None})

    def only(self, scheme: str) -> SensitivityTable:
        """Return the table without other schemes."""
        return replace(self, layers=tuple(layer.only(scheme) for layer in self.layers))

    def priced(
        self, resource: str, whole: float, layers: Mapping[str, Mapping[Way | None, float]]
    ) -> SensitivityTable:
        """Return the table with the costs of a further resource, and without what has none.

        Args:
            resource: what is scarce.
            whole: how much of it the network needs.
            layers: by layer, how much of it each way to write it needs; None for the layer as it
                is.
        """
        kept = []
        for layer in self.layers:
            costs = layers.get(layer.name, {})
            options = tuple(
                replace(option, costs={**option.costs, resource: costs[option.way]})
                for option in layer.options
                if option.way in costs
            )
            if len(options) > 1:
                kept.append(replace(layer, options=options))
        names = {layer.name for layer in kept}
        fixed = dict(self.fixed)
        for layer in self.layers:
            if layer.name not in names:
                for name, cost in layer.options[0].costs.items():
                    fixed[name] += cost
        fixed[resource] = whole - sum(layer.options[0].costs[resource] for layer in kept)
        return replace(self, layers=tuple(kept), fixed=fixed)

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON-ready data, with its schema version."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SensitivityTable:
        """Read what :meth:`to_json` gave.

        Raises:
            ValueError: it is something else.
        """
        check(data, _TABLE)
        layers = tuple(
            LayerOptions(
                layer["name"],
                dict(layer["gains"]),
                tuple(Option(**option) for option in layer["options"]),
            )
            for layer in data["layers"]
        )
        return cls(data["key"], layers, dict(data["fixed"]))


def sensitivity_table(
    network: Network,
    gatherer: Gatherer,
    *,
    scheme: str = "auto",
    selection: Selection | None = None,
    prices: Sequence[Price] = (),
    alignment: Alignment = UNALIGNED,
    cache: str | Path | None = None,
    announce: Callable[[str], None] | None = None,
) -> SensitivityTable:
    """Measure what each layer of a network loses on its own at a range of ranks.

    Args:
        network: the network.
        gatherer: of the same network, on the calibration images.
        scheme: name of the scheme; ``auto`` for all of them.
        selection: the layers that may be rewritten.
        prices: what options cost; all known resources where there are none.
        alignment: what ranks are multiples of.
        cache: folder of tables; a table of the same network, images and options is read from it,
            a new one is written to it, layer by layer, so that a stopped one goes on.
        announce: called with a line on each layer.

    Raises:
        TrpexportError: the scheme is unknown.
        PlanError: the network can't run, or a pattern matches no layer.
        NothingToDoError: no layer would get cheaper at any rank.
        OutputError: the cache can't be written.
    """
    names = list(SCHEMES) if scheme == "auto" else [scheme]
    selection = selection or Selection()
    prices = prices or [price for _, price in PRICES.items()]
    samples = gatherer.watch.samples
    key = _key(
        network=network.identity(),
        images=samples.digest,
        schemes=names,
        # By amounts as well: another device's seconds may bear the same name.
        resources=[(price.resource, price.whole(network)) for price in prices],
        rank_multiple=(alignment.multiple, alignment.is_asked),
        options=selection.options,
    )
    free = free_layers(network, names, selection)
    measurer = _Measurer(network, gatherer, prices, alignment)
    if cache is None:
        return measurer.table(key, free, announce)
    path = writable_folder(Path(cache)) / f"sensitivity-{key[:16]}.json"
    found = _read(path, key)
    if found is not None:
        return found
    begun = path.with_suffix(".part.json")

    def keep(table: SensitivityTable, place: Path = begun) -> None:
        with suppress(ValueError):  # a table with NaN can't be kept: it will be measured again
            write_json(place, table.to_json())

    table = measurer.table(key, free, announce, _read(begun, key), keep)
    keep(table, path)
    begun.unlink(missing_ok=True)
    return table


class _Measurer:
    """Measures what the layers of a network lose on their own.

    Args:
        network: the network.
        gatherer: of the same network, on the calibration images.
        prices: what options cost.
        alignment: what ranks are multiples of.
    """

    def __init__(
        self,
        network: Network,
        gatherer: Gatherer,
        prices: Sequence[Price],
        alignment: Alignment,
    ) -> None:
        self._network = network
        self._gatherer = gatherer
        self._prices = prices
        self._alignment = alignment
        samples = gatherer.watch.samples
        self._probe = network.watch(samples.first(min(_GAIN_IMAGES, samples.usual_batch)))

    def table(
        self,
        key: str,
        free: Mapping[str, Collection[str]],
        announce: Callable[[str], None] | None,
        begun: SensitivityTable | None = None,
        keep: Callable[[SensitivityTable], None] = lambda table: None,
    ) -> SensitivityTable:
        """Return the options of all layers.

        Args:
            key: of the table.
            free: names of the layers that each scheme may rewrite.
            announce: called with a line on each layer.
            begun: the table as far as it was measured before; None for not at all.
            keep: called with the table so far after each layer that was measured.

        Raises:
            NothingToDoError: there is none but to leave every layer as it is.
        """
        fixed = {price.resource: price.whole(self._network) for price in self._prices}
        known = {} if begun is None else {layer.name: layer for layer in begun.layers}
        layers: list[LayerOptions] = []
        tried = [(layer, self._ranks(layer, free)) for layer in self._network.layers]
        tried = [(layer, ranks) for layer, ranks in tried if any(ranks.values())]
        images = len(self._gatherer.watch.samples)
        if announce is not None and tried:
            seconds = calibration_seconds(
                self._network,
                [layer.name for layer, _ in tried],
                images,
                schemes=len(free),
                passes=1,
            )
            announce(f"{len(tried)} layers on {images} images: about {duration(seconds)}")
        countdown = Countdown(len(tried), done=len(known))
        for layer, ranks in tried:
            found = known.get(layer.name) or self._layer(layer, ranks)
            for resource, cost in found.options[0].costs.items():
                fixed[resource] -= cost
            layers.append(found)
            if layer.name in known:
                continue
            keep(SensitivityTable(key, tuple(layers), fixed))
            if announce is not None:
                count = len(found.options) - 1
                announce(f"{countdown.step()}: {layer.name}, ranks tried: {count}")
        if not layers:
            raise NothingToDoError(
                "no layer gets cheaper at any rank that may be chosen: allow a smaller multiple of "
                "ranks, or another scheme"
            )
        return SensitivityTable(key, tuple(layers), fixed)

    def _ranks(self, layer: Layer, free: Mapping[str, Collection[str]]) -> dict[str, Sequence[int]]:
        """Return the ranks to try of a layer under each scheme that may rewrite it."""
        return {
            name: candidate_ranks(SCHEMES[name], layer, self._alignment)
            for name, names in free.items()
            if layer.name in names
        }

    def _layer(self, layer: Layer, ranks: Mapping[str, Sequence[int]]) -> LayerOptions:
        evidence = self._gatherer.gather(layer)
        weight, _ = self._network.weights(layer.name)
        options, gains = [Option(None, None, self._costs(layer, (layer.op,)), 0.0)], {}
        for name, tried in ranks.items():
            fit = layer_fit(weight, layer.op, name, evidence)
            possible = [rank for rank in tried if fit.is_seen(rank)]
            if possible:
                found, gains[name] = self._options(layer, name, possible, fit)
                options += found
        return LayerOptions(layer.name, gains, tuple(options))

    def _costs(self, layer: Layer, ops: Sequence[LinearOp]) -> dict[str, float]:
        """Return what ``ops`` need of each resource in the place of a layer."""
        return {price.resource: price.of(layer, ops) for price in self._prices}

    def _options(
        self, layer: Layer, name: str, ranks: Sequence[int], fit: LayerFit
    ) -> tuple[list[Option], float]:
        """Return the options of a layer under one scheme, and its gain."""
        variance = fit.variance
        errors = [error / variance if variance else 0.0 for error in fit.errors(ranks)]
        options = [
            Option(
                scheme=name,
                rank=rank,
                costs=self._costs(layer, with_bias(SCHEMES[name].factor_ops(layer.op, rank))),
                error=error,
            )
            for rank, error in zip(ranks, errors, strict=True)
        ]
        typical = min(
            options, key=lambda option: abs(math.log(max(option.error, _TINY) / _GAIN_ERROR))
        )
        assert typical.rank is not None
        lost = self._squared_error(layer.name, fit.chain(typical.rank))
        return options, lost / max(typical.error, _TINY)

    def _squared_error(self, name: str, chain: Chain) -> float:
        """Return the squared relative error of the worst output with a chain in a layer's place."""
        batches = range(self._probe.samples.batches)
        expected = (self._probe.outputs(batch) for batch in batches)
        actual = (self._probe.outputs_with(name, chain, batch) for batch in batches)
        return worst(output_errors(expected, actual)) ** 2


def _key(**facts: Any) -> str:
    known = json.dumps({"schema_version": SCHEMA_VERSION, **facts}, sort_keys=True, default=list)
    return hashlib.sha256(known.encode()).hexdigest()


def _read(path: Path, key: str) -> SensitivityTable | None:
    """Return a cached table; None where there is none, or none that is whole."""
    try:
        table = SensitivityTable.from_json(read_json(path))
    except (OSError, ValueError):
        return None
    return table if table.key == key else None
