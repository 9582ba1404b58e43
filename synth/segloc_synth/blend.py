"""Blending: what a scan shows where an object lies on it. Pure functions on pixels, integers and tables throughout."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from segloc_synth import palette
from segloc_synth.images import Pixels
from segloc_synth.palette import LEVELS, MATERIALS, MOST, STRONGEST, UNIT, Codes, Palette
from segloc_synth.place import Placed

SHARPEST = 0.5  # most unsharp masking that an object gets
# What is left of a background's own fine colour noise under an object of some attenuation, of 128: the product with
# the largest noise just fits 16 bits.
FADE = np.rint(128 * np.exp(-np.arange(LEVELS) / UNIT)).astype(np.int16)


@dataclass(frozen=True)
class Translation:
    """From objects of one palette to scans of another: `levels` as palette.match, flat; `sharpening` as there."""

    target: Palette
    levels: npt.NDArray[np.int32]
    sharpening: float
    to_amount: npt.NDArray[np.int32]
    to_shown: Codes
    strong: npt.NDArray[np.int32]
    weak: npt.NDArray[np.int32]

    @classmethod
    def between(cls, source: Palette, target: Palette) -> "Translation":
        amount = min(palette.sharpening(source, target), SHARPEST)
        strong = np.rint(palette.strength(np.arange(MATERIALS))).astype(np.int32)
        weak = np.rint(palette.weaken(np.arange(int(STRONGEST) + 2))).astype(np.int32).clip(0, MATERIALS - 1)
        to_amount, to_shown = palette.amounts(target.depth)
        levels = to_amount[palette.match(source, target).ravel()]
        return cls(target, levels, amount, to_amount, to_shown, strong, weak)


def hard(background: Pixels, placed: Placed) -> Pixels:
    """The segment replaces the background: uint8 RGB [h, w, 3] of the placed object's window."""
    return _mix(background, placed.planes, placed.alpha)


def alpha(background: Pixels, placed: Placed) -> Pixels:
    """The SegLoc paper's: c * segment + (1 - c) * background, c the composition coefficient."""
    weight = _scale(placed.alpha, np.uint8(round(placed.paste.coefficient * 255)))
    return _mix(background, placed.planes, weight)


def multiply(background: Pixels, placed: Placed, carrier: tuple[int, int, int]) -> Pixels:
    """Beer-Lambert on channels: transmissions multiply, white = 1: background * (segment / carrier) ** c.

    The colour of the carrier bag is divided out of the segment; c scales the attenuation.
    """
    tables = np.dstack([_transmission(value, placed.paste.coefficient) for value in carrier])
    above = _scale(background, np.asarray(cv2.LUT(placed.planes, tables), np.uint8))
    return _mix(background, above, placed.alpha)


def dual_energy(background: Pixels, placed: Placed, translation: Translation) -> Pixels:
    """Attenuations add, materials mix in proportion, and the sum is written in the background's colours.

    The object's attenuation is put on the background scanner's scale, sharpened to its acutance and multiplied by c.
    What the background's pixels hold beyond its palette (noise) stays, faded by the object's transmission.
    """
    target = translation.target
    own_material = translation.strong[placed.planes[..., 1] >> 8]
    own = np.minimum(placed.planes[..., 0], LEVELS - 1)
    if translation.sharpening:
        soft = cv2.GaussianBlur(own, (0, 0), 1.0)
        own = np.minimum(cv2.addWeighted(own, 1 + translation.sharpening, soft, -translation.sharpening, 0), LEVELS - 1)
    own = translation.levels[(placed.planes[..., 1] >> 8).astype(np.int32) * LEVELS + own]
    own = (own * round(placed.paste.coefficient * 256) + 128) >> 8
    own[placed.alpha == 0] = 0
    shown, material = palette.read(target, background)
    below, below_material = translation.to_amount[shown], translation.strong[material]
    if target.grey:
        own_material = below_material
    whole = below + own
    mixed = translation.weak[(below * below_material + own * own_material + (whole >> 1)) // np.maximum(whole, 1)]
    flat = target.colours.reshape(-1, 3)
    before = flat[material * np.int32(LEVELS) + shown].astype(np.int16)
    after = flat[mixed * np.int32(LEVELS) + translation.to_shown[np.minimum(whole, MOST - 1)]].astype(np.int16)
    noise = (background - before) * FADE[np.minimum(own, LEVELS - 1), None] >> 7
    return np.clip(after + noise, 0, 255).astype(np.uint8)


def _mix(below: Pixels, above: Pixels, opacity: Pixels) -> Pixels:
    weight = opacity[..., None].astype(np.int32)
    return ((weight * above + (255 - weight) * below + 127) // 255).astype(np.uint8)


def _transmission(carrier: int, coefficient: float) -> Pixels:
    """Table [256] of the object's own transmission, 255 = clear, by its channel's value in its scan."""
    share = np.minimum(np.maximum(np.arange(256), 1) / max(carrier, 1), 1.0)  # black too lets a little through
    return np.rint(255 * share**coefficient).astype(np.uint8)


def _scale(values: Pixels, factor: Pixels | np.uint8) -> Pixels:
    """values * factor / 255, rounded, for uint8."""
    return ((values.astype(np.int32) * factor + 127) // 255).astype(np.uint8)
