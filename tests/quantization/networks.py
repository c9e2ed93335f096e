"""A small network to quantize, and one with a place that 8 bits are too few for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

Write = Callable[..., Path]
SHAPE = (3, 8, 8)


def images(count: int, seed: int = 0) -> Any:
    """Return images of uneven brightness."""
    rng = np.random.default_rng(seed)
    brightness = rng.uniform(0.2, 2, (count, 1, 1, 1))
    return (rng.normal(size=(count, *SHAPE)) * brightness).astype(np.float32)


def classifier(write: Write, *, trap: bool = False, batch: int | str = "n", **options: Any) -> Path:
    """Write a network of a chain, a shortcut and a head; no node has a name but those of layers.

    Args:
        write: writes a graph.
        trap: multiply a channel by 5,000 and back: one step for all channels loses the others.
        batch: its size.
        options: of the writer.
    """
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> Any:
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    stored = {
        "stem.weight": weight(8, 3, 3, 3),
        "chain.0.weight": weight(4, 8, 3, 1) * np.array([1, 5, 0.2, 1]).reshape(4, 1, 1, 1),
        "chain.1.weight": weight(8, 4, 1, 3),
        "trap.weight": weight(8, 8, 1, 1),
        "head.weight": weight(10, 8),
        "stem.bias": weight(8) * 0.1,
        "large": np.array([5000, *[1] * 7], np.float32).reshape(1, 8, 1, 1),
    }
    stored = {name: array.astype(np.float32) for name, array in stored.items()}
    stored["trap.weight"][:, 0] /= 5000
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "stem.weight", "stem.bias"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "chain.0.weight"], ["c"], pads=[1, 0, 1, 0]),
        node("Conv", ["c", "chain.1.weight"], ["d"], pads=[0, 1, 0, 1]),
        node("Add", ["b", "d"], ["e"]),
        *([node("Mul", ["e", "large"], ["f"]), node("Conv", ["f", "trap.weight"], ["g"])] * trap),
        node("GlobalAveragePool", ["g" if trap else "e"], ["h"]),
        node("Flatten", ["h"], ["i"]),
        node("Gemm", ["i", "head.weight"], ["y"], transB=1),
    ]
    used = {name for one in nodes for name in one.input}
    kept = {name: array for name, array in stored.items() if name in used}
    return write(nodes, {"x": (batch, *SHAPE)}, {"y": (batch, 10)}, kept, **options)


def operators(path: Path) -> list[str]:
    """Return the operators of a file."""
    return [node.op_type for node in onnx.load(path).graph.node]
