"""Where a forward pass can be resumed, and where it can't."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.networks.torch.branches import UNet
from tests.networks.torch.presets import preset
from trpexport.networks.torch.cuts import Cuts
from trpexport.networks.torch.dataflow import decides_by_values
from trpexport.networks.torch.resuming import Form, outputs_at, resumed

SHAPE = (1, 3, 32, 32)


def test_residual_blocks_are_cuts_and_what_lies_inside_is_not() -> None:
    cuts = Cuts(preset("resnet20"), SHAPE)
    inside = cuts.before("layer2.1.conv2")
    after = cuts.before("layer3.0.conv1")
    assert inside is not None
    assert after is not None
    assert inside.names == ("layer2.0",)
    assert after.names in (("layer2",), ("layer2.2",))
    assert cuts.before("conv1") is None


class Skips(nn.Module):
    """The input is used again at the very end: nothing in between is a cut."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 3, 3, padding=1)
        self.b = nn.Conv2d(3, 3, 3, padding=1)
        self.c = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.a(x)
        y: Tensor = self.c(torch.relu_(self.b(first)))
        both: Tensor = y + first
        return both


def test_no_cut_where_something_goes_around_it() -> None:
    cuts = Cuts(Skips().eval(), (1, 3, 8, 8))
    between = cuts.before("b")
    assert between is not None
    assert between.names == ("a",)
    across = cuts.before("c")
    assert across is not None
    assert across.names == ("a",)


def test_a_u_net_is_cut_where_several_tensors_are_needed() -> None:
    model = UNet().eval()
    cuts = Cuts(model, (1, 3, 32, 32))
    # As many layers as may be repeated lie before it, since down.1: what joins later is needed.
    cut = cuts.before("up.1")
    assert cut is not None
    assert set(cut.names) == {"down.0", "down.1", "up.0"}
    assert cuts.before("up.0") == cuts.before("down.1.0")
    assert cuts.before("up.2") == cut
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        truth, outputs = model(x), outputs_at(model, cut.names, x)
        model(torch.randn(3, 3, 32, 32))
        ran = list[str]()
        for name in ("down.2.0", "up.0", "up.1"):
            model.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
        with resumed(model, cut, outputs, torch.zeros):
            torch.testing.assert_close(model(x), truth)
    assert "down.2.0" not in ran
    assert "up.1" in ran


class Pair(nn.Module):
    """Returns two tensors, and a number that no more images make more of."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.first(x)
        return y, y.mean((2, 3)), self.first.weight.sum()


class AfterPair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair, self.last = Pair(), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps, means, scale = self.pair(x)
        y: Tensor = self.last(maps + means[..., None, None]) * scale
        return y


def test_a_module_that_returns_several_tensors_is_a_cut() -> None:
    model = AfterPair().eval()
    cut = Cuts(model, (1, 3, 8, 8)).before("last")
    assert cut is not None
    assert cut.names == ("pair",)
    assert cut.skipped["pair"].grow == (True, True, False)
    x = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        truth, outputs = model(x), outputs_at(model, cut.names, x)
        assert cut.images(outputs) == 5
        with resumed(model, cut, outputs, torch.zeros):
            torch.testing.assert_close(model(x), truth)


def test_a_network_that_takes_its_images_one_by_one_is_not_cut() -> None:
    class OneByOne(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.b(self.a(image[None]).relu())[0] for image in x])

    cuts = Cuts(OneByOne().eval(), (1, 3, 8, 8))
    assert cuts.before("b") is None
    assert cuts.calls("b", 3) == 3


class Level(nn.Module):
    """Returns the mean of its input, which is no number that others could stand in for."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs().mean((1, 2, 3)) + 1.0


class Checked(nn.Module):
    """Computes between its modules what zeros in the place of their outputs make impossible."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.level = nn.Conv2d(3, 4, 3, padding=1), Level()
        self.second, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        matrix = torch.diag_embed(self.level(y)[:, None].expand(-1, 4))
        scale = torch.linalg.cholesky(matrix).diagonal(dim1=1, dim2=2)
        y = self.second(y * scale[..., None, None])
        z: Tensor = self.last(y)
        return z


def test_a_place_behind_what_can_not_take_zeros_is_no_cut() -> None:
    cut = Cuts(Checked().eval(), (1, 3, 8, 8)).before("last")
    # A Cholesky factor of zeros is an error: passes that skip what comes before it raise it.
    assert cut is None or "second" not in cut.names


class Catches(nn.Module):
    """Goes another way where a module refuses what it is given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.picky = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(9, 4, 1)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        try:
            y = self.picky(y)
        except RuntimeError:
            y = y.relu()
        z: Tensor = self.last(y)
        return z


def test_a_module_that_raises_and_is_caught_is_followed_around() -> None:
    cut = Cuts(nn.Sequential(Catches().eval()), (1, 3, 8, 8)).before("0.last")
    assert cut is not None
    assert cut.names == ("0.first",)


class Gated(nn.Module):
    """What the gate lets through depends on the image: on most of them nothing goes around."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c1, self.gate = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 1, 1)
        self.c2, self.c3 = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        h = self.c1(x)
        size = self.gate(h).abs().mean()
        y: Tensor = self.c3(self.c2(h.relu()).relu())
        if self.how == "branch":
            return y + h if size > 5 else y
        return torch.where(size > 5, y + h, y)


@pytest.mark.parametrize("how", ["branch", "where"])
def test_what_only_some_images_need_is_needed(how: str) -> None:
    model = Gated(how).eval()
    cuts = Cuts(model, (1, 3, 8, 8))
    found = cuts.before("c3")
    assert found is None or found.names != ("c2",)
    if found is not None:
        bright = torch.randn(4, 3, 8, 8) * 40
        with torch.no_grad():
            truth = model(bright)
            outputs = outputs_at(model, found.names, bright)
            with resumed(model, found, outputs, torch.zeros):
                torch.testing.assert_close(model(bright), truth)


class Remembers(nn.Module):
    """Leaves its output on itself, for another module to use later."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.kept = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.conv(x)
        return self.kept


class Uses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.b = Remembers(), nn.Conv2d(3, 3, 3, padding=1)
        self.c = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c(self.b(self.first(x)).relu())
        return y + self.first.kept


def test_a_tensor_left_on_a_module_for_later_is_no_cut() -> None:
    cuts = Cuts(Uses().eval(), (1, 3, 8, 8))
    cut = cuts.before("c")
    # Only from inside of what leaves it: all else would see that of the image before.
    assert cut is None or cut.names == ("first.conv",)


def test_frames_folded_into_the_batch_are_counted() -> None:
    class Video(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c1, self.c2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.embed = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            batch, frames = x.shape[:2]
            y = self.c2(self.c1(x.flatten(0, 1)).relu()).mean((2, 3))
            z: Tensor = self.embed(y).reshape(batch, frames, -1).mean(1)
            return z

    model = Video().eval()
    cuts = Cuts(model, (1, 5, 3, 8, 8))
    cut = cuts.before("c2")
    assert cut is not None
    assert cut.names == ("c1",)
    assert cut.skipped["c1"] == Form(((5, 4, 8, 8),), is_tuple=False, grow=(True,))
    x = torch.randn(3, 5, 3, 8, 8)
    with torch.no_grad():
        truth, outputs = model(x), outputs_at(model, cut.names, x)
        assert cut.images(outputs) == 3
        with resumed(model, cut, outputs, torch.zeros):
            torch.testing.assert_close(model(x), truth)


def test_a_forward_set_on_an_instance_comes_back() -> None:
    model = preset("resnet20")
    block = model.get_submodule("layer1.0")
    own = block.forward
    block.forward = lambda x: own(x) * 2
    mine = block.forward
    cuts = Cuts(model, SHAPE)
    for name in ("layer1.1.conv1", "layer3.0.conv1"):
        cuts.before(name)
    assert vars(block)["forward"] is mine
    assert all("forward" not in vars(m) for m in model.modules() if m is not block)


@pytest.mark.parametrize(
    ("forward", "decides"),
    [
        (lambda x: x * 2 if x.mean() > 0 else x, True),
        (lambda x: x[x > 0], False),
        (lambda x: x * float(x.max()), True),
        (lambda x: x * 2 if x.shape[0] > 0 else x, False),
        (lambda x: torch.where(x > 0, x, 0.0), False),
        (lambda x: x * float(torch.arange(3).max()), False),
    ],
)
def test_decisions_by_values_are_found(forward: Callable[[Tensor], Tensor], decides: bool) -> None:
    model = nn.Module()
    model.forward = forward
    assert decides_by_values(model, torch.ones(1, 3, 4, 4)) is decides
