"""Ranks that run fast: multiples of the channels that a convolution works on at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, TypeGuard

from trpexport.choose.selection import Selection
from trpexport.errors import PlanError
from trpexport.measure.machine import instruction_sets
from trpexport.runtime.channels import nchwc_block
from trpexport.runtime.providers import PROVIDERS

# For the channel block of the processor or provider that a network is meant for.
AUTO = "auto"
# Says the channel block, where a network is meant for another machine.
BLOCK_VARIABLE = "TRPEXPORT_CHANNEL_BLOCK"
# Channel blocks of ONNX Runtime's convolutions by instruction set, the widest first.
_BLOCKS = (("avx512f", "AVX-512", 16), ("avx2", "AVX2", 8))
# Tensor cores multiply eights of half-precision channels.
_PROVIDER_BLOCKS = {"cuda": ("CUDA", 8), "tensorrt": ("TensorRT", 8)}
# Where channels are not laid out in blocks, convolutions are matrix products, output channels
# their rows: MLAS computes four rows of 16 columns at a time on ARM64 (SgemmKernelNeon.S).
_ROWS = 4
_PROCESSORS = (None, "cpu", "arm")
# Where ranks are chosen to run fast, a layer that would keep more of its MACs stays whole: a 1x1
# convolution from 64 to 128 channels that kept 98 % of them as two took twice as long.
_MOST_KEPT = 15 / 16
_LARGEST = 1_000_000


@dataclass(frozen=True)
class Alignment:
    """What ranks are rounded up to multiples of.

    Attributes:
        multiple: at least 1.
        reason: where it comes from.
        is_asked: whether somebody asked for it: then no rank is anything else.
    """

    multiple: int
    reason: str
    is_asked: bool = False

    @property
    def most_kept(self) -> float:
        """The largest share of its MACs that a layer may keep for it to be rewritten."""
        return 1.0 if self.is_asked or self.multiple == 1 else _MOST_KEPT

    def to_json(self) -> dict[str, Any]:
        """Return what a plan's options say of it."""
        return {"rank_multiple": self.multiple, "rank_multiple_reason": self.reason}

    def of(self, rank: int, largest: int) -> int | None:
        """Return a rank rounded up as :func:`aligned` does.

        None where a multiple was asked for and all from the rank on are above ``largest``.
        """
        if self.is_asked and rank <= largest < -(-rank // self.multiple) * self.multiple:
            return None
        return aligned(rank, self.multiple, largest)

    def halved(self) -> Alignment:
        """Return half of it, for ranks that the whole of it is too coarse for."""
        return Alignment(self.multiple // 2, f"{self.reason}; halved to reach the target")


# The paper's ranks.
UNALIGNED = Alignment(1, "given")


@dataclass(frozen=True, kw_only=True)
class AlignedSelection(Selection):
    """The layers that a user leaves to be rewritten, and what their ranks are multiples of.

    Attributes:
        rank_multiple: ranks are rounded up to multiples of it; a layer that no multiple makes
            cheaper stays whole. ``auto`` for the channel block that convolutions run by, or a part
            of it where that alone is cheaper.
        provider: the provider that the network is meant for, by which ``auto`` goes; None for this
            processor.
    """

    rank_multiple: int | str | Alignment = AUTO
    provider: str | None = None

    @property
    def alignment(self) -> Alignment:
        """What ranks are rounded up to multiples of.

        Raises:
            TrpexportError: as :func:`find_alignment`.
        """
        return find_alignment(self.rank_multiple, self.provider)

    def as_trained(self, metadata: Mapping[str, Any]) -> Self:
        """Return the same for a checkpoint: ``auto`` is what it was trained for, where it says.

        Args:
            metadata: the checkpoint's.
        """
        low_rank: Any = metadata
        for key in ("training", "low_rank"):
            low_rank = low_rank.get(key) if isinstance(low_rank, Mapping) else None
        trained = low_rank.get("rank_multiple") if isinstance(low_rank, Mapping) else None
        if self.rank_multiple == AUTO and not self.provider and _is_multiple(trained):
            found = Alignment(trained, f"auto: {trained}, as the checkpoint was trained")
            return replace(self, rank_multiple=found)
        return self


def find_alignment(
    rank_multiple: int | str | Alignment = AUTO,
    provider: str | None = None,
    elsewhere: Collection[str] | None = None,
) -> Alignment:
    """Return what ranks are rounded up to multiples of.

    Args:
        rank_multiple: the number, or ``auto`` for the channel block; or what was found before.
        provider: the provider that the network is meant for; None for this processor.
        elsewhere: instruction sets of the other machine that it is meant for; None for this one.

    Raises:
        PlanError: it is neither, or nobody knows the channel block.
        TrpexportError: there is no such provider.
    """
    if isinstance(rank_multiple, Alignment):
        return rank_multiple
    if rank_multiple == AUTO:
        block, of = _block(provider, elsewhere)
        return Alignment(block, f"auto: {block}, {of}")
    if not _is_multiple(rank_multiple):
        raise PlanError(
            f"a rank multiple of {rank_multiple} is out of range: give a number of at least 1, or "
            f"{AUTO}",
            parameters=("rank_multiple",),
        )
    return Alignment(rank_multiple, "given", is_asked=True)


def channel_block(provider: str | None = None) -> int:
    """Return how many channels convolutions work on at a time.

    Args:
        provider: the provider that runs them; None for ONNX Runtime on this processor.

    Raises:
        PlanError: nobody knows.
        TrpexportError: there is no such provider.
    """
    block, _ = _block(provider)
    return block


def aligned(rank: int, multiple: int, largest: int) -> int:
    """Return ``rank`` rounded up to a multiple, or else to one of its half, its quarter, ...

    The first of these that is not above ``largest``; ``rank`` itself where all are.
    """
    while multiple > 1:
        rounded = -(-rank // multiple) * multiple
        if rounded <= largest:
            return rounded
        multiple //= 2
    return rank


def no_multiple(alignment: Alignment, rank: int = 1) -> str:
    """Say why a layer stays that has no multiple from a rank on that is cheaper."""
    beyond = f" from rank {rank} on" if rank > alignment.multiple else ""
    return f"no multiple of {alignment.multiple}{beyond} is cheaper, which ranks were asked to be"


def _block(provider: str | None, elsewhere: Collection[str] | None = None) -> tuple[int, str]:
    """Return the channel block, and of what it is."""
    said = os.environ.get(BLOCK_VARIABLE)
    if said:
        if not re.fullmatch(r"[1-9]\d{0,5}", said):
            raise PlanError(f"{BLOCK_VARIABLE}={said!r} must be a number of at least 1")
        return int(said), BLOCK_VARIABLE
    if provider is not None:
        _ = PROVIDERS[provider]
    if provider in _PROVIDER_BLOCKS:
        of, block = _PROVIDER_BLOCKS[provider]
        return block, of
    if provider not in _PROCESSORS:
        raise PlanError(
            f"nobody knows how many channels the provider {provider} works on at a time: give a "
            "number",
            parameters=("rank_multiple",),
        )
    found = instruction_sets() if elsewhere is None else elsewhere
    known = [(block, of) for name, of, block in _BLOCKS if name in found and provider != "arm"]
    if known:
        return known[0]
    is_here = elsewhere is None and (provider != "arm" or "asimd" in found)
    asked = nchwc_block() if is_here else None
    return (_ROWS, "rows of a matrix product") if asked is None else (asked, "ONNX Runtime's")


def _is_multiple(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LARGEST
