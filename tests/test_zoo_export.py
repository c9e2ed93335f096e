"""Every network of the zoo, rewritten under every scheme, verified, exported, run."""

from __future__ import annotations

import importlib
import json
from itertools import cycle
from pathlib import Path

import pytest
import torch

from trpexport import bundle
from trpexport.export.bundling import ExportSettings, export_bundle
from trpexport.lowrank.factorize import factorize
from trpexport.lowrank.planner import make_plan
from trpexport.lowrank.schemes import SCHEMES
from trpexport.runtime.session import open_session

ZOO = importlib.import_module("trpexport.models_zoo")
# Each preset with one scheme, so that neighbours meet different ones.
EVERY_PRESET = list(zip(ZOO.PRESETS, cycle(SCHEMES), strict=False))
# One of every kind of block, and every scheme, in little time.
FEW = (
    ("resnet20", "channel"),
    ("resnet20", "spatial"),
    ("resnet20", "decoupling"),
    ("resnet20-a", "spatial"),
    ("preresnet20", "channel"),
    ("wrn-16-4", "decoupling"),
    ("vgg11_bn", "channel"),
    ("densenet-40-12", "channel"),
    ("alexnet", "spatial"),
)


def rewrite_and_export(preset: str, scheme: str, out: Path, *, dynamic_batch: bool) -> None:
    """Rewrite every layer that the scheme takes, export, and run the file at batch 1 and 3."""
    torch.manual_seed(0)
    architecture = ZOO.parse_architecture(preset, num_classes=10)
    model = architecture.build().eval()
    shape = architecture.input_shape
    if shape[2] > 64:  # the same layers at a tenth of the cost
        shape = (*shape[:2], 64, 64)
    plan = make_plan(
        model, scheme=scheme, criterion="fraction:0.25", input_shape=shape, keep_expensive=True
    )
    assert plan.rewritten
    settings = ExportSettings(verify_seconds=0, simplify=False, dynamic_batch=dynamic_batch)
    # Raises unless the rewrite and the ONNX file are equivalent at float32 tolerance.
    export_bundle(factorize(model, plan), plan, out, original=model, settings=settings)
    report = json.loads((out / bundle.REPORT).read_text())
    assert len(plan.rewritten) == report["layers_rewritten"]
    session = open_session(out / bundle.MODEL)
    for batch in (1, 3) if dynamic_batch else (1,):
        outputs = session.run(session.random_inputs(batch))
        assert outputs["output"].shape == (batch, 10)


@pytest.mark.parametrize(("preset", "scheme"), FEW)
def test_few_networks(preset: str, scheme: str, tmp_path: Path) -> None:
    rewrite_and_export(preset, scheme, tmp_path / "out", dynamic_batch=True)


def test_batch_one(tmp_path: Path) -> None:
    rewrite_and_export("resnet20-a", "spatial", tmp_path / "out", dynamic_batch=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("preset", "scheme"), EVERY_PRESET)
def test_every_network(preset: str, scheme: str, tmp_path: Path) -> None:
    rewrite_and_export(preset, scheme, tmp_path / "out", dynamic_batch=True)
