"""The metric of a layer's output error, against derivatives taken whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trpexport.lowrank.fit.moments import scale_metric
from trpexport.networks.samples import Samples
from trpexport.networks.torch import curvature, watch
from trpexport.networks.torch.curvature import metric_groups, output_metrics
from trpexport.networks.torch.network import TorchNetwork

SHAPE = (1, 3, 8, 8)


def some_images(count: int = 6) -> list[Tensor]:
    values = np.random.default_rng(0).standard_normal((count, *SHAPE[1:]), dtype=np.float32)
    return [torch.from_numpy(values)]


def network(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), *layers, nn.Flatten(), nn.LazyLinear(5)).eval()


def ready(model: nn.Sequential) -> nn.Sequential:
    with torch.no_grad():
        model(torch.zeros(SHAPE))
    return model


def scaled(square: Tensor) -> Tensor:
    diagonal = torch.diagonal(square, dim1=-2, dim2=-1).mean(-1)
    eye = torch.eye(square.shape[-1], dtype=torch.float64)
    return square / diagonal[..., None, None] + curvature._FLOOR * eye


def test_it_is_what_the_whole_jacobian_says(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ready(network(nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Tanh()))
    images = some_images()
    monkeypatch.setattr(curvature, "_DIRECTIONS", 4000)
    found = output_metrics(model, images)
    assert set(found) == {"0", "2", "5"}
    outputs = model[0](images[0]).detach()
    expected = torch.zeros(6, 6, dtype=torch.float64)
    for output in outputs.split(1):
        jacobian = torch.autograd.functional.jacobian(model[1:], output)  # type: ignore[no-untyped-call]
        rows = jacobian.reshape(5, 6, -1).double()
        expected += torch.einsum("kop,kqp->oq", rows, rows)
    torch.testing.assert_close(found["0"][0], scaled(expected), rtol=0.05, atol=0.05)


def test_directions_that_nobody_looks_at_count_least() -> None:
    model = network(nn.Conv2d(6, 4, 1))
    with torch.no_grad():
        weight = model[1].get_parameter("weight")
        weight[:, 5] = weight[:, 4]
    metric = output_metrics(ready(model), some_images())["0"][0]
    difference = torch.tensor([0, 0, 0, 0, 1, -1], dtype=torch.float64)
    # Only the floor is left of it.
    assert float(difference @ metric @ difference) == pytest.approx(2 * curvature._FLOOR, rel=1e-4)


def test_groups_have_a_metric_each() -> None:
    model = network(nn.Conv2d(6, 6, 3, groups=3), nn.ReLU())
    found = output_metrics(ready(model), some_images())
    assert found["1"].shape == (3, 2, 2)
    assert (torch.linalg.eigvalsh(found["1"]) > 0).all()


class Odd(nn.Module):
    """A network that ends in something odd."""

    def __init__(self, end: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.unused = nn.Conv2d(3, 6, 3)
        self.end = end

    def forward(self, x: Tensor) -> object:
        x -= 0.5  # in place, as some networks normalise
        self.unused(x)
        return self.end(torch.relu_(self.conv(x)))


@pytest.mark.parametrize(
    ("end", "names"),
    [
        (lambda y: {"boxes": [y.sum((2, 3))], "count": len(y), "best": y.argmax(1)}, {"conv"}),
        (lambda y: y.argmax(1), set()),
        (lambda y: y.detach(), set()),
        (lambda y: torch.special.zeta(y + 2, y + 2), set()),  # no derivative
        (lambda y: 0 * y, set()),
    ],
)
def test_what_no_output_shows_has_no_metric(
    end: Callable[[Tensor], object], names: set[str]
) -> None:
    model = Odd(end)
    images = some_images()
    before = images[0].clone()
    assert set(output_metrics(model, images)) == names
    assert torch.equal(images[0], before)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_order_of_images_does_not_matter() -> None:
    network_of = TorchNetwork(ready(network(nn.ReLU())), SHAPE)
    values = some_images(200)[0].numpy()
    metrics = [
        network_of.watch(Samples({"input": some})).metric("0")
        for some in (values, values[::-1].copy())
    ]
    assert metrics[0] is not None
    assert torch.equal(metrics[0], metrics[1])  # type: ignore[arg-type]


def test_a_frozen_network_has_the_same_metric() -> None:
    model = ready(network(nn.ReLU()))
    expected = output_metrics(model, some_images())["0"]
    model.requires_grad_(False)
    assert torch.equal(output_metrics(model, some_images())["0"], expected)


def test_a_batch_norms_scale_counts_by_its_square() -> None:
    metric = scale_metric(torch.tensor([2.0, -1.0, 0.0, 4.0]), 1)
    expected = torch.diag(torch.tensor([0.25, 0.0625, 1e-6, 1.0], dtype=torch.float64))
    torch.testing.assert_close(metric[0], expected)
    torch.testing.assert_close(
        scale_metric(torch.zeros(4), 1)[0], torch.eye(4, dtype=torch.float64)
    )


class TwoOutputs(nn.Module):
    """One output of each channel: the second is larger, many times over, in number and in size."""

    def __init__(self, scale: float, copies: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1, bias=False)
        self.conv.weight.data = torch.eye(2)[:, :, None, None]
        self.scale, self.copies = scale, copies

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = self.conv(x).split(1, dim=1)
        return first, self.scale * second.repeat(1, self.copies, 1, 1) + 5


@pytest.mark.parametrize(("scale", "copies"), [(1.0, 1), (1000.0, 1), (1.0, 64), (1e-3, 8)])
def test_each_output_counts_by_its_own_variation(scale: float, copies: int) -> None:
    """Both channels vary alike, and so an error in either does as much, relative to its output."""
    values = np.random.default_rng(0).standard_normal((32, 1, 8, 8), dtype=np.float32)
    images = torch.from_numpy(np.repeat(values, 2, axis=1))
    (metric,) = output_metrics(TwoOutputs(scale, copies), [images])["conv"]
    first, second = metric.diagonal().tolist()
    # Signs are drawn: those of many copies add up to their variance only on average.
    assert second == pytest.approx(first, rel=1e-5 if copies == 1 else 0.15)


def test_metrics_of_some_layers_are_those_of_all() -> None:
    model = ready(network(nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Tanh()))
    names = ("0", "2", "5")
    whole = output_metrics(model, [*some_images(), *some_images(4)])
    # 6, 4 and 5 channels, of 8 bytes a number.
    sizes = [8 * channels**2 for channels in (6, 4, 5)]
    for memory, expected in (
        (sum(sizes), [names]),
        (sizes[0] + sizes[1], [names[:2], names[2:]]),
        (0, [(name,) for name in names]),
    ):
        groups = list(metric_groups(model, [name for name, _ in model.named_modules()], memory))
        assert groups == expected
        for group in groups:
            found = output_metrics(model, [*some_images(), *some_images(4)], layers=group)
            assert set(found) == set(group)
            for name, metric in found.items():
                assert torch.equal(metric, whole[name])


def test_a_watch_derives_metrics_by_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ready(network(nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Tanh()))
    samples = Samples({"input": some_images()[0].numpy()})
    net = TorchNetwork(model, SHAPE)
    whole, small = net.watch(samples), net.watch(samples, memory=8 * 6**2)
    asked: list[tuple[str, ...]] = []

    def noted(*args: Any, layers: tuple[str, ...]) -> dict[str, Tensor]:
        asked.append(layers)
        return output_metrics(*args, layers=layers)

    monkeypatch.setattr(watch, "output_metrics", noted)
    for name in ("0", "2", "5", "5", "0"):
        one, other = small.metric(name), whole.metric(name)
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)
    assert asked == [("0",), ("0", "2", "5"), ("2",), ("5",), ("0",)]
    assert small.metric("nothing of this name") is None
