"""Which numbers a provider gets, and that ONNX Runtime has kernels for what is quantized."""

from __future__ import annotations

import pytest

from trpexport.errors import ModelError, TrpexportError
from trpexport.quantization.formats import number_format
from trpexport.runtime.providers import PROVIDERS


@pytest.mark.parametrize(
    ("provider", "instruction_sets", "expected"),
    [
        ("cpu", ["avx2", "avx512f", "avx512_vnni"], "U8S8"),
        ("cpu", ["avx2", "avx_vnni"], "U8S8"),
        ("cpu", ["avx2", "fma"], "U8S7"),  # vpmaddubsw saturates
        ("cpu", [], "U8S7"),
        ("cpu", ["asimd", "asimddp"], "S8S8"),
        ("arm", [], "S8S8"),
        ("tensorrt", [], "S8S8"),
        ("openvino", [], "U8S8"),
    ],
)
def test_numbers_of_providers(provider: str, instruction_sets: list[str], expected: str) -> None:
    assert number_format(provider, instruction_sets).name == expected


def test_tensorrt_takes_ranges_that_are_symmetric_alone() -> None:
    assert number_format("tensorrt", []).is_symmetric
    assert not number_format("cpu", ["avx512_vnni"]).is_symmetric


def test_a_provider_without_int8_is_refused_in_one_line() -> None:
    with pytest.raises(ModelError, match=r"the provider coreml has no int8: .*one of cpu, arm"):
        number_format("coreml", [])


def test_every_provider_has_numbers_or_is_refused() -> None:
    for name in PROVIDERS:
        try:
            assert number_format(name, []).name in {"U8S8", "U8S7", "S8S8"}
        except TrpexportError as error:
            assert "no int8" in str(error)
