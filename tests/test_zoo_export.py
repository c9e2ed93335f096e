"""Networks of the zoo, rewritten, verified, exported, run."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

import trpexport as tx
from trpexport import bundle
from trpexport.runtime.session import open_session

ZOO = importlib.import_module("trpexport.models_zoo")
# The whole matrix takes an hour: benchmarks/zoo_matrix.py. Here, one of every kind of block and
# every scheme in little time, then the rest of the kinds, each under the scheme that strains it.
FEW = (
    ("resnet20(depth=8)", "tucker2"),
    ("resnet20-a(depth=8)", "spatial"),
    ("preresnet20(depth=8)", "channel"),
    ("wrn-16-4(depth=10)", "decoupling"),
    ("vgg11_bn", "channel"),
    ("densenet-40-12(depth=10)", "channel"),
    ("alexnet", "spatial"),
)
MORE = (
    ("resnet20", "tucker2"),
    ("resnet20-a", "spatial"),
    ("preresnet20", "channel"),
    ("wrn-16-4", "decoupling"),
    ("resnet20", "channel"),
    ("resnet20", "spatial"),
    ("resnet20", "decoupling"),
    ("densenet-40-12", "channel"),
    ("resnet20-bottleneck", "spatial"),
    ("resnet20-bottleneck-a", "channel"),
    ("resnet44-trp", "decoupling"),
    ("preresnet20-bottleneck", "decoupling"),
    ("resnext29-32x4d", "channel"),
    ("resnext29-32x4d", "spatial"),
    ("resnext29-32x4d", "decoupling"),
    ("vgg11", "decoupling"),
    ("resnet20-a", "spatial-channel"),
    ("densenet-40-12", "spatial"),
    ("densenet-bc-100-12", "channel"),
    ("alexnet-trp", "decoupling"),
    ("alexnet-imagenet", "channel"),
    ("resnet18", "spatial"),
    ("resnet18-cifar", "decoupling"),
    ("resnet50", "channel"),
    ("resnext50_32x4d", "spatial"),
)


def rewrite_and_export(preset: str, scheme: str, out: Path, *, dynamic_batch: bool) -> None:
    """Rewrite every layer that the scheme takes, export, and run the file at batch 1 and 3."""
    torch.manual_seed(0)
    architecture = ZOO.parse_architecture(preset, num_classes=10)
    model = architecture.build().eval()
    shape = architecture.input_shape
    if shape[2] > 64:  # the same layers at a tenth of the cost
        shape = (*shape[:2], 64, 64)
    chooser = tx.ByCriterion(scheme, "fraction:0.25", keep_expensive=True)
    small = tx.decompose(model, chooser, example=shape)
    assert small.plan.rewritten
    # Raises unless the rewrite and the ONNX file are equivalent at float32 tolerance.
    tx.export(small, out, verify_seconds=0, simplify=False, dynamic_batch=dynamic_batch)
    report = json.loads((out / bundle.REPORT).read_text())
    assert len(small.plan.rewritten) == report["layers_rewritten"]
    session = open_session(out / bundle.MODEL)
    for batch in (1, 3) if dynamic_batch else (1,):
        outputs = session.run(session.random_inputs(batch))
        assert outputs["output"].shape == (batch, 10)


@pytest.mark.parametrize(("preset", "scheme"), FEW)
def test_few_networks(preset: str, scheme: str, tmp_path: Path) -> None:
    rewrite_and_export(preset, scheme, tmp_path / "out", dynamic_batch=True)


def test_batch_one(tmp_path: Path) -> None:
    rewrite_and_export("resnet20-a(depth=8)", "spatial", tmp_path / "out", dynamic_batch=False)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # AlexNet has linear layers of 4,096 singular values
@pytest.mark.parametrize(("preset", "scheme"), MORE)
def test_more_networks(preset: str, scheme: str, tmp_path: Path) -> None:
    rewrite_and_export(preset, scheme, tmp_path / "out", dynamic_batch=True)
