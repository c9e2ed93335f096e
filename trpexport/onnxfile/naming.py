"""What the author of a network knows the layers of its ONNX file by."""

from __future__ import annotations


def module_name(weight: str) -> str | None:
    """Return the dotted name of the module whose weight bears a name; None if it tells of none.

    Exporters name weights after modules: ``layer1.0.conv1.weight`` is that of ``layer1.0.conv1``.
    """
    if "." not in weight:
        return None
    return weight.removesuffix("_quantized").removesuffix(".weight")
