"""Factors trained further: closer on held-out images, never further, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trpexport as tx
from tests.kinds_of_networks import NETWORKS
from tests.networks.torch.several import Masked, Tokens
from tests.refining.refined import SHAPE, STEPS, Normed, decomposed, facts, network, smooth
from trpexport.errors import DataError, ModelError, PlanError
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.samples import Samples
from trpexport.networks.torch.network import TorchNetwork
from trpexport.pipeline import Decomposed
from trpexport.plan import CALIBRATION
from trpexport.refining import descent
from trpexport.refining.refinement import REFINED
from trpexport.training.augmentation import Augmentation


def weights(found: Decomposed[Any]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = found.module.state_dict()
    return state


def same(one: Decomposed[Any], other: Decomposed[Any]) -> bool:
    theirs = weights(other)
    return all(torch.equal(tensor, theirs[name]) for name, tensor in weights(one).items())


def held_out_error(found: Decomposed[Any]) -> float:
    """Return the error on the held-out images, of one output, from outputs alone."""
    assert found.images is not None
    _, inputs = found.images.held_out()
    feeds = {"input": inputs}
    wanted, given = (each.run(feeds)["output"] for each in (found.original, found.network))
    wanted, given = wanted.reshape(len(wanted), -1), given.reshape(len(given), -1)
    variation = ((wanted - wanted.mean(0)) ** 2).sum()
    return float((((given - wanted) ** 2).sum() / variation) ** 0.5)


def test_it_comes_closer_on_held_out_images_and_says_how_close() -> None:
    before, after = decomposed(None), decomposed()
    told = facts(after)
    assert held_out_error(after) < 0.9 * held_out_error(before)
    assert told["before"]["output_error"] == pytest.approx(held_out_error(before), rel=1e-3)
    assert told["after"]["output_error"] == pytest.approx(held_out_error(after), rel=1e-3)
    assert (told["images"], told["held_out_images"], told["steps"]) == (64, 16, 24)
    assert after.verify().equivalence["output"].rms_error < 1e-5


def test_nothing_but_factors_changes_and_what_shares_a_weight_goes_on_to() -> None:
    before, after = weights(decomposed(None)), weights(found := decomposed())
    chains = tuple(f"{layer.name}." for layer in found.plan.rewritten)
    assert {"twice", "tied"} <= {layer.name for layer in found.plan.rewritten}
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]) is not name.startswith(chains), name
    module = found.network.model
    one, other = (module.get_submodule(name) for name in ("twice", "tied"))
    assert all(a.weight is b.weight for a, b in zip(one, other, strict=True))  # type: ignore[call-overload]


def test_the_plan_tells_the_weight_errors_of_the_new_factors() -> None:
    found = decomposed()
    model = found.network.model
    chains: dict[str, Any] = {c.name: model.get_submodule(c.name) for c in found.plan.rewritten}
    for row in found.plan.rewritten:
        kernel, _ = found.original.weights(row.name)
        product = chains[row.name].weight.detach()
        wanted = float((product - kernel).norm() / kernel.norm())
        assert row.weight_error == pytest.approx(wanted, rel=1e-4)


def test_the_same_seed_gives_the_same_and_another_one_something_else() -> None:
    first = decomposed()
    assert same(first, decomposed())
    assert not same(first, decomposed(replace(STEPS, seed=1)))


CASES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "unet": (NETWORKS["unet"], smooth(40, 1, 16, 16)),
    "detector": (NETWORKS["detector"], smooth(40, 1, 16, 16)),
    "audio": (NETWORKS["audio"], smooth(40, 1, 64)),
    "volume": (NETWORKS["volume"], smooth(40, 1, 4, 8, 8)),
    "two_inputs": (
        NETWORKS["two_inputs"],
        {"left": smooth(40, 1, 16, 16), "right": smooth(40, 1, 16, 16, seed=1)},
    ),
    "vit": (NETWORKS["vit"], smooth(40, 1, 16, 16)),
    "masked": (Masked, {"image": smooth(40, 2, 9, 9), "mask": smooth(40, 2, 9, 9, seed=1)}),
    "tokens": (
        Tokens,
        {
            "ids": np.random.default_rng(0).integers(0, 50, (40, 12)),
            "attention": np.ones((40, 12), np.bool_),
        },
    ),
}


HARD = ("detector", "vit")  # for so few steps


@pytest.mark.parametrize("name", CASES)
def test_no_kind_of_network_gets_further_on_its_worst_output(name: str) -> None:
    kind, images = CASES[name]
    found = decomposed(STEPS, images, network(kind))
    before, after = (facts(found)[when]["output_error"] for when in ("before", "after"))
    assert after < before or (name in HARD and after == before)
    assert found.verify().layers


def test_what_diverges_is_given_up_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "_RATE", 1e30)  # more than it is divided by on the way
    found = decomposed()
    assert same(found, decomposed(None))
    assert facts(found)["after"] == facts(found)["before"]
    assert found.notes[-1].startswith("refining came no closer on held-out images")


def test_in_bfloat16_it_comes_as_close() -> None:
    exact, rounded = (
        facts(decomposed(replace(STEPS, bf16=bf16)))["after"]["output_error"]
        for bf16 in (False, True)
    )
    assert rounded == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize(
    ("values", "shift"),
    [
        ({"input": smooth(2, 3, 32, 48)}, 4),
        ({"input": smooth(2, 1, 224, 224)}, 28),
        ({"input": smooth(2, 1, 16)}, None),
        ({"input": smooth(2, 64, 32, 32)}, None),
        ({"input": smooth(2, 3, 4, 4)}, None),
        ({"left": smooth(2, 3, 32, 32), "right": smooth(2, 3, 32, 32)}, None),
        ({"ids": np.zeros((2, 3, 16, 16), np.int64)}, None),
    ],
)
def test_images_alone_are_shifted_and_mirrored(values: Any, shift: int | None) -> None:
    found = STEPS._augmentation(Samples(values))
    assert found == (None if shift is None else Augmentation(shift, mirror=True))
    assert replace(STEPS, augment=False)._augmentation(Samples(values)) is None


class Killed(BaseException):
    """A process that is killed."""


class Ticking:
    """A clock that moves with each look, and may kill who looks."""

    def __init__(self, tick: float = 1e-6, last: int | None = None) -> None:
        self.tick, self.last, self.looks, self.now = tick, last, 0, 0.0

    def __call__(self) -> float:
        self.looks += 1
        if self.looks == self.last:
            raise Killed
        self.now += self.tick
        return self.now


@pytest.mark.parametrize("looks", [25, 40, 60])
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(
    looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descent, "_SAVE_SECONDS", -1.0)  # after each step
    kept = replace(STEPS, cache=tmp_path)
    with pytest.raises(Killed):
        decomposed(replace(kept, clock=Ticking(last=looks)))
    states = list(tmp_path.rglob("state.pt"))
    found = decomposed(kept)
    assert states
    assert same(found, decomposed())


def test_a_finished_run_is_not_done_again(tmp_path: Path) -> None:
    kept = replace(STEPS, cache=tmp_path)
    first, clock = decomposed(kept), Ticking()
    second = decomposed(replace(kept, clock=clock))
    assert same(first, second)
    assert clock.looks < 24


def test_a_damaged_state_is_begun_anew(tmp_path: Path) -> None:
    kept = replace(STEPS, cache=tmp_path)
    decomposed(kept)
    (state,) = tmp_path.rglob("state.pt")
    state.write_bytes(state.read_bytes()[:100])
    assert same(decomposed(kept), decomposed())


@pytest.mark.parametrize("tick", [0.1, 0.5])
def test_the_time_is_kept_and_used(tick: float) -> None:
    clock = Ticking(tick)
    told = facts(decomposed(tx.Refinement(minutes=1, bf16=False, clock=clock)))
    assert 40 < told["seconds"] <= 60
    assert told["steps"] > 5


def test_slower_than_expected_it_ends_in_time_and_the_rate_at_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shares: list[float] = []

    def falling(share: float) -> float:
        shares.append(share)
        clock.tick *= 1.004
        return 0.1

    monkeypatch.setattr(descent, "falling", falling)
    clock = Ticking(0.03)
    told = facts(decomposed(tx.Refinement(minutes=1, bf16=False, clock=clock)))
    assert told["seconds"] <= 61
    assert shares == sorted(shares)
    assert shares[-1] > 0.9


def test_an_onnx_file_comes_as_close_as_the_network_it_was_made_of(tmp_path: Path) -> None:
    model, images = network(), smooth(80, *SHAPE)
    path = tmp_path / "net.onnx"
    TorchNetwork.open(model, (1, *SHAPE)).write_onnx(path, OnnxSettings())
    chooser = tx.ByCriterion("spatial", "fraction:0.25", keep_expensive=True)
    before = tx.decompose(path, chooser, images=images)
    after = tx.decompose(path, chooser, images=images, refine=STEPS)
    assert facts(after)["after"]["output_error"] < 0.95 * facts(after)["before"]["output_error"]
    assert facts(after)["before"]["output_error"] == pytest.approx(
        before.plan.options[CALIBRATION]["held_out"]["output_error"], rel=1e-3
    )
    assert after.verify().layers
    report = after.export(tmp_path / "bundle", settings=tx.ExportSettings(verify_seconds=0.1))
    assert report.data["calibration"][REFINED] == facts(after)


def test_a_file_that_pytorch_can_not_run_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trpexport.networks.onnx import network as module

    def refuse(*_: Any, **__: Any) -> Any:
        raise ModelError("PyTorch does not compute Strange")

    path = tmp_path / "net.onnx"
    TorchNetwork.open(network(), (1, *SHAPE)).write_onnx(path, OnnxSettings())
    monkeypatch.setattr(module, "in_torch", refuse)
    said: list[str] = []
    with pytest.raises(ModelError, match="PyTorch does not compute Strange") as caught:
        tx.decompose(
            path, tx.ByCriterion("spatial", "fraction:0.25"), images=smooth(40, *SHAPE),
            refine=STEPS, announce=said.append,
        )  # fmt: skip
    assert "\n" not in str(caught.value)
    assert not any("calibrate" in line for line in said)


@pytest.mark.parametrize(
    ("refine", "images", "error", "message"),
    [
        (tx.Refinement(minutes=0), 80, PlanError, "0 minutes makes no sense"),
        (tx.Refinement(minutes=float("nan")), 80, PlanError, "nan minutes"),
        (tx.Refinement(), 80, PlanError, "minutes or steps"),
        (tx.Refinement(1, 5), 80, PlanError, "minutes or steps"),
        (tx.Refinement(steps=0), 80, PlanError, "at least one step"),
        (tx.Refinement(1, images=0), 80, PlanError, "at least one image"),
        (STEPS, 0, PlanError, "give some"),
        (STEPS, 12, DataError, "at least 20"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    refine: tx.Refinement, images: int, error: type[Exception], message: str
) -> None:
    chooser = tx.ByCriterion("spatial", "fraction:0.25")
    given = smooth(images, *SHAPE) if images else None
    with pytest.raises(error, match=message) as caught:
        tx.decompose(network(), chooser, images=given, example=(1, *SHAPE), refine=refine)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)


class Stepped(nn.Module):
    """Its outputs have no derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Normed()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x).detach()
        return found


def test_outputs_without_a_derivative_leave_the_layers_to_learn_from() -> None:
    found = decomposed(STEPS, model=network(Stepped))
    assert facts(found)["after"]["output_error"] <= facts(found)["before"]["output_error"]


class Unknown(torch.autograd.Function):
    """An operation whose derivative nobody wrote."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, *__: Any) -> Any:
        raise NotImplementedError("no derivative of this operation")


class Opaque(nn.Module):
    """Begins with layers, and ends in what has no derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Normed()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = Unknown.apply(self.inner(x))  # type: ignore[no-untyped-call]
        return found


class Broken(torch.autograd.Function):
    """An operation whose derivative is no number."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Any:
        return gradients[0] * float("nan")


class Fragile(nn.Module):
    """Its outputs are numbers, their derivative is none."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Normed()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = Broken.apply(self.inner(x))  # type: ignore[no-untyped-call]
        return found


def test_a_gradient_that_is_no_number_moves_nothing() -> None:
    found = decomposed(STEPS, model=network(Fragile))
    assert facts(found)["after"] == facts(found)["before"]
    assert found.notes[-1].startswith("refining came no closer on held-out images")


def test_where_no_gradient_is_to_be_had_the_calibrated_factors_stay() -> None:
    found = decomposed(STEPS, model=network(Opaque))
    assert "not refined" in found.notes[-1]
    assert "no derivative of this operation" in found.notes[-1]
    assert same(found, decomposed(None, model=network(Opaque)))
