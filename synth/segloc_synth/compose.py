"""Compositing: pure functions on pixels. Integers and tables throughout, so that bytes do not depend on the machine."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from segloc_synth.config import Blend
from segloc_synth.images import Pixels, resize
from segloc_synth.plan import View
from segloc_synth.segments import Segment

INSIDE = 128  # alpha from which a pixel belongs to the mask
LARGEST = 0.9  # of the canvas; larger objects are scaled down to it
IN_BAG = 0.98  # share of the object that must lie on the bag for a position to be taken at once


@dataclass(frozen=True)
class Placed:
    """A segment as it lies on the canvas.

    Attributes:
        view: the drawn view, with the scale that was really used.
        colour: uint8 [h, w, 3], the object's own colours.
        alpha: uint8 [h, w], 0-255; zero beyond one pixel around the mask (the feather).
        mask: 0/1 uint8 [h, w], tight: each edge row and column of it holds a pixel of the object or its feather.
        top, left: corner of these arrays on the canvas.
        in_bag: share of the mask on the bag, 0-1.
    """

    view: View
    colour: Pixels
    alpha: Pixels
    mask: Pixels
    top: int
    left: int
    in_bag: float

    def full_mask(self, size: int) -> Pixels:
        """0/1 uint8 [size, size]."""
        full = np.zeros((size, size), np.uint8)
        height, width = self.mask.shape
        full[self.top : self.top + height, self.left : self.left + width] = self.mask
        return full


def place(segment: Segment, view: View, bag: Pixels) -> Placed:
    """Transform a segment as `view` says and choose its position inside `bag` (0/1, uint8 [size, size])."""
    size = len(bag)
    view, colour, alpha = _transform(segment, view, LARGEST * size)
    # An object thinner than half a pixel reaches INSIDE nowhere; it is given the pixels it covers most.
    mask = (alpha >= min(INSIDE, max(1, int(alpha.max()) // 2))).astype(np.uint8)
    # The feather stays within one pixel of the mask, also where a thin part fell below the threshold.
    alpha = np.where(cv2.dilate(mask, np.ones((3, 3), np.uint8)) == 1, alpha, 0).astype(np.uint8)
    left, top, width, height = cv2.boundingRect(alpha)
    tight = (slice(top, top + height), slice(left, left + width))
    colour, alpha, mask = colour[tight], alpha[tight], mask[tight]
    top, left, in_bag = _choose_position(mask, bag, view.positions)
    return Placed(view, colour, alpha, mask, top, left, in_bag)


def _transform(segment: Segment, view: View, limit: float) -> tuple[View, Pixels, Pixels]:
    """Flip, rotate and scale; the view comes back with its scale reduced to fit `limit` px."""
    turn = cv2.getRotationMatrix2D((0, 0), view.rotation, 1.0)[:, :2]
    if view.flip:
        turn = turn @ np.diag([-1.0, 1.0])
    rgba = segment.rgba
    scale = view.scale / segment.zoom
    extent = np.abs(turn) @ rgba.shape[1::-1]
    if extent.max() * scale > limit:
        scale = limit / extent.max()
        view = replace(view, scale=round(scale * segment.zoom, 4))
    if scale < 1:  # by area first: bilinear sampling alone would step over thin parts
        rgba = resize(rgba, *(max(1, round(side * scale)) for side in rgba.shape[1::-1]))
        scale = 1.0
    height, width = rgba.shape[:2]
    out_width, out_height = (int(np.ceil(side * scale)) + 3 for side in np.abs(turn) @ [width, height])
    matrix = np.zeros((2, 3))
    matrix[:, :2] = turn * scale
    # Pixel centres: the middle of the cut-out goes to the middle of the new array.
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    matrix[:, 2] = np.array([(out_width - 1) / 2, (out_height - 1) / 2]) - matrix[:, :2] @ middle
    canvas = (out_width, out_height)
    colour = cv2.warpAffine(rgba[..., :3], matrix, canvas, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(rgba[..., 3], matrix, canvas, flags=cv2.INTER_LINEAR)
    if not alpha.any():  # shrunk to nothing: one pixel stands for it
        alpha[out_height // 2, out_width // 2] = 255
    return view, np.asarray(colour, np.uint8), np.asarray(alpha, np.uint8)


def _choose_position(mask: Pixels, bag: Pixels, positions: tuple[float, ...]) -> tuple[int, int, float]:
    """(top, left, share of the mask on the bag): the first position well inside the bag, else the best."""
    size, (height, width) = len(bag), mask.shape
    spots = np.flatnonzero(bag)
    area = int(mask.sum())
    best = (0, 0, -1.0)
    for position in positions:
        y, x = divmod(int(spots[int(position * len(spots))]), size)
        top = min(max(y - height // 2, 0), size - height)
        left = min(max(x - width // 2, 0), size - width)
        share = int((bag[top : top + height, left : left + width] & mask).sum()) / area
        if share > best[2]:
            best = (top, left, share)
        if share >= IN_BAG:
            break
    return best


def blend(background: Pixels, placed: Placed, carrier: tuple[int, int, int], how: Blend) -> Pixels:
    """Composite a placed segment onto a background, uint8 RGB [size, size, 3]; unchanged outside the feathered mask.

    With c the view's coefficient:
        hard: the segment replaces the background.
        alpha: c * segment + (1 - c) * background, the SegLoc paper's.
        multiply: Beer-Lambert on channels: transmissions multiply, white = 1. The carrier bag is divided out of the
            segment first, and c scales the attenuation: background * (segment / carrier) ** c.
    """
    height, width = placed.mask.shape
    window = (slice(placed.top, placed.top + height), slice(placed.left, placed.left + width))
    below = background[window]
    if how == "multiply":
        above = np.empty_like(below)
        for channel in range(3):
            table = _transmission(carrier[channel], placed.view.coefficient)
            above[..., channel] = _scale(below[..., channel], cv2.LUT(placed.colour[..., channel], table))
        weight = placed.alpha
    else:
        above = placed.colour
        weight = _scale(placed.alpha, np.uint8(round(placed.view.coefficient * 255)))
    out = background.copy()
    opacity = weight[..., None].astype(np.int32)
    mixed = (opacity * above + (255 - opacity) * below + 127) // 255
    out[window] = mixed.astype(np.uint8)
    return out


def _transmission(carrier: int, coefficient: float) -> Pixels:
    """Table [256] of the object's own transmission, 255 = clear, by its channel's value in its scan."""
    share = np.minimum(np.arange(256) / max(carrier, 1), 1.0)
    return np.rint(255 * share**coefficient).astype(np.uint8)


def _scale(values: Pixels, factor: Pixels | np.uint8) -> Pixels:
    """values * factor / 255, rounded, for uint8."""
    return ((values.astype(np.int32) * factor + 127) // 255).astype(np.uint8)
