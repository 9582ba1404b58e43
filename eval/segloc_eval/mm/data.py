"""Scans as mmdet takes them: square pictures with boxes, masks or labels per pixel, batch by batch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import itemgetter
from typing import Any

import click
import cv2
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segloc_eval.data.scans import Scan
from segloc_eval.numbers.semantic import paint
from segloc_synth.console import cause, cores
from segloc_synth.sources.images import BadImage, read_image, resize

WHITE = 255
GRID = 32  # the canvas' side is a multiple of it, as the pyramid halves five times
Example = tuple[Tensor, Any]


@dataclass(frozen=True)
class Stream:
    """Scans of which every batch holds `count`.

    `pairs`: they are composites, of which no more first pairs are needed than are shown once.
    """

    scans: Sequence[Scan]
    count: int
    pairs: bool = False


@dataclass(frozen=True)
class Mixture:
    """What batches show beside labelled scans as they are: `streams` of others, and objects of labelled ones pasted."""

    streams: tuple[Stream, ...] = ()
    paste: bool = False

    def of_steps(self, steps: int) -> "Mixture":
        """What a run of so many steps shows of it, whatever longer ones take."""
        cut = [2 * -(-steps * one.count // 2) if one.pairs else len(one.scans) for one in self.streams]
        streams = tuple(replace(one, scans=one.scans[:most]) for one, most in zip(self.streams, cut, strict=True))
        return replace(self, streams=streams)


def batch_order(streams: Sequence[Stream], step: int, seed: int) -> list[tuple[int, Scan, bool]]:
    """(stream, scan, flipped?) of each place in the batch of a step, over which each stream is spread evenly.

    A stream shows a permutation of its scans an epoch; what the first shows does not depend on the others.
    """
    placed = []
    for number, stream in enumerate(streams):
        for i in range(stream.count):
            epoch, place = divmod(step * stream.count + i, len(stream.scans))
            indices, flips = _epoch(len(stream.scans), epoch, number, seed)
            placed.append(((i + 0.5) / stream.count, (number, stream.scans[indices[place]], bool(flips[place]))))
    return [shown for _, shown in sorted(placed, key=itemgetter(0))]


@lru_cache(maxsize=8)
def _epoch(scans: int, epoch: int, stream: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rng = np.random.default_rng([seed, epoch, stream])
    return rng.permutation(scans), rng.integers(0, 2, scans)


def label_map(scan: Scan, labels: dict[int, int]) -> NDArray[np.int32]:
    """int32 [height, width]: each pixel's label, len(labels) for background; of overlapping objects the smaller wins.

    `labels` maps category ids to 0..C-1. Objects without a mask are left out.
    """
    things = [thing for thing in scan.objects if thing.mask]
    masks = (coco_mask.decode(thing.mask) for thing in things)
    return paint(masks, (labels[thing.category_id] for thing in things), scan.height, scan.width, len(labels))


def canvas_side(size: int) -> int:
    """Pixels of the square that a scan whose longer side has `size` lies on."""
    return -(-size // GRID) * GRID


def example(
    scan: Scan, size: int, labels: dict[int, int] | None, flip: bool = False, semantic: bool = False
) -> Example:
    """(uint8 RGB [3, S, S], mmdet's sample) of one scan: aspect kept, padded with white right and below.

    S is `size`, the longer side's pixels, rounded up to a multiple of 32. `labels` maps category ids to 0..C-1; with
    it the objects (ignored ones left out) are given, or with `semantic` the labels of all pixels, without it none.

    click.ClickException names a picture that cannot be used.
    """
    try:
        pixels, _ = read_image(scan.path, expect=(scan.width, scan.height))
    except BadImage as reason:
        raise click.ClickException(f"{scan.path}: {reason}; it was changed since the data were checked") from None
    scale = size / max(scan.width, scan.height)
    width, height = max(1, round(scan.width * scale)), max(1, round(scan.height * scale))
    side = canvas_side(size)
    canvas = np.full((side, side, 3), WHITE, np.uint8)
    small = resize(pixels, width, height)
    canvas[:height, :width] = small[:, ::-1] if flip else small
    factors = (width / scan.width, height / scan.height)
    meta = {"img_id": scan.id, "ori_shape": (scan.height, scan.width), "img_shape": (height, width)}
    sample = DetDataSample(metainfo={**meta, "scale_factor": factors})
    if labels is not None and semantic:
        painted = label_map(scan, labels)
        painted = cv2.resize(painted, (width, height), interpolation=cv2.INTER_NEAREST)
        truth = np.full((1, side, side), len(labels), np.int64)
        truth[0, :height, :width] = painted[:, ::-1] if flip else painted
        sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(truth))
    elif labels is not None:
        sample.gt_instances = _instances(scan, labels, (width, height), factors, flip)
    return torch.from_numpy(canvas.transpose(2, 0, 1).copy()), sample


def _instances(
    scan: Scan, labels: dict[int, int], size: tuple[int, int], factors: tuple[float, float], flip: bool
) -> InstanceData:
    things = [thing for thing in scan.objects if not thing.ignored]
    boxes = torch.tensor([thing.box for thing in things]).reshape(-1, 4)
    boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1) * torch.tensor(factors * 2)
    if flip:
        boxes[:, [0, 2]] = size[0] - boxes[:, [2, 0]]
    instances = InstanceData(
        bboxes=boxes.float(), labels=torch.tensor([labels[thing.category_id] for thing in things], dtype=torch.long)
    )
    if all(thing.mask for thing in things):
        masks = [cv2.resize(coco_mask.decode(t.mask), size, interpolation=cv2.INTER_LINEAR) for t in things]
        stack = np.zeros((len(masks), size[1], size[0]), np.uint8)
        for place, mask in enumerate(masks):
            stack[place] = mask[:, ::-1] if flip else mask
        instances.masks = BitmapMasks(stack, size[1], size[0])
    return instances


class _Batches(Dataset[Any]):
    """Batches by their place in a sequence of numbers: `make(number)` lists the examples of one."""

    def __init__(self, numbers: Sequence[int], make: Callable[[int], list[Example]]) -> None:
        self.numbers, self.make = numbers, make

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> Any:
        try:
            inputs, samples = zip(*self.make(self.numbers[place]), strict=True)
        except click.ClickException as error:  # a reading process would wrap it in its traceback
            return error
        return {"inputs": list(inputs), "data_samples": list(samples)}


def batches(numbers: Sequence[int], make: Callable[[int], list[Example]], device: torch.device) -> Iterator[Any]:
    """The batches of these numbers, in order, read ahead by other processes where a GPU computes.

    In place of one with a scan that cannot be read comes a click.ClickException, and that ends them.
    """
    workers = 0 if device.type == "cpu" else min(8, cores())
    loader = DataLoader(_Batches(numbers, make), batch_size=None, num_workers=workers)
    try:
        for batch in loader:
            yield batch
            if isinstance(batch, click.ClickException):
                return
    except (MemoryError, RuntimeError) as error:
        if "worker" not in str(error):
            raise
        yield click.ClickException(f"reading the scans failed: {cause(error)}")


def prepared(detector: Any, batch: dict[str, Any], training: bool) -> dict[str, Any]:
    """The batch on the detector's device, values in 0..1; channels last, which is a third faster in testing."""
    data: dict[str, Any] = detector.data_preprocessor(batch, training=training)
    data["inputs"] = data["inputs"].contiguous(memory_format=torch.channels_last)
    return data
