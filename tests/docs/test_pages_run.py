"""The pages' commands and code run as they stand, page by page, in the order of reading."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import trpexport as tx
from tests.conftest import QUICK, ROOT, Run
from tests.docs.pages import DOCS, PAGES, Block, arguments, blocks

pytestmark = pytest.mark.slow
zoo = import_module("trpexport.models_zoo")

SMALL = "resnet_cifar(depth=8,block=basic,shortcut=projection,width=16)"

TUTORIAL = DOCS / "tutorial.md"
# The page on Python has a test of its own, which trains as well.
RUN_HERE = [
    page
    for page in PAGES
    if page not in (TUTORIAL, DOCS / "guide/python.md")
    and any(block.language in ("sh", "python") and not block.not_run for block in blocks(page))
]
# What may end otherwise on networks that nobody trained: whether a gate is open is not the point.
_MAY_END = {"gate": {0, 1}}
# What only costs time.
_QUICKLY = """
[decompose]
verify-seconds = 0
[export]
verify-seconds = 0
[quantize]
verify-seconds = 0
[bench]
min-time = 0.1
max-time = 0.2
warmup-seconds = 0.1
"""


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that pages take for granted, all of them small."""
    folder = tmp_path_factory.mktemp("things")
    network = resnet8()
    for name in ("ckpt", "trp", "plain"):
        torch.save(network.state_dict(), folder / f"{name}.pth")
    (code,) = (b.code for b in blocks(DOCS / "how-to/own-network.md") if b.title == "nets.py")
    (folder / "nets.py").write_text(code)
    namespace: dict[str, Any] = {"__name__": "nets"}
    exec(code, namespace)
    torch.save(namespace["make"]().state_dict(), folder / "mine.pth")
    photographs(folder / "photos")
    (folder / "trpexport.toml").write_text(_QUICKLY)
    run = import_module("trpexport.cli").run
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        mine = ("mine.pth", "--model", "nets:make", "--input-shape", "1x3x32x32", *QUICK)
        assert run(["export", *mine, "-o", "exported"]) == 0
        assert run(["decompose", *mine, "--criterion", "fraction:0.2", "-o", "halved"]) == 0
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))
        forget_modules(folder)
    for name in ("model", "base", "a", "b"):
        shutil.copy(folder / "exported/model.onnx", folder / f"{name}.onnx")
    shutil.copy(folder / "halved/model.onnx", folder / "decomposed.onnx")
    inputs = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
    np.savez(folder / "real.npz", image=inputs)
    for name in ("exported", "halved"):
        shutil.rmtree(folder / name)
    return folder


def resnet8() -> torch.nn.Module:
    """A network of the zoo whose kernels are of low rank, as after training with TRP."""
    torch.manual_seed(0)
    network: torch.nn.Module = zoo.parse_architecture(SMALL, num_classes=10).build()
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d) and norm.running_var is not None:
            norm.running_var.uniform_(0.5, 1.5)
    tx.TrainedRankPruning(network, energy=0.3, nuclear_weight=0).project()
    return network.eval()


def photographs(folder: Path) -> None:
    """Write images of ten classes, whose neighbouring pixels are alike as in real ones."""
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 4)):
        for label in range(10):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True)
            for number in range(count):
                noise = random.standard_normal((32, 32, 3)).cumsum(0).cumsum(1) * 8 + 128
                Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(place / f"{number}.png")


def forget_modules(folder: Path) -> None:
    """Unload what was imported from a folder: the next page has a module of that name too."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.mark.parametrize("page", RUN_HERE, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.timeout(900)
def test_a_page_runs(
    page: Path, things: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    shutil.copytree(things, place)
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    names: dict[str, Any] = {}
    try:
        for block in blocks(page):
            if block.title is not None and block.not_run is None:
                Path(block.title).parent.mkdir(parents=True, exist_ok=True)
                Path(block.title).write_text(block.code)
            elif block.language == "python" and block.not_run is None:
                exec(compile(block.code, block.place, "exec"), names)
            elif block.language == "sh" and block.not_run is None:
                run_commands(block, run)
    finally:
        forget_modules(place)


def run_commands(block: Block, run: Run) -> None:
    """Run the commands of a block; only the last may end with another code than 0."""
    commands = block.commands
    for words in commands:
        typed = arguments(words)
        assert typed is not None, f"{block.place}: {words}: mark it as not run"
        result = run(*typed)
        expected = {block.exit_code if words is commands[-1] else 0}
        assert result.code in _MAY_END.get(typed[0], expected), f"{block.place}: {typed} {result}"
        if ">" in words:
            Path(words[-1]).write_text(result.out)


@pytest.mark.timeout(900)
def test_the_tutorial_runs_in_an_empty_folder(tmp_path: Path) -> None:
    """As a newcomer types it: whole, in order, by a shell."""
    binaries = Path(sys.executable).parent
    surroundings = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    place = tmp_path / "tutorial"
    place.mkdir()
    found = [block for block in blocks(TUTORIAL) if block.language == "sh"]
    assert found
    assert all(block.not_run is None for block in found)
    for block in found:
        ended = subprocess.run(
            ["bash", "-e", "-c", block.code],
            check=False,
            cwd=place,
            env=surroundings,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == block.exit_code, f"{block.place}\n{ended.stdout}{ended.stderr}"
