"""Batches read ahead by worker processes, and decoded there or on the device; what stood in for damage is told."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import click
import torch
from torch.utils.data import DataLoader
from torchvision.io import ImageReadMode, decode_jpeg

from segloc_synth.console import log
from segloc_train.data.data import Batch, Encoded, Pairs


def batches(
    pairs: Pairs, order: Iterable[list[int]], workers: int, device: torch.device
) -> Iterator[Batch | click.ClickException]:
    """Batches in `order`, read by `workers` processes (0: in this one); an error comes as a value.

    Where pairs are to be decoded on the device, the views are there already; else on the CPU, in pinned memory if the
    device is a GPU.
    """
    loader: Iterable[Any] = DataLoader(
        pairs,
        batch_sampler=order,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_same,
        pin_memory=device.type == "cuda",
        worker_init_fn=leave_group,
    )
    stood_in = StoodIn()
    for item in loader:
        batch = decode_on(device, item, pairs) if isinstance(item, Encoded) else item
        if isinstance(batch, Batch):
            stood_in.note(batch.problems)
        yield batch


def decode_on(device: torch.device, encoded: Encoded, pairs: Pairs) -> Batch | click.ClickException:
    """The batch, its pictures decoded by one call on the device: on a GPU by nvJPEG, whose rounding differs a little.

    Where that fails, the pairs are read again and decoded on the CPU, which finds the damaged one.
    """
    batch = encoded.batch
    try:
        images = decode_jpeg(list(encoded.jpegs.split(encoded.sizes)), ImageReadMode.RGB, device=device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as reason:
        try:
            again = pairs.batch(batch.places.tolist())
        except click.ClickException as error:
            return error
        if not again.problems:
            _undecoded(device.type, str(reason).splitlines()[0])
        return again._replace(problems=batch.problems + again.problems).to(device)
    batch = batch.to(device)
    query, key = torch.stack(images[: len(batch.places)]), torch.stack(images[len(batch.places) :])
    return batch._replace(query=batch.query._replace(images=query), key=batch.key._replace(images=key))


@cache
def _undecoded(device: str, reason: str) -> None:
    """Say, once, that the device's decoder fails where that of the CPU does not: each such batch is read twice."""
    log.warning(
        "Warning: --decode device: %s cannot decode what the CPU can (%s); give --decode workers", device, reason
    )


@dataclass
class StoodIn:
    """Warns of damaged pairs: of the first, and whenever their number has doubled."""

    count: int = 0

    def note(self, problems: Sequence[str]) -> None:
        """Count the problems of a batch."""
        for problem in problems:
            self.count += 1
            if self.count & (self.count - 1) == 0:
                log.warning("Warning: damaged, another pair stands in (%d times so far): %s", self.count, problem)


def _same(batch: Any) -> Any:
    """The data set returns whole batches already."""
    return batch


def leave_group(worker: int) -> None:
    """Signals to the whole process group, as Ctrl-C is, must not end a worker: the main process decides."""
    os.setsid()
