"""What Tucker-2 chains would add to ``--scheme auto``: the measurement behind leaving them out.

    python -m benchmarks.tucker2_gain --data cifar10:DIR resnet20.th resnet32.th

A Tucker-2 chain is 1x1, kh x kw, 1x1 (Kim et al., arXiv 1511.06530). For each layer and each pair
of its ranks, the least error of its output on calibration images has a closed form: the input
factor as in an input-channel pair, the other two by reduced-rank regression on what it gives
(Izenman 1975). These options join the sensitivity table of all schemes, and ranks are allotted
with and without them. Errors are squared errors of the network's output, predicted as
:mod:`trpexport.lowrank.calibration.allotment` predicts them. Writes ``results/tucker2_gain.json``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import trpexport as tx
from benchmarks.calibration_curve import SHAPE, Images
from benchmarks.environment import RESULTS, environment
from trpexport.cost import macs, parameter_count
from trpexport.lowrank.calibration.allotment import allot
from trpexport.lowrank.calibration.fit import TYPICAL_RIDGE, Factorization, Regression
from trpexport.lowrank.calibration.gathering import Gatherer
from trpexport.lowrank.calibration.layerwise import grouped
from trpexport.lowrank.calibration.moments import LayerMoments
from trpexport.lowrank.calibration.table import Option, sensitivity_table
from trpexport.lowrank.planner import LayerSpectrum
from trpexport.lowrank.schemes.channel import Channel
from trpexport.lowrank.schemes.input_channel import InputChannel

RATIOS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
NAME = "tucker2"
# Each rank is tried at about so many values.
STEPS = 24
INPUT = InputChannel()
CHANNEL = Channel()


def options(weight: torch.Tensor, layer: LayerSpectrum, moments: LayerMoments) -> list[Option]:
    """Return what Tucker-2 chains of one layer cost and lose, the cheaper ones only."""
    conv = layer.conv
    kernels = grouped(weight, conv)
    both, metric = moments.fit + moments.held_out, moments.metric
    regression = Regression(both, kernels, TYPICAL_RIDGE, metric)
    pair = Factorization(regression, INPUT, conv)
    variance = both.variance(metric)
    a, b = (normal[0] for normal in regression.normal)
    square = torch.eye(len(b), dtype=a.dtype) if metric is None else metric[0]
    values, vectors = torch.linalg.eigh(square)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    pull = float(regression.scale[0]) * kernels[0] @ kernels[0].T
    total = float(((both.covariance[2][0] + pull) * square).sum())
    taps = torch.eye(kernels.shape[2] // conv.in_channels, dtype=a.dtype)
    found = []
    for inner in range(1, conv.in_channels + 1, -(-conv.in_channels // STEPS)):
        wide, core = INPUT.factor_specs(conv, inner)
        project = torch.kron(pair.factors(inner)[0][0], taps)
        lower = torch.linalg.cholesky(project.T @ a @ project)
        whitened = torch.linalg.solve_triangular(lower, project.T @ b.T, upper=False)
        gains = torch.linalg.svdvals(whitened @ root).square().cumsum(0)
        for outer in range(1, len(gains) + 1, -(-conv.out_channels // STEPS)):
            chain = (wide, *CHANNEL.factor_specs(core, outer))
            cost = sum(macs((one,), size) for one, size in zip(chain, sizes(layer), strict=True))
            if cost < macs((conv,), layer.input_sizes[0]):
                error = max(0.0, total - float(gains[outer - 1])) / variance
                parameters = sum(map(parameter_count, chain)) + conv.out_channels
                found.append(Option(NAME, outer, cost, parameters, error))
    return found


def sizes(layer: LayerSpectrum) -> tuple[tuple[int, ...], ...]:
    """Return the input sizes of the three convolutions of a chain: the last gets the output."""
    size = tuple(layer.input_sizes[0])
    strides = layer.conv.stride
    return size, size, tuple(-(-side // step) for side, step in zip(size, strides, strict=True))


def measure(checkpoint: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row a MAC ratio."""
    loaded = tx.load_checkpoint(checkpoint)
    model = loaded.module.eval()
    images = Images(args.data, loaded, args.images).calibration
    gatherer = Gatherer(model, images, SHAPE)
    table = sensitivity_table(model, images, input_shape=SHAPE, cache=args.cache, gatherer=gatherer)
    spectra = {x.name: x for x in tx.analyse(model, input_shape=SHAPE, scheme="channel").layers}
    layers = []
    for layer in table.layers:
        spectrum = spectra[layer.name]
        more: list[Option] = []
        if INPUT.unsupported_reason(spectrum.conv) is None and spectrum.conv.groups == 1:
            moments = gatherer.gather(layer.name, spectrum.conv)
            more = options(model.get_parameter(f"{layer.name}.weight"), spectrum, moments)
        layers.append(replace(layer, options=(*layer.options, *more)))
    both = replace(table, layers=tuple(layers))
    rows = []
    for ratio in RATIOS:
        before, after = (allot(one, 1 / ratio) for one in (table, both))
        rows.append(
            {
                "network": checkpoint.stem,
                "macs_ratio": ratio,
                "squared_error": before.error,
                "squared_error_with_tucker2": after.error,
                "layers": len(layers),
                "layers_by_tucker2": sum(x.scheme == NAME for x in after.chosen.values()),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure every checkpoint."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", required=True, help="as trpexport decompose --calib takes it")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--cache", type=Path, help="folder for the sensitivity tables")
    args = parser.parse_args()
    rows = [row for checkpoint in args.checkpoints for row in measure(checkpoint, args)]
    text = json.dumps({"environment": environment(), "rows": rows}, indent=2) + "\n"
    (RESULTS / "tucker2_gain.json").write_text(text)


if __name__ == "__main__":
    main()
