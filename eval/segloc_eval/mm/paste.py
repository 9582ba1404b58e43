"""Copy-paste in the batch: objects of labelled scans onto other labelled scans, whose own labels stay.

Simple Copy-Paste (arXiv 2012.07177) as X-rays would have it: things attenuate the rays one after the other, so what is
pasted multiplies what is there by what it lets through, relative to its own surroundings, and covers nothing.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from torch import Tensor

MOST = 3  # objects pasted onto one scan
SCALE = 1.33  # they are made larger or smaller by up to this factor
RING = 0.15  # width of the ring around a box that tells what it lies in, relative to its longer side
BELT = 10  # grey levels; a pixel that is darker than the brightest common one by more shows no empty belt
TRIES = 8
Pixels = NDArray[np.uint8]
Example = tuple[Tensor, Any]  # as mm.data.example makes them
Cutting = tuple[NDArray[np.float32], NDArray[np.float32]]  # [h, w, 3] what is let through, 0..1; [h, w] its weight


def pasted(target: Example, donor: Callable[[], Example], rng: np.random.Generator) -> Example:
    """The example with up to MOST objects, each of an example that `donor` draws; the arguments stay as they are."""
    inputs, sample = target
    picture = np.ascontiguousarray(inputs.numpy().transpose(1, 2, 0))
    height, width = sample.img_shape
    added = []
    for _ in range(rng.integers(MOST + 1)):
        pixels, theirs = donor()
        found = _cut(pixels.numpy().transpose(1, 2, 0), theirs.gt_instances, rng)
        if found is None:
            continue
        label, (through, weight) = found
        rows, cols = weight.shape
        if rows > height or cols > width:
            continue
        top, left = _place(picture[:height, :width], rows, cols, rng)
        below = picture[top : top + rows, left : left + cols]
        picture[top : top + rows, left : left + cols] = np.rint(below * (1 - weight[..., None] * (1 - through)))
        added.append(
            _instance(label, (left, top, left + cols, top + rows), weight, sample.gt_instances, (height, width))
        )
    more = sample.clone()
    more.gt_instances = InstanceData.cat([sample.gt_instances, *added])
    return torch.from_numpy(picture.transpose(2, 0, 1).copy()), more


def _cut(picture: Pixels, things: InstanceData, rng: np.random.Generator) -> tuple[int, Cutting] | None:
    """Label and cutting of one of the objects, turned and scaled at random; None without one of two pixels a side."""
    if not len(things):
        return None
    place = int(rng.integers(len(things)))
    side = picture.shape[0]
    left, top, right, bottom = (round(x) for x in things.bboxes[place].clamp(0, side).tolist())
    if right - left < 2 or bottom - top < 2:
        return None
    reach = max(2, round(RING * max(right - left, bottom - top)))
    y, x = max(0, top - reach), max(0, left - reach)
    around = picture[y : bottom + reach, x : right + reach]
    outside = np.ones(around.shape[:2], bool)
    outside[top - y : bottom - y, left - x : right - x] = False
    # One brightness for all colours: divided by what is coloured, things would get colours that no scanner has.
    surroundings = max(1.0, float(np.median(around[outside].mean(1)))) if outside.any() else 255.0
    through = np.minimum(1, picture[top:bottom, left:right].astype(np.float32) / surroundings)
    if "masks" in things:
        weight = things.masks.masks[place][top:bottom, left:right].astype(np.float32)
    else:
        weight = _faded(*through.shape[:2])
    turns, factor = int(rng.integers(4)), SCALE ** rng.uniform(-1, 1)
    through, weight = (np.rot90(plane, turns) for plane in (through, weight))
    size = max(2, round(weight.shape[1] * factor)), max(2, round(weight.shape[0] * factor))
    cutting = tuple(np.asarray(cv2.resize(np.ascontiguousarray(p), size), np.float32) for p in (through, weight))
    return int(things.labels[place]), (cutting[0], cutting[1])


def _faded(height: int, width: int) -> NDArray[np.float32]:
    """1 inside a box without a mask, falling to its sides, so that they leave no edge to learn."""
    rows, cols = (np.clip(np.minimum(i := np.arange(n) + 1, i[::-1]) / (0.1 * n + 1), 0, 1) for n in (height, width))
    return np.outer(rows, cols).astype(np.float32)


def _place(picture: Pixels, rows: int, cols: int, rng: np.random.Generator) -> tuple[int, int]:
    """Top and left, at random, where half of it lies on something, if TRIES find that."""
    dark = picture.min(2)
    something = dark < np.percentile(dark, 98) - BELT
    for _ in range(TRIES):
        top = int(rng.integers(picture.shape[0] - rows + 1))
        left = int(rng.integers(picture.shape[1] - cols + 1))
        if something[top : top + rows, left : left + cols].mean() >= 0.5:
            break
    return top, left


def _instance(
    label: int, box: tuple[int, int, int, int], weight: NDArray[np.float32], others: InstanceData, size: tuple[int, int]
) -> InstanceData:
    made = InstanceData(bboxes=torch.tensor([box], dtype=torch.float32), labels=torch.tensor([label]))
    if "masks" in others:
        mask = np.zeros((1, *size), np.uint8)
        mask[0, box[1] : box[3], box[0] : box[2]] = weight >= 0.5
        made.masks = BitmapMasks(mask, *size)
    return made
