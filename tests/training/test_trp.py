"""Trained Rank Pruning in somebody's own loop."""

from __future__ import annotations

import copy
import warnings
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.small import SHAPE, Small, decomposed, train, weights
from trpexport.choose.alignment import Alignment
from trpexport.errors import PlanError, TrainingError, TrpexportError
from trpexport.lowrank.schemes import matrix_schemes
from trpexport.training import projection
from trpexport.training.trp import TrainedRankPruning

CHOSEN = ["one", "two", "strided", "grouped", "pointwise"]


@pytest.mark.parametrize("scheme", matrix_schemes())
@pytest.mark.parametrize("energy", [0.5, 0.9])
@pytest.mark.parametrize("multiple", [1, 4])
def test_a_projection_is_the_decomposition_at_that_energy(
    model: Small, scheme: str, energy: float, multiple: int
) -> None:
    small = decomposed(
        model,
        scheme,
        criterion=f"energy:{energy}",
        keep_expensive=True,
        rank_multiple=multiple,
    )
    expected = small.network.dense().model
    trp = TrainedRankPruning(model, scheme=scheme, energy=energy, rank_multiple=multiple)
    trp.project()
    for name, weight in expected.named_parameters():
        assert torch.allclose(model.get_parameter(name), weight, atol=1e-6), name


@pytest.mark.parametrize("scheme", matrix_schemes())
@pytest.mark.parametrize("target", [None, 0.6])
@pytest.mark.parametrize("multiple", [1, 2])
def test_the_status_is_what_a_decomposition_at_the_threshold_finds(
    model: Small, scheme: str, target: float | None, multiple: int
) -> None:
    trp = TrainedRankPruning(
        model, scheme=scheme, input_shape=SHAPE, energy=0.8, period=5, target_macs=target,
        total_steps=20, rank_multiple=multiple,
    )  # fmt: skip
    assert trp.status.macs_ratio == 1
    train(model, trp, 12)
    trp.project()
    as_trained = Alignment(multiple, "as the checkpoint was trained")
    plan = decomposed(model, scheme, rank_multiple=as_trained).plan
    assert trp.status.macs_ratio == plan.macs_after / plan.macs_before
    for layer in plan.rewritten:
        assert trp.status.ranks[layer.name] == layer.rank
    if target is None:
        assert trp.status.energy == 0.8
    else:
        assert target * (0.8 if multiple == 1 else 0.5) < trp.status.macs_ratio <= target


def test_a_projection_keeps_whole_blocks_of_ranks(model: Small) -> None:
    def singular(name: str) -> torch.Tensor:
        weight = model.get_parameter(f"{name}.weight").detach()
        found: torch.Tensor = torch.linalg.svdvals(weight.flatten(1).double())
        return found

    # 12 x 108 each, rank r costs r (108 + 12) of 1,296 MACs a pixel: cheaper up to 10.
    for name, energy_rank in (("one", 5), ("two", 9)):
        with torch.no_grad():
            values = torch.tensor([1.0] * energy_rank + [0.05] * (12 - energy_rank))
            u, _, vt = torch.linalg.svd(
                model.get_parameter(f"{name}.weight").flatten(1), full_matrices=False
            )
            model.get_parameter(f"{name}.weight").copy_((u * values @ vt).view(12, 12, 3, 3))
    trp = TrainedRankPruning(
        model, scheme="channel", energy=0.98, input_shape=SHAPE, rank_multiple=4, nuclear_weight=0
    )
    assert trp.rank_multiple == 4
    trp.project()
    assert int((singular("one") > 1e-4).sum()) == 8
    # 12 is dearer than the layer, so it is a multiple of 2.
    assert int((singular("two") > 1e-4).sum()) == 10


def test_a_block_too_coarse_for_the_target_is_halved(
    model: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRPEXPORT_CHANNEL_BLOCK", "8")
    steered = {"input_shape": SHAPE, "target_macs": 0.3, "total_steps": 10}
    trp = TrainedRankPruning(model, **steered)  # type: ignore[arg-type]
    assert trp.rank_multiple < 8
    with pytest.raises(TrainingError, match=r"no multiples of 8 reach 0\.3 of the MACs"):
        TrainedRankPruning(model, rank_multiple=8, **steered)  # type: ignore[arg-type]


def test_the_subgradient_is_added_to_the_gradient(model: Small) -> None:
    trp = TrainedRankPruning(model, scheme="channel", energy=None, nuclear_weight=0.25)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    trp.before_step()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            matrix = module.weight.detach().double().reshape(module.groups, -1, *[
                module.weight[0].numel()])  # fmt: skip
            u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
            pull = 0.25 * (u @ vt) if name in CHOSEN else torch.zeros_like(matrix)
            assert module.weight.grad is not None
            assert torch.allclose(
                module.weight.grad.double().reshape_as(matrix), 1 + pull, atol=1e-5
            )
    assert model.fc.weight.grad is not None
    assert (model.fc.weight.grad == 1).all()


def test_nuclear_norm_alone_lowers_it_and_cuts_nothing(model: Small) -> None:
    def norm() -> float:
        matrix = model.two.weight.detach().reshape(12, -1)
        return float(torch.linalg.matrix_norm(matrix, "nuc"))

    before = norm()
    trp = TrainedRankPruning(model, scheme="channel", energy=None, nuclear_weight=0.05, period=5)
    train(model, trp, 20)
    trp.project()
    # Each step takes learning rate x weight off each of the 12 singular values.
    assert before - norm() == pytest.approx(20 * 0.05 * 0.05 * 12, rel=0.2)
    assert torch.linalg.matrix_rank(model.two.weight.reshape(12, -1)) == 12
    assert trp.status.energy is None
    assert trp.status.macs_ratio is None


def test_projection_happens_once_in_a_period(model: Small) -> None:
    trp = TrainedRankPruning(model, energy=0.6, period=3, nuclear_weight=0)
    norms = [float(model.two.weight.detach().norm())]
    for step in range(7):
        train(model, trp, 1, start=step)
        norms.append(float(model.two.weight.detach().norm()))
    # To keep 0.6 of the energy takes the norm down to about its root.
    fell = [after / before < 0.9 for before, after in pairwise(norms)]
    assert fell == [False, False, True, False, False, True, False]


def test_what_was_cut_is_not_cut_again_without_a_step(model: Small) -> None:
    trp = TrainedRankPruning(model, energy=0.8)
    trp.project()
    first, status = weights(model), trp.status
    trp.project()
    assert trp.status == status
    for name, weight in weights(model).items():
        assert torch.allclose(weight, first[name], atol=1e-6)
    with torch.no_grad():
        model.two.weight.mul_(1.5)  # touched: cut again
    trp.project()
    assert trp.status.ranks["two"] < status.ranks["two"]
    assert trp.status.ranks["one"] == status.ranks["one"]


def test_a_steered_run_arrives_at_its_target(model: Small) -> None:
    trp = TrainedRankPruning(
        model, input_shape=SHAPE, target_macs=0.55, total_steps=40, period=4, nuclear_weight=0
    )
    seen = []
    for step in range(40):
        train(model, trp, 1, start=step)
        seen.append(trp.status.macs_ratio or 0.0)
    trp.project()
    plan = decomposed(model).plan
    assert 0.5 < plan.macs_after / plan.macs_before <= 0.55
    assert seen[2] == 1 > seen[3] > seen[7] > seen[-1]
    assert trp.status.energy is not None
    assert trp.status.energy > 0.9  # nothing but noise is left to cut


def test_a_layer_that_stays_dense_is_left_whole_by_steering(model: Small) -> None:
    # Energy would cut every layer; a target close to 1 asks for little.
    before = weights(model)
    trp = TrainedRankPruning(model, input_shape=SHAPE, target_macs=0.97, total_steps=10)
    trp.project()
    plan = decomposed(model).plan
    kept = {layer.name for layer in plan.layers if not layer.is_rewritten}
    assert kept & set(CHOSEN)
    assert set(CHOSEN) - kept
    for name in CHOSEN:
        same = torch.equal(model.get_parameter(f"{name}.weight"), before[f"{name}.weight"])
        assert same == (name in kept)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_are_projected_and_kept(model: Small, dtype: torch.dtype) -> None:
    reference = copy.deepcopy(model).to(dtype).to(torch.float64)
    TrainedRankPruning(reference, energy=0.8).project()
    model.to(dtype)
    trp = TrainedRankPruning(model, energy=0.8)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trp.before_step()
    trp.project()
    assert model.two.weight.dtype == dtype
    step = torch.finfo(dtype).eps if dtype != torch.float64 else 1e-10
    assert torch.allclose(
        model.two.weight.double(), reference.two.weight, rtol=step, atol=step * 0.1
    )


def test_channels_last_gives_the_same_bits_and_keeps_its_strides(model: Small) -> None:
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for network in (model, other):
        trp = TrainedRankPruning(network, energy=0.8)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        trp.before_step()
        trp.project()
    assert other.two.weight.is_contiguous(memory_format=torch.channels_last)
    assert other.two.weight.grad.is_contiguous(memory_format=torch.channels_last)
    for name, weight in weights(model).items():
        assert torch.equal(weight, other.get_parameter(name))
        one, two = model.get_parameter(name).grad, other.get_parameter(name).grad
        assert one is not None
        assert two is not None
        assert torch.equal(one, two)


def test_autocast_around_the_calls_changes_nothing(model: Small) -> None:
    other = copy.deepcopy(model)
    TrainedRankPruning(model, energy=0.8).project()
    with torch.autocast("cpu", torch.bfloat16):
        TrainedRankPruning(other, energy=0.8).project()
    for name, weight in weights(model).items():
        assert torch.equal(weight, other.get_parameter(name))


def test_wrapped_networks_are_unwrapped(model: Small) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, at the first compile
        wrapped: Any = torch.compile(nn.DataParallel(model))
    trp = TrainedRankPruning(wrapped, input_shape=SHAPE)
    assert list(trp.status.ranks) == CHOSEN


@pytest.mark.parametrize("shape", [None, SHAPE])
def test_layers_are_chosen_as_the_planner_does(model: Small, shape: tuple[int, ...] | None) -> None:
    def chosen(**options: Any) -> list[str]:
        return list(TrainedRankPruning(model, input_shape=shape, **options).status.ranks)

    assert chosen() == CHOSEN
    assert chosen(scheme="decoupling") == CHOSEN[:-1]
    assert chosen(include=["stem", "two"]) == ["stem", "two"]
    assert chosen(exclude=["t*", "g*"]) == ["one", "strided", "pointwise"]
    assert chosen(stride_1_only=True) == ["one", "two", "grouped", "pointwise"]
    with pytest.raises(PlanError, match="matches no layer"):
        chosen(include=["three"])
    with pytest.raises(TrainingError, match="can be trained low-rank: not included"):
        chosen(include=["two"], exclude=["two"])


def test_without_a_shape_a_last_convolution_is_the_classifier() -> None:
    model = nn.Sequential(*[nn.Conv2d(4, 4, 3) for _ in range(4)])
    assert list(TrainedRankPruning(model).status.ranks) == ["1", "2"]


def test_a_shared_weight_is_pulled_once(model: Small) -> None:
    model.two.weight = model.one.weight
    trp = TrainedRankPruning(model, nuclear_weight=1.0, scheme="channel")
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trp.before_step()
    assert model.one.weight.grad is not None
    # U V^T of a 12 x 108 matrix of full rank has 12 singular values of 1.
    assert torch.isclose(model.one.weight.grad.norm() ** 2, torch.tensor(12.0), rtol=1e-4)


def test_a_frozen_layer_gets_no_pull(model: Small) -> None:
    model.two.weight.requires_grad_(False)
    trp = TrainedRankPruning(model, period=2)
    train(model, trp, 2)
    rank = trp.status.ranks["two"]
    train(model, trp, 4, start=2)
    assert trp.status.ranks["two"] == rank  # nobody moved it since


def wide_and_cut(**settings: Any) -> tuple[nn.Module, TrainedRankPruning]:
    """Return a network large enough for subspace iteration, some steps after it was cut."""
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Conv2d(48, 48, 3, padding=1) for _ in range(4)])
    trp = TrainedRankPruning(
        model, input_shape=(1, 48, 4, 4), include=["1", "2"], nuclear_weight=0, **settings
    )
    kernels = [layer.weight for layer in model if isinstance(layer, nn.Conv2d)][1:3]
    with torch.no_grad():
        for kernel in kernels:
            left, right = (torch.linalg.qr(torch.randn(144, 144)).Q[:, :20] for _ in range(2))
            matrix = (left * torch.linspace(3, 1, 20)) @ right.T
            kernel.copy_(matrix.reshape(48, 3, 48, 3).permute(2, 0, 1, 3))
        trp.project()
        for kernel in kernels:
            kernel.add_(2e-4 * torch.randn_like(kernel))
    return model, trp


@pytest.mark.parametrize(
    "settings", [{"energy": 0.9}, {"target_macs": 0.6, "total_steps": 10}], ids=["energy", "ratio"]
)
def test_what_the_last_projection_left_saves_a_full_decomposition(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for known in (True, False):
        model, trp = wide_and_cut(**settings)
        with monkeypatch.context() as patch:
            if known:
                patch.setattr(projection, "svd", None)  # would fail
                patch.setattr(projection, "of_a_whole", None)
            else:
                patch.setattr(projection, "leading", lambda *_: None)
                patch.setattr(projection, "of_a_whole", lambda *_: None)
            trp.project()
        results.append((weights(model), trp.status))
    (fast, fast_status), (exact, status) = results
    assert fast_status.ranks == status.ranks
    assert fast_status.macs_ratio == status.macs_ratio
    for name, weight in exact.items():
        assert (fast[name] - weight).norm() <= 1e-4 * weight.norm()


def test_what_nobody_touched_is_not_decomposed_again(
    model: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    trp = TrainedRankPruning(model, energy=0.8)
    trp.project()
    before, state = weights(model), trp.state_dict()
    monkeypatch.setattr(projection.Stack, "decompose", None)  # would fail
    trp.project()
    assert all(torch.equal(before[name], weight) for name, weight in weights(model).items())
    assert trp.state_dict().keys() == state.keys()


def test_diverged_weights_are_named(model: Small) -> None:
    trp = TrainedRankPruning(model, period=1)
    with torch.no_grad():
        model.strided.weight[3, 2, 1, 0] = float("nan")
    before = weights(model)
    for call in (trp.before_step, trp.after_step, trp.project):
        with pytest.raises(TrainingError, match=r"strided holds NaN or infinity after step \d"):
            call()
    assert all(
        torch.equal(before[n], w) for n, w in weights(model).items() if n != "strided.weight"
    )


def test_gradients_must_be_there(model: Small) -> None:
    with pytest.raises(TrainingError, match=r"call before_step\(\) after loss.backward"):
        TrainedRankPruning(model).before_step()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"energy": 0.0}, "energy 0 is out of range"),
        ({"energy": 1.1}, r"energy 1\.1 is out of range"),
        ({"energy": float("nan")}, "energy nan is out of range"),
        ({"period": 0}, "period 0 is out of range"),
        ({"period": 2.5}, r"period 2\.5 is out of range"),
        ({"nuclear_weight": -1.0}, "nuclear_weight -1 is out of range"),
        ({"nuclear_weight": 1e39}, r"nuclear_weight 1e\+39 is out of range"),
        ({"nuclear_weight": float("inf")}, "nuclear_weight inf is out of range"),
        ({"energy": None, "nuclear_weight": 0}, "neither projection nor nuclear norm"),
        ({"target_macs": 1.0}, "target_macs 1 is out of range"),
        ({"target_macs": 0.5}, "target_macs needs input_shape"),
        ({"target_macs": 0.5, "input_shape": SHAPE}, "and total_steps"),
        ({"target_macs": 0.5, "input_shape": SHAPE, "total_steps": 0}, "total_steps 0"),
        ({"target_macs": 0.01, "input_shape": SHAPE, "total_steps": 9}, "no ranks reach 0.01"),
        ({"scheme": "spacial"}, "spatial"),
        ({"input_shape": (1, 5, 12, 12)}, "can't run an input of shape 1x5x12x12"),
    ],
)
def test_settings_that_mean_nothing(model: Small, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TrpexportError, match=message) as caught:
        TrainedRankPruning(model, **settings)
    assert "\n" not in str(caught.value)


def test_a_network_without_convolutions() -> None:
    with pytest.raises(TrainingError, match="can be trained low-rank: it has none"):
        TrainedRankPruning(nn.Linear(3, 3))
