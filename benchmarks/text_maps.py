"""What is left of a text detector's maps at a share of its MACs: cut by its weights, calibrated.

    python -m benchmarks.text_maps --shared DIR --network craft.onnx --work DIR [--steps 60]
    python -m benchmarks.text_maps --work DIR --picture docs/pictures/text_maps.png

The network is calibrated to 0.4 of its MACs on 16 photographs without labels, all layers spatial;
refined for some steps where it is asked for; and cut by the singular values of its weights alone,
at the same ranks and at those that the energy criterion gives for as many MACs. Errors are of the
outputs on 32 other photographs, relative to their variation. The maps that are drawn are those of
three images with text on them, which are drawn as well: the photographs are not this repository's
to show, and have hardly any text. Writes ``results/text_maps.json``, and the maps into the folder
of work, from where they are drawn.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import trpexport as tx
from benchmarks.environment import RESULTS, environment, run
from benchmarks.networks import NORMALISE, plan_at
from benchmarks.precision_networks import Material, photographs
from trpexport.choose.calibrate import truncations
from trpexport.choose.held_out import HeldOut
from trpexport.choose.spectra import analyse
from trpexport.datasets.dead_leaves import dead_leaves
from trpexport.networks.base import Network
from trpexport.onnx_files import OnnxFileSource
from trpexport.plan import Plan
from trpexport.stages import Stages

RESULT = RESULTS / "text_maps.json"
SIZE, SHARE = 224, 0.4
CALIBRATED_ON, UNSEEN = 16, 32
ORIGINAL, CALIBRATED, REFINED = "original", "calibrated", "refined"
SAME_RANKS, ENERGY = "cut by its weights, same ranks", "cut by its weights, same MACs"
_SIGN = ("NORTH GATE", "exit 42")
_PAGE = ("Singular values", "tell how many", "columns matter.", "The rest goes.", "p. 17")
_LABELS = (("FRESH", (28, 22), 12), ("coffee", (92, 84), -18), ("2.50", (40, 132), 25))

Pixels = NDArray[np.uint8]


def scenes() -> Pixels:
    """Return three images with text, (3, size, size, 3): a sign, a page, and labels aslant."""
    from PIL import Image, ImageDraw, ImageFont

    leaves = dead_leaves(3, 3, SIZE, SIZE, seed=4).transpose(0, 2, 3, 1)
    images = [Image.fromarray(np.uint8(np.clip(128 + 45 * one, 0, 255))) for one in leaves]

    def write(image: Any, text: str, at: tuple[int, int], size: int, colour: str) -> None:
        ImageDraw.Draw(image).text(at, text, fill=colour, font=ImageFont.load_default(size))

    ImageDraw.Draw(images[0]).rounded_rectangle((20, 62, 204, 158), 10, "#1d4f7a", "white", 3)
    for line, (text, size) in enumerate(zip(_SIGN, (24, 32), strict=True)):
        write(images[0], text, (36, 72 + 40 * line), size, "white")
    ImageDraw.Draw(images[1]).rectangle((14, 14, 210, 210), "#f4efe2")
    for line, text in enumerate(_PAGE):
        write(images[1], text, (28, 26 + 36 * line), 22, "#202020")
    for text, at, angle in _LABELS:
        label = Image.new("RGBA", (130, 40))
        write(label, text, (6, 2), 30, "white")
        turned = label.rotate(angle, expand=True)
        images[2].paste(turned, at, turned)
    return np.stack([np.asarray(image) for image in images])


def inputs(pixels: Pixels) -> NDArray[np.float32]:
    """Return images as the network takes them, (images, 3, height, width)."""
    mean, std = (np.array(one, np.float32) for one in (NORMALISE.mean, NORMALISE.std))
    return np.ascontiguousarray(
        ((pixels / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
    )


def networks(
    path: Path, images: NDArray[np.float32], args: argparse.Namespace
) -> Iterator[tuple[str, Network, Plan | None]]:
    """Yield the network as it is and in each way cut, with its plan."""
    _, whole = OnnxFileSource(path, (1, 3, SIZE, SIZE)).open(Stages())
    yield ORIGINAL, whole, None
    budget = tx.ByBudget(macs=SHARE, scheme="spatial", cache=args.work)
    small = tx.decompose(path, budget, images=images)
    yield CALIBRATED, small.network, small.plan
    yield SAME_RANKS, whole.rewritten(truncations(whole, small.plan)), small.plan
    ratio = small.plan.macs_before / small.plan.macs_after
    by_energy = plan_at(analyse(whole, "spatial"), ratio, "energy")
    yield ENERGY, whole.rewritten(truncations(whole, by_energy)), by_energy
    if args.steps:
        refinement = tx.Refinement(steps=args.steps, cache=args.work)
        refined = tx.decompose(path, budget, images=images, refine=refinement)
        yield REFINED, refined.network, refined.plan


def maps(network: Network, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how much text the network sees at each place of images, (images, height, width)."""
    found = network.run({next(iter(network.inputs)): images})
    scores = next(one for one in found.values() if one.shape[-1] == len(("text", "links")))
    return np.asarray(scores[..., 0], np.float32)


def measure(args: argparse.Namespace) -> None:
    """Measure all; each network's errors are written when they are there."""
    read: Callable[..., Any] = photographs(SIZE, CALIBRATED_ON, UNSEEN, caffe=False)
    images = read(Material(args.shared, args.network.parent))
    drawn = inputs(scenes())
    rows: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    held_out: HeldOut | None = None
    for name, network, plan in networks(args.network, images.calibration, args):
        held_out = held_out or HeldOut(network, "photographs", images.test)
        kept[name] = maps(network, drawn)
        if plan is not None:
            saved = {"macs_ratio": plan.macs_before / plan.macs_after}
            rows[name] = saved | (held_out.facts(network) or {})
            print(name, json.dumps(rows[name]), flush=True)
        found = {"environment": environment(), "calibration_images": len(images.calibration)}
        RESULT.write_text(json.dumps({**found, "results": rows}, indent=2) + "\n")
        np.savez(args.work / "text_maps.npz", **kept)


def picture(work: Path, file: Path) -> None:
    """Draw the maps side by side, an image a row."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    kept, rows = np.load(work / "text_maps.npz"), json.loads(RESULT.read_text())["results"]
    ways = [name for name in (ORIGINAL, REFINED, CALIBRATED, SAME_RANKS, ENERGY) if name in kept]
    plt.rcParams.update({"font.size": 12})
    figure, axes = plt.subplots(
        3, 1 + len(ways), figsize=(2.6 * (1 + len(ways)), 8.4), layout="constrained"
    )
    for image, (pixels, row) in enumerate(zip(scenes(), axes, strict=True)):
        row[0].imshow(pixels)
        for axis, name in zip(row[1:], ways, strict=True):
            shown = axis.imshow(kept[name][image], vmin=0, vmax=1, cmap="cividis")
    axes[0][0].set_title("image")
    for axis, name in zip(axes[0][1:], ways, strict=True):
        axis.set_title(name if name not in rows else _titled(name, rows[name]))
    for axis in axes.flat:
        axis.set_axis_off()
    figure.colorbar(shown, ax=axes, location="bottom", shrink=0.4, label="text here")
    figure.savefig(file, dpi=72, metadata={"Software": None})


def _titled(name: str, row: dict[str, Any]) -> str:
    way, _, ranks = name.partition(", ")
    return f"{way}\n{ranks and ranks + ', '}error {row['output_error']:.0%}"


def main() -> None:
    """Measure, or draw what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True, help="folder of tables and maps")
    parser.add_argument("--shared", type=Path, help="folder of the photographs")
    parser.add_argument("--network", type=Path, help="craft.onnx")
    parser.add_argument("--steps", type=int, default=0, help="of refining")
    parser.add_argument("--picture", type=Path, help="draw what is known into this file, and end")
    args = parser.parse_args()
    if args.picture:
        picture(args.work, args.picture)
        return
    if None in (args.shared, args.network):
        parser.error("--shared and --network are needed to measure")
    args.work.mkdir(parents=True, exist_ok=True)
    measure(args)


if __name__ == "__main__":
    run(main)
