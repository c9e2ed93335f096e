"""Low-rank CNNs from training to the edge.

The public names load what they need when they are first used, so that ``import trpexport`` is
instant and the commands that need no torch never load it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trpexport._version import __version__

if TYPE_CHECKING:
    from trpexport.artifact.build import BundleReport, ExportSettings, export_bundle
    from trpexport.checkpoints import Checkpoint, load_bundle, load_checkpoint, save_checkpoint
    from trpexport.choose.calibrating import CalibrationSettings, Target
    from trpexport.choose.planner import Analysis, analyse, keep_all, make_plan
    from trpexport.choose.revision import revise_plan
    from trpexport.choose.survey import survey
    from trpexport.datasets import Dataset, Preprocessing, open_dataset
    from trpexport.errors import TrpexportError
    from trpexport.measure.bench import BenchSettings, bench
    from trpexport.networks.torch.counting import count_modules
    from trpexport.networks.torch.factorize import dense_twin, factorize
    from trpexport.onnxfile.counting import count_onnx
    from trpexport.pipeline import (
        Decomposition,
        Source,
        decompose_checkpoint,
        export_checkpoint,
    )
    from trpexport.plan import ConvSpec, LayerPlan, Plan, read_plan
    from trpexport.runtime.verify import verify_against_golden, verify_bundle, verify_models
    from trpexport.training.finetune import finetune
    from trpexport.training.recipe import RECIPES, Recipe
    from trpexport.training.settings import LowRank, RunSettings
    from trpexport.training.train import train
    from trpexport.training.trp import TrainedRankPruning

_HOME = {
    "Analysis": "trpexport.choose.planner",
    "BenchSettings": "trpexport.measure.bench",
    "BundleReport": "trpexport.artifact.build",
    "CalibrationSettings": "trpexport.choose.calibrating",
    "Checkpoint": "trpexport.checkpoints",
    "ConvSpec": "trpexport.plan",
    "Dataset": "trpexport.datasets",
    "Decomposition": "trpexport.pipeline",
    "ExportSettings": "trpexport.artifact.build",
    "LayerPlan": "trpexport.plan",
    "LowRank": "trpexport.training.settings",
    "Plan": "trpexport.plan",
    "Preprocessing": "trpexport.datasets",
    "RECIPES": "trpexport.training.recipe",
    "Recipe": "trpexport.training.recipe",
    "RunSettings": "trpexport.training.settings",
    "Source": "trpexport.pipeline",
    "Target": "trpexport.choose.calibrating",
    "TrainedRankPruning": "trpexport.training.trp",
    "TrpexportError": "trpexport.errors",
    "analyse": "trpexport.choose.planner",
    "bench": "trpexport.measure.bench",
    "count_modules": "trpexport.networks.torch.counting",
    "count_onnx": "trpexport.onnxfile.counting",
    "decompose_checkpoint": "trpexport.pipeline",
    "dense_twin": "trpexport.networks.torch.factorize",
    "export_bundle": "trpexport.artifact.build",
    "export_checkpoint": "trpexport.pipeline",
    "factorize": "trpexport.networks.torch.factorize",
    "finetune": "trpexport.training.finetune",
    "keep_all": "trpexport.choose.planner",
    "load_bundle": "trpexport.checkpoints",
    "load_checkpoint": "trpexport.checkpoints",
    "make_plan": "trpexport.choose.planner",
    "open_dataset": "trpexport.datasets",
    "read_plan": "trpexport.plan",
    "revise_plan": "trpexport.choose.revision",
    "save_checkpoint": "trpexport.checkpoints",
    "survey": "trpexport.choose.survey",
    "train": "trpexport.training.train",
    "verify_against_golden": "trpexport.runtime.verify",
    "verify_bundle": "trpexport.runtime.verify",
    "verify_models": "trpexport.runtime.verify",
}

__all__ = [
    "RECIPES",
    "Analysis",
    "BenchSettings",
    "BundleReport",
    "CalibrationSettings",
    "Checkpoint",
    "ConvSpec",
    "Dataset",
    "Decomposition",
    "ExportSettings",
    "LayerPlan",
    "LowRank",
    "Plan",
    "Preprocessing",
    "Recipe",
    "RunSettings",
    "Source",
    "Target",
    "TrainedRankPruning",
    "TrpexportError",
    "__version__",
    "analyse",
    "bench",
    "count_modules",
    "count_onnx",
    "decompose_checkpoint",
    "dense_twin",
    "export_bundle",
    "export_checkpoint",
    "factorize",
    "finetune",
    "keep_all",
    "load_bundle",
    "load_checkpoint",
    "make_plan",
    "open_dataset",
    "read_plan",
    "revise_plan",
    "save_checkpoint",
    "survey",
    "train",
    "verify_against_golden",
    "verify_bundle",
    "verify_models",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'trpexport' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
