"""A training step must not make the host wait for the device: counted on a stand-in for one, and on CUDA itself.

The stand-in keeps its numbers in the host's memory but says that they are elsewhere, on torch's device `meta`, which
has no kernels of its own: every operation on it, in backward and in the optimiser too, comes by here. Counted is what
would wait on CUDA: reading a value, a shape that depends on values, copies between the two memories, other than
non-blocking ones to the device. Tensors of both memories in one operation are an error, as on CUDA. What lies on the
host, as labels, permutations and the store's books do, are ordinary tensors, free to be looked at.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from segloc_train.cli import METHODS, command
from segloc_train.config import Config, resolve
from segloc_train.contrast import info_nce
from segloc_train.data import Batch, View
from segloc_train.dist import World
from segloc_train.methods import moco
from segloc_train.queues import KeyStore
from segloc_train.trainer import Trainer

AWAY = torch.device("meta")
SIZE, BATCH, GROUP, CLASSES, QUEUE = 48, 16, 8, 4, 72  # the queue still holds start keys after three steps
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


def config(method: str) -> Config:
    """Of a small run with the strongest augmentation, on ten batches; SGD, as fused AdamW needs a real device.

    Whole pictures: on crops of 32 pixels, one cell of the last level, rounding grows within three steps.
    """
    flags = {"method": method, "arch": "resnet18", "width": 64, "augment": "moco", "batch-size": BATCH}
    flags |= {"bn-group": GROUP, "queue-size": QUEUE, "momentum-key": 0.99, "optimizer": "sgd", "crop": 1}
    words = [str(x) for name, value in flags.items() for x in (f"--{name}", value)]
    options = command.make_context("segloc-train", words).params
    known = {field.name for field in fields(Config)} & set(options)
    return resolve({x: options[x] for x in known} | {"width": 64, "shards": []}, "", 10 * BATCH, 10 * BATCH)


def batch(number: int) -> Batch:
    """Noise with boxes and masks, as a loader hands it over."""
    draws = torch.Generator().manual_seed(number)
    views = []
    for _ in range(2):
        corner = torch.randint(0, SIZE // 2, (BATCH, 2), generator=draws)
        masks = torch.zeros(BATCH, SIZE, SIZE, dtype=torch.uint8)
        for mask, (x, y) in zip(masks, corner.tolist(), strict=True):
            mask[y : y + 14, x : x + 12] = 1
        boxes = torch.cat([corner, corner + torch.tensor([12, 14])], 1).float()
        images = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), generator=draws, dtype=torch.uint8)
        views.append(View(images, boxes, masks))
    return Batch(views[0], views[1], torch.randint(0, CLASSES, (BATCH,), generator=draws), torch.arange(BATCH))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Off; with what torch itself does not let a stand-in have."""
    generator, tensor = torch.Generator, torch.tensor
    monkeypatch.setattr(torch, "Generator", lambda device=None: generator())
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    # torch.tensor(list, device=...) is a blocking copy, but a mode does not see it
    monkeypatch.setattr(torch, "tensor", lambda x, device=None, **rest: tensor(x, **rest).to(device or "cpu"))
    return StandIn()


def steps(method: str, stand_in: StandIn) -> list[Tensor]:
    """Losses and accuracies of three steps; the stand-in counts what the third waited for."""
    with stand_in:
        trainer = Trainer(config(method), CLASSES, World(), AWAY)
        for number in range(3):
            stand_in.waits.clear()
            trainer.advance(batch(number), False)
    return [x.held for x in trainer.pending]  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", METHODS)
def test_no_step_waits_for_the_device(method: str, stand_in: StandIn) -> None:
    found = steps(method, stand_in)
    assert stand_in.waits == []
    plain = Trainer(config(method), CLASSES, World(), torch.device("cpu"))
    for number in range(3):
        plain.advance(batch(number), False)
    assert all(map(torch.equal, found, plain.pending))  # the stand-in computed the step, nothing less


OFFENDERS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "if": lambda x: 1 if (x > 0).all() else 0,
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu", non_blocking=True),
    "nonzero": lambda x: (x > 2).nonzero(),
    "select": lambda x: x[x > 0],
    "assign": lambda x: x.detach().clone().index_put_((x > 2,), x.new_zeros(())),
    "index": lambda x: x[torch.arange(2)],
    "unique": lambda x: x.detach().unique(),
    "interleave": lambda x: x[:, 0, 0].repeat_interleave((x[:, 0, 0] > 0).long()),
    "constant": lambda x: x + torch.tensor([1.0], device=x.device),
    "upload": lambda x: x + torch.ones(1).to(x.device),
    "fill": lambda x: torch.empty(1, device=x.device).copy_(torch.ones(1)),
}


def test_whoever_waits_is_caught(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a loss and in the store; were one of these missed, the test above would prove nothing."""
    caught: set[str] = set()

    def loss(queries: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        for name, wait in OFFENDERS.items():
            before = len(stand_in.waits)
            wait(queries)
            caught.update([name] if len(stand_in.waits) == before + 1 else [])
        return info_nce(queries, *rest)

    enqueue = KeyStore.enqueue

    def store(self: KeyStore, keys: Tensor, labels: Tensor) -> Tensor:
        before = len(stand_in.waits)
        assert keys.norm().item() > 0
        caught.update(["store"] if len(stand_in.waits) == before + 1 else [])
        return enqueue(self, keys, labels)

    monkeypatch.setattr(moco, "info_nce", loss)
    monkeypatch.setattr(KeyStore, "enqueue", store)
    steps("moco", stand_in)
    assert caught == {*OFFENDERS, "store"}
    assert len(stand_in.waits) == len(OFFENDERS) * BATCH // GROUP + 1


@pytest.mark.parametrize("read", [Tensor.tolist, Tensor.numpy])
def test_a_look_past_the_operators_is_an_error(read: Callable[[Tensor], object], stand_in: StandIn) -> None:
    with stand_in, pytest.raises(RuntimeError):
        read(torch.ones(3, device=AWAY))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", METHODS)
def test_no_step_waits_for_cuda(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(config(method), CLASSES, World(), torch.device("cuda", 0))

    def pinned(number: int) -> Batch:
        loaded = batch(number)
        views = (view.map(Tensor.pin_memory) for view in loaded[:2])
        return Batch(*views, *loaded[2:])

    for number in range(2):  # constants travel once, and the allocator gets its memory
        trainer.advance(pinned(number), False)
    third = pinned(2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.advance(third, False)
        with pytest.raises(RuntimeError, match="synchronizing"):
            trainer.pending[-1].sum().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(trainer.pending).isfinite().all()
