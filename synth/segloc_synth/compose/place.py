"""Placing: an object's flip, pose, turn, size and position on the canvas. Pure; pixels stay integers."""

from dataclasses import dataclass
from math import ceil, cos, radians, sin
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segloc_synth.bank.cutting import MARGIN, Segment
from segloc_synth.bank.scenes import CELL, Scene
from segloc_synth.compose.plan import Paste
from segloc_synth.sources.images import Pixels, resize

Matrix = npt.NDArray[np.float64]

INSIDE = 128  # alpha from which a pixel belongs to the mask
LARGEST = 0.9  # of the scan's sides; larger objects are scaled down to it
ENLARGED = 2.0  # most that an object's stored pixels are enlarged
FINE = 2.0  # stored pixels per canvas pixel that are sampled as they are; more are averaged first
IN_BAG = 0.98  # share of the object that must lie on the bag for a position to be taken at once
NEIGHBOURS = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class Placed:
    """A segment as it lies on the canvas.

    Attributes:
        paste: what was drawn.
        scale: size of the object relative to its own scan fitted to the canvas, as really used.
        matrix: from pixel centres of the stored segment to those of the canvas, float64 [3, 3].
        planes: the object's own RGB colours, uint8 [h, w, 3], or what it absorbs and its material, uint16 [h, w, 2],
            see Segment.layers.
        alpha: uint8 [h, w], 0-255; zero beyond one pixel around the mask (the feather).
        mask: 0/1 uint8 [h, w], tight: each edge row and column of it holds a pixel of the object or its feather.
        top, left: corner of these arrays on the canvas.
        in_bag: share of the mask on the bag, 0-1.
    """

    paste: Paste
    scale: float
    matrix: Matrix
    planes: npt.NDArray[Any]
    alpha: Pixels
    mask: Pixels
    top: int
    left: int
    in_bag: float

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas that the arrays cover."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def full_mask(self, size: int) -> Pixels:
        """The mask on the canvas, 0/1 uint8 [size, size], in Fortran's order as run lengths are counted."""
        full = np.zeros((size, size), np.uint8, order="F")
        full[self.window] = self.mask
        return full


def place(segment: Segment, paste: Paste, share: float, scene: Scene, layers: bool) -> Placed:
    """Transform a segment as `paste` says and choose its position in the scene's bag.

    share: wanted size relative to the bag (roots of areas), 0 for the size that the object has in its own scan.
    layers: whether absorption and material are transformed, else the colours.
    """
    _, _, width, height = scene.extent.tolist()
    stored: npt.NDArray[Any] = segment.layers if layers else segment.rgba
    wanted = paste.scale * (share * scene.bag_size / segment.length if share else 1.0) / segment.zoom
    matrix, scale, (width, height) = _geometry(
        (stored.shape[0], stored.shape[1]), paste, min(wanted, ENLARGED), (LARGEST * width, LARGEST * height)
    )
    if scale * FINE < 1:  # by area first: bilinear sampling alone would step over thin parts
        rows, cols = (max(1, round(side * scale * FINE)) for side in stored.shape[:2])
        y, x = stored.shape[0] / rows, stored.shape[1] / cols
        stored = resize(stored, cols, rows)
        to_stored = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
        warped = cv2.warpPerspective(stored, matrix @ to_stored, (width, height), flags=cv2.INTER_LINEAR)
    else:
        warped = cv2.warpPerspective(stored, matrix, (width, height), flags=cv2.INTER_LINEAR)
    alpha = (warped[..., -1] >> 8).astype(np.uint8) if layers else np.ascontiguousarray(warped[..., -1])
    most = int(alpha.max())
    if not most:  # shrunk to nothing: one pixel stands for it
        most = alpha[height // 2, width // 2] = 255
    # An object thinner than half a pixel reaches INSIDE nowhere; it is given the pixels it covers most.
    mask = (alpha >= min(INSIDE, max(1, most // 2))).view(np.uint8)
    # The feather stays within one pixel of the mask, also where a thin part fell below the threshold.
    alpha *= cv2.dilate(mask, NEIGHBOURS)
    left, top, width, height = cv2.boundingRect(alpha)
    tight = (slice(top, top + height), slice(left, left + width))
    planes = warped[tight][..., :-1] if layers else cv2.cvtColor(warped[tight], cv2.COLOR_RGBA2RGB)
    alpha, mask = alpha[tight], mask[tight]
    y, x, in_bag = _choose_position(mask, scene, paste)
    matrix = np.array([[1, 0, x - left], [0, 1, y - top], [0, 0, 1]]) @ matrix
    return Placed(paste, round(scale * segment.zoom, 4), matrix, planes, alpha, mask, y, x, in_bag)


def _geometry(
    shape: tuple[int, int], paste: Paste, scale: float, most: tuple[float, float]
) -> tuple[Matrix, float, tuple[int, int]]:
    """Homography from an array of `shape` to one of the (width, height) returned, and its scale.

    The scale is reduced where the object would be wider or higher than `most`.
    """
    height, width = shape
    angle, (shear, along_x, along_y) = radians(paste.rotation), paste.pose
    flip, c, s = -1.0 if paste.flip else 1.0, cos(angle), sin(angle)
    longer = max(height, width)
    # Turn x shear x flip about the middle, seen a little from the side: w = 1 + (along_x x + along_y y) / longer.
    xx, xy, yx, yy = c * flip, c * shear + s, -s * flip, c - s * shear
    wx, wy = along_x / longer, along_y / longer
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    inner_x, inner_y = middle_x + 0.5 - MARGIN, middle_y + 0.5 - MARGIN  # the object without its empty margin
    seen_x, seen_y = [], []
    for x, y in ((-inner_x, -inner_y), (inner_x, -inner_y), (inner_x, inner_y), (-inner_x, inner_y)):
        away = wx * x + wy * y + 1
        seen_x.append((xx * x + xy * y) / away)
        seen_y.append((yx * x + yy * y) / away)
    left, right, top, bottom = min(seen_x), max(seen_x), min(seen_y), max(seen_y)
    scale = min(scale, most[0] / (right - left), most[1] / (bottom - top))
    out = ceil((right - left) * scale) + 3, ceil((bottom - top) * scale) + 3
    shift_x = (out[0] - 1) / 2 - scale * (left + right) / 2
    shift_y = (out[1] - 1) / 2 - scale * (top + bottom) / 2
    to_array = np.array([[scale, 0, shift_x], [0, scale, shift_y], [0, 0, 1]])
    turn = np.array([[xx, xy, 0], [yx, yy, 0], [wx, wy, 1]])
    from_middle = np.array([[1, 0, -middle_x], [0, 1, -middle_y], [0, 0, 1]])
    return to_array @ turn @ from_middle, scale, out


def _choose_position(mask: Pixels, scene: Scene, paste: Paste) -> tuple[int, int, float]:
    """(top, left, share of the mask on the bag) of the place that lies well inside the bag, else the best, and whose
    background's darkness comes nearest to the wanted rank among those tried."""
    height, width = mask.shape
    left, top, scan_width, scan_height = scene.extent.tolist()
    right, bottom = max(left, left + scan_width - width), max(top, top + scan_height - height)
    sums = cv2.integral(scene.darkness)
    last = len(sums) - 1
    places = []  # in plain Python: arrays of TRIES numbers only cost calls
    for position in paste.positions:
        spot = int(position * len(scene.spots))
        x = min(max(scene.spots.item(spot, 0) - width // 2, left), right)
        y = min(max(scene.spots.item(spot, 1) - height // 2, top), bottom)
        x0, x1, y0, y1 = x // CELL, min(-(-(x + width) // CELL), last), y // CELL, min(-(-(y + height) // CELL), last)
        total = sums.item(y1, x1) - sums.item(y0, x1) - sums.item(y1, x0) + sums.item(y0, x0)
        places.append((total / max((y1 - y0) * (x1 - x0), 1), y, x))
    places.sort(key=lambda place: place[0])
    wanted = paste.occlusion * (len(places) - 1)
    area = int(np.count_nonzero(mask))
    best = (0, 0, -1.0)
    for _, (_, y, x) in sorted(enumerate(places), key=lambda ranked: abs(ranked[0] - wanted)):
        share = int(np.count_nonzero(scene.bag[y : y + height, x : x + width] & mask)) / area
        if share > best[2]:
            best = (y, x, share)
        if share >= IN_BAG:
            break
    return best
