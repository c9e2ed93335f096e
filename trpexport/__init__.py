"""Low-rank CNNs from training to the edge.

The public names load what they need when they are first used, so that ``import trpexport`` is
instant and the commands that need no torch never load it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trpexport.checkpoints import Checkpoint, load_bundle, load_checkpoint, save_checkpoint
    from trpexport.datasets import Dataset, Preprocessing, open_dataset
    from trpexport.errors import TrpexportError
    from trpexport.export.bundling import BundleReport, ExportSettings, export_bundle
    from trpexport.export.calibrating import CalibrationSettings, Target
    from trpexport.export.pipeline import (
        Decomposition,
        Source,
        decompose_checkpoint,
        export_checkpoint,
    )
    from trpexport.lowrank.factorize import dense_twin, factorize
    from trpexport.lowrank.module_cost import count_modules
    from trpexport.lowrank.planner import Analysis, analyse, keep_all, make_plan
    from trpexport.lowrank.revision import revise_plan
    from trpexport.lowrank.survey import survey
    from trpexport.plan import ConvSpec, LayerPlan, Plan, read_plan
    from trpexport.runtime.counting.flops import count_onnx
    from trpexport.runtime.measuring.bench import BenchSettings, bench
    from trpexport.runtime.verify import verify_against_golden, verify_bundle, verify_models
    from trpexport.training.finetune import finetune
    from trpexport.training.recipe import RECIPES, Recipe
    from trpexport.training.settings import LowRank, RunSettings
    from trpexport.training.train import train
    from trpexport.training.trp import TrainedRankPruning

__version__ = "0.1.0"

_HOME = {
    "Analysis": "trpexport.lowrank.planner",
    "BenchSettings": "trpexport.runtime.measuring.bench",
    "BundleReport": "trpexport.export.bundling",
    "CalibrationSettings": "trpexport.export.calibrating",
    "Checkpoint": "trpexport.checkpoints",
    "ConvSpec": "trpexport.plan",
    "Dataset": "trpexport.datasets",
    "Decomposition": "trpexport.export.pipeline",
    "ExportSettings": "trpexport.export.bundling",
    "LayerPlan": "trpexport.plan",
    "LowRank": "trpexport.training.settings",
    "Plan": "trpexport.plan",
    "Preprocessing": "trpexport.datasets",
    "RECIPES": "trpexport.training.recipe",
    "Recipe": "trpexport.training.recipe",
    "RunSettings": "trpexport.training.settings",
    "Source": "trpexport.export.pipeline",
    "Target": "trpexport.export.calibrating",
    "TrainedRankPruning": "trpexport.training.trp",
    "TrpexportError": "trpexport.errors",
    "analyse": "trpexport.lowrank.planner",
    "bench": "trpexport.runtime.measuring.bench",
    "count_modules": "trpexport.lowrank.module_cost",
    "count_onnx": "trpexport.runtime.counting.flops",
    "decompose_checkpoint": "trpexport.export.pipeline",
    "dense_twin": "trpexport.lowrank.factorize",
    "export_bundle": "trpexport.export.bundling",
    "export_checkpoint": "trpexport.export.pipeline",
    "factorize": "trpexport.lowrank.factorize",
    "finetune": "trpexport.training.finetune",
    "keep_all": "trpexport.lowrank.planner",
    "load_bundle": "trpexport.checkpoints",
    "load_checkpoint": "trpexport.checkpoints",
    "make_plan": "trpexport.lowrank.planner",
    "open_dataset": "trpexport.datasets",
    "read_plan": "trpexport.plan",
    "revise_plan": "trpexport.lowrank.revision",
    "save_checkpoint": "trpexport.checkpoints",
    "survey": "trpexport.lowrank.survey",
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
