"""What two public networks lose against MACs, by every curve measured; and what others say.

    python -m benchmarks.accuracy_plot docs/pictures/accuracy.svg

Reads ``results/calibration_curve.json`` and ``results/refine.json``; each point is top-1 on the
test images at hand against that of the same network as it is. Figures of others are as they
published them, against their own networks: where they trained it says so.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import calibration_curve, refine
from benchmarks.environment import run

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Style:
    """How a curve is drawn; colours are told apart without seeing red or green (Okabe and Ito)."""

    label: str
    marker: str
    colour: str
    line: str = "-"
    hollow: bool = False


MEASURED = {
    "refined": Style("calibrated and refined", "*", "#d55e00"),
    "auto": Style("calibrated, auto", "D", "#000000"),
    "spatial": Style("calibrated, spatial", "o", "#0072b2"),
    "decoupling": Style("calibrated, decoupling", "s", "#009e73", "--"),
    "channel": Style("calibrated, channel", "^", "#cc79a7", "-."),
    "svd": Style("singular values alone, spatial", "x", "#7f7f7f", ":"),
}
OTHERS = {
    "trp": Style("TRP+Nu, trained (Xu et al.)", "P", "#56b4e9", "none", hollow=True),
    "haloc": Style("HALOC, trained", "h", "#56b4e9", "none", hollow=True),
    "aimet": Style("AIMET, greedy on labels, no training", "v", "#e69f00", ":", hollow=True),
}
# MACs of the network over those left, points of top-1 lost: by network and by whom.
PUBLISHED: dict[str, dict[str, Points]] = {
    "resnet20-12fca82f": {
        "trp": [(2.04, 91.74 - 90.88), (2.17, 91.74 - 90.50), (2.84, 91.74 - 90.62)],
        "haloc": [(3.60, -0.07)],
        "aimet": [(2.0, 91.64 - 65.7), (2.9, 91.64 - 25.8)],
    },
    "resnet32-d509ac18": {"trp": [(2.2, 92.26 - 91.40), (3.4, 92.26 - 91.39)]},
}
TITLES = {"resnet20-12fca82f": "ResNet-20", "resnet32-d509ac18": "ResNet-32"}


def curves(network: str, curve: dict[str, Any], refined: dict[str, Any]) -> dict[str, Points]:
    """Return the points of each curve of a network, by its name.

    Args:
        network: the checkpoint's name.
        curve: rows of the calibration curve, by ``network/scheme/multiple/ratio``.
        refined: rows of refining, by ``network/scheme/images/length/ratio``.
    """
    found: dict[str, Points] = {}
    for key, row in curve.items():
        name, scheme, *_ = key.split("/")
        if name != network:
            continue
        lost = row["top1_before"] - row["top1_calibrated"]
        found.setdefault(scheme, []).append((row["macs_ratio"], lost))
        if scheme == "spatial":
            cut = (row["plain_macs_ratio"], row["top1_before"] - row["top1_plain"])
            found.setdefault("svd", []).append(cut)
    for key, row in refined.items():
        if key.split("/")[0] == network:
            lost = row["top1_dense"] - row["top1_refined"]
            found.setdefault("refined", []).append((row["macs_ratio"], lost))
    return {name: sorted(points) for name, points in found.items()}


def draw(file: Path, curve: dict[str, Any], refined: dict[str, Any]) -> None:
    """Draw all curves, a network beside the other."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"font.size": 15, "svg.hashsalt": "trpexport"})
    figure, axes = plt.subplots(1, 2, figsize=(12, 7.2), sharey=True, layout="constrained")
    for axis, (network, title) in zip(axes, TITLES.items(), strict=True):
        points = curves(network, curve, refined)
        for styles, known in ((OTHERS, PUBLISHED[network]), (MEASURED, points)):
            for name, style in styles.items():
                if name in known:
                    _line(axis, style, known[name])
        row = next(row for key, row in curve.items() if key.startswith(f"{network}/"))
        axis.set_title(f"{title}, {row['top1_before']:.1f} % on {row['images']} images")
        axis.set_xlabel("times fewer MACs")
        axis.axhline(0, color="0.4", lw=1)
        axis.grid(alpha=0.3)
    _losses(axes[0])
    legend = [*MEASURED.values(), *OTHERS.values()]
    handles = [_line(axes[0], style, []) for style in legend]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=14)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _line(axis: Any, style: Style, points: Points) -> Any:
    (line,) = axis.plot(
        [ratio for ratio, _ in points],
        [lost for _, lost in points],
        linestyle=style.line,
        marker=style.marker,
        color=style.colour,
        label=style.label,
        ms=14 if style.marker == "*" else 10,
        mfc="white" if style.hollow else style.colour,
        mew=2,
        lw=2.2,
        zorder=3 if style.hollow else 4,
    )
    return line


def _losses(axis: Any) -> None:
    """Losses from top to bottom: even up to two points, from there by their logarithm."""
    axis.set_yscale("symlog", linthresh=2, linscale=1.6)
    ticks = (-2, -1, 0, 1, 2, 5, 10, 20, 50)
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_ylim(90, -2.2)
    axis.set_ylabel("points of top-1 lost")


def main() -> None:
    """Draw what the files of results hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("picture", type=Path, help="file to write, by its ending")
    args = parser.parse_args()
    files = (calibration_curve.RESULT, refine.RESULT)
    curve, refined = (json.loads(file.read_text())["results"] for file in files)
    draw(args.picture, curve, refined)


if __name__ == "__main__":
    run(main)
