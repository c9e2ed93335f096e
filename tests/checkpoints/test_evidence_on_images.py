"""Images to calibrate on tell what artificial ones can't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints.test_evidence import recorded
from tests.data import cifar10_test_images
from trpexport.checkpoints import Checkpoint, evidence, examined, load_checkpoint, loading
from trpexport.choose.by_criterion import ByCriterion
from trpexport.datasets.calibration import ArrayImages
from trpexport.pipeline import Source, decompose_checkpoint

TEXT = "resnet_cifar(depth=14,block=basic,shortcut={},width=8)"


@pytest.mark.parametrize("shortcut", ["subsample", "average"])
def test_photographs_decide(shared: Path, tmp_path: Path, zoo: Any, shortcut: str) -> None:
    x, _ = cifar10_test_images(shared, 256)
    right = zoo.parse_architecture(TEXT.format(shortcut), num_classes=10)
    path = tmp_path / "net.pth"
    torch.save(recorded(right.build(), x[:128]), path)
    others = x[128:].numpy()
    assert examined(load_checkpoint(path), others).architecture == right
    small = decompose_checkpoint(
        Source(path), ByCriterion("spatial", "rank:2"), ArrayImages(others[:64])
    )
    assert small.plan.architecture == str(right)
    assert isinstance(small.source, Checkpoint)
    with torch.no_grad():
        network = right.build().eval()
        network.load_state_dict(small.source.module.state_dict())
        assert torch.equal(network(x[:2]), small.original.model(x[:2]))


def test_inputs_of_another_kind_change_nothing(shared: Path) -> None:
    checkpoint = load_checkpoint(shared / "checkpoints" / "resnet20-12fca82f.th")
    flat = cifar10_test_images(shared, 4)[0].flatten(1).numpy()
    assert examined(checkpoint, flat) is checkpoint


def test_artificial_images_are_not_asked_where_others_are_at_hand(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[bool]()
    examine = evidence.examine

    def noted(*arguments: Any, images: Any, **keywords: Any) -> Any:
        asked.append(images is not None)
        return examine(*arguments, images=images, **keywords)

    monkeypatch.setattr(loading, "examine", noted)
    source = Source(shared / "checkpoints" / "resnet20-12fca82f.th")
    chooser = ByCriterion("spatial", "rank:2", include=("layer3.2.conv2",))
    images = ArrayImages(cifar10_test_images(shared, 24)[0].numpy())
    with_images = decompose_checkpoint(source, chooser, images)
    assert asked == [True]
    decompose_checkpoint(source, chooser)
    assert asked == [True, False]
    assert isinstance(with_images.source, Checkpoint)
    assert any("the images" in note for note in with_images.source.evidence)
