"""Does the same command give the same ratio again, also on a busy machine?

    python -m benchmarks.repeatability [--busy]

Runs ``trpexport bench`` five times, each in a process of its own, on ResNet-18 at 224 and its
spatial pair at a third of the ranks. With ``--busy`` a second process multiplies matrices all the
while, one thread for each core. Writes ``results/repeatability.json``, one entry a setting.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import trpexport as tx
from benchmarks.environment import RESULTS, environment, run
from benchmarks.networks import FAST, export_dense, random_network

RUNS = 5
TOLERANCE = 0.05
TARGET = RESULTS / "repeatability.json"
_LOAD = "import numpy as np\na = np.ones((1500, 1500))\nwhile True: a @ a"


@contextmanager
def load(busy: bool) -> Iterator[None]:
    """Keep every core busy inside the block."""
    if not busy:
        yield
        return
    cores = os.cpu_count() or 1
    single = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    others = [subprocess.Popen([sys.executable, "-c", _LOAD], env=single) for _ in range(cores)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    """Export both networks, bench them repeatedly, and write the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--busy", action="store_true")
    args = parser.parse_args()
    model, shape = random_network("resnet18", 1000), (1, 3, 224, 224)
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        base = export_dense(model, shape, Path(name) / "base")
        small = tx.decompose(
            model, tx.ByCriterion(criterion="fraction:0.33", rank_multiple=1), example=shape
        )
        pair = small.export(Path(name) / "spatial", settings=FAST).path
        command = [sys.executable, "-m", "trpexport", "bench", str(base), str(pair), "--json"]
        with load(args.busy):
            for _ in range(RUNS):
                done = subprocess.run(
                    [*command, "--no-memory"], capture_output=True, text=True, check=True
                )
                entry = json.loads(done.stdout)["results"][0]["models"][1]
                ratios.append(entry["ratio"])
                print(json.dumps(entry["ratio"]), flush=True)
    middle = median(ratio["mid"] for ratio in ratios)
    within = sum(abs(ratio["mid"] / middle - 1) <= TOLERANCE for ratio in ratios)
    found = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    found["busy" if args.busy else "quiet"] = {
        "environment": environment(),
        "load_average": os.getloadavg(),
        "macs_saved": small.plan.macs_before / small.plan.macs_after,
        "speedups": ratios,
        "median": middle,
        f"runs_within_{TOLERANCE:.0%}": within,
    }
    TARGET.write_text(json.dumps(found, indent=2) + "\n")
    print(f"{within} of {RUNS} runs within {TOLERANCE:.0%} of {middle:.3f}x")


if __name__ == "__main__":
    run(main)
