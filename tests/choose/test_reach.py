"""What stands in the way of a target that can't be met."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from trpexport.choose.alignment import AlignedSelection
from trpexport.choose.prices import PRICES
from trpexport.choose.reach import check_reach
from trpexport.errors import NothingToDoError
from trpexport.networks.torch.network import TorchNetwork


class Net(nn.Module):
    """A stem, a depthwise and two other convolutions, two heads: 1x1 all, MACs by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 16, 1)  # 64
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)  # 144
        self.body = nn.Conv2d(16, 32, 1)  # 512, of rank r: 48 r
        self.strided = nn.Conv2d(32, 32, 1, stride=2)  # 1024 / 4
        self.a, self.b = nn.Conv2d(32, 16, 1), nn.Conv2d(32, 16, 1)  # 512 / 4 each

    def forward(self, x: Tensor) -> Any:
        y = self.strided(self.body(self.depthwise(self.stem(x))))
        return self.a(y), self.b(y)


WHOLE = 64 + 144 + 512 + 256 + 2 * 128
# At rank 1 the strided one is 32 + 32 / 4 where the first factor has no stride, 16 as channel has.
BODY, STRIDED, HEAD = 48, 8 + 8, 8 + 4


def refused(**options: Any) -> NothingToDoError:
    network = TorchNetwork.open(Net().eval(), (1, 4, 4, 4))
    with pytest.raises(NothingToDoError) as caught:
        check_reach(network, PRICES["macs"], 0.01, "channel", AlignedSelection(**options))
    return caught.value


def test_the_best_with_and_without_each_obstacle_is_told() -> None:
    best = 64 + 144 + BODY + STRIDED + 2 * 128
    error = refused(rank_multiple=1)
    text = str(error)
    assert f"the best is {best / WHOLE:.3f}" in text
    assert f"it would be {(best - 2 * 128 + 2 * HEAD) / WHOLE:.3f} with the heads included" in text
    assert f"{(best - 64 + 20) / WHOLE:.3f} with the stem included" in text
    assert f"{144 / WHOLE:.1%} in depthwise convolutions" in text
    assert "include" in error.parameters
    assert "--" not in text


@pytest.mark.parametrize(
    ("options", "parameter", "words", "without"),
    [
        ({"exclude": ["strided"]}, "exclude", "with nothing excluded", 256 - STRIDED),
        ({"include": ["body"]}, "include", "with all layers", 256 - STRIDED),
        ({"stride_1_only": True}, "stride_1_only", "with strided layers", 256 - STRIDED),
        (
            {"rank_multiple": 4},
            "rank_multiple",
            "with ranks that are no multiple of 4",
            3 * (BODY + STRIDED),
        ),
    ],
)
def test_what_was_asked_for_is_an_obstacle(
    options: dict[str, Any], parameter: str, words: str, without: int
) -> None:
    error = refused(**{"rank_multiple": 1, **options})
    best = 64 + 144 + BODY + STRIDED + 2 * 128
    assert f"the best is {(best + without) / WHOLE:.3f}" in str(error)
    assert f"{best / WHOLE:.3f} {words}" in str(error)
    assert parameter in error.parameters


def test_a_target_within_reach_is_none() -> None:
    network = TorchNetwork.open(Net().eval(), (1, 4, 4, 4))
    check_reach(network, PRICES["macs"], 0.7, "channel", AlignedSelection(rank_multiple=1))
