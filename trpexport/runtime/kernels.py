"""What a provider computes in which type of numbers, as this ONNX Runtime tells of itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from trpexport.runtime.providers import find_provider
from trpexport.runtime.session import import_onnxruntime

_LINEAR = ("Conv", "MatMul", "Gemm")


@dataclass(frozen=True)
class Kernels:
    """The kernels of a provider for one type of numbers.

    Attributes:
        versions: by domain and name of an operator, the operator sets from which and up to which a
            kernel is meant for; empty where the provider is not in this ONNX Runtime, or where this
            is not told.
    """

    versions: dict[tuple[str, str], tuple[tuple[int, int], ...]]

    def has(self, domain: str, name: str, since: int) -> bool:
        """Whether an operator as defined from a version on is computed."""
        return any(low <= since <= high for low, high in self.versions.get((domain, name), ()))

    @property
    def multiplies(self) -> bool:
        """Whether convolutions or matrix products are computed."""
        return any(("", name) in self.versions for name in _LINEAR)


@cache
def kernels_of(provider: str, dtype: str) -> Kernels:
    """Return what a provider computes in a type.

    Args:
        provider: a name in :data:`trpexport.runtime.providers.PROVIDERS`.
        dtype: ONNX Runtime's name of the type, as in ``float16``.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        TrpexportError: there is no such provider, or it does not run on this machine.
    """
    wanted = find_provider(provider).ort_name
    found: dict[tuple[str, str], tuple[tuple[int, int], ...]] = {}
    for kernel in _all_kernels():
        types = {one for some in kernel.type_constraints.values() for one in some}
        if kernel.provider == wanted and f"tensor({dtype})" in types:
            key = (kernel.domain.removeprefix("ai.onnx"), kernel.op_name)
            found[key] = (*found.get(key, ()), tuple(kernel.version_range))
    return Kernels(found)


def _all_kernels() -> Iterable[Any]:
    """Return descriptions of all kernels; none where this ONNX Runtime does not give them."""
    state = getattr(import_onnxruntime().capi, "_pybind_state", None)
    tell = getattr(state, "get_all_opkernel_def", None)
    return () if tell is None else tell()
