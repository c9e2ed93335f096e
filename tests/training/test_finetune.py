"""Training a decomposed network further: what it becomes is a decomposed network again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trpexport as tx
from tests.conftest import QUICK, Run
from trpexport.errors import DataError, TrainingError
from trpexport.training.finetune import finetune
from trpexport.training.train import train
from trpexport.training.watching import Watchers

RECIPE = tx.RECIPES["finetune"].changed(epochs=1, batch_size=64)
NOBODY = Watchers([])


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The first 200 digits for training and 100 for testing, as an npz file."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (found.images[:300, None] * 255 / 16).astype(np.uint8)
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(
        path,
        train_images=images[:200],
        train_labels=found.target[:200],
        test_images=images[200:],
        test_labels=found.target[200:300],
    )
    return f"npz:{path}"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits: str) -> Path:
    """A decomposed ResNet-20 that was trained for one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = tx.RECIPES["one-cycle"].changed(epochs=1, batch_size=64)
    train(
        "resnet20",
        tx.RunSettings(digits, recipe, augment=False),
        None,
        folder / "run",
        watcher=NOBODY,
    )
    chooser = tx.ByCriterion(criterion="fraction:0.3")
    small = tx.decompose(folder / "run/last.safetensors", chooser)
    quick: dict[str, Any] = {"opset": 17, "legacy_exporter": True, "simplify": False}
    tx.export(small, folder / "bundle", verify_seconds=0, **quick)
    return folder / "bundle"


def test_factors_stay_factors_and_learn(
    tmp_path: Path, bundle: Path, digits: str, run: Run
) -> None:
    before = tx.load(bundle)
    result = run("finetune", bundle, "--data", digits, "--epochs", 1, "--batch", 64,
                 "--no-augment", "-o", tmp_path / "tuned")  # fmt: skip
    assert result.code == 0, result.err
    after = tx.load(tmp_path / "tuned/last.safetensors")
    assert after.plan == before.plan
    assert after.metadata["preprocessing"] == before.metadata["preprocessing"]
    old, new = before.module.state_dict(), after.module.state_dict()
    assert old.keys() == new.keys()
    changed = [name for name in old if not torch.equal(old[name], new[name])]
    assert any(name.endswith(".conv1.0.weight") for name in changed)
    exported = run("export", tmp_path / "tuned/last.safetensors", "-o", tmp_path / "out",
                   *QUICK)  # fmt: skip
    assert exported.code == 0, exported.err
    assert tx.load(tmp_path / "out").plan == before.plan


def test_a_teacher_changes_what_is_learnt(tmp_path: Path, bundle: Path, digits: str) -> None:
    settings = tx.RunSettings(digits, RECIPE, augment=False)
    weights = []
    dataset = tx.open_dataset(digits)
    right = tx.evaluate(bundle, dataset, preprocessing=tx.load(bundle).preprocessing).top1
    for teacher in (None, bundle):
        out = tmp_path / str(teacher is None)
        facts = finetune(bundle, settings, out, teacher=teacher, watcher=NOBODY)
        assert facts.get("original_top1") == (teacher and pytest.approx(100 * right))
        weights.append(tx.load(out / "last.safetensors").module.state_dict())
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    with pytest.raises(TrainingError, match="teacher"):  # another run: it had no teacher
        finetune(bundle, settings, tmp_path / "True", teacher=bundle, watcher=NOBODY)


@pytest.mark.parametrize(
    ("size", "classes", "message"), [((8, 8), 3, "10 classes"), ((9, 8), 10, "1x8x8")]
)
def test_images_of_another_kind(
    tmp_path: Path, bundle: Path, size: tuple[int, int], classes: int, message: str
) -> None:
    images, labels = np.zeros((128, 1, *size), np.uint8), np.arange(128) % classes
    np.savez(
        tmp_path / "d.npz",
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
    )
    settings = tx.RunSettings(f"npz:{tmp_path / 'd.npz'}", RECIPE)
    with pytest.raises(DataError, match=message):
        finetune(bundle, settings, tmp_path / "out", watcher=NOBODY)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("weight", "temperature"), [(1.5, 4), (-0.1, 4), (0.5, 0), (0.5, np.inf), (0.5, 1e200)]
)
def test_senseless_numbers(tmp_path: Path, bundle: Path, weight: float, temperature: float) -> None:
    with pytest.raises(TrainingError, match="makes no sense"):
        finetune(
            bundle,
            tx.RunSettings("digits"),
            tmp_path / "out",
            teacher=bundle,
            teacher_weight=weight,
            temperature=temperature,
            watcher=NOBODY,
        )


def test_what_is_learnt_otherwise_is_another_run(
    tmp_path: Path, bundle: Path, digits: str, run: Run
) -> None:
    command = ("finetune", bundle, "--data", digits, "--epochs", 1, "--batch", 64,
               "--no-augment", "--teacher", bundle, "-o", tmp_path / "tuned")  # fmt: skip
    assert run(*command).code == 0
    for options, line in (
        (("--temperature", 2), "temperature 4.0 then, 2.0 now"),
        (("--mean", "0", "--std", "1"), "preprocessing {'mean': [0.5]"),
    ):
        result = run(*command, *options)
        assert result.code == 2
        assert line in result.error


@pytest.fixture
def with_baseline(bundle: Path, tmp_path: Path) -> Callable[..., Path]:
    """The bundle of the same network, with what its original is found by."""
    trained = bundle.parent / "run/last.safetensors"

    def make(*, baseline: bool, beside: bool) -> Path:
        chooser = tx.ByCriterion(criterion="fraction:0.3")
        quick: dict[str, Any] = {"opset": 17, "legacy_exporter": True, "simplify": False}
        small = tx.decompose(trained, chooser)
        tx.export(small, tmp_path / "small", verify_seconds=0, baseline=baseline, **quick)
        if beside:
            shutil.copy(trained, tmp_path)
        return tmp_path / "small"

    return make


@pytest.mark.parametrize("where", ["baseline.onnx", "last.safetensors"])
def test_a_bundle_knows_its_teacher(
    with_baseline: Callable[..., Path],
    bundle: Path,
    digits: str,
    run: Run,
    tmp_path: Path,
    where: str,
) -> None:
    small = with_baseline(baseline=where == "baseline.onnx", beside=where != "baseline.onnx")
    typed = ("finetune", small, "--data", digits, "--epochs", 1, "--batch", 64, "--no-augment")
    result = run(*typed, "-o", tmp_path / "found", "--json")
    assert result.code == 0, result.err
    path = small / where if where == "baseline.onnx" else tmp_path / where
    assert f"the teacher is {path}, the network before its decomposition" in result.err
    assert result.json["teacher"] == str(path)
    # It is the original network: what it gets right says so, and so does what was learnt from it.
    named = run(*typed, "-o", tmp_path / "named", "--json",
                "--teacher", bundle.parent / "run/last.safetensors")  # fmt: skip
    assert named.code == 0, named.err
    assert result.json["original_top1"] == named.json["original_top1"]
    assert result.json["test_loss"] == pytest.approx(named.json["test_loss"], rel=1e-3)
    alone = run(*typed, "-o", tmp_path / "alone", "--teacher", "none")
    assert alone.code == 0, alone.err
    assert "teacher" not in alone.out + alone.err
    loss = tx.load(tmp_path / "alone/last.safetensors").metadata["training"]
    assert "teacher" not in loss
    refused = run(*typed, "-o", tmp_path / "no", "--teacher", "none", "--temperature", 2)
    assert refused.code == 2
    assert "--temperature does nothing beside --teacher none" in refused.error


def test_another_file_of_the_same_name_is_no_teacher(
    with_baseline: Callable[..., Path], bundle: Path, digits: str, run: Run, tmp_path: Path
) -> None:
    small = with_baseline(baseline=False, beside=False)
    (tmp_path / "last.safetensors").write_bytes(b"something else")
    typed = ("finetune", small, "--data", digits, "--epochs", 1, "--batch", 64, "--no-augment")
    result = run(*typed, "-o", tmp_path / "out", "--json")
    assert result.code == 0, result.err
    assert "there is no teacher: the original network lies neither in" in result.err
    assert result.json["teacher"] is None
