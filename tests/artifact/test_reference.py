"""What a file is compared with: which inputs, in which batches."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.artifact.networks import SHAPE, BatchNormed, tiny
from trpexport.artifact.reference import BatchUse, ReferenceRuns, batch_use, check_repeats
from trpexport.errors import ModelError
from trpexport.inputs import INPUT, Inputs
from trpexport.networks.torch.network import TorchNetwork
from trpexport.tensors import Arrays

POINTWISE = TorchNetwork(nn.Conv2d(3, 1, 1), SHAPE)


def sizes(reference: ReferenceRuns, seconds: float = 0) -> list[int]:
    times = iter(range(10_000))
    runs = reference.runs(seconds, clock=lambda: float(next(times)))
    return [len(feeds[INPUT]) for feeds, _ in runs]


def test_inputs_stop_at_the_time_but_not_before_eight() -> None:
    assert sizes(ReferenceRuns(POINTWISE, Inputs.of(SHAPE), macs=10**9)) == [1, 3, 2, 2]
    assert sizes(ReferenceRuns(POINTWISE, Inputs.of(SHAPE), macs=10**9), seconds=3) == [
        1,
        3,
        2,
        2,
        2,
        2,
    ]
    assert sum(sizes(ReferenceRuns(POINTWISE, Inputs.of(SHAPE), macs=1), 1e9)) == 1024


def test_inputs_and_outputs_are_the_same_every_time() -> None:
    reference = ReferenceRuns(POINTWISE, Inputs.of(SHAPE), macs=1)
    runs, again = list(reference.runs(1e9)), list(reference.runs(1e9))
    assert not np.array_equal(runs[2][0][INPUT], runs[3][0][INPUT])
    for (feeds, outputs), (same_feeds, same_outputs) in zip(runs, again, strict=True):
        np.testing.assert_array_equal(feeds[INPUT], same_feeds[INPUT])
        assert same_outputs is outputs  # computed once
        expected = POINTWISE.run(feeds)["output"]
        np.testing.assert_array_equal(outputs["output"], expected)


@pytest.mark.parametrize(
    ("batch", "given", "expected"),
    [
        (1, None, [1] * 8),
        (3, None, [3, 3, 3]),
        (16, None, [16]),
        (2000, None, [2000]),
        (4, 7, [4]),
        (4, 11, [4, 4]),
    ],
)
def test_one_batch_size_is_the_only_one(batch: int, given: int | None, expected: list[int]) -> None:
    images = None if given is None else {INPUT: np.zeros((given, *SHAPE[1:]), np.float32)}
    reference = ReferenceRuns(POINTWISE, Inputs.of(SHAPE), macs=1, given=images, batch=batch)
    assert sizes(reference) == expected
    assert len(reference.golden()[INPUT]) == batch


def test_golden_inputs_are_the_first_that_are_compared() -> None:
    images = np.random.default_rng(0).random((20, *SHAPE[1:]), dtype=np.float32)
    for batch in (None, 2):
        given = {INPUT: images}
        reference = ReferenceRuns(POINTWISE, Inputs.of(SHAPE), macs=1, given=given, batch=batch)
        np.testing.assert_array_equal(reference.golden()[INPUT], images[: batch or 8])


class Clip(nn.Module):
    """The mean over all frames of a clip, which is the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((0, 2, 3))[None]


class Segments(nn.Module):
    """Mixes two neighbours in the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 2, *x.shape[1:]).cumsum(1).reshape(x.shape)


class Single(nn.Module):
    """Takes one image at a time."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(1, 3, 16, 16)


class Total(nn.Module):
    """One number, whatever the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square().sum()


@pytest.mark.parametrize(
    ("module", "batch", "use"),
    [
        (tiny(), 1, BatchUse.ANY),
        (tiny(), 4, BatchUse.ANY),
        (BatchNormed().eval(), 1, BatchUse.MIXED),
        (BatchNormed().eval(), 4, BatchUse.MIXED),
        (Clip(), 8, BatchUse.ONE),
        (Segments(), 2, BatchUse.ONE),
        (Single(), 1, BatchUse.ONE),
        (Total(), 2, BatchUse.ONE),
    ],
)
def test_what_becomes_of_the_batch_is_found_by_running(
    module: nn.Module, batch: int, use: BatchUse
) -> None:
    assert batch_use(TorchNetwork(module, SHAPE), (batch, *SHAPE[1:])) is use


def test_an_input_that_does_not_fit_is_no_dependence() -> None:
    with pytest.raises(ModelError, match=r"can't run an input of shape 2x4x16x16"):
        batch_use(TorchNetwork(tiny(), SHAPE), (2, 4, 16, 16))


def test_anything_that_gives_outputs_on_inputs_is_a_reference() -> None:
    class Doubling:
        def run(self, feeds: Arrays) -> Arrays:
            return {"output": 2 * feeds[INPUT]}

    class Tripling:
        def run(self, feeds: Arrays) -> Arrays:
            return {"output": 3 * feeds[INPUT]}

    reference = ReferenceRuns(Doubling(), Inputs.of((1, 4)), macs=1)
    assert reference.compare(Doubling(), seconds=0)["output"].max_error == 0
    assert reference.compare(Tripling(), seconds=0)["output"].rms_error == pytest.approx(0.5)


def test_a_network_may_change_its_input_in_place() -> None:
    network = TorchNetwork(nn.ReLU(inplace=True), (1, 4))
    reference = ReferenceRuns(network, Inputs.of((1, 4)), macs=1)
    for feeds, outputs in reference.runs(0):
        assert feeds[INPUT].min() < 0
        np.testing.assert_array_equal(outputs["output"], feeds[INPUT].clip(0))


def test_inputs_are_of_the_type_of_the_weights() -> None:
    network = TorchNetwork(nn.Conv2d(3, 1, 1).double(), SHAPE)
    images = np.zeros((2, *SHAPE[1:]), np.float32)
    for given in (None, images):
        reference = ReferenceRuns.of(network, SHAPE, 1, given, network.dtype)
        assert reference.golden()[INPUT].dtype == np.float64


class Drops(nn.Module):
    """A dropout that does not know of evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5)


class PythonsNumbers(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * random.random()


class Remembers(nn.Module):
    """Mixes in the frame before."""

    last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.last is None else (x + self.last) / 2
        self.last = x
        return y


class Counts(nn.Module):
    """Returns other shapes each time."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.repeat(1, self.calls, 1, 1)


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (Drops(), "draws random numbers in evaluation mode.*training=self.training"),
        (PythonsNumbers(), "something else each time for the same input"),
        (Remembers(), "something else each time for the same input"),
        (Counts(), "something else each time for the same input"),
    ],
)
def test_a_network_that_does_not_repeat_itself_is_found_out_first(
    module: nn.Module, says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        ReferenceRuns.of(TorchNetwork(module, SHAPE), SHAPE, macs=1)


class Takes(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def test_nan_is_the_inputs_fault_and_other_inputs_mend_it() -> None:
    network = TorchNetwork(Takes(torch.log), SHAPE)
    with pytest.raises(ModelError, match="output holds NaN for standard normal inputs") as caught:
        ReferenceRuns.of(network, SHAPE, macs=1)
    assert caught.value.parameters == ("inputs",)
    images = np.random.default_rng(0).random((9, *SHAPE[1:]), dtype=np.float32) + 0.1
    reference = ReferenceRuns.of(network, SHAPE, macs=1, given=images)
    assert sum(len(feeds[INPUT]) for feeds, _ in reference.runs(1e9)) == 9
    images[8] = -1
    reference = ReferenceRuns.of(network, SHAPE, macs=1, given=images)
    with pytest.raises(ModelError, match="output holds NaN for the inputs given"):
        list(reference.runs(1e9))


@pytest.mark.parametrize("function", [lambda x: x * 2, lambda x: x[:, :0], lambda x: x.argmax(1)])
def test_what_repeats_itself_is_let_through(function: Callable[[Tensor], Tensor]) -> None:
    x = np.ones(SHAPE, np.float32)
    check_repeats(TorchNetwork(Takes(function), SHAPE), {INPUT: x})


def test_the_callers_random_numbers_go_on() -> None:
    network = TorchNetwork(tiny(), SHAPE)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    check_repeats(network, {INPUT: np.ones(SHAPE, np.float32)})
    assert torch.equal(torch.rand(1), expected)
