"""The page on Python runs as it stands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import trpexport as tx
from tests.conftest import ROOT
from tests.docs.pages import PAGES, Block, blocks
from trpexport import bundle

PAGE = ROOT / "docs/guide/python.md"


@pytest.fixture
def workplace(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint of the name that the page uses."""
    shutil.copy(shared / "checkpoints/resnet20-12fca82f.th", tmp_path / "ckpt.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow  # as the other pages
@pytest.mark.timeout(900)
def test_the_python_example_runs(workplace: Path, shared: Path) -> None:
    (code,) = (block.code for block in blocks(PAGE) if block.language == "python")
    assert set(re.findall(r"tx\.(\w+)\(", code)) >= {
        *("decompose", "verify", "export", "count", "bench", "evaluate", "gate", "train", "load")
    }
    # A data set of its own to train on, and short times, so that it takes seconds.
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(40) % 10
    np.savez("tiny.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    for typed, quick in (
        ('tx.train("resnet20", "cifar10:DIR"', 'tx.train("resnet20", "npz:tiny.npz"'),
        ("epochs=12", "epochs=2, batch_size=20"),
        (
            "threads=(1, 2)",
            "threads=(1, 2), min_time=0.05, max_time=0.1, min_runs=3, warmup_seconds=0.1",
        ),
        ('tx.export(small, "out")', 'tx.export(small, "out", verify_seconds=0.1)'),
        ("baseline=True", "baseline=True, verify_seconds=0.1"),
        (
            '"ckpt.pth", tx.ByBudget(macs=0.5)',
            '"ckpt.pth", tx.ByBudget(macs=0.5, scheme="spatial")',
        ),
        ('images="cifar10:DIR"', 'images="npz:tiny.npz"'),
        ("refine=3", "refine=0.02"),
        ("cifar10:DIR", f"cifar10:{shared / 'data/cifar10-lossless'}"),
    ):
        assert typed in code
        code = code.replace(typed, quick)
    names = {"model": tx.load("ckpt.pth").module, "x": torch.randn(32, 3, 32, 32)}
    exec(compile(code, str(PAGE), "exec"), names)
    for folder in ("out", "best"):
        assert (workplace / folder / bundle.MANIFEST).is_file()
    assert tx.gate("best/baseline.onnx", "best", min_macs_ratio=1.9).passed


PYTHON = [block for page in PAGES for block in blocks(page) if block.language == "python"]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.place)
def test_python_is_python_and_names_what_there_is(block: Block) -> None:
    compile(block.code, block.place, "exec")
    for name in re.findall(r"\btx\.(\w+)", block.code):
        assert hasattr(tx, name), name
