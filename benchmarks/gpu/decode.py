"""Decode a data set once for many runs.

python -m benchmarks.gpu.decode imagefolder:cifar10-jpeg.tar.gz cifar10.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import trpexport as tx
from benchmarks.environment import run


def main() -> None:
    """Write images, labels, classes and normalisation as ``npz:FILE`` has them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", help="as trpexport train takes it; images of one size")
    parser.add_argument("out", type=Path)
    parser.add_argument("--limit", type=int, help="of each part, so many images spread over all")
    args = parser.parse_args()
    dataset = tx.open_dataset(args.data)
    arrays: dict[str, Any] = {
        "classes": np.array(dataset.classes),
        "mean": np.array(dataset.preprocessing.mean),
        "std": np.array(dataset.preprocessing.std),
    }
    for name in ("train", "test"):
        split = dataset.split(name)
        every = max(1, len(split) // (args.limit or len(split)))
        images = split.arrays()
        if images is None:
            raise SystemExit(f"error: the images of {args.data} differ in size, or are too many")
        arrays[f"{name}_images"] = images[::every][: args.limit]
        arrays[f"{name}_labels"] = split.labels[::every][: args.limit]
    np.savez(args.out, **arrays)


if __name__ == "__main__":
    run(main)
