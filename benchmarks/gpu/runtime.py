"""Dense against low rank in ONNX Runtime on a CUDA device: its CUDA provider, and TensorRT.

    python -m benchmarks.gpu.runtime --out runtime.json [--seconds 90]
        [--providers cpu --small]

The networks of :mod:`benchmarks.gpu.speed`, as ONNX files in float32 and float16, timed in turns by
``trpexport bench`` with inputs and outputs on the device. A provider that is not there, or a
setting that fails, is an entry with the reason. The file is written anew after each setting, and
nothing is begun after ``--seconds``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import trpexport as tx
from benchmarks.environment import environment, run
from benchmarks.gpu.speed import networks
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.torch.network import TorchNetwork
from trpexport.quantization.half import FLOAT16, convert
from trpexport.quantization.settings import QuantizationSettings
from trpexport.tensors import Array

PROVIDERS, PRECISIONS = ("cuda", "tensorrt"), ("fp32", "fp16")
PRESETS, BATCHES = ("resnet50", "resnet18", "resnet20"), (1, 64)
# For one network of a bench, in seconds; the method needs no more on a quiet machine.
TIMED: dict[str, Any] = {"min_time": 0.3, "max_time": 1.0, "warmup_seconds": 1.0, "memory": False}


Files = dict[str, Path]


def written(preset: str, precisions: Sequence[str], folder: Path) -> dict[str, Files]:
    """Write a network and its low-rank ones as ONNX; return their files by precision and name."""
    shape, models, _ = networks(preset)
    found: dict[str, Files] = {precision: {} for precision in precisions}
    for name, model in models.items():
        file = folder / f"{name}.onnx"
        network = TorchNetwork.open(model, shape)
        network.write_onnx(file, OnnxSettings(dynamic_batch=True, legacy_exporter=True))
        found["fp32"][name] = file
        if "fp16" in found:
            half = file.with_name(f"{name}-fp16.onnx")
            convert(file, half, FLOAT16, QuantizationSettings(noise(network), provider="cuda"))
            found["fp16"][name] = half
    return found


def noise(network: TorchNetwork) -> dict[str, Array]:
    """Return a few inputs of a network, which tell what overflows in float16."""
    generator = np.random.default_rng(0)
    return {
        name: generator.standard_normal((4, *wanted.shape[1:])).astype(np.float32)
        for name, wanted in network.inputs.items()
    }


def measured(files: Files, provider: str, batch: int) -> dict[str, Any]:
    """Return the milliseconds and speed-ups of files on a provider, or why there are none."""
    try:
        record = tx.bench(list(files.values()), provider=provider, batch=batch, **TIMED)
    except (tx.TrpexportError, RuntimeError) as error:
        return {"error": " ".join(str(error).split())}
    timed = record["results"][0]["models"]
    return {
        "models": {
            name: {
                "milliseconds": 1e3 * entry["seconds"]["median"],
                "speedup": entry["ratio"],
                "session_seconds": entry["session_seconds"],
            }
            for name, entry in zip(files, timed, strict=True)
        }
    }


def settings(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield an entry a setting."""
    presets, batches, precisions = [*PRESETS], [*BATCHES], [*PRECISIONS]
    if args.small:
        presets, batches, precisions = presets[-1:], batches[:1], precisions[:1]
    begun = time.monotonic()
    for preset in presets:
        with tempfile.TemporaryDirectory() as folder:
            files = written(preset, precisions, Path(folder))
            for provider, precision, batch in product(args.providers, precisions, batches):
                if time.monotonic() - begun > args.seconds:
                    return
                setting = {"network": preset, "provider": provider}
                setting |= {"precision": precision, "batch": batch}
                yield setting | measured(files[precision], provider, batch)


def main() -> None:
    """Measure every setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=90.0, help="when to stop")
    parser.add_argument("--providers", nargs="+", default=PROVIDERS)
    parser.add_argument("--small", action="store_true", help="one network, batch and precision")
    args = parser.parse_args()
    facts, entries = environment(), []
    for entry in settings(args):
        entries.append(entry)
        print(json.dumps(entry), flush=True)
        args.out.write_text(json.dumps({"environment": facts, "results": entries}, indent=2))


if __name__ == "__main__":
    run(main)
