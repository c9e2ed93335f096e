"""How much worse a file is by a metric."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.quantization.networks import classifier, images
from trpexport.datasets import open_data
from trpexport.errors import DataError
from trpexport.judge.metrics import METRICS
from trpexport.quantization.judging import FileJudge
from trpexport.runtime.session import open_session

Write = Callable[..., Path]


def tensors(folder: Path, x: Any, target: Any) -> Any:
    np.savez(folder / "d.npz", **{"x": x, "target": target})
    return open_data(f"tensors:{folder / 'd.npz'}")


@pytest.fixture
def two(write_onnx: Write) -> tuple[Path, Path]:
    """A network, and another one."""
    return classifier(write_onnx), classifier(write_onnx, trap=True)


def test_a_drop_is_in_points_of_a_share(two: tuple[Path, Path], tmp_path: Path) -> None:
    x = images(50)
    one, other = (open_session(path).run({"x": x})["y"].argmax(1) for path in two)
    judge = FileJudge(two[0], tensors(tmp_path, x, one), METRICS["top1"])
    assert judge.unit == "points of top1"
    assert judge(two[0]) == 0
    assert judge(two[1]) == pytest.approx(100 * (1 - (one == other).mean()))


def test_a_drop_of_another_metric_is_in_its_own_unit(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    x = images(20)
    one, other = (open_session(path).run({"x": x})["y"] for path in two)
    judge = FileJudge(two[0], tensors(tmp_path, x, one), METRICS["rmse"])
    assert judge.unit == "of rmse"
    assert judge(two[1]) == pytest.approx(np.sqrt(np.square(other - one).mean()), rel=1e-5)
    closer = FileJudge(two[1], tensors(tmp_path, x, one), METRICS["rmse"])
    assert closer(two[0]) < 0


def test_what_has_no_value_is_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    data = tensors(tmp_path, images(4), np.full((4, 10), np.nan, np.float32))
    with pytest.raises(DataError, match="rmse of the float32 file is nan"):
        FileJudge(two[0], data, METRICS["rmse"])
