from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.measure.profile.profiled import MACS, SIZE, Ran, profile_of, residual
from trpexport.measure.profile.placement import Placement, placement
from trpexport.measure.profile.profile import Profile, ProfileSettings, profile_model

CPU, CUDA, TENSORRT = (f"{n}ExecutionProvider" for n in ("CPU", "CUDA", "Tensorrt"))
ALL = sum(MACS.values()) - MACS["block.conv1"]


@pytest.fixture(scope="module")
def pair(write_onnx: Callable[..., Path]) -> Path:
    return residual(write_onnx, pair=True)


def macs(result: Placement) -> dict[str, int | None]:
    return {share.provider: share.macs for share in result.providers}


def test_a_network_on_the_cpu_alone(pair: Path) -> None:
    profile = profile_model(pair, ProfileSettings(runs=1))
    result = placement(profile, pair)
    (share,) = result.providers
    assert (result.model, result.partitions) == (str(pair), 1)
    assert (share.provider, share.nodes, share.node_share) == (CPU, len(profile.nodes), 1)
    assert (share.macs, share.mac_share) == (ALL, 1)
    assert placement(profile).providers[0].macs is None


SPLIT = (
    Ran("Conv", "stem/Conv", "x w", "s", provider=CUDA),
    Ran("Conv", "block.conv1.0/Conv", "s w", "p", provider=CUDA),
    Ran("MemcpyToHost", "Memcpy", "p", "p_host", provider=CUDA),
    Ran("Conv", "block.conv1.1/Conv", "p_host w", "c", provider=CPU),
    Ran("MemcpyFromHost", "Memcpy_2", "c", "c_gpu", provider=CUDA),
    Ran("Conv", "block.conv2/Conv", "c_gpu w", "d", provider=CUDA),
    Ran("Gemm", "fc/Gemm", "h fc.weight", "y", provider=CPU),
)


def test_a_network_on_two_providers(pair: Path) -> None:
    result = placement(profile_of(*SPLIT), pair)
    assert result.partitions == 4
    assert [(s.provider, s.nodes) for s in result.providers] == [(CUDA, 5), (CPU, 2)]
    cpu = MACS["block.conv1.1"] + MACS["fc"]
    assert macs(result) == {CUDA: ALL - cpu, CPU: cpu}
    assert result.providers[1].node_share == pytest.approx(2 / 7)
    assert result.providers[1].mac_share == pytest.approx(cpu / ALL)
    assert json.loads(json.dumps(result.to_json()))["partitions"] == 4


def test_what_a_provider_has_compiled_is_all_that_nobody_else_ran(pair: Path) -> None:
    compiled = Ran("TRTKernel_graph_0", "TRTKernel_graph_0_0", "x", "h", provider=TENSORRT)
    left = Ran("Gemm", "fc/Gemm", "h fc.weight", "y", provider=CPU)
    result = placement(profile_of(compiled, left, written=False), pair)
    assert macs(result) == {TENSORRT: ALL - MACS["fc"], CPU: MACS["fc"]}


@pytest.mark.parametrize(
    "ran",
    [
        [Ran("Gemm", "fc/Gemm", "h fc.weight", "y", provider=CPU)],
        [
            Ran("TRTKernel_graph_0", "TRTKernel_graph_0_0", "x", "h", provider=TENSORRT),
            Ran("Gemm", "fc/Gemm", "h fc.weight", "y", provider=CUDA),
        ],
    ],
)
def test_what_cannot_be_told_is_not_guessed(pair: Path, ran: list[Ran]) -> None:
    """Nothing compiled the rest, or either of two did."""
    result = placement(profile_of(*ran, written=False), pair)
    assert {(share.macs, share.mac_share) for share in result.providers} == {(None, None)}


def test_no_nodes_at_all() -> None:
    empty = Profile("net.onnx", "cpu", 1, {"x": (1, 8, SIZE, SIZE)}, (), (1.0,))
    assert placement(empty) == Placement("net.onnx", 0, ())
