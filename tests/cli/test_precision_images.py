"""Precisions from the command line where images come in: what is written, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from tests.conftest import Run
from trpexport import bundle

SHAPE = (3, 8, 8)
HOW = ("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25")
QUICK = ("--verify-seconds", "0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several kinds, with labels of ten classes."""
    found = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)

    def save(name: str, images: Any) -> None:
        np.savez(found / f"{name}.npz", images=images, labels=random.integers(0, 10, len(images)))

    pixels = random.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    save("images", pixels)
    save("constant", np.full((8, 8, 8, 3), 7, np.uint8))
    save("many", np.concatenate([pixels, pixels[..., :2]], axis=-1))
    save("larger", random.integers(0, 256, (8, 16, 12, 3), dtype=np.uint8))
    save("nan", np.where(pixels > 250, np.nan, pixels / 255).astype(np.float32))
    raw: Any = {"other": random.normal(size=(8, 5)).astype(np.float32)}
    np.savez(found / "raw.npz", **raw)
    return found


def network(write: Callable[..., Path]) -> Path:
    """Write a network whose second layer is of low rank."""
    random = np.random.default_rng(0)

    def weight(*shape: int) -> Any:
        return (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    low = np.einsum("ar,rb->ab", weight(16 * 3, 4), weight(4, 16 * 3))
    low = low.reshape(16, 3, 16, 3).transpose(0, 2, 1, 3)
    return write(
        [
            helper.make_node("Conv", ["x", "a.weight"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "b.weight"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["d"]),
            helper.make_node("GlobalAveragePool", ["d"], ["e"]),
            helper.make_node("Flatten", ["e"], ["f"]),
            helper.make_node("Gemm", ["f", "c.weight"], ["y"], transB=1),
        ],
        {"x": ("n", *SHAPE)},
        {"y": ("n", 10)},
        {"a.weight": weight(16, *SHAPE[:1], 3, 3), "b.weight": low, "c.weight": weight(10, 16)},
    )


@pytest.fixture
def source(write_onnx: Callable[..., Path]) -> Path:
    return network(write_onnx)


def calibrated(folder: Path, name: str = "images") -> tuple[str, ...]:
    return ("--calib", f"npz:{folder / f'{name}.npz'}", *HOW)


def test_a_decomposed_network_comes_in_all_precisions(
    run: Run, source: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "net"
    done = run(
        *("decompose", source, "--criterion", "rank:4", "--precision", "fp32,int8,fp16"),
        *(*calibrated(folder), *QUICK, "--out", out, "--json"),
    )
    assert (done.code, json.loads(done.out)["layers_rewritten"]) == (0, 1)
    steps = {step["name"]: step for step in json.loads(done.out)["steps"]}
    assert steps["int8"]["facts"]["images"]["held_out"] > 1
    assert set(bundle.read_manifest(out)["variants"]) == {"int8", "fp16"}
    data = ("--data", f"npz:{folder / 'images.npz'}")
    for name in (out, f"{out}@int8"):
        told = json.loads(run("eval", name, *data, "--json").out)
        assert told["images"] == 40


def test_a_drop_of_any_metric_is_a_limit(
    run: Run, source: Path, folder: Path, tmp_path: Path
) -> None:
    data = ("--data", f"npz:{folder / 'images.npz'}", "--metric", "top5")
    typed = ("quantize", source, *calibrated(folder), *data, *QUICK, "--json")
    found = json.loads(run(*typed, "--max-drop", "100", "--out", tmp_path / "a.onnx").out)
    facts = found["variants"]["int8"]["facts"]
    assert (facts["unit"], facts["drop"] <= 100) == ("points of top5", True)


CASES: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "each of a single value, from which no ranges follow": lambda folder: calibrated(
        folder, "constant"
    ),
    "the images have 5 channels, the preprocessing has a mean for 3": lambda folder: calibrated(
        folder, "many"
    ),
    "12": lambda folder: calibrated(folder, "larger"),
    "NaN": lambda folder: calibrated(folder, "nan"),
    "no int8": lambda folder: (*calibrated(folder), "--provider", "coreml"),
    "do not fit the network, which takes images of 3x8x8": lambda folder: (
        "--calib",
        f"tensors:{folder / 'raw.npz'}",
    ),
}


@pytest.mark.parametrize("says", CASES)
def test_images_that_do_not_serve_are_one_line(
    run: Run,
    source: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    content = source.read_bytes()
    done = run("quantize", source, *CASES[says](folder), *QUICK)
    assert says in done.error
    assert (done.code, done.out, list(tmp_path.iterdir())) == (2, "", [])
    assert source.read_bytes() == content


@pytest.mark.parametrize("command", ["quantize", "decompose"])
def test_a_quantized_file_is_refused(
    run: Run, source: Path, folder: Path, tmp_path: Path, command: str
) -> None:
    file = tmp_path / "int8.onnx"
    assert run("quantize", source, *calibrated(folder), *QUICK, "--out", file).code == 0
    typed = (command, file, *calibrated(folder), "--out", tmp_path / "again.onnx")
    done = run(*typed)
    assert "is quantized already" in done.error
    assert (done.code, [path.name for path in tmp_path.iterdir()]) == (2, ["int8.onnx"])


def test_a_missing_file_is_told_before_missing_images(run: Run, tmp_path: Path) -> None:
    done = run("quantize", tmp_path / "missing.onnx")
    assert "there is no file" in done.error
    assert done.code == 2
