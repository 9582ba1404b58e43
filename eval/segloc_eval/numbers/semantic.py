"""Semantic segmentation: the one way to paint objects into a label map, and its scores.

IoU per class = pixels of both / pixels of either, over all scans together (Pascal VOC's). The background counts as a
class in `mIoU`; `mIoU objects` leaves it out, and as the background of a scan is easy, it is the harsher of the two.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segloc_eval.numbers.matches import positions, to_rle
from segloc_eval.numbers.precision import mean
from segloc_eval.numbers.sampling import DRAWS, Numbers, Sampled, SampledUnit, sample
from segloc_eval.numbers.score import Scores, number, with_overalls

BACKGROUND = "background"  # label 0 of a map
_BLOCK = 64  # draws counted at a time


@dataclass(frozen=True)
class Confusions:
    """Pixels int64 [images, 1 + classes, 1 + classes] by true and predicted label (0: background) of each image."""

    classes: tuple[str, ...]
    pixels: NDArray[np.int64]

    @property
    def images(self) -> int:
        return len(self.pixels)


def paint(
    masks: Iterable[NDArray[Any]], labels: Iterable[int], height: int, width: int, background: int = 0
) -> NDArray[np.int32]:
    """Label map int32 [H, W] of masks (bool or 0/1, [H, W]) and their labels; `background` where there is none.

    Where objects overlap, the one of fewer pixels is on top; of equal ones the later. The fine-tuning of a semantic
    head and its scores both paint the truth by this function.
    """
    things = [(mask.astype(bool), label) for mask, label in zip(masks, labels, strict=True)]
    out = np.full((height, width), background, np.int32)
    for mask, label in sorted(things, key=lambda thing: -int(thing[0].sum())):
        out[mask] = label
    return out


def confusions(truth: dict[str, Any], results: Sequence[dict[str, Any]]) -> Confusions:
    """Count the pixels of a COCO data set with masks against results: an RLE for each image and category predicted.

    A result is {image_id, category_id, segmentation}; pixels in none are background. Crowds count as their class.
    ValueError for an image that the data set does not have, or a mask of another size.
    """
    images, labels = positions(truth)
    names = {category["id"]: category["name"] for category in truth["categories"]}
    sizes = {images[image["id"]]: (image["height"], image["width"]) for image in truth["images"]}
    sides = []
    for records in (truth["annotations"], results):
        things: list[list[tuple[Any, int]]] = [[] for _ in images]
        for record in records:
            if record["image_id"] not in images:
                raise ValueError(f"image {record['image_id']}, which the data set does not have")
            if record["category_id"] in labels:
                label = labels[record["category_id"]] + 1
                things[images[record["image_id"]]].append((record["segmentation"], label))
        sides.append(things)
    count = len(names) + 1
    pixels = np.zeros((len(images), count, count), np.int64)
    for place in range(len(images)):
        true, found = (_label_map(things[place], *sizes[place]) for things in sides)
        pixels[place] = np.bincount((true * count + found).ravel(), minlength=count * count).reshape(count, count)
    return Confusions(tuple(names[id] for id in sorted(names)), pixels)


def score_confusions(table: Confusions) -> Scores:
    """`overall`: mIoU, mIoU objects, pixel accuracy; `per_class`: IoU by class name, the background's last.

    None for a class without a pixel in truth; means are over the others.
    """
    overall, per_class = _read(table, np.ones((1, table.images), np.int64))
    return Scores(
        overall={name: number(sampled.values[0]) for name, sampled in overall.items()},
        per_class={name: number(sampled.values[0]) for name, sampled in per_class.items()},
    )


def score_semantic_splits(tables: Mapping[str, Confusions]) -> dict[str, Scores]:
    """Scores by split; where there are several, MEAN and POOLED too."""
    return with_overalls(tables, _join, score_confusions)


def sample_confusions(tables: Mapping[str, Confusions], draws: int = DRAWS, seed: int = 0) -> SampledUnit:
    """score_confusions's numbers of every split, with their draws: see sampling.sample."""
    return sample(tables, _join, _read, draws, seed)


def _join(tables: list[Confusions]) -> Confusions:
    return Confusions(tables[0].classes, np.concatenate([table.pixels for table in tables]))


def _read(table: Confusions, weights: NDArray[Any]) -> tuple[Numbers, Numbers]:
    count = len(table.classes) + 1
    flat = table.pixels.reshape(len(table.pixels), -1).astype(np.float64)  # sums are exact up to 2^53 pixels
    blocks = [weights[at : at + _BLOCK].astype(np.float64) @ flat for at in range(0, len(weights), _BLOCK)]
    pixels = np.concatenate(blocks).reshape(-1, count, count)
    both, true = np.diagonal(pixels, axis1=1, axis2=2), pixels.sum(2)
    iou = np.where(true > 0, both / np.maximum(true + pixels.sum(1) - both, 1), np.nan)
    total = pixels.sum((1, 2))
    accuracy = np.where(total > 0, both.sum(1) / np.maximum(total, 1), np.nan)
    scans = (table.pixels.sum(2) > 0).sum(0)
    objects = int((table.pixels[:, 1:].sum((1, 2)) > 0).sum())
    overall = {
        "mIoU": Sampled(mean(iou), objects),
        "mIoU objects": Sampled(mean(iou[:, 1:]), objects),
        "pixel accuracy": Sampled(accuracy, table.images),
    }
    names = [(label + 1, name) for label, name in enumerate(table.classes)] + [(0, apart(BACKGROUND, table.classes))]
    return overall, {name: Sampled(iou[:, label], int(scans[label])) for label, name in names}


def apart(name: str, classes: Sequence[str]) -> str:
    """A name of our own beside those of the classes: with a star where a class has it."""
    return name if name not in classes else apart(f"{name}*", classes)


def _label_map(things: list[tuple[Any, int]], height: int, width: int) -> NDArray[np.int32]:
    masks = [coco_mask.decode(to_rle(segmentation, height, width)) for segmentation, _ in things]
    for mask in masks:
        if mask.shape != (height, width):
            raise ValueError(f"a mask of {mask.shape[1]} x {mask.shape[0]} on an image of {width} x {height} pixels")
    return paint(masks, [label for _, label in things], height, width)
