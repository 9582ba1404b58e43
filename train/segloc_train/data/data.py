"""Pairs of the shards as batches: read by offset, checked, decoded; nothing random here.

Pairs may come from a stranger: the size of a picture is read from its header before it is decoded, boxes and masks must
fit the picture, and whatever does not is one line that names the shard and the key.
"""

import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info
from torchvision.io import ImageReadMode, decode_jpeg

from segloc_synth.rle import rle_pixels
from segloc_synth.shards.format import Sample
from segloc_train.data.order import derived_seed
from segloc_train.data.raw import jpeg_size
from segloc_train.data.sources import Sources

Decode = Literal["workers", "device"]
KEPT, FREE = 6, 3  # batches' memory kept for the next ones; references to what is free
TRIES = 100  # pairs that may stand in for a damaged one, one after the other
MAX_JPEG = 1 << 20, 8  # bytes of a picture at most, and for each pixel besides


class View(NamedTuple):
    """One side of a batch of pairs.

    images: uint8 [B, 3, S, S], RGB, as stored (channels last in memory); float32 in about 0..1 once augment has seen
        them.
    boxes: float32 [B, 4], x1, y1, x2, y2 in pixels of the pasted segment.
    masks: uint8 [B, S, S], 1 on the pasted segment, 0 elsewhere; None unless asked for.
    """

    images: Tensor
    boxes: Tensor
    masks: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "View":
        """The view with `function` applied to every tensor."""
        masks = None if self.masks is None else function(self.masks)
        return View(function(self.images), function(self.boxes), masks)

    def rows(self, rows: slice | Tensor) -> "View":
        """Some of the pictures."""
        return self.map(lambda x: x[rows])

    def to(self, device: torch.device) -> "View":
        """The view on `device`, copied without waiting where the memory is pinned."""
        return self.map(lambda x: x.to(device, non_blocking=True))


class Batch(NamedTuple):
    """A batch of pairs.

    labels: int64 [B], on the CPU, positions in the run's classes.
    places: int64 [B], on the CPU, numbers of the pairs in the run's data, see Sources.
    problems: a line for each damaged pair that another stands in for.
    """

    query: View
    key: View
    labels: Tensor
    places: Tensor
    problems: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "Batch":
        """The batch with its views on `device`; labels and places stay on the CPU."""
        return self._replace(query=self.query.to(device), key=self.key.to(device))


class Encoded(NamedTuple):
    """A batch whose pictures are JPEG files still.

    jpegs: uint8 [bytes], the queries' files and then the keys', one behind the other; sizes: bytes of each.
    batch: the rest, its views without pictures.
    """

    jpegs: Tensor
    sizes: list[int]
    batch: Batch


class Pair(NamedTuple):
    """A pair that was read and checked: everything but the entropy-coded data of its pictures.

    jpegs: uint8 tensors, query and key; boxes: x1, y1, x2, y2 of both; masks: counts of both COCO RLEs, or empty.
    """

    place: int
    jpegs: tuple[Tensor, Tensor]
    boxes: tuple[list[float], list[float]]
    masks: tuple[bytes, ...]


class Pairs(Dataset[Batch]):
    """Map-style data set that is asked for whole batches of places.

    Args:
        sources: the run's data.
        masks: whether views get masks.
        decode: "workers" gives a Batch; "device" an Encoded, for `batches` to decode where the batch is used.
        stand_ins: places of the pairs that may stand in for a damaged one where the sources skip those (the training
            pairs, or the held-out ones); None: damage is always an error.
    """

    def __init__(
        self,
        sources: Sources,
        masks: bool = False,
        decode: Decode = "workers",
        stand_ins: NDArray[np.int64] | None = None,
    ) -> None:
        self.sources, self.masks, self.decode = sources, masks, decode
        self.stand_ins = stand_ins if sources.on_bad_shard == "skip" else None

    def __getitem__(self, place: int) -> Batch:
        """A batch of one pair."""
        return self.batch([place])

    def __getitems__(self, places: list[int]) -> Batch | Encoded | click.ClickException:
        # An error raised in a worker arrives wrapped in a traceback; as a value it stays one line.
        try:
            return self._made(places, self.assemble)
        except click.ClickException as error:
            return error

    def batch(self, places: Sequence[int]) -> Batch:
        """Read and decode pairs; click.ClickException names shard and key of a damaged one."""
        return self._made(places, self._decoded)

    def _made(self, places: Sequence[int], assemble: Callable[[Sequence[Pair], Sequence[str]], Any]) -> Any:
        problems: list[str] = []
        pairs = [self._read(place, problems) for place in places]
        try:
            return assemble(pairs, problems)
        except (RuntimeError, ValueError):  # a picture is damaged behind its header, or a mask is
            pairs = [self._read(pair.place, problems, whole=True) for pair in pairs]
            return assemble(pairs, problems)

    def assemble(self, pairs: Sequence[Pair], problems: Sequence[str] = ()) -> Batch | Encoded:
        """These pairs as a batch, decoded or not; RuntimeError or ValueError where a picture or mask is damaged."""
        if self.decode == "workers":
            return self._decoded(pairs, problems)
        none = torch.empty(0, dtype=torch.uint8)
        batch = self._batch(pairs, none, none, problems)
        jpegs = [pair.jpegs[side] for side in (0, 1) for pair in pairs]
        return Encoded(torch.cat(jpegs), list(map(len, jpegs)), batch)

    def _decoded(self, pairs: Sequence[Pair], problems: Sequence[str]) -> Batch:
        query, key = (_empty(len(pairs), self.sources.image_size) for _ in range(2))
        for row, pair in enumerate(pairs):  # one by one, so that a picture is copied while it is in the core's cache
            for images, jpeg in zip((query, key), pair.jpegs, strict=True):
                images[row] = decode_jpeg(jpeg, ImageReadMode.RGB)
        return self._batch(pairs, query, key, problems)

    def _batch(self, pairs: Sequence[Pair], query: Tensor, key: Tensor, problems: Sequence[str]) -> Batch:
        places = torch.tensor([pair.place for pair in pairs])
        views = [
            View(images, torch.tensor([pair.boxes[side] for pair in pairs]), self._masks(pairs, side))
            for side, images in enumerate((query, key))
        ]
        return Batch(views[0], views[1], torch.from_numpy(self.sources.labels[places.numpy()]), places, tuple(problems))

    def _masks(self, pairs: Sequence[Pair], side: int) -> Tensor | None:
        """uint8 [B, S, S]."""
        if not self.masks:
            return None
        size = self.sources.image_size
        pixels = rle_pixels([pair.masks[side] for pair in pairs], size * size)
        return torch.from_numpy(pixels).view(-1, size, size).transpose(1, 2)  # they are stored by columns

    def _read(self, place: int, problems: list[str], whole: bool = False) -> Pair:
        """The pair at `place`, or the one that stands in for it: always the same one. `whole`: decode it to see."""
        wanted = place
        for attempt in range(TRIES):
            try:
                pair = self.checked(place, self.sources.read(place))
                if whole:
                    self.try_decode(pair)
                return pair
            except click.ClickException as error:
                if self.stand_ins is None or not len(self.stand_ins):
                    raise
                problems.append(error.message)
                place = int(self.stand_ins[derived_seed(wanted, attempt) % len(self.stand_ins)])
        raise click.ClickException(f"{problems[-1]}; {TRIES} pairs are damaged; run segloc-synth verify")

    def checked(self, place: int, sample: Sample) -> Pair:
        """The pair, if its headers, boxes and masks are as they should be; click.ClickException if not."""
        size = self.sources.image_size
        boxes, masks = [], []
        for name, data in (("query", sample.query), ("key", sample.key)):
            if (found := jpeg_size(data)) != (size, size):
                fault = f"is {found[0]}x{found[1]} pixels, the manifest says {size}x{size}" if found else "is no JPEG"
                raise self.sources.damaged(place, f".{name}.jpg: {fault}")
            if len(data) > MAX_JPEG[0] + MAX_JPEG[1] * size * size:
                raise self.sources.damaged(place, f".{name}.jpg: is {len(data)} bytes long")
            try:
                record = sample.meta[name]
                x, y, w, h = map(float, record["box"])
                if not (0 <= x < x + w <= size and 0 <= y < y + h <= size):
                    raise ValueError
                boxes.append([x, y, x + w, y + h])
            except (KeyError, TypeError, ValueError, OverflowError):
                raise self.sources.damaged(place, f".json: {name} has no box in its picture") from None
            if self.masks:
                masks.append(self._rle(record, place, name))
        jpegs = (torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in (sample.query, sample.key))
        return Pair(place, tuple(jpegs), tuple(boxes), tuple(masks))  # type: ignore[arg-type]

    def _rle(self, record: dict[str, Any], place: int, name: str) -> bytes:
        """Counts of a mask of the picture's size, which need not be sound."""
        size = self.sources.image_size
        try:
            if record["mask"]["size"] == [size, size]:
                return record["mask"]["counts"].encode("ascii")
        except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
            pass
        raise self.sources.damaged(place, f".json: {name} has no mask of its picture")

    def try_decode(self, pair: Pair) -> None:
        """click.ClickException names a picture that cannot be decoded, or a mask."""
        for name, counts in zip(("query", "key"), pair.masks, strict=False):
            try:
                rle_pixels([counts], self.sources.image_size**2)
            except ValueError as error:
                raise self.sources.damaged(pair.place, f".json: the mask of {name} is damaged ({error})") from None
        for name, jpeg in zip(("query", "key"), pair.jpegs, strict=True):
            try:
                decode_jpeg(jpeg, ImageReadMode.RGB)
            except RuntimeError as error:
                reason = re.sub(r".*\.cpp:\d+, ", "", str(error).splitlines()[0])  # without where torchvision found it
                raise self.sources.damaged(pair.place, f".{name}.jpg: not a readable JPEG ({reason})") from None


_kept: list[NDArray[np.uint8]] = []  # memory of earlier batches, of this process


def _empty(count: int, size: int) -> Tensor:
    """uint8 [count, 3, size, size], channels last in memory as libjpeg writes them; shared memory inside a worker.

    Outside, the memory of an earlier batch is taken again when nobody refers to it any more: the page faults of new
    memory cost as much as the copy.
    """
    shape = (count, size, size, 3)
    if get_worker_info() is not None:  # else the queue to the main process would copy it there
        storage = torch.UntypedStorage._new_shared(math.prod(shape))
        return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape).permute(0, 3, 1, 2)  # type: ignore[arg-type]
    # Only the list and the loop refer to it, and the call that counts.
    free = next((one for one in _kept if one.shape == shape and sys.getrefcount(one) == FREE), None)
    if free is None:
        free = np.empty(shape, np.uint8)
        _kept.append(free)
        del _kept[:-KEPT]
    return torch.from_numpy(free).permute(0, 3, 1, 2)
