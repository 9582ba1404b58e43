"""Blending: what a scan shows where an object lies on it. Pure functions on pixels, integers and tables throughout.

Each takes `background`, RGB uint8 [h, w, 3], what the scan shows in the placed object's window, and returns the same
with the object. `placed.planes` are the object's own colours, for dual_energy its layers.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from segloc_synth.colour import palette
from segloc_synth.colour.palette import LEVELS, MATERIALS, STRONGEST, UNIT, Codes, Palette
from segloc_synth.compose.place import Placed
from segloc_synth.sources.images import Pixels

CHANNEL = np.maximum(np.arange(256), 1)[:, None, None]  # black too lets a little through
PIXEL = np.dtype("V3")  # three channels moved as one item, which takes a third of the time
SHARPEST = 0.0  # most unsharp masking that an object gets: more brought out its noise; blurring to match stays
# What is left of a background's own fine colour noise under an object of some attenuation, of 128: the product with
# the largest noise just fits 16 bits.
FADE = np.rint(128 * np.exp(-np.arange(LEVELS) / UNIT)).astype(np.int16)
# Attenuation in codes by the share of rays absorbed, of 4096.
LEVEL = np.rint(-UNIT * np.log1p(-(np.arange(4096) + 0.5) / 4096)).clip(0, LEVELS - 1).astype(np.uint16)


@dataclass(frozen=True)
class Translation:
    """From objects of one palette to scans of another.

    Attributes:
        target: palette of the scans.
        grey: whether either shows one energy only: then the object takes on the material that lies below.
        levels: amount by material and the object's own attenuation, see palette.match and amounts, flat.
        sharpening: see palette.sharpening; negative values blur.
        to_amount, to_shown: see palette.amounts. strong, weak: tables of palette.strength and weaken.
    """

    target: Palette
    grey: bool
    levels: npt.NDArray[np.int32]
    sharpening: float
    to_amount: npt.NDArray[np.int32]
    to_shown: Codes
    strong: npt.NDArray[np.int32]
    weak: npt.NDArray[np.int32]

    @classmethod
    def between(cls, source: Palette, target: Palette) -> "Translation":
        """From objects of `source` to scans of `target`."""
        amount = min(palette.sharpening(source, target), SHARPEST)
        strong = np.rint(palette.strength(np.arange(MATERIALS))).astype(np.int32)
        weak = np.rint(palette.weaken(np.arange(int(STRONGEST) + 2))).astype(np.int32).clip(0, MATERIALS - 1)
        to_amount, to_shown = palette.amounts(target.depth)
        levels = to_amount[palette.match(source, target).ravel()]
        return cls(target, source.grey or target.grey, levels, amount, to_amount, to_shown, strong, weak)


def hard(background: Pixels, placed: Placed) -> Pixels:
    """The segment replaces the background; RGB uint8 [h, w, 3]."""
    return _mix(background, placed.planes, placed.alpha)


def alpha(background: Pixels, placed: Placed) -> Pixels:
    """The SegLoc paper's: c * segment + (1 - c) * background, c the composition coefficient; RGB uint8 [h, w, 3]."""
    weight = _scale(placed.alpha, round(placed.paste.coefficient * 255))
    return _mix(background, placed.planes, weight)


def multiply(background: Pixels, placed: Placed, carrier: tuple[int, int, int]) -> Pixels:
    """Beer-Lambert on channels: transmissions multiply, white = 1: background * (segment / carrier) ** c.

    The colour of the carrier bag, RGB 0 to 255, is divided out of the segment; c scales the attenuation. RGB uint8
    [h, w, 3].
    """
    own = cv2.LUT(placed.planes, _transmission(carrier, placed.paste.coefficient))
    above = _scale(background, np.asarray(own, np.uint8))
    return _mix(background, above, placed.alpha)


def dual_energy(background: Pixels, placed: Placed, translation: Translation) -> Pixels:
    """Attenuations add, materials mix in proportion, and the sum is written in the background's colours.

    The object's attenuation is put on the background scanner's scale and multiplied by c; what it changes in the
    picture is blurred where that scanner shows less detail.
    What the background's pixels hold beyond its palette (noise) stays, faded by the object's transmission. RGB uint8
    [h, w, 3].
    """
    inside = np.flatnonzero(placed.alpha > 0)  # tables are read for these pixels only: windows are mostly empty
    own_material = (placed.planes[..., 1] >> 8).take(inside)
    levels = LEVEL.take((placed.planes[..., 0] >> 4).take(inside))
    own = translation.levels.take(own_material * np.int32(LEVELS) + levels)
    own = (own * round(placed.paste.coefficient * 256) + 128) >> 8
    picture = background.reshape(-1, 3)
    seen = picture.take(inside, axis=0)
    shown, material = (codes[0] for codes in palette.read(translation.target, seen[None]))
    below, below_strong = translation.to_amount.take(shown), translation.strong.take(material)
    own_strong = below_strong if translation.grey else translation.strong.take(own_material)
    whole = below + own
    # A quotient of integers this small is below the next integer in float32 too.
    mixed = (below * below_strong + own * own_strong + (whole >> 1)).astype(np.float32) / np.maximum(whole, 1)
    row = translation.weak.take(mixed.astype(np.int32)) * np.int32(LEVELS)
    flat = translation.target.colours.reshape(-1, 3)
    before = flat.take(material * np.int32(LEVELS) + shown, axis=0).astype(np.int16)
    after = flat.take(row + translation.to_shown.take(whole, mode="clip"), axis=0).astype(np.int16)
    noise = (seen - before) * FADE.take(own, mode="clip")[:, None] >> 7
    picture = picture.copy()
    written = np.minimum(np.maximum(after + noise, 0), 255).astype(np.uint8)
    picture.view(PIXEL)[inside] = written.view(PIXEL)
    composed = picture.reshape(background.shape)
    if not translation.sharpening:
        return composed
    return _sharpened(background, composed, placed.alpha, translation.sharpening)


def _sharpened(before: Pixels, after: Pixels, alpha: Pixels, amount: float) -> Pixels:
    """What changed in a picture after unsharp masking (a negative amount blurs), where alpha is not zero."""
    change = after.astype(np.int16) - before
    change = cv2.addWeighted(change, 1 + amount, cv2.GaussianBlur(change, (0, 0), 1.0), -amount, 0)
    return np.clip(before + change * (alpha > 0)[..., None], 0, 255).astype(np.uint8)


def _mix(below: Pixels, above: Pixels, opacity: Pixels) -> Pixels:
    weight = np.asarray(cv2.cvtColor(opacity, cv2.COLOR_GRAY2RGB), np.uint8)
    return np.asarray(cv2.add(_scale(above, weight), _scale(below, ~weight)), np.uint8)


def _transmission(carrier: tuple[int, int, int], coefficient: float) -> Pixels:
    """Table [256, 1, 3] of the object's own transmission, 255 = clear, by each channel's value in its scan."""
    share = np.minimum(CHANNEL / np.maximum(carrier, 1), 1.0)
    return np.rint(255 * share**coefficient).astype(np.uint8)


def _scale(values: Pixels, factor: Pixels | int) -> Pixels:
    """values * factor / 255, rounded; float32 is far from any doubt there, and OpenCV's loop faster than integers."""
    return np.asarray(cv2.multiply(values, factor, scale=1 / 255), np.uint8)
