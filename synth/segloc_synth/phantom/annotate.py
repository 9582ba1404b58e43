"""Masks as COCO segmentations: polygons where they say it exactly enough, run lengths elsewhere."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

Mask = npt.NDArray[np.bool_]
AGREE = 0.95  # least overlap (intersection over union) of a polygon's pixels with the mask
HOLE = 3  # pixels; a polygon cannot leave out a hole


def polygons(mask: Mask) -> list[list[float]] | None:
    """Outlines [x0, y0, x1, y1, ...] in pixels of a mask's parts, or None when it has holes or no outline.

    Traced at twice the resolution, so that corners lie near the pixels' edges and not at their centres.
    """
    big = cv2.resize(mask.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, tree = cv2.findContours(big, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    out = []
    for contour, (_, _, _, parent) in zip(contours, tree[0] if tree is not None else (), strict=True):
        if parent >= 0:
            if cv2.contourArea(contour) >= 4 * HOLE:
                return None
            continue
        thin = cv2.approxPolyDP(contour, 0.7, True)[:, 0, :]
        if len(thin) >= 3:
            out.append([round(float(v), 2) for v in ((thin + 0.5) / 2).ravel()])
    return out or None


def segmentation(mask: Mask, kind: float) -> tuple[Any, npt.NDArray[np.uint8]]:
    """A COCO segmentation of a mask (bool [H, W]) and the pixels (uint8 [H, W]) that pycocotools reads from it.

    `kind` in 0 to 1 is drawn per object: below 0.08 plain run lengths, below 0.16 compressed ones, above polygons
    unless these would not agree with the mask.
    """
    height, width = mask.shape
    exact = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    if kind >= 0.16 and (parts := polygons(mask)):
        read = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(parts, height, width)))
        both, either = int((read & mask).sum()), int((read | mask).sum())
        if both > AGREE * either:
            return parts, read
    if kind < 0.08:
        flat = np.concatenate([[0], mask.ravel(order="F").astype(np.int8), [1 - mask[-1, -1]]])
        runs = np.diff(np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]])))
        runs[0] -= 1  # the zero put in front
        return {"size": [height, width], "counts": [int(r) for r in runs]}, mask.astype(np.uint8)
    return {"size": [height, width], "counts": exact["counts"].decode()}, mask.astype(np.uint8)


def annotation(mask: Mask, category: int, kind: float) -> dict[str, Any]:
    """A COCO annotation without its ids; box (x, y, w, h) and area are those of the decoded segmentation, exactly."""
    stored, read = segmentation(mask, kind)
    rows, cols = np.flatnonzero(read.any(1)), np.flatnonzero(read.any(0))
    x, y = int(cols[0]), int(rows[0])
    return {
        "category_id": category,
        "bbox": [x, y, int(cols[-1]) - x + 1, int(rows[-1]) - y + 1],
        "area": int(read.sum()),
        "iscrowd": 0,
        "segmentation": stored,
    }
