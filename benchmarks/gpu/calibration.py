"""Calibrated decomposition to half the MACs, on a CUDA device, and on the processor beside it.

    python -m benchmarks.gpu.calibration --data cifar10:DIR --out FILE [--seconds 400]
        [--devices cuda cpu] [--models craft:craft] [--checkpoint resnet20.th] [--small]

The trained network is judged on all test images of the data set; ImageNet networks, and those of
``--models``, have random weights and batch norms that know the images, enlarged to 224. Devices
take turns. Each case is written when it is there, one that fails with the reason, and none is begun
after ``--seconds``.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import trpexport as tx
from benchmarks.calibration_curve import Images
from benchmarks.environment import environment, run
from benchmarks.networks import random_network
from trpexport.checkpoints.factory import build_from_factory
from trpexport.plan import CALIBRATION

BATCH = 64
TRAINED = Path(__file__).parents[2] / "models_zoo" / "checkpoints" / "resnet20-plain.safetensors"


@dataclass(frozen=True)
class Case:
    """One network, how it is decomposed, and on how many images."""

    network: str
    scheme: str
    count: int


CASES = (
    Case("resnet20", "spatial", 512),
    Case("resnet50", "spatial", 256),
    Case("vgg16", "spatial", 128),
    Case("resnet20", "channel", 512),
    Case("resnet18", "spatial", 256),
)
SMALL = (Case("resnet20", "spatial", 64),)


def settled(name: str, images: NDArray[np.float32], device: str) -> nn.Module:
    """Return a network with random weights whose batch norms know the images.

    Args:
        name: of a preset of the zoo, or ``package.module:factory``.
        images: of 224 pixels.
        device: where they learn them.
    """
    torch.manual_seed(0)
    model = build_from_factory(name) if ":" in name else random_network(name, 1000)
    model.to(device)
    for norm in (one for one in model.modules() if isinstance(one, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    with torch.no_grad():
        for batch in torch.split(torch.from_numpy(images), BATCH):
            model.train()(batch.to(device))
    return model.cpu().eval()


def top1(model: nn.Module, images: Images, device: str) -> dict[str, Any]:
    """Return the share of test images that a network tells, and how many there were."""
    model.to(device)
    with torch.no_grad():
        found = [
            model(batch.to(device)).argmax(1).cpu().numpy()
            for batch in torch.split(torch.from_numpy(images.test), BATCH)
        ]
    right = np.concatenate(found) == images.labels
    return {"top1": 100.0 * float(right.mean()), "images": len(right)}


def tried(case: Case, device: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return what is measured of a case on a device, or why it failed."""
    try:
        return measured(case, device, args)
    except (tx.TrpexportError, RuntimeError) as error:
        return {"error": " ".join(str(error).split())}


def measured(case: Case, device: str, args: argparse.Namespace) -> dict[str, Any]:
    """Decompose one network on one device."""
    checkpoint = tx.load(args.checkpoint)
    images = Images(args.data, checkpoint, case.count)
    inputs = images.calibration
    if case.network == "resnet20":
        model = checkpoint.module.eval()
    else:
        inputs = inputs.repeat(7, axis=2).repeat(7, axis=3)
        model = settled(case.network, inputs, device)
    chooser = tx.ByBudget(macs=0.5, scheme=case.scheme, rank_multiple=1)
    start = time.perf_counter()
    small = tx.decompose(model, chooser, images=inputs, device=device)
    seconds = time.perf_counter() - start
    facts = small.plan.options[CALIBRATION]
    found = {
        "seconds": seconds,
        "output_error": facts["output_error"],
        "macs_ratio": small.plan.macs_before / small.plan.macs_after,
        "ranks": {layer.name: layer.rank for layer in small.plan.rewritten},
    }
    if case.network == "resnet20":
        found["before"] = top1(model, images, device)
        found |= top1(small.module.eval(), images, device)
    return found


def main() -> None:
    """Run the cases, each on both devices."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=Path, default=TRAINED, help="a trained ResNet-20")
    parser.add_argument("--data", required=True, help="as trpexport decompose --calib takes it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--devices", nargs="+", default=["cuda", "cpu"])
    parser.add_argument("--models", nargs="*", default=[], help="more, as package.module:factory")
    parser.add_argument("--small", action="store_true", help="one small case alone")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    start = time.perf_counter()
    rows: list[dict[str, Any]] = []
    others = [Case(name, "spatial", 64) for name in args.models]
    # The trained network first: it tells whether all is well.
    for case in SMALL if args.small else (*CASES[:2], *others, *CASES[2:]):
        row: dict[str, Any] = vars(case) | {"environment": environment()}
        for device in args.devices:
            if time.perf_counter() - start > args.seconds:
                return
            if device == "cuda":
                row["device"] = torch.cuda.get_device_name()
            row[device] = tried(case, device, args)
            print(case, device, {k: v for k, v in row[device].items() if k != "ranks"}, flush=True)
            args.out.write_text(json.dumps([*rows, row], indent=1) + "\n")
        rows.append(row)


if __name__ == "__main__":
    run(main)
