"""Checking an architecture by images whose classes are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.data import cifar10_test_images
from trpexport.checkpoints import expected, load_checkpoint
from trpexport.datasets.dead_leaves import dead_leaves
from trpexport.errors import ArchitectureError, DataError


@dataclass(frozen=True)
class Labelled:
    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: int = 10
    name: str = "test"

    def batches(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        for start in range(0, len(self.inputs), 50):
            yield self.inputs[start : start + 50], self.labels[start : start + 50]


@pytest.fixture(scope="module")
def photographs(shared: Path) -> Labelled:
    inputs, labels = cifar10_test_images(shared, 150)
    return Labelled(inputs.numpy(), labels.numpy())


def test_a_real_checkpoint_is_as_good_as_published(shared: Path, photographs: Labelled) -> None:
    checkpoint = load_checkpoint(shared / "checkpoints" / "resnet20-12fca82f.th")
    found = expected(checkpoint, photographs)
    assert found.module is checkpoint.module
    with torch.no_grad():
        scores = checkpoint.module(torch.from_numpy(photographs.inputs))
    right = (scores.argmax(1).numpy() == photographs.labels).mean()
    assert right > 0.85
    assert found.evidence[0] == f"resnet20-a classifies {right:.1%} of 150 test images right"


def labelled_by(network: Any, count: int = 100) -> Labelled:
    """Return images with the classes that a network gives them: it alone is always right."""
    inputs = dead_leaves(count, 3, 32, 32, seed=3)
    with torch.no_grad():
        labels = network.eval()(torch.from_numpy(inputs)).argmax(1).numpy()
    return Labelled(inputs, labels)


def random_network(zoo: Any, text: str) -> Any:
    """Return fresh weights whose classes are spread: those of the classifier are centred."""
    torch.manual_seed(0)
    network = zoo.parse_architecture(text, num_classes=10).build().eval()
    with torch.no_grad():
        scores = network(torch.from_numpy(dead_leaves(100, 3, 32, 32, seed=3)))
        network.fc.bias -= scores.mean(0)
    return network


RIGHT = "wideresnet(depth=10,widen_factor=1,shortcut=raw)"


def test_a_look_alike_that_does_better_is_taken(zoo: Any, tmp_path: Path) -> None:
    network = random_network(zoo, RIGHT)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    checkpoint = load_checkpoint(tmp_path / "net.pth")
    assert checkpoint.label == "wideresnet(depth=10,widen_factor=1)"
    images = labelled_by(network)
    found = expected(checkpoint, images)
    assert found.label == RIGHT
    assert f"{RIGHT} classifies 100.0% of 100 test images right" in found.evidence[0]
    assert found.evidence[0].endswith("taken for the former")
    x = torch.from_numpy(images.inputs)
    with torch.no_grad():
        assert torch.equal(found.module(x), network(x))


def test_one_that_was_named_is_kept_and_warned_of(zoo: Any, tmp_path: Path) -> None:
    network = random_network(zoo, RIGHT)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    named = "wideresnet(depth=10,widen_factor=1)"
    found = expected(load_checkpoint(tmp_path / "net.pth", arch=named), labelled_by(network))
    assert found.label == named
    assert found.evidence[0].endswith("is it the one that was named?")


def test_no_better_than_chance_is_refused(zoo: Any, tmp_path: Path) -> None:
    network = random_network(zoo, RIGHT)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    images = labelled_by(network)
    # Each class is taken for the next one: nobody is right but by chance.
    wrong = Labelled(images.inputs, (images.labels + 1) % 10)
    with pytest.raises(ArchitectureError, match=r"no better than chance on 100 test images") as e:
        expected(load_checkpoint(tmp_path / "net.pth"), wrong)
    assert f"{RIGHT} 0.0%" in str(e.value)
    assert e.value.exit_code == 2


def test_another_number_of_classes_is_refused(zoo: Any, tmp_path: Path) -> None:
    network = random_network(zoo, RIGHT)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    images = labelled_by(network)
    other = Labelled(images.inputs, images.labels, classes=100)
    with pytest.raises(DataError, match=r"puts out \[10\] an image, the data has 100 classes"):
        expected(load_checkpoint(tmp_path / "net.pth"), other)
