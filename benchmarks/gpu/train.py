"""Rows of ``benchmarks.trp_table`` at once on one device, until a deadline.

    python -m benchmarks.gpu.train --data npz:cifar10.npz --out OUT [--epochs 164] [--seconds 330]

Each row is a process of its own. ``OUT/training.json`` holds what every row has reached, epoch by
epoch, and ``OUT/ROW.tar`` what it goes on from; both are written anew every few seconds.
``--resume FOLDER`` goes on from such files. A row that fails with CUDA graphs goes on without them,
and without the multi-process service.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import environment, run
from trpexport.training.run_directory import LAST, METRICS, RUN, STATE

KEPT = (RUN, STATE, LAST, METRICS)
COLLECT_SECONDS = 15.0


class Row:
    """A row of the table, and the process that makes it.

    Args:
        name: of the row.
        runs: the folder of all rows' runs.
        options: of ``benchmarks.trp_table``.
        graphs: whether to try CUDA graphs.
        threads: of the process.
    """

    def __init__(
        self, name: str, runs: Path, options: list[str], graphs: bool, threads: int
    ) -> None:
        self.name, self.runs, self.options = name, runs, options
        self.graphs, self.threads = graphs, threads
        self.log = runs / f"{name}.log"
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Begin, or go on."""
        command = [sys.executable, "-m", "benchmarks.trp_table", "--runs", str(self.runs)]
        command += ["--rows", self.name, *self.options, *["--cuda-graphs"] * self.graphs]
        environ = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        if not self.graphs:
            environ.pop("CUDA_MPS_PIPE_DIRECTORY", None)
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=environ)

    def is_over(self) -> bool:
        """Say whether it has ended; one that failed with CUDA graphs is started without."""
        code = self.process.poll()
        if code and self.graphs:
            self.graphs = False
            self.process = self.start()
            return False
        return code is not None

    def facts(self) -> dict[str, Any]:
        """Return what it has reached."""
        metrics, table = self.runs / self.name / METRICS, self.runs / f"{self.name}.json"
        lines = metrics.read_text().splitlines() if metrics.is_file() else []
        return {
            "table": json.loads(table.read_text()) if table.is_file() else None,
            "exit_code": self.process.poll(),
            "cuda_graphs": self.graphs,
            "log": self.log.read_text(errors="replace").splitlines()[-40:],
            "epochs": [json.loads(line) for line in lines if line.endswith("}")],
        }

    def pack(self, out: Path) -> None:
        """Write what it goes on from."""
        part = out / f"{self.name}.part"
        with tarfile.open(part, "w") as tar:
            for path in [self.runs / self.name / name for name in KEPT]:
                if path.is_file():
                    tar.add(path, path.relative_to(self.runs))
        part.replace(out / f"{self.name}.tar")


def main() -> None:
    """Start the rows, and collect what they reach until the last has ended or time is up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--rows", nargs="+", default=["plain", "spatial"])
    parser.add_argument("--rank-multiple", type=int, default=8, help="of TRP's ranks")
    parser.add_argument("--recipe", default="original")
    parser.add_argument("--epochs", type=int, default=164, help="milestones move along")
    parser.add_argument("--seconds", type=float, default=330.0, help="when to stop")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--resume", type=Path, help="a folder with what an earlier call wrote")
    args = parser.parse_args()
    deadline = time.monotonic() + args.seconds
    args.runs.mkdir(parents=True, exist_ok=True)
    for packed in sorted(args.resume.glob("*.tar")) if args.resume else ():
        with tarfile.open(packed) as tar:
            tar.extractall(args.runs, filter="data")
    on_cuda = args.device == "cuda"
    options = ["--data", args.data, "--recipe", args.recipe, "--epochs", str(args.epochs)]
    options += ["--rank-multiple", str(args.rank_multiple)]
    options += ["--device", args.device, *["--bf16"] * on_cuda]
    threads = max(1, min(4, (os.cpu_count() or 1) // len(args.rows)))
    rows = [Row(name, args.runs, options, on_cuda, threads) for name in args.rows]
    facts = {"environment": environment(), "options": options, "rows": args.rows}
    if on_cuda:
        facts["card"] = torch.cuda.get_device_name()

    def collect() -> None:
        reached = {row.name: row.facts() for row in rows}
        (args.out / "training.json").write_text(json.dumps({**facts, "reached": reached}))
        for row in rows:
            row.pack(args.out)

    collected = time.monotonic()
    while [row for row in rows if not row.is_over()] and time.monotonic() < deadline:
        time.sleep(0.2)
        if time.monotonic() - collected > COLLECT_SECONDS:
            collect()
            collected = time.monotonic()
    for row in rows:
        if not row.is_over():
            row.process.terminate()  # its state is whole at any moment
            row.process.wait()
    collect()
    for row in rows:
        print(row.name, *row.log.read_text(errors="replace").splitlines()[-3:], sep="\n  ")
    if failed := [row.name for row in rows if row.process.returncode > 0]:
        raise SystemExit(f"error: {', '.join(failed)} failed")


if __name__ == "__main__":
    run(main)
