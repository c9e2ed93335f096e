"""What a convolution gets and gives, and what a shortcut adds to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trpexport.networks.base import Observation
from trpexport.networks.torch.modules import Conv
from trpexport.networks.torch.observation import observe


def observed(conv: Conv, run: Callable[[], Tensor], calls: int = 1) -> Observation:
    return observe(run, {"it": conv}, {"it": calls})[0]["it"]


def test_observations_of_two_convolutions_that_are_added() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
            self.bn = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            left = self.bn(self.a(x))
            left += self.b(x)
            return torch.relu_(left)

    torch.manual_seed(0)
    model, x = Fork().eval(), torch.randn(2, 3, 6, 6)
    both, _ = observe(lambda: model(x), {"a": model.a, "b": model.b}, {"a": 1, "b": 1})
    with torch.no_grad():
        torch.testing.assert_close(both["a"].shortcut, model.b(x))
        torch.testing.assert_close(both["b"].shortcut, model.bn(model.a(x)))
    assert both["b"].scale is None


class Block(nn.Module):
    def __init__(self, *, inplace: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.inplace = inplace
        nn.init.uniform_(self.bn.weight, 0.5, 2)
        nn.init.uniform_(self.bn.running_var, 0.5, 2)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x))
        if self.inplace:
            y += x
            return torch.relu_(y)
        return torch.relu(x + y)


@pytest.mark.parametrize("inplace", [True, False])
def test_the_shortcut_and_the_scale_are_seen(inplace: bool) -> None:
    torch.manual_seed(0)
    model, x = Block(inplace=inplace).eval(), torch.randn(2, 4, 6, 6)
    seen = observed(model.conv, lambda: model(x))
    with torch.no_grad():
        expected = model.conv(x)
    torch.testing.assert_close(seen.inputs, [x])
    torch.testing.assert_close(seen.outputs, [expected])
    torch.testing.assert_close(seen.shortcut, x)
    assert seen.scale is not None
    shifted = model.bn(expected + 1) - model.bn(expected)
    torch.testing.assert_close(seen.scale, shifted[0, :, 0, 0].detach())


def test_no_shortcut_where_none_is_added() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1)).eval()
    x = torch.randn(2, 4, 6, 6)
    first, last = (module for module in model if isinstance(module, nn.Conv2d))
    for conv in (first, last):
        seen = observed(conv, lambda: model(x))
        assert seen.shortcut is None
        assert seen.scale is None
    # The in-place ReLU behind it has not touched what was seen.
    assert float(observed(first, lambda: model(x)).outputs[0].min()) < 0


def test_nothing_runs_once_an_output_is_joined_to_others() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(7, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(torch.cat([x, self.conv(x)], dim=1))
            return y

    model, ran = Dense().eval(), list[int]()
    model.last.register_forward_hook(lambda *_: ran.append(1))
    assert observed(model.conv, lambda: model(torch.randn(1, 3, 6, 6))).shortcut is None
    assert not ran


class Sum(nn.Module):
    """A convolution beside a shortcut, added up in some way."""

    def __init__(self, add: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.gains = nn.Parameter(torch.tensor([0.5, 1.0, 2.0, 4.0]).reshape(4, 1, 1))
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        return self.add(x, self.conv(x))


X = torch.arange(2 * 4 * 6 * 6.0).reshape(2, 4, 6, 6).sin()


@pytest.mark.parametrize(
    ("add", "shortcut", "scale"),
    [
        (lambda x, y: torch.add(x, y, alpha=0.1), 1.0, 0.1),
        (lambda x, y: torch.add(y, x, alpha=0.1), 0.1, None),
        (lambda x, y: x + 0.1 * y, 1.0, 0.1),
        (lambda x, y: y / 4 + x, 1.0, 0.25),
        (lambda x, y: y + 0.05 * x, 0.05, None),
        (lambda x, y: x - y, 1.0, -1.0),
        (lambda x, y: y - x, -1.0, None),
        (lambda x, y: torch.sub(x, y, alpha=2.0), 1.0, -2.0),
        (lambda x, y: torch.sub(y * 3, x, alpha=2.0), -2.0, 3.0),
        (lambda x, y: y.mul_(0.5).add_(x, alpha=2.0), 2.0, 0.5),
    ],
)
def test_factors_of_a_sum_are_seen(
    add: Callable[[Tensor, Tensor], Tensor], shortcut: float, scale: float | None
) -> None:
    model = Sum(add).eval()
    seen = observed(model.conv, lambda: model(X))
    torch.testing.assert_close(seen.shortcut, shortcut * X)
    if scale is None:
        assert seen.scale is None
    else:
        torch.testing.assert_close(seen.scale, torch.full((4,), scale))
    # What it was all for: sum = scale * output + shortcut.
    total = seen.outputs[0] * (1.0 if scale is None else scale) + shortcut * X
    with torch.no_grad():
        torch.testing.assert_close(model(X), total)


def test_a_factor_for_each_channel_is_seen() -> None:
    model = Sum(lambda x, y: x)
    model.add = lambda x, y: x + y * model.gains
    seen = observed(model.conv, lambda: model(X))
    torch.testing.assert_close(seen.shortcut, X)
    torch.testing.assert_close(seen.scale, model.gains.detach().reshape(-1))


@pytest.mark.parametrize("add", [lambda x, y: x + y * y, lambda x, y: x + y.sigmoid() * y])
def test_what_is_no_scale_hides_the_shortcut(add: Callable[[Tensor, Tensor], Tensor]) -> None:
    model = Sum(add).eval()
    assert observed(model.conv, lambda: model(X)).shortcut is None


def test_a_convolution_called_by_keyword_and_one_without_a_batch() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.b(self.a(input=x)[0])
            return y

    model = Odd().eval()
    x = torch.randn(1, 3, 6, 6)
    both, _ = observe(lambda: model(x), {"a": model.a, "b": model.b}, {"a": 1, "b": 1})
    torch.testing.assert_close(both["a"].inputs, [x])
    assert [tuple(t.shape) for t in (*both["b"].inputs, *both["b"].outputs)] == [
        (1, 4, 4, 4),
        (1, 2, 4, 4),
    ]


@pytest.mark.parametrize(
    ("operator", "has_training"),
    [
        ("native_batch_norm", True),
        ("_native_batch_norm_legit", True),
        ("_native_batch_norm_legit_no_training", False),
        ("_batch_norm_no_update", False),
    ],
)
def test_each_operator_of_a_batch_norm_is_a_scale(operator: str, has_training: bool) -> None:
    """Devices and ways to run have one each, with arguments in other places."""
    torch.manual_seed(0)
    conv, x = nn.Conv2d(4, 4, 3, padding=1), torch.randn(2, 4, 5, 5)
    weight, bias, mean = torch.randn(3, 4).unbind()
    variance = torch.rand(4) + 0.5
    normalise = getattr(torch.ops.aten, operator)

    def run(*, training: bool = False) -> Tensor:
        flags = (training,) if has_training else ()
        stored = (mean.clone(), variance.clone())
        output: Tensor = normalise(conv(x), weight, bias, *stored, *flags, 0.1, 1e-3)[0]
        return x + output

    seen = observed(conv, run)
    assert seen.shortcut is not None and seen.scale is not None
    torch.testing.assert_close(seen.shortcut, x)
    torch.testing.assert_close(seen.scale, weight / (variance + 1e-3).sqrt())
    if has_training:  # the scale of a batch changes with what the layer gives
        assert observed(conv, lambda: run(training=True)).shortcut is None
