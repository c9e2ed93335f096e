"""Dense against low rank on a CUDA device: ResNets by PyTorch, each pass one CUDA graph.

    python -m benchmarks.gpu.speed --out speed.json [--seconds 100] [--device cpu --small]

Weights are random, ranks one share of the full rank for all layers in multiples of 8, the lowest
share of the MACs at most half. Batch norms are folded into the convolutions before them, in both.
A round times each network in turn; speed-ups are over rounds, with bootstrap intervals. The file
is written anew after each setting, and nothing is begun after ``--seconds``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.environment import environment, run
from benchmarks.networks import AlignedFraction, plan_at, random_network, unweighted
from trpexport.measure.statistics import ratio_interval, summarize
from trpexport.networks.torch.network import TorchNetwork
from trpexport.networks.torch.rewrite import with_factors

RATIO = 2.0
SCHEMES = ("spatial", "channel")
# How numbers are stored and multiplied: dtype, whether float32 is rounded to TF32, memory format.
MODES: dict[str, tuple[torch.dtype, bool, torch.memory_format]] = {
    "fp32": (torch.float32, False, torch.contiguous_format),
    "tf32": (torch.float32, True, torch.contiguous_format),
    "fp16 channels last": (torch.float16, False, torch.channels_last),
}
BLOCK_SECONDS, ROUNDS = 0.004, 25


def networks(preset: str) -> tuple[list[int], dict[str, nn.Module], dict[str, float]]:
    """Return the input's shape, the networks, and how many times fewer MACs they take."""
    zoo = importlib.import_module("trpexport.models_zoo")
    shape = list(zoo.parse_architecture(preset, num_classes=1000).input_shape)
    model = random_network(preset, 1000)
    found, saved = {"dense": settled(model, shape)}, {"dense": 1.0}
    network = TorchNetwork.open(model, shape)
    for scheme in SCHEMES:
        plan = plan_at(unweighted(network, scheme), RATIO, AlignedFraction)
        small = with_factors(model, plan).eval()
        for layer in plan.rewritten:
            for factor in small.get_submodule(layer.name).children():
                nn.init.kaiming_normal_(factor.weight)  # type: ignore[arg-type]
        found[scheme], saved[scheme] = settled(small, shape), plan.macs_before / plan.macs_after
    return shape, found, saved


def settled(model: nn.Module, shape: list[int]) -> nn.Module:
    """Return a network whose batch norms know their inputs, folded: no activation overflows."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(8, *shape[1:]))
    return folded(model.eval())


def folded(model: nn.Module) -> nn.Module:
    """Return a network in evaluation whose batch norms are part of the convolutions before them."""
    traced = fx.symbolic_trace(model)
    modules = dict(traced.named_modules())
    for node in traced.graph.nodes:
        norm = modules.get(str(node.target))
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        before = node.args[0]
        conv = modules.get(str(before.target))
        if isinstance(conv, nn.Conv2d) and len(before.users) == 1:
            traced.set_submodule(str(before.target), fuse_conv_bn_eval(conv, norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.recompile()
    return traced


def allow_tf32(allowed: bool) -> None:
    """Let float32 be rounded to TF32, or not."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


class Pass:
    """A forward pass that can be timed.

    Args:
        model: the network, on its device.
        images: its input there.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.on_cuda = images.is_cuda
        self.go: Callable[[], object] = lambda: model(images)
        self.output = model(images)
        if self.on_cuda:
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    model(images)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.output = model(images)  # what the graph writes must not be given to another
            self.go = graph.replay
        self.seconds(3)
        self.count = max(1, round(BLOCK_SECONDS / self.seconds(3)))

    def seconds(self, count: int) -> float:
        """Return how long one of ``count`` passes in a row takes."""
        if not self.on_cuda:
            start = time.perf_counter()
            for _ in range(count):
                self.go()
            return (time.perf_counter() - start) / count
        begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        begin.record()
        for _ in range(count):
            self.go()
        end.record()
        end.synchronize()
        return 1e-3 * float(begin.elapsed_time(end)) / count

    def is_finite(self) -> bool:
        """Say whether the output of the passes holds neither NaN nor infinity."""
        return bool(torch.isfinite(self.output).all())

    def block(self) -> NDArray[np.float64]:
        """Return the seconds of a pass, over about ``BLOCK_SECONDS`` of them."""
        return np.array([self.seconds(self.count)])


@torch.no_grad()
def measure(
    models: dict[str, nn.Module], shape: list[int], mode: str, device: torch.device, rounds: int
) -> dict[str, Any]:
    """Time networks in turns.

    Args:
        models: the first is what the others are compared with.
        shape: of the input.
        mode: one of ``MODES``.
        device: where.
        rounds: how often each is timed.
    """
    dtype, tf32, layout = MODES[mode]
    torch.manual_seed(0)
    images = torch.randn(shape).to(device, dtype).to(memory_format=layout)
    allow_tf32(tf32)
    passes = {}
    for name, model in models.items():
        model.to(device, dtype)
        model.to(memory_format=layout)  # type: ignore[call-overload]
        passes[name] = Pass(model, images)
    times: dict[str, list[NDArray[np.float64]]] = {name: [] for name in passes}
    for turn in range(rounds):
        for name in sorted(passes, reverse=bool(turn % 2)):
            times[name].append(passes[name].block())
    base, *_ = times.values()
    return {
        name: {
            "finite": passes[name].is_finite(),
            "milliseconds": 1e3 * summarize(np.concatenate(blocks)).median,
            "speedup": ratio_interval(base, blocks).to_json(),
        }
        for name, blocks in times.items()
    }


def main() -> None:
    """Measure every setting, cheap ones first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=100.0, help="when to stop")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="one network, batch and mode")
    args = parser.parse_args()
    device = torch.device(args.device)
    presets, batches, modes = ["resnet20", "resnet18", "resnet50"], [1, 64], list(MODES)
    if args.small:
        presets, batches, modes = presets[:1], batches[:1], modes[:1]
    torch.backends.cudnn.benchmark = True
    begun, entries = time.monotonic(), []
    facts = environment() | (
        {"card": torch.cuda.get_device_name()} if device.type == "cuda" else {}
    )
    for preset in presets:
        shape, models, saved = networks(preset)
        for mode in modes:
            for batch in batches:
                if time.monotonic() - begun > args.seconds:
                    return
                found = measure(
                    models, [batch, *shape[1:]], mode, device, 3 if args.small else ROUNDS
                )
                for name, entry in found.items():
                    entry["macs_saved"] = saved[name]
                entries.append({"network": preset, "batch": batch, "mode": mode, "models": found})
                print(json.dumps(entries[-1]), flush=True)
                args.out.write_text(
                    json.dumps({"environment": facts, "results": entries}, indent=2)
                )


if __name__ == "__main__":
    run(main)
