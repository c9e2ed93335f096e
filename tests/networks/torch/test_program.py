"""Programs of ``torch.export``: they compute the same, and their layers are modules again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from tests.networks.torch.several import Masked
from trpexport.inputs import Input, Inputs
from trpexport.networks.torch.network import TorchNetwork
from trpexport.networks.torch.program import inputs_of, network_of


class Layers(nn.Module):
    """One layer after another; ``end`` says what else is done."""

    def __init__(self, *layers: nn.Module, end: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(*layers)
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y if self.end is None else self.end(self.layers, x, y)


CASES: list[tuple[tuple[int, ...], nn.Module]] = [
    ((2, 4, 9), nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, bias=False)),
    ((2, 4, 9, 7), nn.Conv2d(4, 6, (3, 1), padding="same", groups=2)),
    ((2, 4, 9, 7), nn.Conv2d(4, 6, 3, padding=(1, 0), stride=(1, 2))),
    ((2, 4, 5, 5, 5), nn.Conv3d(4, 6, 3, padding=1)),
    ((2, 4, 9), nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1, groups=2)),
    ((2, 4, 5, 5), nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, dilation=2, bias=False)),
    ((2, 4, 3, 3, 3), nn.ConvTranspose3d(4, 6, 2, stride=2)),
    ((2, 3, 4), nn.Linear(4, 5, bias=False)),
]


@pytest.mark.parametrize(("shape", "layer"), CASES)
def test_a_layer_is_a_module_of_its_own_name_and_settings(
    shape: tuple[int, ...], layer: nn.Module
) -> None:
    model, x = Layers(layer).eval(), torch.randn(shape)
    network = network_of(torch.export.export(model, (x,)))
    found = network.get_submodule("layers.0")
    assert type(found) is type(layer)
    assert str(found) == str(layer)
    torch.testing.assert_close(network(x), model(x))
    assert network.state_dict().keys() == model.state_dict().keys()
    assert not network.training


def functional(layers: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
    return y + layers[0].weight.sum()  # type: ignore[operator]


def otherwise(layers: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
    return y[..., 1:-1, 1:-1] + conv2d(x, layers[0].weight, layers[0].bias)  # type: ignore[arg-type]


def again(layers: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
    z: Tensor = layers(x + 1)
    return y + z


@pytest.mark.parametrize(
    ("end", "is_module"), [(functional, False), (otherwise, False), (again, True)]
)
def test_a_weight_of_several_uses_stays_a_parameter_unless_they_are_the_same(
    end: Any, is_module: bool
) -> None:
    model, x = Layers(nn.Conv2d(3, 3, 3, padding=1), end=end).eval(), torch.randn(1, 3, 8, 8)
    network = network_of(torch.export.export(model, (x,)))
    assert isinstance(network.get_submodule("layers.0"), nn.Conv2d) is is_module
    torch.testing.assert_close(network(x), model(x))


def test_a_program_says_what_it_takes() -> None:
    image, ids = torch.zeros(2, 3, 4, 4), torch.tensor([[1, 7], [0, 2]])

    class Both(nn.Module):
        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            return image.mean((1, 2, 3)) + ids.sum(1)

    for args, keywords in (((image, ids), {}), ((image,), {"ids": ids})):
        inputs = inputs_of(torch.export.export(Both(), args, keywords))
        assert inputs == Inputs({"image": Input((2, 3, 4, 4)), "ids": Input((2, 2), "int64", 8)})
    one = inputs_of(torch.export.export(Layers(nn.Linear(4, 2)), (torch.zeros(1, 4),)))
    assert one == Inputs.of((1, 4))


def test_a_program_is_decomposed_like_its_network() -> None:
    x = {"image": torch.randn(1, 2, 8, 8), "mask": torch.randn(1, 2, 8, 8)}
    program = torch.export.export(Masked().eval(), (), x)
    inputs = inputs_of(program)
    assert inputs is not None
    ours, theirs = (TorchNetwork.open(m, inputs) for m in (network_of(program), Masked()))
    assert [(one.name, one.op, one.fixed) for one in ours.layers] == [
        (one.name, one.op, one.fixed) for one in theirs.layers
    ]
    assert ours.cost.macs == theirs.cost.macs
