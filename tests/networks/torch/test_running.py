"""What is said of a network that can't run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.networks.torch.plain import SHAPE, Plain
from trpexport.errors import ModelError, PlanError, TrpexportError
from trpexport.inputs import Inputs
from trpexport.networks.torch.arguments import drawn
from trpexport.networks.torch.network import TorchNetwork
from trpexport.networks.torch.running import noting, outputs_of


def fails(forward: Callable[..., Tensor]) -> nn.Module:
    model: nn.Module = type("Fails", (Plain,), {"forward": forward})()
    return model


def exits(self: Plain, x: Tensor) -> Tensor:
    raise SystemExit(3)


def asserts(self: Plain, x: Tensor) -> Tensor:
    assert x.shape[-1] == 32, "input size 8 doesn't match model (32)"
    return x


def takes_two(self: Plain, x: Tensor, y: Tensor) -> Tensor:
    return x + y


def imports(self: Plain, x: Tensor) -> Tensor:
    import package_that_nobody_has  # type: ignore[import-not-found]

    return package_that_nobody_has.run(x)  # type: ignore[no-any-return]


CASES: list[tuple[Callable[..., Tensor], str, tuple[str, ...]]] = [
    (lambda self, x: x.images, "AttributeError: 'Tensor' object has no attribute 'images'", ()),
    (lambda self, x: {"a": x}["b"], "KeyError: 'b'", ()),
    (lambda self, x: x / (1 // 0), "ZeroDivisionError: integer division or modulo by zero", ()),
    (lambda self, x: next(iter([])), "StopIteration", ()),
    (exits, "SystemExit: 3", ()),
    (imports, "ModuleNotFoundError: No module named 'package_that_nobody_has'", ()),
    (takes_two, "missing 1 required positional argument: 'y'", ("input_shape",)),
    (lambda self, x: self.c1(x.half()), "should be the same", ()),
    (asserts, "AssertionError: input size 8 doesn't match model .32.", ("input_shape",)),
    (lambda self, x: self.c2(x), "expected input.1, 3, 8, 8. to have 16 chan", ("input_shape",)),
    (lambda self, x: self.fc(x.flatten(1)), "shapes cannot be multiplied", ("input_shape",)),
    (lambda self, x: x.view(-1, 5), "shape '.-1, 5.' is invalid", ("input_shape",)),
    (lambda self, x: next(a for a, _, _, _, _ in [x.shape]), "not enough values", ("input_shape",)),
]
REMEDIES = {
    takes_two: "give inputs by name, it takes x, y",
    imports: "install package_that_nobody_has",
}


@pytest.mark.parametrize(("forward", "says", "parameters"), CASES)
def test_the_reason_is_the_networks_own_and_the_shape_is_blamed_where_it_is_to_blame(
    forward: Callable[..., Tensor], says: str, parameters: tuple[str, ...]
) -> None:
    network = TorchNetwork.open(fails(forward), SHAPE)
    runs: list[tuple[type[TrpexportError], Callable[[], object]]] = [
        (PlanError, lambda: network.layers),
        (ModelError, lambda: outputs_of(network.model, torch.zeros(SHAPE))),
    ]
    for kind, run in runs:
        with pytest.raises(kind, match=says) as caught:
            run()
        text = str(caught.value)
        assert text.startswith("the network can't run an input of shape 1x3x8x8 (")
        assert "\n" not in text
        assert REMEDIES.get(forward, "") in text
        assert caught.value.parameters == parameters
        is_of_shape = bool(parameters) and forward is not takes_two
        assert ("shape of one that it takes" in text) is is_of_shape
        if forward is not takes_two:
            assert "test_running.py:" in text


def test_notes_are_taken_of_forwards_that_are_called_themselves() -> None:
    conv = nn.Conv2d(3, 2, 1)
    seen = []

    def note(*noted: object) -> None:
        seen.append(noted[0])

    with noting({conv: note}):
        conv(torch.zeros(1, 3, 2, 2))
        conv.forward(torch.zeros(1, 3, 2, 2))
    assert seen == [conv, conv]
    assert "forward" not in vars(conv)


@pytest.mark.parametrize("side", [1 << 30, 1 << 22])
def test_inputs_beyond_all_memory_are_one_line(side: int) -> None:
    with pytest.raises(ModelError, match="more memory than there is") as caught:
        drawn(Inputs.of((1, 3, side, side)))
    assert caught.value.parameters == ("input_shape",)
    assert "\n" not in str(caught.value)
