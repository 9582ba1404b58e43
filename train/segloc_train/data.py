"""Shards to batches: read by offset, decode in workers, nothing random here."""

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg

from segloc_synth.shards import ShardReader


class View(NamedTuple):
    """One side of a batch of pairs.

    images: uint8 [B, 3, S, S], RGB, as stored; float32 and normalised once augment has seen them.
    boxes: float32 [B, 4], x1, y1, x2, y2 in pixels of the pasted segment.
    """

    images: Tensor
    boxes: Tensor

    def to(self, device: torch.device) -> "View":
        """The view on `device`, copied without waiting where the memory is pinned."""
        return View(*(x.to(device, non_blocking=True) for x in self))


class Batch(NamedTuple):
    """A batch of pairs; labels int64 [B] are positions in the manifest's classes."""

    query: View
    key: View
    labels: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`."""
        return Batch(self.query.to(device), self.key.to(device), self.labels.to(device, non_blocking=True))


def image_size(reader: ShardReader) -> int:
    """Side of the square pictures in pixels; click.ClickException where the manifest does not say."""
    size = reader.manifest.get("config", {}).get("size")
    if not isinstance(size, int) or size < 1:
        raise click.ClickException(f"{reader.folder / 'manifest.json'}: config.size is {size!r}, not a size in pixels")
    return size


class Pairs(Dataset[Batch]):
    """Map-style data set that is asked for whole batches of places."""

    def __init__(self, reader: ShardReader) -> None:
        self.reader = reader
        self.size = image_size(reader)

    def __getitem__(self, place: int) -> Batch:
        """A batch of one pair."""
        return self.batch([place])

    def __getitems__(self, places: list[int]) -> "Batch | click.ClickException":
        # An error raised in a worker arrives wrapped in a traceback; as a value it stays one line.
        try:
            return self.batch(places)
        except click.ClickException as error:
            return error
        except OSError as error:
            return click.ClickException(f"{error.filename}: {error.strerror}")

    def batch(self, places: list[int]) -> Batch:
        """Read and decode pairs; click.ClickException names shard and key of a damaged one."""
        images: tuple[list[Tensor], list[Tensor]] = ([], [])
        boxes: tuple[list[list[float]], list[list[float]]] = ([], [])
        for place in places:
            sample = self.reader[place]
            for side, (name, data) in enumerate((("query", sample.query), ("key", sample.key))):
                images[side].append(self._decode(data, place, name))
                try:
                    x, y, w, h = sample.meta[name]["box"]
                    boxes[side].append([x, y, x + w, y + h])
                except (KeyError, TypeError, ValueError):
                    raise click.ClickException(f"{self._where(place)}: {name} has no box") from None
        query, key = (
            View(torch.stack(images[side]), torch.tensor(boxes[side], dtype=torch.float32)) for side in (0, 1)
        )
        return Batch(query, key, torch.from_numpy(self.reader.labels[places]))

    def _decode(self, data: bytes, place: int, name: str) -> Tensor:
        """uint8 [3, S, S]."""
        try:
            image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise click.ClickException(
                f"{self._where(place)}.{name}.jpg: not a readable JPEG ({reason}); build the shard anew"
            ) from None
        if image.shape != (3, self.size, self.size):
            raise click.ClickException(
                f"{self._where(place)}.{name}.jpg: is {image.shape[2]}x{image.shape[1]} pixels, "
                f"the manifest says {self.size}x{self.size}"
            )
        return image

    def _where(self, place: int) -> str:
        """Shard and key of a sample."""
        shard, _ = self.reader.locate(place)
        return f"{shard}: {self.reader[place].meta['index']:012d}"


def batches(
    pairs: Pairs, order: Iterable[list[int]], workers: int, pin: bool
) -> Iterable[Batch | click.ClickException]:
    """Batches in `order`, decoded by `workers` processes (0: in this one); an error comes as a value."""
    return DataLoader(
        pairs,
        batch_sampler=order,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_same,
        pin_memory=pin,
        worker_init_fn=_leave_group,
    )


def _same(batch: Any) -> Any:
    """The data set returns whole batches already."""
    return batch


def _leave_group(worker: int) -> None:
    """Signals to the whole process group, as Ctrl-C is, must not end a worker: the main process decides."""
    os.setsid()
