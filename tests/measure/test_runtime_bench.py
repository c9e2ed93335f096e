from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from trpexport.errors import ModelError, TrpexportError
from trpexport.measure.bench import BenchSettings, ModelFile, bench
from trpexport.measure.inputs import bench_inputs, image_count
from trpexport.measure.records import read_record
from trpexport.measure.timing import MIN_ROUNDS
from trpexport.report.render.markdown import markdown
from trpexport.report.views.bench import bench_view
from trpexport.runtime.session import open_session

WriteOnnx = Callable[..., Path]
QUICK: dict[str, Any] = {
    **{"min_time": 0.0, "max_time": 0.2, "min_runs": 1, "warmup_seconds": 0.0},
    "memory": False,
}


def settings_for(*paths: Path, **changes: Any) -> BenchSettings:
    models = tuple(ModelFile(str(path), f"model{index}") for index, path in enumerate(paths))
    return BenchSettings(models, **(QUICK | changes))


@pytest.fixture(scope="module")
def products(write_onnx: WriteOnnx) -> tuple[Path, Path]:
    """A product of large matrices, and one of a tenth of the size, with the same input."""

    def product(columns: int) -> Path:
        return write_onnx(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            {"x": ("n", 1000)},
            {"y": ("n", columns)},
            {"w": np.ones((1000, columns), np.float32)},
        )

    return product(4000), product(400)


@pytest.fixture(scope="module")
def record(products: tuple[Path, Path]) -> dict[str, Any]:
    return bench(
        settings_for(*products, threads=(1, 2), batch=3, min_time=0.05, max_time=1.0, memory=True)
    )


# --- the record -----------------------------------------------------------------------------


def test_the_record_is_json_and_says_how_it_came_about(record: dict[str, Any]) -> None:
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["schema_version"] == 1
    assert record["kind"] == "bench"
    assert record["created"].endswith("+00:00")
    assert record["machine"]["versions"]["numpy"] == np.__version__
    assert BenchSettings.from_json(record["settings"]).batch == 3
    assert [result["threads"] for result in record["results"]] == [1, 2]


def test_every_network_has_its_figures(record: dict[str, Any], products: tuple[Path, ...]) -> None:
    for result in record["results"]:
        for entry, path in zip(result["models"], products, strict=True):
            assert entry["path"] == "model.onnx"
            assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
            assert entry["file_bytes"] == path.stat().st_size
            assert entry["inputs"] == {"x": [3, 1000]}
            assert entry["placement"] == {"CPUExecutionProvider": 1}
            assert entry["session_seconds"] > 0
            assert entry["first_run_seconds"] > 0
            assert entry["runs"] >= 2 * entry["rounds"] >= 2 * MIN_ROUNDS
            assert entry["warmup_runs"] >= 1
            seconds = entry["seconds"]
            assert 0 < seconds["min"] <= seconds["median"] <= seconds["p90"] <= seconds["p95"]
            assert entry["throughput_per_second"] == pytest.approx(3 / seconds["median"])
            assert entry["memory"]["above_baseline_with_arena_bytes"] > 0
            assert entry["macs"] is entry["efficiency"] is None
            assert "samples" not in entry


def test_the_small_product_is_faster_than_the_large_one(record: dict[str, Any]) -> None:
    base, other = record["results"][0]["models"]
    assert base["ratio"] is None
    assert other["ratio"]["to"] == "model0"
    assert other["ratio"]["low"] <= other["ratio"]["mid"] <= other["ratio"]["high"]
    assert other["ratio"]["mid"] > 1.5  # ten times less to multiply
    assert other["ratio"]["verdict"] == "faster"


def test_steps_are_announced(products: tuple[Path, ...]) -> None:
    lines: list[str] = []
    bench(settings_for(products[1], memory=True), announce=lines.append)
    assert lines == ["open model0 with 1 thread", "time model0, in turns", "peak memory of model0"]


@pytest.mark.parametrize(
    "error", [ModelError("too little memory"), FileNotFoundError("inputs.npz")]
)
def test_a_memory_probe_that_fails_leaves_the_times(
    products: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch, error: Exception, tmp_path: Path
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("trpexport.measure.bench.measure_peak_memory", fails)
    record = bench(settings_for(*products, memory=True))
    for entry in record["results"][0]["models"]:
        assert entry["seconds"]["median"] > 0
        assert entry["memory"] is None
        assert entry["memory_failure"] == str(error)
    shown = markdown(bench_view(record))
    assert f"note: no peak memory of model0: {error}" in shown.replace("\\", "")
    (tmp_path / "record.json").write_text(json.dumps(record))
    assert read_record(tmp_path / "record.json") == record


def test_samples_are_kept_if_asked_for(products: tuple[Path, ...]) -> None:
    record = bench(settings_for(*products, keep_samples=True))
    for entry in record["results"][0]["models"]:
        samples = entry["samples"]
        assert len(samples) == entry["rounds"]
        assert sum(map(len, samples)) == entry["runs"]
        assert np.median(np.concatenate(samples)) == pytest.approx(entry["seconds"]["median"])
        assert entry["memory"] is None


def test_the_clock_is_injected(products: tuple[Path, ...]) -> None:
    now = 0

    def clock() -> int:
        nonlocal now
        now += 1_000_000
        return now

    (result,) = bench(settings_for(products[1]), clock=clock)["results"]
    (entry,) = result["models"]
    assert entry["session_seconds"] == pytest.approx(1e-3)
    assert entry["first_run_seconds"] == pytest.approx(1e-3)
    assert entry["seconds"]["median"] == pytest.approx(1e-3)
    assert entry["seconds"]["mad"] == pytest.approx(0, abs=1e-12)


# --- what networks run on -------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(write_onnx: WriteOnnx) -> Callable[..., Path]:
    def write(
        name: str = "image", batch: int | str = "n", size: int | str = 4, **more: Any
    ) -> Path:
        return write_onnx(
            [helper.make_node("Relu", [name], ["y"])],
            {name: (batch, 3, size, size)},
            {"y": None},
            **more,
        )

    return write


def inputs_for(*paths: Path, **changes: Any) -> list[dict[str, Any]]:
    return bench_inputs([open_session(path) for path in paths], settings_for(*paths, **changes))


def test_equal_inputs_are_drawn_once(images: Callable[..., Path]) -> None:
    first, second, third = inputs_for(images(), images(), images("photo"), seed=3)
    assert first["image"] is second["image"]
    np.testing.assert_array_equal(first["image"], third["photo"])
    assert not np.array_equal(first["image"], inputs_for(images(), seed=4)[0]["image"])


@pytest.mark.parametrize(
    ("fixed", "asked", "expected"), [("n", None, 1), ("n", 5, 5), (2, None, 2), (2, 2, 2)]
)
def test_the_batch_is_what_is_fixed_or_asked_for(
    images: Callable[..., Path], fixed: int | str, asked: int | None, expected: int
) -> None:
    (inputs,) = inputs_for(images(batch=fixed), batch=asked)
    assert inputs["image"].shape == (expected, 3, 4, 4)
    assert image_count(inputs) == expected


def test_a_shape_goes_to_the_networks_that_have_the_input(images: Callable[..., Path]) -> None:
    shapes = {"image": (2, 3, 8, 8), "photo": (2, 3, 6, 6)}
    one, two = inputs_for(images(size="s"), images("photo", size="s"), shapes=shapes)
    assert one["image"].shape == (2, 3, 8, 8)
    assert two["photo"].shape == (2, 3, 6, 6)


def test_networks_of_different_sizes_run_on_their_own(images: Callable[..., Path]) -> None:
    def sizes(*paths: Path, **changes: Any) -> list[Any]:
        return [inputs["image"].shape for inputs in inputs_for(*paths, **changes)]

    small, large, free = images(size=6), images(size=8), images(size="s")
    assert sizes(small, large) == [(1, 3, 6, 6), (1, 3, 8, 8)]
    shapes = {"image": (2, 3, 8, 8)}
    assert sizes(small, large, free, shapes=shapes) == [(2, 3, 6, 6), *[(2, 3, 8, 8)] * 2]
    own = settings_for(small, free, shapes=shapes)
    own = replace(
        own, models=(own.models[0], replace(own.models[1], shapes={"image": (2, 3, 5, 5)}))
    )
    found = bench_inputs([open_session(path) for path in (small, free)], own)
    assert [inputs["image"].shape for inputs in found] == [(2, 3, 6, 6), (2, 3, 5, 5)]
    refused("image .* can't have the shape 1x3x7x7", small, large, shapes={"image": (1, 3, 7, 7)})
    half = images(size=6, batch="m")
    assert sizes(half, shapes={"image": (4, 3, 6, 6)}) == [(4, 3, 6, 6)]
    record = bench(settings_for(small, large, memory=True))
    for entry, size in zip(record["results"][0]["models"], (6, 8), strict=True):
        assert entry["inputs"] == {"image": [1, 3, size, size]}
        assert entry["memory"]["with_arena_bytes"] > 0


def test_real_inputs_from_files(images: Callable[..., Path], tmp_path: Path) -> None:
    photos = np.random.default_rng(0).random((5, 3, 6, 6))
    np.save(tmp_path / "photos.npy", photos)
    np.savez(tmp_path / "named.npz", image=photos, other=photos)
    with (tmp_path / "golden.npz").open("wb") as file:
        golden: dict[str, Any] = {"input:image": photos, "output:y": photos[:, :1]}
        np.savez(file, **golden)
    for name in ("photos.npy", "named.npz", "golden.npz"):
        (inputs,) = inputs_for(images(size="s"), data=str(tmp_path / name), batch=2)
        np.testing.assert_array_equal(inputs["image"], photos[:2].astype(np.float32))
    (inputs,) = inputs_for(images(batch=4, size=6), data=str(tmp_path / "photos.npy"))
    assert inputs["image"].shape == (4, 3, 6, 6)
    record = bench(settings_for(images(size="s"), data=str(tmp_path / "photos.npy")))
    assert record["results"][0]["models"][0]["inputs"] == {"image": [1, 3, 6, 6]}


# --- what can't be benched ------------------------------------------------------------------


def refused(message: str, *paths: Path, **changes: Any) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        bench(settings_for(*paths, **changes))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_dynamic_input_asks_for_its_shape(images: Callable[..., Path]) -> None:
    refused(r"as in image=1x3x224x224", images(size="s"))
    refused(
        "no input 'x' to give a shape: choose from image, photo",
        images(),
        images("photo"),
        shapes={"x": (1, 3, 4, 4)},
    )


def test_batch_sizes_that_differ_are_refused(images: Callable[..., Path]) -> None:
    refused("runs 2 images at a time, not 3: .* a dynamic one", images(batch=2), batch=3)
    refused("runs 1 images at a time and .* 2: export them", images(), images(batch=2))
    shapes = {"image": (2, 3, 4, 4)}
    refused("gets 2 images at a time from its shape.* 5", images(), shapes=shapes, batch=5)
    assert inputs_for(images(), shapes=shapes, batch=2)[0]["image"].shape == (2, 3, 4, 4)


def test_outputs_that_are_not_finite_are_refused(write_onnx: WriteOnnx) -> None:
    log = write_onnx([helper.make_node("Log", ["x"], ["y"])], {"x": (8,)}, {"y": (8,)})
    refused("the output y of .* holds NaN or infinity", log)


def test_a_missing_file_is_told_before_any_is_opened(
    products: tuple[Path, ...], tmp_path: Path
) -> None:
    lines: list[str] = []
    with pytest.raises(ModelError, match="there is no file"):
        bench(settings_for(products[0], tmp_path / "gone.onnx"), announce=lines.append)
    assert lines == []


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (b"", {}, "holds no arrays: give a file of numpy"),
        (b"PK\x03\x04 cut short", {}, "holds no arrays"),
        (None, {}, "can't read .*No such file"),
        (np.zeros((1, 3, 4, 4)), {"batch": 2}, "have 1 entries, and 2 are needed"),
        (np.zeros((1, 3, 4, 5)), {}, r"needs the input image float32\[nx3x4x4\], but was given"),
        (np.zeros((1, 3, 4, 4), np.uint8), {}, "but was given uint8"),
        (np.zeros(()), {}, "but was given float32"),
        (np.array([{}]), {}, "holds no arrays"),
    ],
)
def test_data_that_do_not_fit_are_one_line(
    images: Callable[..., Path],
    tmp_path: Path,
    content: Any,
    changes: dict[str, Any],
    message: str,
) -> None:
    path = tmp_path / "data.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    refused(message, images(), data=str(path), **changes)


def test_data_without_an_input_are_one_line(write_onnx: WriteOnnx, tmp_path: Path) -> None:
    two = write_onnx(
        [helper.make_node("Add", ["a", "b"], ["y"])], {"a": (1,), "b": (1,)}, {"y": (1,)}
    )
    np.savez(tmp_path / "data.npz", a=np.zeros(1), c=np.zeros(1))
    refused("nothing for the input 'b' of .*, but 'a', 'c'", two, data=str(tmp_path / "data.npz"))
    np.savez(tmp_path / "empty.npz")
    refused("nothing for the input 'a' of .* at all", two, data=str(tmp_path / "empty.npz"))


def test_an_input_of_whole_numbers_is_benched(write_onnx: WriteOnnx) -> None:
    gather = write_onnx(
        [helper.make_node("Gather", ["w", "i"], ["y"])],
        {"i": ("n",)},
        {"y": None},
        {"w": np.ones((4, 2), np.float32)},
        types={"i": TensorProto.INT64},
    )
    (result,) = bench(settings_for(gather, batch=3))["results"]
    assert result["models"][0]["inputs"] == {"i": [3]}


def test_an_unusable_provider_is_an_error(products: tuple[Path, ...]) -> None:
    settings = settings_for(products[1])
    with pytest.raises(TrpexportError, match="no XnnpackExecutionProvider"):
        bench(replace(settings, provider="xnnpack"))
