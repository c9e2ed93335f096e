"""Train the checkpoint that ``make demo`` decomposes: ResNet-20 on Fashion-MNIST, with TRP.

    python -m benchmarks.train_demo_checkpoint --data /usr/share/datasets/fashion-mnist

Trained Rank Pruning (Xu et al., arXiv 2004.14566): every ``--period`` iterations each convolution
but the stem is projected onto the rank that holds ``--energy`` of its spectrum, and the
nuclear-norm subgradient U V^T pulls the weights towards low rank in between. The subgradient is
refreshed at each projection, not at each iteration, which costs next to nothing. A last
projection ends the run. Needs the four IDX files of Fashion-MNIST (Debian: the package
dataset-fashion-mnist); takes some ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

import trpexport as tx
from trpexport.lowrank.criteria import parse_criterion
from trpexport.lowrank.schemes import SCHEMES
from trpexport.lowrank.spectrum import svd
from trpexport.lowrank.trace import trace

MEAN, STD = 0.286, 0.353
TARGET = Path(__file__).parent.parent / "models_zoo/checkpoints/resnet20-fashion-trp.safetensors"


def read_idx(path: Path) -> Tensor:
    """Read an IDX file of bytes: two zero bytes, type 8, the number of dimensions, their sizes."""
    packed = path.with_name(f"{path.name}.gz")
    raw = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    dimensions = raw[3]
    shape = np.frombuffer(raw, ">i4", dimensions, 4)
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    return torch.from_numpy(data.copy())


def load(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Return normalised images (n, 1, 28, 28) and labels (n)."""
    images = read_idx(folder / f"{split}-images-idx3-ubyte")
    labels = read_idx(folder / f"{split}-labels-idx1-ubyte").long()
    return (images.float().div(255).sub(MEAN).div(STD)).unsqueeze(1), labels


class Projection:
    """The TRP step for the convolutions of a network, by the spatial scheme."""

    def __init__(self, model: nn.Module, energy: float, weight: float) -> None:
        self.scheme = SCHEMES["spatial"]
        self.criterion = parse_criterion(f"energy:{energy}")
        self.weight = weight
        traced = trace(model, (1, 1, 28, 28))
        self.layers = [layer for layer in traced.layers if layer.name != traced.stem]
        self.subgradients: dict[str, Tensor] = {}

    @torch.no_grad()
    def project(self) -> float:
        """Cut every layer to the rank of its energy; return the mean share of ranks kept."""
        shares = []
        for layer in self.layers:
            weight = layer.module.weight
            found = svd(self.scheme.unfold(weight, layer.conv))
            _, rows, columns = self.scheme.matrix_shape(layer.conv)
            rank = max(self.criterion.rank(v, (rows, columns)) for v in found.values.numpy())
            weight.copy_(self.scheme.fold(found.truncated(rank), layer.conv))
            scale = found.values[:, :rank].clamp_min(1e-12)
            left, right = found.left[:, :, :rank], found.right[:, :rank]
            # One side is orthonormal, the other holds the singular values: divide them out.
            both = (left / scale[:, None, :]) @ right
            self.subgradients[layer.name] = self.scheme.fold(both, layer.conv).to(weight)
            shares.append(rank / min(rows, columns))
        return float(np.mean(shares))

    @torch.no_grad()
    def pull(self) -> None:
        """Add the weighted subgradient of the nuclear norm to the gradients."""
        for layer in self.layers:
            if layer.name in self.subgradients:
                assert layer.module.weight.grad is not None
                layer.module.weight.grad.add_(self.subgradients[layer.name], alpha=self.weight)


def augment(images: Tensor) -> Tensor:
    """Flip half of the images and shift each by up to two pixels."""
    flipped = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)
    padded = pad(flipped, (2, 2, 2, 2), value=-MEAN / STD)
    dy, dx = torch.randint(0, 5, (2,)).tolist()
    return padded[:, :, dy : dy + 28, dx : dx + 28]


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the top-1 accuracy in percent."""
    model.eval()
    hits = 0
    for start in range(0, len(images), 500):
        rows = slice(start, start + 500)
        hits += int((model(images[rows]).argmax(1) == labels[rows]).sum())
    return 100 * hits / len(labels)


def main() -> None:
    """Train, decompose, say how much that cost, and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--energy", type=float, default=0.97)
    parser.add_argument("--period", type=int, default=20)
    parser.add_argument("--nuclear-weight", type=float, default=3e-4)
    parser.add_argument("--out", type=Path, default=TARGET)
    args = parser.parse_args()

    torch.manual_seed(0)
    train_x, train_y = load(args.data, "train")
    test_x, test_y = load(args.data, "t10k")
    zoo = importlib.import_module("trpexport.models_zoo")
    architecture = zoo.parse_architecture("resnet20", num_classes=10, in_channels=1)
    model: nn.Module = architecture.build()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    projection = Projection(model, args.energy, args.nuclear_weight)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    batches = len(train_x) // 128
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, args.epochs * batches)
    step, started = 0, time.monotonic()
    for epoch in range(args.epochs):
        model.train()
        losses = []
        for rows in torch.randperm(len(train_x))[: batches * 128].reshape(batches, 128):
            x = augment(train_x[rows]).to(memory_format=torch.channels_last)
            loss = cross_entropy(model(x), train_y[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            projection.pull()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            step += 1
            if step % args.period == 0:
                share = projection.project()
        minutes = (time.monotonic() - started) / 60
        top1 = accuracy(model, test_x, test_y)
        print(
            f"epoch {epoch + 1}: loss {np.mean(losses):.3f}, test {top1:.2f} %, "
            f"ranks {share:.2f} of full, {minutes:.1f} min",
            flush=True,
        )
    projection.project()
    model.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]

    before = accuracy(model, test_x, test_y)
    shape = (1, 1, 28, 28)
    plan = tx.make_plan(model, scheme="spatial", criterion="value:0.05", input_shape=shape)
    after = accuracy(tx.factorize(model, plan), test_x, test_y)
    ratio = plan.macs_before / plan.macs_after
    print(
        f"before {before:.2f} %, decomposed {after:.2f} % on 10,000 images, {ratio:.2f}x fewer MACs"
    )
    tx.save_checkpoint(
        args.out,
        model,
        architecture=architecture,
        metadata={
            "input_shape": list(shape),
            "dataset": "Fashion-MNIST",
            "normalisation": {"mean": [MEAN], "std": [STD]},
            "top1": {"before": before, "decomposed": after, "images": len(test_y)},
            "training": {
                "epochs": args.epochs,
                "scheme": "spatial",
                "energy": args.energy,
                "period": args.period,
                "nuclear_weight": args.nuclear_weight,
            },
        },
    )


if __name__ == "__main__":
    main()
