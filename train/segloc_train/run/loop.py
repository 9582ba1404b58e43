"""The training loop: steps, records, checkpoints, signals. What a step computes is the method's affair."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click
import torch

from segloc_synth.console import cause, log
from segloc_synth.files import read_json
from segloc_train.config import Config
from segloc_train.data.data import Batch
from segloc_train.dist import World, memory_told
from segloc_train.run.export import export
from segloc_train.run.feed import Feed
from segloc_train.run.observe import Observer
from segloc_train.run.runlog import RunLog
from segloc_train.run.trainer import Trainer

ORIGIN = "pretrained.json"  # in a run's folder: what it started from goes back to
MEMORY = "--bn-group, --crop or --width"
RECORD_EVERY = 10  # steps
SAVE_EVERY = 600.0  # seconds, at a record, besides every epoch's end


def train(config: Config, folder: Path, feed: Feed, world: World, device: torch.device) -> int:
    """Train from where folder/last.pt stands (from the start without one) to the end, and export.

    Returns the exit code: 0, or 130 / 143 when SIGINT / SIGTERM stopped it after a finished step and a saved
    state. click.ClickException for damaged data, a state of another run, or a loss that is not finite.
    """
    with memory_told(f"the network and a queue of {config.queue_size} keys", "--queue-size or --width"):
        trainer = Trainer(config, len(feed.sources.classes), world, device)
        trainer.start(folder / "last.pt")
    total, per_epoch = config.total_steps, config.steps_per_epoch
    if trainer.step == total and world.first:
        log.info("%s is finished: %d epochs, %d steps", folder, config.epochs, total)
    with stop_signals() as stopped, RunLog(folder, trainer.step, total, world.first) as records:
        observer = Observer(feed, config, records, device)
        stream = iter(feed.batches(trainer.step) if trainer.step < total else ())
        clock = Clock()
        while trainer.step < total and not (trainer.stopping or (stopped and world.size == 1)):
            with clock.waiting():
                batch = next_batch(stream)
            with memory_told(f"batch statistics of {config.bn_group} pairs a step", MEMORY):
                trainer.advance(batch, bool(stopped))
            clock.count(config.batch_size)
            records.advance()
            step = trainer.step
            epoch_end = step % per_epoch == 0
            if not (epoch_end or step % per_epoch % RECORD_EVERY == 0):
                continue
            epoch = (step - 1) // per_epoch + 1
            record: dict[str, Any] = {"step": step, "epoch": epoch, "samples": step * config.batch_size}
            record |= trainer.summarise(folder, feed) | {"lr": config.lr_at(step - 1)} | clock.read()
            if world.first:
                record |= observer.look(trainer.method, record, epoch_end)
            records.write(record, epoch_end)
            if epoch_end or (clock.since_save() > SAVE_EVERY and not config.stream):
                apart = epoch_end and config.save_every and epoch % config.save_every == 0
                trainer.save(folder / "last.pt", folder / f"epoch_{epoch:03d}.pt" if apart else None)
                clock.saved()
            clock.start_over()
    if trainer.step < total:
        if trainer.pending:
            trainer.sum_pending(folder, feed)  # a state that is not finite is not worth keeping
        if trainer.saved < trainer.step and not config.stream:
            trainer.save(folder / "last.pt")
        if world.first:
            kept = f", of which {trainer.saved} are kept" if trainer.saved < trainer.step else ""
            log.info("Stopped after step %d of %d%s; go on with --resume %s", trainer.step, total, kept, folder)
        return 128 + (stopped[0] if stopped else signal.SIGTERM)
    if world.first:
        origin = folder / ORIGIN
        known = {"pretrained": read_json(origin)} if origin.is_file() else {}
        export(trainer.method.query.backbone, config.arch, folder, about(config, feed) | known)
        log.info("Weights are in %s", folder / "backbone.pth")
    return 0


def about(config: Config, feed: Feed) -> dict[str, Any]:
    """What meta.json says of a run, besides normalisation and versions."""
    return {
        "method": config.method,
        "init": config.init,
        "arch": config.arch,
        "width": config.width,
        "image_size": feed.sources.image_size,
        "classes": feed.sources.classes,
        "shards_hash": config.shards_hash,
        "samples_seen": config.total_steps * config.batch_size,
        "epochs": config.epochs,
    }


def next_batch(stream: Iterator[Batch | click.ClickException]) -> Batch:
    """The next batch; click.ClickException for damaged data or a reading process that died."""
    try:
        batch = next(stream)
    except RuntimeError as error:
        reason = cause(error)
        remedy = "; give --workers 0, or more room to /dev/shm" if "shared memory" in reason else ""
        raise click.ClickException(f"reading the shards failed: {reason}{remedy}") from None
    if isinstance(batch, click.ClickException):
        raise batch
    return batch


class Clock:
    """Throughput and the share of time spent waiting for data since it started over; time since the last save."""

    def __init__(self) -> None:
        self.saved()
        self.start_over()

    def start_over(self) -> None:
        """Count from now on."""
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

    def saved(self) -> None:
        """The state was saved now."""
        self.last_save = time.monotonic()

    def since_save(self) -> float:
        """Seconds."""
        return time.monotonic() - self.last_save


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
