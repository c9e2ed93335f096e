"""Tiny classifiers whose answers are known by hand, and their images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from trpexport.measure.bench import BenchSettings
from trpexport.measure.settings import ModelFile

Array = np.ndarray


@pytest.fixture(scope="session")
def classifier(write_onnx: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a network whose scores are the pixels of a 1 x 1 x classes image, times a matrix."""

    def write(
        matrix: Array | None = None, *, classes: int = 10, batch: int | str = "batch"
    ) -> Path:
        weight = np.eye(classes) if matrix is None else matrix
        return write_onnx(
            [
                helper.make_node("Flatten", ["input"], ["flat"]),
                helper.make_node("MatMul", ["flat", "weight"], ["output"]),
            ],
            {"input": (batch, 1, 1, classes)},
            {"output": (batch, classes)},
            {"weight": weight.astype(np.float32)},
        )

    return write


@pytest.fixture
def images_npz(tmp_path: Path) -> Callable[..., Path]:
    """Writes a data set on which a network that returns its input is right, but for some."""

    def write(count: int, *, wrong: int = 0, classes: int = 10) -> Path:
        labels = np.arange(count) % classes
        shown = np.where(np.arange(count) < wrong, (labels + 1) % classes, labels)
        images = np.zeros((count, 1, 1, classes), np.uint8)
        images[np.arange(count), 0, 0, shown] = 255
        images[np.arange(count), 0, 0, (shown + 1) % classes] = 51  # second: the next class
        path = tmp_path / f"images-{count}-{wrong}.npz"
        np.savez(path, images=images, labels=labels)
        return path

    return write


@pytest.fixture
def sized(write_onnx: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a 3x3 convolution over 3 channels and a mean over its pixels: 10 classes."""
    weight = np.random.default_rng(2).standard_normal((10, 3, 3, 3)).astype(np.float32)

    def write(size: int | str, name: str = "input") -> Path:
        nodes = [
            helper.make_node("Conv", [name, "c.weight"], ["y"], pads=[1] * 4),
            helper.make_node("GlobalAveragePool", ["y"], ["z"]),
            helper.make_node("Flatten", ["z"], ["output"]),
        ]
        shapes = {name: ("n", 3, size, size)}, {"output": ("n", 10)}
        return write_onnx(nodes, *shapes, {"c.weight": weight})

    return write


@pytest.fixture
def settings() -> Callable[..., BenchSettings]:
    """Makes settings for two networks."""

    def make(baseline: Path, candidate: Path, **options: object) -> BenchSettings:
        models = (ModelFile(str(baseline), "baseline"), ModelFile(str(candidate), "candidate"))
        return BenchSettings(models, memory=False, **options)  # type: ignore[arg-type]

    return make
