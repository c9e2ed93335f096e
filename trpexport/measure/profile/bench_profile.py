"""The profile of a bench: the time of every layer, in the baseline and as its factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trpexport.bundle import PLAN
from trpexport.measure.profile.attribution import Attribution, attribute
from trpexport.measure.profile.comparison import LayerComparison, compare_profiles
from trpexport.measure.profile.placement import Placement, placement
from trpexport.measure.profile.profile import ProfileSettings, profile_models
from trpexport.measure.settings import BenchSettings
from trpexport.plan import Plan, read_plan


@dataclass(frozen=True)
class BenchProfile:
    """Where networks spend their time.

    Attributes:
        labels: what the networks are called.
        attributions: their times by layer, in the order of the graph.
        placements: which provider ran what.
        comparison: each original layer in the first and the last network; empty unless
            there are several and one is a bundle, whose plan says what belongs together.
        sessions: what is not ONNX Runtime's default of their sessions, as bundles recommend.
    """

    labels: tuple[str, ...]
    attributions: tuple[Attribution, ...]
    placements: tuple[Placement, ...]
    comparison: tuple[LayerComparison, ...]
    sessions: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the profile as JSON-ready data."""
        return {
            "kind": "profile",
            "models": [
                {
                    "label": label,
                    **attribution.to_json(),
                    "placement": place.to_json(),
                    "session": dict(session),
                }
                for label, attribution, place, session in zip(
                    self.labels, self.attributions, self.placements, self.sessions, strict=True
                )
            ],
            "comparison": [row.to_json() for row in self.comparison],
        }


def profile_bench(settings: BenchSettings, paths: Sequence[Path]) -> BenchProfile:
    """Profile the networks of a bench, with the first of its numbers of threads.

    Args:
        settings: what to run, and how.
        paths: what was named: files and bundles; the last bundle's plan is used.

    Raises:
        ModelError: a network can't be run or read.
        PlanError: the plan belongs to other networks.
    """
    models = [Path(model.path) for model in settings.models]
    sessions = [settings.session(model, settings.threads[0]) for model in settings.models]
    profiles = profile_models(
        models,
        ProfileSettings(
            provider=settings.provider,
            provider_options=settings.provider_options,
            threads=settings.threads[0],
            graph_optimization=settings.graph_optimization or "all",
            allow_spinning=settings.allow_spinning,
            runs=settings.min_runs,
            batch=settings.batch,
            shapes=settings.shapes,
            seed=settings.seed,
        ),
        sessions,
    )
    plan = _plan(paths)
    attributions = tuple(
        attribute(profile, model, plan) for profile, model in zip(profiles, models, strict=True)
    )
    comparison: tuple[LayerComparison, ...] = ()
    if plan is not None and len(models) > 1:
        comparison = compare_profiles(attributions[0], attributions[-1], plan)
    return BenchProfile(
        labels=tuple(model.label for model in settings.models),
        attributions=attributions,
        placements=tuple(map(placement, profiles, models)),
        comparison=comparison,
        sessions=tuple(sessions),
    )


def _plan(paths: Sequence[Path]) -> Plan | None:
    plans = [path / PLAN for path in paths if (path / PLAN).is_file()]
    return read_plan(plans[-1]) if plans else None
