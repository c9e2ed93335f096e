"""Calibrated decomposition to half the MACs, on a CUDA device and on the processor beside it.

    python -m benchmarks.gpu.calibration --checkpoint resnet20.th --data cifar10:DIR --out FILE
        [--seconds 400] [--device cpu --small]

The trained network is judged on all test images of the data set; ImageNet networks have random
weights and batch norms that know the images, enlarged to 224. Devices take turns; each case is
written when it is there, and none is begun after ``--seconds``.
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

BATCH = 64


@dataclass(frozen=True)
class Case:
    """One network, how it is decomposed, and on how many images."""

    network: str
    scheme: str
    count: int


CASES = (
    Case("resnet20", "spatial", 512),
    Case("resnet20", "channel", 512),
    Case("resnet18", "spatial", 256),
    Case("resnet50", "spatial", 256),
    Case("vgg16", "spatial", 128),
)
SMALL = (Case("resnet20", "spatial", 64),)


def settled(preset: str, images: NDArray[np.float32], device: str) -> nn.Module:
    """Return a network with random weights whose batch norms know the images."""
    model = random_network(preset, 1000).to(device)
    for norm in (one for one in model.modules() if isinstance(one, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    with torch.no_grad():
        for batch in torch.split(torch.from_numpy(images), BATCH):
            model.train()(batch.to(device))
    return model.eval()


def top1(model: nn.Module, images: Images, device: str) -> dict[str, Any]:
    """Return the share of test images that a network tells, and how many there were."""
    with torch.no_grad():
        found = [
            model(batch.to(device)).argmax(1).cpu().numpy()
            for batch in torch.split(torch.from_numpy(images.test), BATCH)
        ]
    right = np.concatenate(found) == images.labels
    return {"top1": 100.0 * float(right.mean()), "images": len(right)}


def measured(case: Case, device: str, args: argparse.Namespace) -> dict[str, Any]:
    """Decompose one network on one device."""
    checkpoint = tx.load(args.checkpoint)
    images = Images(args.data, checkpoint, case.count)
    inputs = images.calibration
    if case.network == "resnet20":
        model = checkpoint.module.eval().to(device)
    else:
        inputs = inputs.repeat(7, axis=2).repeat(7, axis=3)
        model = settled(case.network, inputs, device)
    chooser = tx.ByBudget(macs=0.5, scheme=case.scheme, rank_multiple=1)
    start = time.perf_counter()
    small = tx.decompose(model, chooser, images=inputs)
    seconds = time.perf_counter() - start
    facts = small.plan.options["calibration"]
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
    parser.add_argument("--checkpoint", type=Path, required=True, help="a trained ResNet-20")
    parser.add_argument("--data", required=True, help="as trpexport decompose --calib takes it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="one small case alone")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    start = time.perf_counter()
    rows: list[dict[str, Any]] = []
    for case in SMALL if args.small else CASES:
        row: dict[str, Any] = vars(case) | {"environment": environment()}
        for device in dict.fromkeys((args.device, "cpu")):
            if time.perf_counter() - start > args.seconds:
                break
            if device == "cuda":
                row["device"] = torch.cuda.get_device_name()
            row[device] = measured(case, device, args)
            print(case, device, {k: v for k, v in row[device].items() if k != "ranks"}, flush=True)
            args.out.write_text(json.dumps([*rows, row], indent=1) + "\n")
        rows.append(row)


if __name__ == "__main__":
    run(main)
