"""Matrix products, and what is made of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trpexport.networks.onnx.interpreter.convolution import activated
from trpexport.networks.onnx.interpreter.registry import MICROSOFT, Use, operator


@operator("MatMul")
def _matmul(_: Use, first: Tensor, second: Tensor) -> Tensor:
    return torch.matmul(first, second)


@operator("Gemm")
def gemm(use: Use, first: Tensor, second: Tensor, added: Tensor | None = None) -> Tensor:
    """Return a product of matrices, with what is added to it."""
    first = first.T if use.get("transA", 0) else first
    second = second.T if use.get("transB", 0) else second
    found = first @ second
    alpha, beta = use.get("alpha", 1.0), use.get("beta", 1.0)
    if alpha != 1.0:
        found = (found * alpha).to(found.dtype)
    if added is None or beta == 0.0:
        return found
    return found + (added if beta == 1.0 else (added * beta).to(added.dtype))


@operator("FusedGemm", domain=MICROSOFT)
def _fused_gemm(use: Use, first: Tensor, second: Tensor, added: Tensor | None = None) -> Tensor:
    parameters = [use.get(f"activation_{name}") for name in ("alpha", "beta")]
    attributes = {**use.attributes, "activation_params": [p for p in parameters if p is not None]}
    return activated(Use(attributes, use.opset), gemm(use, first, second, added))


@operator("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def _fused_matmul(use: Use, first: Tensor, second: Tensor) -> Tensor:
    first, second = (
        _transposed(x, bool(use.get(f"trans{side}", 0)), bool(use.get(f"transBatch{side}", 0)))
        for x, side in ((first, "A"), (second, "B"))
    )
    return torch.matmul(first, second) * use.get("alpha", 1.0)


def _transposed(x: Tensor, is_swapped: bool, is_batch_inside: bool) -> Tensor:
    if is_batch_inside:
        x = x.movedim(0, -2)
    return x.mT if is_swapped and x.ndim > 1 else x


@operator("Einsum")
def _einsum(use: Use, *inputs: Tensor) -> Tensor:
    return torch.einsum(use.get("equation"), *inputs)


@operator("Det")
def _det(_: Use, x: Tensor) -> Tensor:
    found: Tensor = torch.linalg.det(x)
    return found


_ATTENTION = {"is_causal", "kv_num_heads", "q_num_heads", "scale", "softcap"}


@operator("Attention")
def _attention(
    use: Use,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *past: Tensor | None,
) -> Tensor:
    is_plain = use.attributes.keys() <= _ATTENTION and not any(p is not None for p in past)
    if not is_plain or use.outputs > 1 or use.get("softcap", 0.0):
        raise ValueError("attention with a cache, a cap or a window is not computed")
    is_flat = query.ndim == 3
    if is_flat:
        heads = (use.get("q_num_heads"), use.get("kv_num_heads"), use.get("kv_num_heads"))
        query, key, value = (
            x.reshape(*x.shape[:2], count, -1).transpose(1, 2)
            for x, count in zip((query, key, value), heads, strict=True)
        )
    found = functional.scaled_dot_product_attention(
        query,
        key,
        value,
        mask if mask is None or mask.dtype == torch.bool else mask.to(query.dtype),
        is_causal=bool(use.get("is_causal", 0)),
        scale=use.get("scale"),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return found.transpose(1, 2).flatten(2) if is_flat else found
