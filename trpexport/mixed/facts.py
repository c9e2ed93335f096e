"""Why each layer has the precision that it has, in figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trpexport.bundle import FLOAT32
from trpexport.mixed.building import Built
from trpexport.mixed.mix import Mix
from trpexport.mixed.offer import Offer
from trpexport.quantization.wiring import INT8

_SAME = 1e-4  # of the time of the network: no difference


def mixed_facts(found: Built, alone: Built, offer: Offer) -> dict[str, Any]:
    """Return what was chosen of each layer and why, JSON-ready.

    Args:
        found: the network.
        alone: the original network in int8 alone.
        offer: what it was chosen from.
    """
    times = offer.times
    return {
        "error": found.error,
        "predicted_error": math.sqrt(offer.predicted(found.mix).error),
        "drop": found.drop,
        "int8_alone": {
            "speedup": alone.speedup.to_json(),
            "error": alone.error,
            "drop": alone.drop,
        },
        "conversion_seconds": times.conversions(found.mix) * times.latency,
        "layers": [_layer(name, found.mix, offer) for name in times.places.layers],
    }


def would_do(calibration: Mapping[str, Any]) -> bool:
    """Whether the original network in int8 alone keeps within the limit of an error or a drop."""
    kind, limit = (calibration["target"][key] for key in ("kind", "value"))
    value = calibration["latency"]["mixed"]["int8_alone"].get(kind)
    return kind in ("error", "drop") and value is not None and value <= limit


def _layer(name: str, mix: Mix, offer: Offer) -> dict[str, Any]:
    """Return what a layer takes and loses in both precisions, and what the other would change."""
    times, way, precision = offer.times, mix.ways.get(name), mix.precisions[name]
    seconds = {}
    for one in (FLOAT32, INT8):
        share = times.share(name, way, one)
        seconds[one] = None if share is None else share * times.latency
    return {
        "name": name,
        "precision": precision,
        "written": None if way is None else str(way),
        "seconds": seconds,
        "int8_error": math.sqrt(offer.int8_error(name, way)),
        "reason": _reason(name, mix, offer),
    }


def _reason(name: str, mix: Mix, offer: Offer) -> str:
    precision, way = mix.precisions[name], mix.ways.get(name)
    other = FLOAT32 if precision == INT8 else INT8
    if offer.times.share(name, way, other) is None:
        return f"its time in {other} is not known"
    now = offer.predicted(mix)
    then = offer.predicted(replace(mix, precisions={**mix.precisions, name: other}))
    slower = then.seconds / now.seconds - 1
    if precision == INT8:
        if slower > _SAME:
            return f"in float32 the network would take {slower:.1%} longer"
        return "in float32 the network would be no faster, for its conversions"
    if slower > -_SAME:
        before, after = (offer.times.share(name, way, one) for one in (FLOAT32, INT8))
        assert before is not None and after is not None
        if after >= before - _SAME:
            return "it is no faster in int8"
        return "conversions around it cost as much as int8 saves"
    before, after = (math.sqrt(one.error) for one in (now, then))
    return (
        f"int8 saves {-slower:.1%} of the time, at an error of {after:.3f} instead of {before:.3f}"
    )
