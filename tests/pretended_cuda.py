"""A CUDA device that is none: the processor computes, and an account says what lies where.

As on a real one, an operator of tensors on both is refused, and an array of one there. What the
tensors hold is what the processor gives, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from trpexport.networks.torch.operators import OperatorMode

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
NAME = "NVIDIA Pretended"
_aten = torch.ops.aten
# They take tensors of the processor beside others: copies, and indices.
_MIXED = {_aten.copy_, _aten._to_copy, _aten.index, _aten.index_put_, _aten._index_put_impl_}


class Account:
    """What lies on the device.

    Attributes:
        operators: how many operators ran there.
        memory: of so many operators; the next one finds no memory. None for no bound.
    """

    def __init__(self, memory: int | None = None) -> None:
        self.operators = 0
        self.memory = memory
        self._storages: dict[int, Any] = {}  # held, so that no other one gets the same address

    def has(self, tensor: Tensor) -> bool:
        """Whether a tensor lies there."""
        return _storage(tensor)._cdata in self._storages

    def put(self, tensor: Tensor, *, there: bool) -> None:
        """Note where a tensor lies."""
        storage = _storage(tensor)
        if there:
            self._storages[storage._cdata] = storage
        else:
            self._storages.pop(storage._cdata, None)


def _storage(tensor: Tensor) -> Any:
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage()


class _Functions(TorchFunctionMode):
    """Says where tensors lie, and moves them."""

    def __init__(self, account: Account) -> None:
        super().__init__()
        self._account = account

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        keywords, account = dict(kwargs or {}), self._account
        if func == Tensor.device.__get__:
            return CUDA if account.has(args[0]) else CPU
        if func in (Tensor.numpy, Tensor.__array__) and account.has(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func is Tensor.cpu:
            return self._to(args[0], (CPU,), {})
        if func is Tensor.to:
            return self._to(args[0], args[1:], keywords)
        if func is Tensor.__deepcopy__:
            copy = func(*args, **keywords)
            account.put(copy, there=account.has(args[0]))
            return copy
        device = keywords.get("device")
        if device is None:
            return func(*args, **keywords)
        made = func(*args, **{**keywords, "device": CPU})
        account.put(made, there=torch.device(device).type == "cuda")
        return made

    def _to(self, x: Tensor, args: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor:
        given = [*args, *(keywords[name] for name in ("device", "dtype") if name in keywords)]
        dtype, there = x.dtype, self._account.has(x)
        for each in given:
            if isinstance(each, Tensor):
                dtype, there = each.dtype, self._account.has(each)
            elif isinstance(each, torch.dtype):
                dtype = each
            elif isinstance(each, str | torch.device):
                there = torch.device(each).type == "cuda"
        if there == self._account.has(x):
            return x.to(dtype)
        found = x.to(dtype, copy=True)
        self._account.put(found, there=there)
        return found


class _Operators(OperatorMode):
    """Refuses operators of tensors on both, and notes where what they give lies."""

    def __init__(self, account: Account) -> None:
        super().__init__()
        self._account = account

    def run(self, operator: Any, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Run an operator, if its tensors lie together."""
        account = self._account
        given = [x for x in pytree.tree_leaves((args, keywords)) if isinstance(x, Tensor)]
        there = [account.has(x) for x in given]
        is_plain = operator.overloadpacket not in _MIXED
        if any(there) and is_plain:
            account.operators += 1
            if account.memory is not None and account.operators > account.memory:
                raise torch.OutOfMemoryError("CUDA out of memory")
            if any(x.ndim for x, is_there in zip(given, there, strict=True) if not is_there):
                raise RuntimeError(
                    f"Expected all tensors to be on the same device, but found both ({operator})"
                )
        output = operator(*args, **keywords)
        if any(there) if is_plain else bool(there) and there[0]:
            for x in pytree.tree_leaves(output):
                if isinstance(x, Tensor):
                    account.put(x, there=True)
        return output


@contextmanager
def pretended_cuda(memory: int | None = None) -> Iterator[Account]:
    """Have a CUDA device within the block.

    Args:
        memory: how many operators it has memory for; None for all.
    """
    account, to = Account(memory), nn.Module.to

    def module_to(module: nn.Module, *args: Any, **keywords: Any) -> nn.Module:
        if args and isinstance(args[0], Tensor):  # which torch asks for its device below Python
            args = args[0].device, args[0].dtype
        return to(module, *args, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "to", module_to)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "get_device_name", lambda _: NAME)
        with _Functions(account), _Operators(account):
            yield account
