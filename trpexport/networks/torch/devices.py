"""Where PyTorch computes: the processor, or a CUDA device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trpexport.errors import DeviceError

AUTO = "auto"
DEVICES = (AUTO, "cpu", "cuda")


def device_named(name: str) -> torch.device:
    """Return a device: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is one.

    Raises:
        DeviceError: nothing is called so, or there is no such device here.
    """
    if name not in DEVICES:
        raise DeviceError(f"unknown device {name!r}: choose from {', '.join(DEVICES)}")
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise DeviceError(
            "PyTorch sees no CUDA device here: choose another, or install a CUDA build of torch"
        )
    return torch.device("cpu" if name == "cpu" or not has_cuda else "cuda")


@contextmanager
def full_precision() -> Iterator[None]:
    """Have CUDA multiply float32 as such, and sum up in the same order each time.

    TensorFloat-32, which convolutions take where nobody says otherwise, has three digits: what is
    fitted to it is fitted to its rounding.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def told_of(device: torch.device) -> str:
    """Return what to call a device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
