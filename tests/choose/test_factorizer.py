"""One SVD a layer, from the choice of ranks to the check of the factors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trpexport.choose import factorizer
from trpexport.choose.by_criterion import ByCriterion
from trpexport.choose.by_plan import ByPlan
from trpexport.choose.factorizer import Factorizer
from trpexport.lowrank.schemes import SCHEMES
from trpexport.lowrank.spectrum import Basis
from trpexport.networks.torch.network import TorchNetwork
from trpexport.stages import Stages

SHAPE = (1, 4, 6, 6)


def network() -> TorchNetwork:
    """Return a network of two layers to rewrite, with others around them."""
    torch.manual_seed(0)
    return TorchNetwork.open(
        nn.Sequential(
            nn.Conv2d(4, 12, 1),
            nn.Conv2d(12, 12, 3, padding=1),
            nn.Flatten(),
            nn.Linear(12 * 36, 24),
            nn.Linear(24, 3),
        ),
        SHAPE,
    )


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Collect the shapes of what is decomposed."""
    shapes: list[tuple[int, ...]] = []
    of: Callable[[Tensor], Basis] = Basis.of

    def counted(matrices: Tensor) -> Basis:
        shapes.append(tuple(matrices.shape))
        return of(matrices)

    monkeypatch.setattr(Basis, "of", counted)
    return shapes


def test_one_svd_a_layer_by_criterion_and_by_plan(computed: list[tuple[int, ...]]) -> None:
    whole = network()
    choice = ByCriterion("channel", "rank:4")(whole, None, Stages(), None)
    assert computed == [(1, 12, 108), (1, 24, 432)]
    again = ByPlan(choice.plan)(whole, None, Stages(), None)
    assert computed == 2 * [(1, 12, 108), (1, 24, 432)]
    assert again.plan.layers == choice.plan.layers
    small = whole.rewritten(choice.chains)
    x = {"input": torch.randn(SHAPE).numpy()}
    checks = small.check_layers(whole, choice.plan, x)
    assert all(check.is_equivalent for check in checks)
    assert len(computed) == 4  # the check takes the plan's word for how close factors can be


def test_bases_that_take_too_much_memory_are_computed_again(
    computed: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factorizer, "_KEPT_BYTES", 12 * 12 * 8)
    kept = network()
    choice = ByCriterion("channel", "rank:4")(kept, None, Stages(), None)
    assert computed == [(1, 12, 108), (1, 24, 432), (1, 24, 432)]
    fresh = Factorizer(kept)
    for name, chain in choice.chains.items():
        layer = next(each for each in kept.layers if each.name == name)
        weight, _ = kept.weights(name)
        for ours, theirs, pure in zip(
            chain.kernels,
            fresh.chain(layer, "channel", 4).kernels,
            SCHEMES["channel"].truncate(weight, layer.op, 4),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs)
            torch.testing.assert_close(ours, pure)


@pytest.mark.parametrize(
    ("scheme", "chosen"),
    [("channel", 4), ("spatial", 5), ("tucker2", 4), ("spatial-channel", 4)],
)
@pytest.mark.parametrize("change", ["scale", "other rank", "noise"])
def test_factors_that_are_no_truncation_are_found(scheme: str, chosen: int, change: str) -> None:
    whole = network()
    choice = ByCriterion(scheme, f"rank:{chosen}", include=("1",))(whole, None, Stages(), None)
    chain = choice.chains["1"]
    first, *others = chain.kernels
    noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(1))
    changed = {
        "scale": first * (1 + 1e-4),
        "noise": first + 1e-3 * noise,
        "other rank": torch.cat([first[:1] * 0, first[1:]]),
    }[change]
    small = whole.rewritten({"1": type(chain)(**{**vars(chain), "kernels": (changed, *others)})})
    x = {"input": torch.randn(SHAPE).numpy()}
    (check,) = small.check_layers(whole, choice.plan, x)
    assert not check.is_equivalent
    (right,) = whole.rewritten(choice.chains).check_layers(whole, choice.plan, x)
    assert right.is_equivalent
