"""How many channels the convolutions of a processor work on at a time."""

from __future__ import annotations

from trpexport.errors import PlanError
from trpexport.measure.machine import machine_facts

# Channel blocks of ONNX Runtime's convolutions, the widest first.
_BLOCKS = (("avx512f", 16), ("avx2", 8))


def channel_block() -> int:
    """Return the channel block of ONNX Runtime's convolutions on this machine.

    Raises:
        PlanError: it is known for AVX2 and AVX-512 alone.
    """
    found = machine_facts()["instruction_sets"]
    for name, block in _BLOCKS:
        if name in found:
            return block
    raise PlanError(
        "the channel block is known for processors with AVX2 and AVX-512 only, this one has "
        "neither: give a number"
    )
