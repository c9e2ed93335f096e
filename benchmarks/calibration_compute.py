r"""What calibration gains by the way in which it multiplies and convolves, on a CPU.

    PYTHONPATH=../shared/models python -m benchmarks.calibration_compute [craft:Craft ...]

Products of float32 matrices as moments need them, by oneDNN (``trpexport.lowrank.products``) and by
what PyTorch takes, which is MKL; and forward passes with the channels of images last in memory and
first. Ratios of medians from one interleaved run on one thread. Further networks are factories,
``package.module:function``, of networks for images of 224 x 224.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.environment import RESULTS, environment, run
from trpexport.lowrank.products import row_products
from trpexport.networks.torch.arguments import Arguments
from trpexport.networks.torch.layout import channels_last

RESULT = RESULTS / "calibration_compute.json"
ROUNDS = 9
# Rows and elements of blocks of patches: K = 4608, 2304, 1152, 576 in blocks of four million.
SHAPES = ((4608, 868), (2304, 1736), (1152, 3472), (576, 6944))
PRESETS = {"resnet20": (64, 3, 32, 32), "resnet50": (4, 3, 224, 224), "vgg16": (2, 3, 224, 224)}
PHOTOGRAPHS = (2, 3, 224, 224)


def interleaved(*ways: Callable[[], object]) -> list[float]:
    """Return the median of seconds that each way takes, all in turns."""
    seconds: list[list[float]] = [[] for _ in ways]
    for turn in range(ROUNDS + 1):
        for taken, way in zip(seconds, ways, strict=True):
            started = time.perf_counter()
            way()
            if turn:  # the first one sets up what others reuse
                taken.append(time.perf_counter() - started)
    return [median(taken) for taken in seconds]


def product(rows: int, elements: int) -> dict[str, Any]:
    """Return how fast rows are multiplied with each other, in 1e9 operations a second."""
    some = torch.randn(1, rows, elements)
    ours, usual = interleaved(lambda: row_products(some, some), lambda: some @ some.mT)
    operations = 2e-9 * rows * rows * elements
    return {"onednn": operations / ours, "pytorch": operations / usual, "ratio": usual / ours}


def forward(model: nn.Module, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return how long a network takes with either layout of its input, in seconds."""
    first = Arguments.of(torch.randn(*shape))
    last = channels_last(first)
    with torch.no_grad():
        ours, usual = interleaved(lambda: last.call(model), lambda: first.call(model))
    return {"channels_last": ours, "channels_first": usual, "ratio": usual / ours}


def main() -> None:
    """Measure all and print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("factories", nargs="*")
    factories = parser.parse_args().factories
    torch.set_num_threads(1)
    zoo = importlib.import_module("trpexport.models_zoo")
    found = {f"product/{rows}x{elements}": product(rows, elements) for rows, elements in SHAPES}
    for preset, shape in PRESETS.items():
        model = zoo.parse_architecture(preset, num_classes=10).build().eval()
        found[f"forward/{preset}"] = forward(model, shape)
    for factory in factories:
        module, _, name = factory.partition(":")
        model = getattr(importlib.import_module(module), name)().eval()
        found[f"forward/{factory}"] = forward(model, PHOTOGRAPHS)
    RESULT.write_text(json.dumps({"environment": environment(), "results": found}, indent=2) + "\n")
    for key, row in found.items():
        print(f"{key:30}", "  ".join(f"{name} {value:.3g}" for name, value in row.items()))


if __name__ == "__main__":
    run(main)
