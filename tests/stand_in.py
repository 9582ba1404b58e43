"""A stand-in for a device with a memory of its own, for tests of what a GPU would do on machines that have none.

It keeps its numbers in the host's memory but says that they are elsewhere, on torch's device `meta`, which has no
kernels of its own: every operation on it, in backward and in the optimiser too, comes by here. Tensors of both memories
in one operation are an error, as on CUDA. Counted is what would wait on CUDA: reading a value, a shape that depends on
values, copies between the two memories, other than non-blocking ones to the device.
"""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torchvision  # noqa: F401  its operators
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

AWAY = torch.device("meta")
aten = torch.ops.aten
WAITS = {  # the result, or its shape, depends on values, and the host needs it
    aten._local_scalar_dense,  # item(), int(), float(), `if` and `while`
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten._unique,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
    torch.ops.torchvision.nms,
}


class Away(Tensor):
    """A tensor on the stand-in; its numbers are in `held`."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Away":
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        away = Tensor._make_wrapper_subclass(cls, held.size(), device=AWAY, **layout)  # type: ignore[attr-defined]
        away.held = held
        return away

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{function} while the stand-in is off")


class StandIn(TorchDispatchMode):
    """Computes what is asked of device `meta`; `waits` names what the host would have waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        lost = [x for x in tensors if x.device == AWAY and not isinstance(x, Away)]
        assert not lost, f"{function}: a tensor that was made past the stand-in, so without numbers"
        ours = {id(x.held): x for x in tensors if isinstance(x, Away)}
        target = kwargs.get("device")
        if not ours and target != AWAY:
            return function(*args, **kwargs)
        if self.waited_for(function, args, kwargs):
            self.waits.append(str(function))
        elif function.overloadpacket not in (aten._to_copy, aten.copy_):
            strays = [x for x in tensors if x.dim() and not isinstance(x, Away)]
            assert not strays, f"{function}: tensors in both memories"

        def inner(x: Any) -> Any:
            return x.held if isinstance(x, Away) else torch.device("cpu") if x == AWAY else x

        def outer(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return ours[id(x)] if id(x) in ours else Away(x)

        result = function(*tree_map(inner, args), **tree_map(inner, kwargs))
        if function.overloadpacket is aten.copy_:
            return args[0]
        return tree_map(outer, result) if target in (None, AWAY) else result

    def waited_for(self, function: Any, args: Any, kwargs: Any) -> bool:
        """Would the host wait?"""
        packet = function.overloadpacket
        if packet is aten._to_copy or packet is aten.copy_:
            source = args[0] if packet is aten._to_copy else args[1]
            target = kwargs.get("device") or args[0].device
            non_blocking = kwargs.get("non_blocking", False) or (packet is aten.copy_ and True in args[2:])
            return source.device != target and (target != AWAY or not non_blocking)
        if packet in (aten.index, aten.index_put, aten.index_put_):
            indices = [x for x in args[1] if x is not None]
            return any(x.dtype in (torch.bool, torch.uint8) or not isinstance(x, Away) for x in indices)
        if packet is aten.repeat_interleave:  # of counts: how many there will be
            return kwargs.get("output_size") is None
        return packet in WAITS


def pretend(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A stand-in, off; with what torch itself does not let one have."""
    generator, tensor, getitem = torch.Generator, torch.tensor, Tensor.__getitem__

    def listless(index: Any) -> Any:
        if isinstance(index, tuple):
            return tuple(map(listless, index))
        return tensor(index) if isinstance(index, list) else index

    def new_tensor(self: Tensor, values: Any, device: Any = None) -> Tensor:
        return tensor(values, dtype=self.dtype).to(device or self.device)

    monkeypatch.setattr(torch, "Generator", lambda device=None: generator())
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    # Lists as tensors on the device are blocking copies, but a mode does not see them.
    monkeypatch.setattr(torch, "tensor", lambda x, device=None, **rest: tensor(x, **rest).to(device or "cpu"))
    monkeypatch.setattr(Tensor, "new_tensor", new_tensor)
    monkeypatch.setattr(Tensor, "__getitem__", lambda self, index: getitem(self, listless(index)))
    return StandIn()
