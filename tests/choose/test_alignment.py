"""What ranks are rounded up to multiples of, and to which."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.choose.networks import SHAPE, Small, ranks, reasons
from tests.latency.networks import FakeStopwatch
from trpexport.choose import alignment
from trpexport.choose.alignment import (
    BLOCK_VARIABLE,
    Alignment,
    aligned,
    channel_block,
    find_alignment,
)
from trpexport.choose.base import NothingCheaperError
from trpexport.choose.by_criterion import ByCriterion
from trpexport.choose.by_latency import ByLatency
from trpexport.errors import PlanError, TrpexportError
from trpexport.measure.machine import instruction_sets
from trpexport.networks.torch.network import TorchNetwork
from trpexport.plan import Plan
from trpexport.runtime.channels import nchwc_block
from trpexport.stages import Stages

AVX2, AVX512, ARM = ["avx2"], ["avx2", "avx512f"], ["asimd"]


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BLOCK_VARIABLE)


def on(monkeypatch: pytest.MonkeyPatch, sets: list[str], asked: int | None = None) -> None:
    monkeypatch.setattr(alignment, "instruction_sets", lambda: sets)
    monkeypatch.setattr(alignment, "nchwc_block", lambda: asked)


@pytest.mark.parametrize(
    ("sets", "asked", "provider", "block", "reason"),
    [
        (AVX512, None, None, 16, "auto: 16, AVX-512"),
        (AVX512, None, "cpu", 16, "auto: 16, AVX-512"),
        (AVX2, None, None, 8, "auto: 8, AVX2"),
        (AVX512, None, "cuda", 8, "auto: 8, CUDA"),
        (ARM, None, "tensorrt", 8, "auto: 8, TensorRT"),
        (ARM, 16, None, 16, "auto: 16, ONNX Runtime's"),
        (ARM, 16, "arm", 16, "auto: 16, ONNX Runtime's"),
        (ARM, None, "arm", 4, "auto: 4, rows of a matrix product"),
        (AVX512, 16, "arm", 4, "auto: 4, rows of a matrix product"),
        ([], None, None, 4, "auto: 4, rows of a matrix product"),
    ],
)
def test_the_block_of_a_processor_or_provider(
    sets: list[str],
    asked: int | None,
    provider: str | None,
    block: int,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on(monkeypatch, sets, asked)
    assert channel_block(provider) == block
    assert find_alignment("auto", provider) == Alignment(block, reason)


def test_what_is_asked_of_onnx_runtime_is_what_is_known_of_x86() -> None:
    known = {"avx512f": 16, "avx2": 8}
    blocks = [block for name, block in known.items() if name in instruction_sets()]
    if not blocks:
        pytest.skip("no processor whose block is known")
    assert nchwc_block() == blocks[0]


def test_a_variable_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, AVX512)
    monkeypatch.setenv(BLOCK_VARIABLE, "4")
    assert find_alignment() == Alignment(4, f"auto: 4, {BLOCK_VARIABLE}")
    assert find_alignment(8) == Alignment(8, "given", is_asked=True)
    monkeypatch.setenv(BLOCK_VARIABLE, "wide")
    with pytest.raises(PlanError, match=f"{BLOCK_VARIABLE}='wide' must be a number"):
        find_alignment()


@pytest.mark.parametrize("wrong", [0, -8, 2.0, True, "sixteen", None, 10**9])
def test_what_is_no_multiple_is_one_line(wrong: Any) -> None:
    with pytest.raises(PlanError, match="out of range: give a number of at least 1, or auto"):
        find_alignment(wrong)


def test_a_provider_that_nobody_knows_is_one_line() -> None:
    with pytest.raises(PlanError, match="the provider coreml works on at a time: give a number"):
        find_alignment("auto", "coreml")
    with pytest.raises(TrpexportError, match="did you mean cuda"):
        find_alignment("auto", "cudo")


@pytest.mark.parametrize(
    ("rank", "multiple", "largest", "found"),
    [
        (1, 16, 100, 16),
        (16, 16, 100, 16),
        (17, 16, 100, 32),
        (17, 16, 23, 20),  # 32 and 24 are dearer than the layer
        (9, 16, 10, 10),
        (9, 16, 9, 9),
        (3, 16, 8, 8),
        (24, 16, 23, 24),  # the criterion's is dearer already
        (5, 12, 6, 6),
        (7, 1, 100, 7),
    ],
)
def test_a_rank_is_rounded_up_while_that_is_cheaper(
    rank: int, multiple: int, largest: int, found: int
) -> None:
    assert aligned(rank, multiple, largest) == found


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 300))
def test_a_rank_is_never_lowered_nor_raised_above_the_limit(
    rank: int, multiple: int, largest: int
) -> None:
    found = aligned(rank, multiple, largest)
    assert rank <= found <= max(rank, largest)
    if -(-rank // multiple) * multiple <= largest:
        assert found % multiple == 0 and found - rank < multiple


@pytest.mark.parametrize(
    ("criterion", "multiple", "found"),
    [
        # Break-even ranks: plain 13 of 16, strided 14 of 16, pointwise 7 of 16.
        ("rank:2", 8, {"plain": 8, "strided": 8, "pointwise": None}),
        ("rank:2", 14, {"plain": None, "strided": 14, "pointwise": None}),
        ("rank:2", 16, {"plain": None, "strided": None, "pointwise": None}),
        ("rank:5", 7, {"plain": 7, "strided": 7, "pointwise": 7}),
        ("rank:9", 8, {"plain": None, "strided": None, "pointwise": None}),
        ("rank:2", 1, {"plain": 2, "strided": 2, "pointwise": 2}),
        ("value:0.05", 4, {"plain": 4, "strided": 4, "pointwise": 4}),
    ],
)
def test_ranks_of_a_criterion_are_rounded_up_layer_by_layer(
    criterion: str, multiple: int, found: dict[str, int | None]
) -> None:
    chooser = ByCriterion("channel", criterion, rank_multiple=multiple)
    plan = plan_of(chooser)
    assert {name: rank for name, rank in ranks(plan).items() if name in found} == found
    assert plan.options["rank_multiple"] == multiple
    assert plan.options["rank_multiple_reason"] == "given"


@pytest.mark.parametrize(
    ("criterion", "layer", "reason"),
    [
        ("rank:2", "pointwise", "no multiple of 8 is cheaper, which ranks were asked to be"),
        ("rank:9", "plain", "no multiple of 8 from rank 9 on is cheaper"),
        ("rank:9", "pointwise", "rank 9 of 16 costs"),  # dear as it is
    ],
)
def test_a_layer_without_a_rank_of_an_asked_multiple_stays_whole(
    criterion: str, layer: str, reason: str
) -> None:
    plan = plan_of(ByCriterion("channel", criterion, rank_multiple=8))
    assert reasons(plan)[layer].startswith(reason)


@pytest.mark.parametrize(
    ("criterion", "block", "found"),
    [
        ("rank:2", "8", {"plain": 8, "strided": 8, "pointwise": 4}),
        ("rank:2", "16", {"plain": 8, "strided": 8, "pointwise": 4}),
        ("rank:5", "16", {"plain": 8, "strided": 8, "pointwise": 6}),
        ("rank:9", "8", {"plain": 12, "strided": 12, "pointwise": None}),
    ],
)
def test_a_block_of_the_processor_is_halved_where_it_is_too_coarse(
    criterion: str, block: str, found: dict[str, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BLOCK_VARIABLE, block)
    plan = plan_of(ByCriterion("channel", criterion))
    assert {name: rank for name, rank in ranks(plan).items() if name in found} == found


def plan_of(chooser: ByCriterion) -> Plan:
    """Return what a choice is for the small network."""
    try:
        return chooser(TorchNetwork.open(Small().eval(), SHAPE), None, Stages(), None).plan
    except NothingCheaperError as error:
        return error.plan


def test_without_the_guard_the_full_rank_is_the_limit() -> None:
    chooser = ByCriterion("channel", "rank:9", keep_expensive=True, rank_multiple=8)
    plan = chooser(TorchNetwork.open(Small().eval(), SHAPE), None, Stages(), None).plan
    assert {layer.rank for layer in plan.rewritten} == {16}


def test_the_processor_decides_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, AVX2)
    chooser = ByCriterion("channel", "rank:2")
    plan = chooser(TorchNetwork.open(Small().eval(), SHAPE), None, Stages(), None).plan
    assert ranks(plan)["plain"] == 8
    assert plan.options["rank_multiple_reason"] == "auto: 8, AVX2"


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        (
            {"training": {"low_rank": {"rank_multiple": 24}}},
            Alignment(24, "auto: 24, as the checkpoint was trained"),
        ),
        ({"training": {"low_rank": {"rank_multiple": -1}}}, Alignment(8, "auto: 8, AVX2")),
        ({"training": {"low_rank": {"rank_multiple": True}}}, Alignment(8, "auto: 8, AVX2")),
        ({"training": {"low_rank": None}}, Alignment(8, "auto: 8, AVX2")),
        ({"training": "hostile"}, Alignment(8, "auto: 8, AVX2")),
        ({}, Alignment(8, "auto: 8, AVX2")),
    ],
)
def test_a_checkpoint_says_what_it_was_trained_for(
    metadata: dict[str, Any], found: Alignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, AVX2)
    assert ByCriterion().as_trained(metadata).alignment == found
    given = ByCriterion(rank_multiple=2).as_trained(metadata)
    assert given.alignment == Alignment(2, "given", is_asked=True)
    assert ByCriterion(provider="cuda").as_trained(metadata).alignment.multiple == 8


@pytest.mark.parametrize(("sets", "block"), [(AVX2, 8), (AVX512, 16), (ARM, 4), ([], 4)])
def test_another_machine_has_blocks_of_its_own(
    monkeypatch: pytest.MonkeyPatch, sets: list[str], block: int
) -> None:
    on(monkeypatch, AVX512, asked=16)
    assert find_alignment("auto", "cpu", sets).multiple == block
    chooser = ByLatency(speedup=2.0, stopwatch=FakeStopwatch(instruction_sets=sets))
    assert chooser.alignment.multiple == block
    assert ByLatency(speedup=2.0, stopwatch=FakeStopwatch()).alignment.multiple == 16


@pytest.mark.parametrize(
    ("rank", "rank_multiple", "found"),
    [
        # From 64 to 128 channels by a 1x1 kernel: 8192 MACs a pixel, 192 for each rank.
        (42, "auto", None),  # 8064: one part in 64 less
        (36, "auto", 40),  # 7680: one in 16
        (32, "auto", 32),
        (42, 1, 42),  # as the paper has it
        (42, 42, 42),  # as it was asked for
    ],
)
def test_a_layer_that_hardly_gets_cheaper_stays_whole_where_ranks_are_to_run_fast(
    rank: int, rank_multiple: int | str, found: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BLOCK_VARIABLE, "16")
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 128, 1), nn.Conv2d(128, 128, 3))
    network = TorchNetwork.open(model.eval(), (1, 3, 8, 8))
    chooser = ByCriterion("channel", f"rank:{rank}", rank_multiple=rank_multiple, include="1")
    try:
        plan = chooser(network, None, Stages(), None).plan
    except NothingCheaperError as error:
        plan = error.plan
    (row,) = (layer for layer in plan.layers if layer.name == "1")
    assert row.rank == found
    if found is None:
        assert row.reason == (
            "rank 42 of 64 saves 1.6% of its MACs, less than a second operator takes in time"
        )
