"""The training loop: order, steps, records, checkpoints. What a step computes is the method's affair."""

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from segloc_synth.shards import ShardReader
from segloc_train.augment import mild, plain
from segloc_train.backbone import LEVELS
from segloc_train.checkpoint import load_state, save_tensors
from segloc_train.config import Config
from segloc_train.data import Batch, Pairs, View, batches
from segloc_train.export import export, sdanet_weights
from segloc_train.held_out import held_out_accuracy
from segloc_train.methods.segloc import SegLoc
from segloc_train.order import BatchOrder, derived_seed, split
from segloc_train.runlog import RunLog

log = logging.getLogger("segloc")
RECORD_EVERY = 10  # steps
WEIGHTS, START_KEYS, PERMUTATION, QUERY_VIEW, KEY_VIEW = range(5)  # purposes of random numbers


def train(config: Config, folder: Path, reader: ShardReader) -> int:
    """Train from where folder/last.pt stands (from the start without one) to the end, and export.

    Returns the exit code: 0, or 130 / 143 when SIGINT / SIGTERM stopped it after a finished step and a saved
    state. click.ClickException for damaged data, a state of another run, or a loss that is not finite.
    """
    device = pick_device(config.device)
    pairs = Pairs(reader)
    places, held_out = split(len(reader))
    method = build(config, len(reader.classes), device)
    optimizer = torch.optim.SGD(method.query.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)
    step, pending = _resume(folder / "last.pt", method, optimizer, device)
    say_rivals(reader, places, held_out)

    total, per_epoch = config.total_steps, config.steps_per_epoch
    saved = step
    if step == total:
        log.info("%s is finished: %d epochs, %d steps", folder, config.epochs, total)
    with stop_signals() as stopped, RunLog(folder, step, total) as records:
        order = BatchOrder(places, config.seed, config.batch_size, config.epochs, step)
        pin = device.type == "cuda"
        stream = iter(batches(pairs, order, config.workers, pin) if step < total else ())
        clock = Clock()
        while step < total and not stopped:
            with clock.waiting():
                batch = next_batch(stream)
            lr = config.lr_at(step)
            pending.append(train_step(method, optimizer, batch.to(device), config, step, lr))
            step += 1
            clock.count(config.batch_size)
            records.advance()
            epoch_end = step % per_epoch == 0
            if not (epoch_end or step % per_epoch % RECORD_EVERY == 0):
                continue
            record: dict[str, Any] = {"step": step, "epoch": (step - 1) // per_epoch + 1}
            record |= summarise(pending, step, folder, saved) | {"lr": lr} | clock.read()
            if epoch_end:
                accuracy = held_out_accuracy(method.query, pairs, held_out.tolist(), device)
                if accuracy is not None:
                    record["held_out_accuracy"] = accuracy.mean().item()
                    record |= by_level("held_out_accuracy", accuracy)
            records.write(record, epoch_end)
            pending.clear()
            if epoch_end:
                _save(folder / "last.pt", method, optimizer, step, pending)
                saved, epoch = step, record["epoch"]
                if config.save_every and epoch % config.save_every == 0:
                    weights = sdanet_weights(method.query.backbone)
                    save_tensors(folder / f"epoch_{epoch:03d}.pt", weights)
            clock = Clock()
    if step < total:
        if pending:
            summarise(pending, step, folder, saved)  # a state that is not finite is not worth keeping
        if saved < step:
            _save(folder / "last.pt", method, optimizer, step, pending)
        log.info("Stopped after step %d of %d; go on with --resume %s", step, total, folder)
        return 128 + stopped[0]
    about = {
        "arch": config.arch,
        "width": config.width,
        "image_size": pairs.size,
        "classes": reader.classes,
        "shards_hash": config.shards_hash,
        "samples_seen": total * config.batch_size,
        "epochs": config.epochs,
    }
    export(method.query.backbone, folder, about)
    log.info("Weights are in %s", folder / "backbone.pth")
    return 0


def pick_device(name: str) -> torch.device:
    """`auto`: CUDA where there is one; click.ClickException when `cuda` is asked for and absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("--device cuda: no CUDA device is available; use --device cpu")
    device = torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    return device


def build(config: Config, classes: int, device: torch.device) -> SegLoc:
    """The method with its start weights and start keys: functions of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, WEIGHTS))
        method = SegLoc(
            config.arch,
            config.width,
            classes,
            config.queue_size,
            config.temperature,
            config.bn_group,
            torch.Generator().manual_seed(derived_seed(config.seed, START_KEYS)),
            device,
        )
    return method.train()


def next_batch(stream: Iterator[Batch | click.ClickException]) -> Batch:
    """The next batch; click.ClickException for damaged data or a reading process that died."""
    try:
        batch = next(stream)
    except RuntimeError as error:
        raise click.ClickException(f"reading the shards failed: {str(error).splitlines()[0]}") from None
    if isinstance(batch, click.ClickException):
        raise batch
    return batch


def train_step(
    method: SegLoc,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: Config,
    step: int,
    lr: float,
) -> Tensor:
    """One step on stored pairs; returns losses and accuracies, float32 [2, levels], still on the device.

    Every random number is a function of (seed, step), so a resumed run draws what an undisturbed one would.
    """

    def view(stored: View, purpose: int) -> View:
        if config.augment == "none":
            return plain(stored)
        generator = torch.Generator(device=stored.images.device)
        return mild(stored, generator.manual_seed(derived_seed(config.seed, purpose, step)))

    generator = torch.Generator().manual_seed(derived_seed(config.seed, PERMUTATION, step))
    permutation = torch.randperm(config.batch_size, generator=generator).to(batch.labels.device)
    ready = Batch(view(batch.query, QUERY_VIEW), view(batch.key, KEY_VIEW), batch.labels)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros(2, LEVELS, device=batch.labels.device)
    for terms in method.losses(ready, permutation):
        terms.loss.sum().backward()
        total += torch.stack([terms.loss.detach(), terms.accuracy])
    optimizer.step()
    method.update(config.momentum_per_step)
    return total


def summarise(pending: list[Tensor], step: int, folder: Path, saved: int) -> dict[str, float]:
    """Means over the steps up to `step`; click.ClickException names the first whose loss is not finite."""
    values = torch.stack(pending).cpu()
    bad = (~values[:, 0].isfinite().all(1)).nonzero()
    if len(bad):
        first = step - len(values) + int(bad[0]) + 1
        kept = f"{folder / 'last.pt'} holds step {saved}" if saved else "no state was saved before"
        raise click.ClickException(f"the loss is not finite at step {first}; {kept}; lower --lr or raise --temperature")
    loss, accuracy = values.mean(0)
    return {
        "loss": loss.sum().item(),
        **by_level("loss", loss),
        **by_level("acc", accuracy),
    }


def by_level(name: str, values: Tensor) -> dict[str, float]:
    """{name_p2: ..., name_p6: ...} of a tensor [levels]."""
    return {f"{name}_p{level}": value for level, value in enumerate(values.tolist(), 2)}


def say_rivals(reader: ShardReader, places: np.ndarray, held_out: np.ndarray) -> None:
    """Warn where one class alone is present: then there is nothing of another class to tell apart."""
    for what, labels, then in (
        ("training", reader.labels[places], "negatives are the random start keys throughout"),
        ("held-out", reader.labels[held_out], "held-out accuracy is undefined and left out"),
    ):
        if len(classes := np.unique(labels)) == 1:
            name = reader.classes[int(classes[0])]["name"]
            log.warning("Warning: all %s pairs are of class %s: %s", what, name, then)


class Clock:
    """Throughput and the share of time spent waiting for data since it was made."""

    def __init__(self) -> None:
        self.start, self.waited, self.samples = time.perf_counter(), 0.0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent in the block counts as waiting."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    def count(self, samples: int) -> None:
        """So many more samples are done."""
        self.samples += samples

    def read(self) -> dict[str, float]:
        """`samples_per_second` and `data_wait` (0..1)."""
        spent = time.perf_counter() - self.start
        return {"samples_per_second": self.samples / spent, "data_wait": self.waited / spent}


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """The first SIGINT or SIGTERM is only noted in the list, so the step can finish; a second one acts at once."""
    caught: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        for other, handler in before.items():
            signal.signal(other, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _save(path: Path, method: SegLoc, optimizer: torch.optim.Optimizer, step: int, pending: list[Tensor]) -> None:
    """Everything to go on from `step`, tensors and numbers only."""
    state: dict[str, Any] = {
        "method": method.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "pending": [x.cpu() for x in pending],
    }
    save_tensors(path, state)


def _resume(
    path: Path, method: SegLoc, optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[int, list[Tensor]]:
    """Step and not yet recorded results of last.pt, its state loaded; (0, []) where there is none yet."""
    if not path.is_file():
        return 0, []
    state = load_state(path)
    try:
        method.load_state_dict(state["method"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"]), [x.to(device) for x in state["pending"]]
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError):
        raise click.ClickException(f"{path}: is not the state of this run") from None
