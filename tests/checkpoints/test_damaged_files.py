"""Bits flipped and tails cut off at random: a clean load or one line that says what is wrong."""

from __future__ import annotations

import io
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trpexport.checkpoints import load_checkpoint, save_checkpoint
from trpexport.errors import CheckpointError

Weights = dict[str, Tensor]
ENOUGH = 500 * 2**10  # KiB; a corrupted size could ask for gigabytes


@pytest.fixture(scope="module", params=["zip", "legacy", "safetensors", "own"])
def content(
    request: pytest.FixtureRequest,
    small: Any,
    seeded: Weights,
    tmp_path_factory: pytest.TempPathFactory,
) -> bytes:
    if request.param == "safetensors":
        return safetensors.torch.save(seeded, {"format": "pt"})
    if request.param == "own":
        network: nn.Module = small.build()
        path = tmp_path_factory.mktemp("damaged") / "net.safetensors"
        save_checkpoint(path, network, architecture=small)
        return path.read_bytes()
    buffer = io.BytesIO()
    torch.save(
        {"state_dict": seeded, "epoch": 3},
        buffer,
        _use_new_zipfile_serialization=request.param == "zip",
    )
    return buffer.getvalue()


@st.composite
def damages(draw: st.DrawFn) -> tuple[float | None, list[tuple[float, int]]]:
    """Where to cut, as a share of the length, and which bits to flip; headers more often."""
    cut = draw(st.none() | st.none() | st.floats(0, 0.999))
    place = st.floats(0, 0.3) | st.floats(0, 0.999) | st.floats(0.9, 0.999)
    flips = st.lists(st.tuples(place, st.integers(0, 7)), min_size=cut is None, max_size=3)
    return cut, draw(flips)


def test_a_record_marked_as_a_directory(tmp_path: Path, seeded: Weights, small: Any) -> None:
    """PyTorch's reader would leave its weights as memory was; no checksum covers the mark."""
    path = tmp_path / "marked.pth"
    torch.save({"state_dict": seeded}, path)
    content = bytearray(path.read_bytes())
    attributes = content.rindex(b"PK\x01\x02", 0, content.rindex(b"/data/3")) + 38
    content[attributes] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="marked as a directory"):
        load_checkpoint(path, arch=str(small))


def load_damaged(
    content: bytes,
    weights: Weights,
    small: Any,
    tmp_path: Path,
    damage: tuple[float | None, list[tuple[float, int]]],
) -> None:
    cut, flips = damage
    damaged = bytearray(content)
    for place, bit in flips:
        damaged[int(place * len(damaged))] ^= 1 << bit
    if cut is not None:
        del damaged[int(cut * len(damaged)) :]
    path = tmp_path / "damaged.pth"
    path.write_bytes(damaged)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        checkpoint = load_checkpoint(path, arch=str(small))
    except CheckpointError as error:
        assert str(error).isprintable()
    else:
        assert all(p.isfinite().all() for p in checkpoint.module.parameters())
        assert cut is None
        if content.startswith(b"PK"):  # with checksums, what is loaded is what was saved
            state = checkpoint.module.state_dict()
            assert all(torch.equal(state[name], weight) for name, weight in weights.items())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < ENOUGH


def on_random_damages(examples: int) -> Callable[..., None]:
    """Return the check as a test of so many examples."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    limits = settings(max_examples=examples, deadline=None, suppress_health_check=checks)
    # A failure is replayed with its arguments in words, which are long here.
    long_words = pytest.mark.filterwarnings("ignore:Generating overly large repr")
    test: Callable[..., None] = long_words(limits(given(damage=damages())(load_damaged)))
    return test


test_damaged_files = on_random_damages(40)
test_many_damaged_files = pytest.mark.slow(on_random_damages(300))
