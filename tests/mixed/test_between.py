"""What lies between layers is priced at the place where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.latency.networks import SHAPE, twins
from tests.mixed.networks import Converting
from trpexport.bundle import FLOAT32
from trpexport.latency.blanks import Blanks
from trpexport.latency.folding import folded
from trpexport.latency.stopwatch import Conditions, LocalStopwatch
from trpexport.mixed.between import Between, Prices, prices, spent_between
from trpexport.mixed.mix import Mix
from trpexport.mixed.places import Places, find_places
from trpexport.mixed.times import MixTimer, probes
from trpexport.networks.torch.network import TorchNetwork

INT8 = "int8"
# Two layers, the sum of both, and a layer behind that.
LAYERS, SUM = ("left", "right", "last"), 3
RESIDUAL = Places(
    layers=LAYERS,
    followers=("sum",),
    sources=((0, 1),),
    flows=((None, (0,), 10), (0, (1, SUM), 40), (1, (SUM,), 40), (SUM, (2,), 40), (2, (None,), 5)),
    nodes=(("sum", "relu"),),
)


def network(inside: str, own: float = 0.0, **behind: float) -> Between:
    """Return what a network spends at its sum, and behind places by the first letter."""
    letters = {"n": None, "l": 0, "r": 1, "s": SUM, "z": 2}
    kinds = {name: INT8 if name[:2] in inside.split() else FLOAT32 for name in LAYERS}
    found = {letters[name]: seconds for name, seconds in behind.items()}
    return Between(RESIDUAL.inside(kinds), {SUM: own}, found)


@pytest.fixture
def residual() -> Prices:
    return prices(
        RESIDUAL,
        [
            network("", n=1.0, l=2.0, s=3.0),
            network("le ri la", own=4.0, n=6.0, s=1.0, z=7.0),
            network("le ri", own=4.0, n=6.0, s=9.0),
            # The sum stays in float32, and is no longer fused.
            network("ri la", own=5.0, n=1.0, l=14.0, r=8.0, s=6.0, z=7.0),
        ],
    )


def test_a_conversion_costs_what_there_is_more_behind_its_source(residual: Prices) -> None:
    assert residual.into[0] == 6 - 1
    assert residual.into[1] == 14 - 2
    assert residual.out[3] == 9 - 1
    assert residual.into[3] == 6 - 3


def test_a_sum_that_is_no_longer_fused_counts_to_what_is_in_int8(residual: Prices) -> None:
    assert residual.out[2] == 8 + 5


def test_what_follows_int8_in_int8_counts_to_its_source(residual: Prices) -> None:
    assert residual.int8[0] == -2  # what is behind it in float32, and not in int8
    assert residual.int8[SUM] == 4 + (1 - 3)


def test_a_conversion_that_always_is_there_counts_to_the_source(residual: Prices) -> None:
    assert residual.int8[2] == 7
    assert residual.out[4] == 0


def test_what_nobody_saw_costs_what_others_do_by_size(residual: Prices) -> None:
    # Seen were 8, 13 and 7, of 40, 40 and 5 numbers.
    assert residual.out[1] == pytest.approx(40 * (8 + 13 + 7) / (40 + 40 + 5))


def test_prices_of_a_machine_come_out(tmp_path: Path) -> None:
    blanks = Blanks(twins(), tmp_path)
    clock = Converting(2e-6, 0.5)
    places = find_places(blanks.original, blanks.layers, "cpu")
    networks = MixTimer(blanks, clock).between(places, probes(places))
    unit = 1 / clock.latency(blanks.original)
    found = prices(places, networks)
    between_layers = [
        flow
        for flow, (source, users, _) in enumerate(places.flows)
        if source is not None and users == (source + 1,) and users[0] < 4
    ]
    assert len(between_layers) == 3
    for flow in between_layers:
        assert found.into[flow] == pytest.approx(2e-6 * unit)
        assert found.out[flow] == pytest.approx(2e-6 * unit)


class Residual(nn.Module):
    """A shortcut around a layer, and a layer behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = (nn.Conv2d(16, 16, 3, padding=1) for _ in LAYERS)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.left(x))
        y: Tensor = self.last(torch.relu(x + self.right(x)))
        return y


@pytest.fixture(scope="module")
def shortcut(tmp_path_factory: pytest.TempPathFactory) -> Blanks:
    torch.manual_seed(0)
    network = TorchNetwork.open(Residual().eval(), (1, 16, *SHAPE[2:]))
    return Blanks(network, tmp_path_factory.mktemp("residual"))


@pytest.mark.parametrize("inside", [(), LAYERS, ("left", "right"), ("right", "last")])
def test_all_that_runs_here_is_of_a_layer_or_between(
    inside: tuple[str, ...], shortcut: Blanks, tmp_path: Path
) -> None:
    places = find_places(shortcut.original, LAYERS, "cpu")
    mix = Mix({}, {name: INT8 if name in inside else FLOAT32 for name in LAYERS})
    file = tmp_path / "mix.onnx"
    owners = shortcut.into(mix.form).write(file, {})
    (profile,) = LocalStopwatch(Conditions()).profiles([file], 8)
    numbers = places.inside(mix.precisions)
    found = spent_between(profile, file, owners, places, inside=numbers, whole=1.0)
    layers = folded(profile, file, owners)
    outside = sum(found.own.values()) + sum(found.behind.values())
    assert layers.layers.keys() == {*LAYERS}
    inner = sum(one.seconds for one in layers.layers.values()) / layers.seconds
    assert outside + inner == pytest.approx(1)
    # Conversions of the sum and of its parts stand where these do.
    crossed = {places.flows[flow][0] for flow in places.converted(numbers)}
    assert crossed <= {place for place, seconds in found.behind.items() if seconds > 0}
