"""The spectrum of every layer, and what criteria make of it, as JSON-ready data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from trpexport.choose.survey import survey

if TYPE_CHECKING:
    from trpexport.choose.spectra import Analysis, LayerSpectrum
    from trpexport.lowrank.criteria import Criterion
    from trpexport.networks.base import Origin


def inspection(source: Origin, analysis: Analysis, criteria: Sequence[Criterion]) -> dict[str, Any]:
    """Return each layer's spectrum and ranks, and what each criterion would do.

    Args:
        source: where the network comes from.
        analysis: its spectra.
        criteria: what to try.
    """
    choices = survey(analysis, criteria)
    tried = [one for one in criteria if str(one) in {choice.criterion for choice in choices}]
    return {
        "architecture": source.label,
        "sha256": source.sha256,
        **analysis.bare.inputs.to_json(),
        "scheme": analysis.scheme.name,
        "notes": list(source.notes),
        "layers": [_layer(layer, analysis, tried) for layer in analysis.layers],
        "criteria": [asdict(choice) for choice in choices],
        "macs": analysis.bare.macs_before,
        "uncounted": dict(analysis.bare.uncounted),
    }


def _layer(
    layer: LayerSpectrum, analysis: Analysis, criteria: Sequence[Criterion]
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": layer.name,
        "operator": str(layer.op),
        "macs": layer.macs((layer.op,)),
        "reason_kept": layer.reason,
    }
    if layer.values is None:
        return facts
    return facts | {
        "full_rank": analysis.scheme.full_rank(layer.op),
        "break_even_rank": analysis.scheme.break_even_rank(layer.op, layer.layer.calls),
        "ranks": {str(criterion): analysis.rank(layer, criterion) for criterion in criteria},
        "spectrum": layer.envelope,
    }
