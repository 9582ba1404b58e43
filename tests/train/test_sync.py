"""A training step must not make the host wait for the device: counted on a stand-in for one, and on CUDA itself.

What lies on the host, as labels, permutations and the store's books do, are ordinary tensors, free to be looked at.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from tests.stand_in import AWAY, StandIn
from torch import Tensor

from segloc_train.cli import command
from segloc_train.config import Config, resolve
from segloc_train.data.data import Batch, View
from segloc_train.dist import World
from segloc_train.flags import METHODS
from segloc_train.methods import moco
from segloc_train.methods.common.contrast import info_nce
from segloc_train.methods.common.queues import KeyStore
from segloc_train.run.trainer import Trainer

pytestmark = pytest.mark.usefixtures("thin")
SIZE, BATCH, GROUP, CLASSES, QUEUE = 48, 16, 8, 4, 72  # the queue still holds start keys after three steps


def config(method: str, optimizer: str = "sgd", crop: float = 1) -> Config:
    """Of a small run with the strongest augmentation, on ten batches; SGD, as fused AdamW needs a real device.

    Whole pictures: on crops of 32 pixels, one cell of the last level, rounding grows within three steps.
    """
    flags = {"method": method, "arch": "resnet18", "width": 64, "augment": "moco", "batch-size": BATCH}
    flags |= {"bn-group": GROUP, "queue-size": QUEUE, "momentum-key": 0.99, "optimizer": optimizer, "crop": crop}
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


def steps(method: str, stand_in: StandIn, crop: float = 1) -> list[Tensor]:
    """Losses and accuracies of three steps; the stand-in counts what the third waited for."""
    with stand_in:
        trainer = Trainer(config(method, crop=crop), CLASSES, World(), AWAY)
        for number in range(3):
            stand_in.waits.clear()
            trainer.advance(batch(number), False)
    return [x.held for x in trainer.pending]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "method",
    [name if name in ("segloc", "densecl") else pytest.param(name, marks=pytest.mark.slow) for name in METHODS],
)
def test_no_step_waits_for_the_device(method: str, stand_in: StandIn) -> None:
    found = steps(method, stand_in)
    assert stand_in.waits == []
    plain = Trainer(config(method), CLASSES, World(), torch.device("cpu"))
    for number in range(3):
        plain.advance(batch(number), False)
    assert len(found) == len(plain.pending) == 3
    assert all(map(torch.equal, found, plain.pending))  # the stand-in computed the step, nothing less


def test_crops_do_not_wait_either(stand_in: StandIn) -> None:
    assert steps("segloc", stand_in, crop=0.5) and stand_in.waits == []


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
    with stand_in:
        away = torch.ones(3, device=AWAY)
        with pytest.raises(RuntimeError):
            read(away)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", METHODS)
def test_no_step_waits_for_cuda(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(config(method, "adamw", 0.5), CLASSES, World(), torch.device("cuda", 0))

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
