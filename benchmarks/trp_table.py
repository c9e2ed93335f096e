"""The published tables on a data set at hand: accuracy before and after the decomposition.

    python -m benchmarks.trp_table --data imagefolder:cifar10-jpeg.tar.gz --runs runs
    python -m benchmarks.trp_table --data imagefolder:cifar10-jpeg.tar.gz --runs wide --bf16 \
        --arch wrn-10-2 --rank-multiple 16 --rows plain plain-continued spatial-calibrated

ResNet-20 unless another is named, each row against its own baseline. A plain network is trained
from fresh weights. From it, as the paper does for ImageNet (section 4.1): further epochs plain, and
with TRP and the nuclear norm by each scheme; also from the plain network calibrated to the target,
so that TRP starts from low rank; where asked for (``--rows spatial``), with TRP from fresh weights,
as the paper does for CIFAR-10. Each TRP network is decomposed at the value threshold 0.05 **without
fine-tuning**, then fine-tuned; the plain one stands beside them, decomposed to the same MACs, and
calibrated. Every run is one directory under ``--runs`` and goes on where it was stopped; ``--rows``
makes some of them, so that several processes can share the work.
All accuracies are those of the last epoch: none is picked by looking at the test images.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

import trpexport as tx
from benchmarks.environment import RESULTS, environment, run
from trpexport.calibration_data import CalibrationData
from trpexport.choose.base import Chooser
from trpexport.choose.spectra import analyse
from trpexport.files import cache_folder
from trpexport.lowrank.criteria import parse_criterion
from trpexport.networks.torch.network import TorchNetwork
from trpexport.pipeline import Source, decompose_to_bundle
from trpexport.training.data import TrainingData
from trpexport.training.distributed import Workers
from trpexport.training.finetune import finetune
from trpexport.training.loop import evaluate
from trpexport.training.recipe import Recipe
from trpexport.training.settings import Compute
from trpexport.training.train import train
from trpexport.training.watching import Watchers

THRESHOLD = "value:0.05"
SCHEMES = ("spatial", "channel", "decoupling")
CONTINUED = tuple(f"{name}-continued" for name in ("plain", *SCHEMES))
CALIBRATED = "spatial-calibrated"
ROWS = ("plain", *CONTINUED, CALIBRATED)
ALL_ROWS = (*ROWS, *SCHEMES)


class Lines:
    """Prints a line an epoch."""

    def __init__(self, name: str) -> None:
        self.name = name

    def begin(self, epochs: int, steps_per_epoch: int, done: int) -> None:
        """Say where the run stands."""
        print(f"{self.name}: {done} of {epochs * steps_per_epoch} steps are done", flush=True)

    def step(self, facts: dict[str, Any]) -> None:
        """Too many to print."""

    def epoch(self, facts: dict[str, Any]) -> None:
        """Print the line."""
        ratio = facts.get("macs_ratio")
        text = "" if ratio is None else f", {1 / ratio:.2f}x fewer MACs"
        print(f"{self.name} {facts['epoch']}: {facts['test_top1']:.2f} %{text}", flush=True)

    def end(self) -> None:
        """Nothing is left to do."""


class Table:
    """The rows, each made once.

    Args:
        args: what was typed.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.runs: Path = args.runs
        one_cycle = tx.RECIPES["one-cycle"]
        self.fresh = self.run_settings(tx.RECIPES[args.recipe].changed(epochs=args.epochs))
        self.continued = self.run_settings(
            one_cycle.changed(epochs=args.continued_epochs, lr=args.continued_lr)
        )
        self.calibrated = self.run_settings(
            one_cycle.changed(epochs=args.continued_epochs, lr=args.calibrated_lr)
        )
        self.finetuning = self.run_settings(
            tx.RECIPES["finetune"].changed(epochs=args.finetune_epochs or 1)
        )
        data = TrainingData.open(args.data)
        self.workers = Workers(0, 1, torch.device("cpu" if args.device == "auto" else args.device))
        self.test = data.test_batches(self.workers)

    def run_settings(self, recipe: Recipe) -> tx.RunSettings:
        """Return how a network is trained by a recipe."""
        args = self.args
        compute = Compute(args.device, args.bf16, cuda_graphs=args.cuda_graphs)
        return tx.RunSettings(args.data, recipe, compute=compute)

    def accuracy(self, model: nn.Module) -> tuple[float, int]:
        """Return the top-1 accuracy in percent, and the number of images."""
        score = evaluate(model.to(self.workers.device), self.test(), self.workers)
        assert score.top1 is not None
        return score.top1, score.images

    def settings(self, name: str) -> tuple[tx.RunSettings, Path | None]:
        """Return how a network is trained, and where it starts."""
        scheme, _, kind = name.partition("-")
        plain = self.runs / "plain" / "last.safetensors"
        if kind != "calibrated":
            return (self.continued, plain) if kind else (self.fresh, None)
        start = self.runs / f"plain-{scheme}-calibrated-bundle"
        if not start.is_dir():
            multiple = self.args.rank_multiple
            self.decompose(plain, self.to_target(scheme, multiple), start, calibrated=True)
        return self.calibrated, start

    def row(self, name: str) -> list[dict[str, Any]]:
        """Return the row or rows of a network; made before, or made now."""
        cached = self.runs / f"{name}.json"
        if cached.is_file():
            rows: list[dict[str, Any]] = json.loads(cached.read_text())
            return rows
        scheme = name.partition("-")[0]
        settings, start = self.settings(name)
        low_rank = None
        if scheme != "plain":
            low_rank = tx.LowRank(
                scheme,
                target_macs=self.args.target_macs,
                nuclear_weight=self.args.nuclear_weight,
                rank_multiple=self.args.rank_multiple,
            )
        train(
            self.args.arch,
            settings,
            low_rank,
            self.runs / name,
            init=start,
            watcher=Watchers([Lines(name)]),
        )
        source = self.runs / name / "last.safetensors"
        if low_rank:
            how = tx.ByCriterion(scheme, THRESHOLD, rank_multiple=self.args.rank_multiple)
            rows = [self.decomposed(name, source, how, tune=True)]
        elif start:
            rows = []
            for one in SCHEMES:
                how = tx.ByCriterion(one, self.matched(source, one), rank_multiple=1)
                target = self.to_target(one)
                rows += [
                    self.decomposed(f"{name}-{one}", source, how, tune=one == "spatial"),
                    self.decomposed(f"{name}-{one}-calibrated", source, target, calibrated=True),
                ]
        else:
            top1, images = self.accuracy(tx.load(source).module)
            rows = [
                {"network": name, "epochs": self.args.epochs, "top1_before": top1, "images": images}
            ]
        cached.write_text(json.dumps(rows, indent=2) + "\n")
        return rows

    def matched(self, source: Path, scheme: str) -> str:
        """Return the energy at which a network keeps the target's share of its MACs."""
        checkpoint = tx.load(source)
        assert checkpoint.input_shape is not None
        network = TorchNetwork.open(checkpoint.module, checkpoint.input_shape)
        analysis = analyse(network, scheme)
        low, high = 0.0, 1.0
        for _ in range(20):
            middle = (low + high) / 2
            plan = analysis.plan(parse_criterion(f"energy:{middle}"))
            if plan.macs_after <= self.args.target_macs * plan.macs_before:
                low = middle
            else:
                high = middle
        return f"energy:{low:.6f}"

    def to_target(self, scheme: str, multiple: int = 1) -> tx.ByBudget:
        """Return how to calibrate to the target's share of the MACs, ranks in multiples."""
        # A little below it: TRP steers to the target itself.
        share = self.args.target_macs - 0.001
        return tx.ByBudget(macs=share, scheme=scheme, rank_multiple=multiple, cache=cache_folder())

    def decompose(
        self, source: Path, how: Chooser, bundle: Path, *, calibrated: bool = False
    ) -> tx.BundleReport:
        """Decompose a checkpoint, if so asked calibrated on the training images."""
        data = CalibrationData(tx.open_dataset(self.args.data)) if calibrated else None
        settings = tx.ExportSettings(simplify=False, verify_seconds=2, replace=True)
        return decompose_to_bundle(Source(source), how, bundle, data, settings=settings)

    def decomposed(
        self,
        name: str,
        source: Path,
        how: Chooser,
        *,
        tune: bool = False,
        calibrated: bool = False,
    ) -> dict[str, Any]:
        """Decompose a checkpoint, measure, fine-tune the bundle, measure again."""
        bundle = self.runs / f"{name}-bundle"
        report = self.decompose(source, how, bundle, calibrated=calibrated)
        before, images = self.accuracy(tx.load(source).module)
        after, _ = self.accuracy(tx.load(bundle).module)
        tuned = None
        if tune and self.args.finetune_epochs:
            watcher = Watchers([Lines(f"{name} fine-tuned")])
            out = self.runs / f"{name}-finetuned"
            tuned = finetune(bundle, self.finetuning, out, watcher=watcher)["test_top1"]
        return {
            "network": name,
            "epochs": tx.load(source).metadata["training"]["recipe"]["epochs"],
            "scheme": how.label,
            "criterion": report.plan.criterion,
            "top1_before": before,
            "top1_decomposed": after,
            "top1_finetuned": tuned,
            "images": images,
            "macs_ratio": report.plan.macs_before / report.plan.macs_after,
            "macs": report.data["macs"],
            "parameters": report.data["parameters"],
            "layers_rewritten": len(report.plan.rewritten),
        }


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    heads = ("before", "decomposed", "fine-tuned", "MACs", "parameters")
    print("".join(f"{head:>13}" if i else f"{head:>36}" for i, head in enumerate(heads)))
    for row in rows:
        accuracies = [row.get(f"top1_{key}") for key in ("before", "decomposed", "finetuned")]
        cells = ["" if value is None else f"{value:.2f}" for value in accuracies]
        if "macs_ratio" in row:
            cells += [f"{row['macs_ratio']:.2f}x", f"{row['parameters']['after']:,}"]
        print(f"{row['network']:23}" + "".join(f"{cell:>13}" for cell in cells))


def main() -> None:
    """Make the rows that are missing, and the table if none is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", required=True, help="as trpexport train takes it")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--arch", default="resnet20", help="of models_zoo")
    parser.add_argument("--rows", nargs="*", choices=ALL_ROWS, default=ROWS)
    parser.add_argument("--recipe", default="one-cycle", help="of a network from fresh weights")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--continued-epochs", type=int, default=5)
    parser.add_argument("--continued-lr", type=float, default=0.03)
    parser.add_argument("--calibrated-lr", type=float, default=0.06)
    parser.add_argument("--finetune-epochs", type=int, default=1, help="0 for none")
    parser.add_argument("--target-macs", type=float, default=0.35)
    parser.add_argument("--nuclear-weight", type=float, default=3e-4)
    parser.add_argument("--rank-multiple", type=int, default=1, help="of TRP's ranks")
    parser.add_argument("--device", default="auto", help="to train on")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--cuda-graphs", action="store_true")
    args = parser.parse_args()
    table = Table(args)
    rows = [row for name in args.rows for row in table.row(name)]
    show(rows)
    # The usual rows are one table; of another architecture, what was asked for.
    if args.arch != "resnet20" or set(args.rows) == set(ROWS):
        kind, _, path = args.data.partition(":")
        settings = {
            "arch": args.arch,
            "data": f"{kind}:{Path(path).name}",
            "fresh": asdict(table.fresh.recipe),
            "continued": asdict(table.continued.recipe),
            "calibrated": asdict(table.calibrated.recipe),
            "finetuning": asdict(table.finetuning.recipe),
            "target_macs": args.target_macs,
            "nuclear_weight": args.nuclear_weight,
            "rank_multiple": args.rank_multiple,
        }
        result = {"environment": environment(), "settings": settings, "rows": rows}
        name = "trp_table" if args.arch == "resnet20" else f"trp_table-{args.arch}"
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
