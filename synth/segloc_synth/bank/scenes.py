"""Benign scans made ready: frames and empty belt cut off, fitted to the canvas, with all that placing wants to know."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from segloc_synth.colour import palette
from segloc_synth.colour.palette import Palette
from segloc_synth.sources.backgrounds import bag_mask
from segloc_synth.sources.images import BadImage, Pixels, extent, fit_to_canvas, read_image, required
from segloc_synth.sources.problems import NO_BAG

CELL = 4  # pixels; side of the cells in which darkness is kept
SPOTS = 256
BLACK = 60  # grey level below which a frame around a scan, or a corrupt row, lies
FRAME = 0.03  # of a side; a frame is no wider
BELT = 0.05  # of the bags' extent that is left of the empty belt around them
WORTH = 0.8  # a scan is cropped to its bags when they and that rest fill less than this share of a side
ALIKE = 0.985  # correlation of two scans' thumbnails from which they show one bag
NOTES = 160  # bytes


@dataclass(frozen=True)
class Scene:
    """A benign scan on the canvas.

    Attributes:
        pixels: RGB uint8 [size, size, 3].
        extent: left, top, width, height of the scan on the canvas, uint16 [4]; the rest is padding.
        bag: 0/1 mask, uint8 [size, size].
        spots: x, y of pixels spread evenly over the bag, uint16 [SPOTS, 2].
        darkness: mean of 255 - grey in cells of CELL x CELL pixels, uint8 [size / CELL, size / CELL], rounded up.
        bag_size: root of the largest bag's area, in pixels.
        palette: place of its colours among the source's palettes.
        thumbnail: grey uint8 [16, 16].
    """

    pixels: Pixels
    extent: npt.NDArray[np.uint16]
    bag: Pixels
    spots: npt.NDArray[np.uint16]
    darkness: Pixels
    bag_size: float
    palette: int
    thumbnail: Pixels

    @classmethod
    def of(cls, slot: Any, pixels: Pixels) -> "Scene":
        """From a slot of the bank and its decoded pixels."""
        bag = np.unpackbits(slot["bag"], axis=1, count=len(pixels))
        size, place = float(slot["bag_size"]), int(slot["palette"])
        return cls(pixels, slot["extent"], bag, slot["spots"], slot["darkness"], size, place, slot["thumbnail"])


def slot_type(size: int) -> np.dtype[np.void]:
    """A scene's record in the bank; `pixels` comes last, so that it may be stored shorter, as JPEG of `jpeg` bytes."""
    cells = -(-size // CELL)
    return np.dtype(
        [
            ("notes", f"S{NOTES}"),
            ("jpeg", np.uint32),
            ("bag_size", np.float32),
            ("palette", np.uint32),
            ("extent", np.uint16, 4),
            ("thumbnail", np.uint8, (16, 16)),
            ("spots", np.uint16, (SPOTS, 2)),
            ("darkness", np.uint8, (cells, cells)),
            ("bag", np.uint8, (size, -(-size // 8))),
            ("pixels", np.uint8, (size, size, 3)),
        ]
    )


def fit_background(path: Path, size: int, palettes: Sequence[Palette]) -> npt.NDArray[np.void]:
    """A benign scan's slot, of no dimensions; unusable without a bag_size: `notes` says why, or what was converted."""
    slot = np.zeros((), slot_type(size))
    scan, kinds = fit_scan(path, size)
    slot["notes"] = "; ".join(kinds).encode()[:NOTES]
    if scan is not None:
        picture, bag, slot["extent"] = scan
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        inside = np.flatnonzero(bag.view(np.bool_))
        y, x = np.divmod(inside[np.linspace(0, len(inside) - 1, SPOTS).astype(np.intp)], size)
        cells = slot["darkness"].shape
        slot["bag_size"] = bag_area(bag) ** 0.5
        slot["palette"] = palette.nearest(palettes, picture, bag)
        slot["thumbnail"] = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA)
        slot["spots"] = np.stack([x, y], axis=1)
        slot["darkness"] = cv2.resize(255 - grey, cells[::-1], interpolation=cv2.INTER_AREA)
        slot["bag"] = np.packbits(bag, axis=1)
        slot["pixels"] = picture
    return slot


class Fitted(NamedTuple):
    """A benign scan on the canvas: RGB uint8 [size, size, 3], 0/1 bag [size, size], and its extent as in Scene."""

    picture: Pixels
    bag: Pixels
    extent: tuple[int, int, int, int]


def fit_scan(path: Path, size: int) -> tuple[Fitted | None, list[str]]:
    """A benign scan on the canvas, None when it cannot be used, and the kinds of its problems.

    OSError when it vanished or may not be read.
    """
    try:
        with required():
            pixels, kinds = read_image(path, at_least=size)
    except BadImage as problem:
        return None, [str(problem)]
    fitted = fit(pixels, size)
    return fitted, kinds if fitted else [*kinds, NO_BAG]


def fit(pixels: Pixels, size: int) -> Fitted | None:
    """A decoded benign scan, RGB uint8 [H, W, 3], on the canvas; None without a bag."""
    pixels = without_frame(pixels)
    picture = fit_to_canvas(pixels, size)
    bag = bag_mask(picture)
    if not bag.any():
        return None
    tight = _crop_belt(pixels, bag)
    if tight.shape != pixels.shape:
        cropped = fit_to_canvas(tight, size)
        if (found := bag_mask(cropped)).any():  # of a faint bag nothing may stand out once its belt is gone
            pixels, picture, bag = tight, cropped, found
    return Fitted(picture, bag, extent(pixels, size))


def without_frame(pixels: Pixels) -> Pixels:
    """RGB [H, W, 3] without rows and columns at its edges that are mostly black, as frames and corrupt rows are."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    top, bottom, left, right = (_frame(turned) for turned in (grey, grey[::-1], grey.T, grey.T[::-1]))
    return pixels[top : len(grey) - bottom, left : grey.shape[1] - right]


def _frame(grey: Pixels) -> int:
    """How many of the first rows are frame, by the share of black in each; a bag at the edge is wider than one."""
    reach = max(1, round(FRAME * len(grey)))
    dark = ((grey[: reach + 1] < BLACK).mean(1) > 0.35).tolist()
    return 0 if all(dark) else dark.index(False)


def _crop_belt(pixels: Pixels, bag: Pixels) -> Pixels:
    """The part of a scan that holds its bags, found on the canvas, with a little belt around."""
    height, width = pixels.shape[:2]
    size = len(bag)
    scale = size / max(height, width)
    x, y, w, h = cv2.boundingRect(bag)
    pad = BELT * max(w, h)
    if max((w + 2 * pad) / (width * scale), (h + 2 * pad) / (height * scale)) >= WORTH:
        return pixels
    x0, y0, _, _ = extent(pixels, size)
    left, top = max(0, round((x - x0 - pad) / scale)), max(0, round((y - y0 - pad) / scale))
    right, bottom = round((x + w - x0 + pad) / scale), round((y + h - y0 + pad) / scale)
    return pixels[top:bottom, left:right]


def bag_area(bag: Pixels) -> int:
    """Pixels of the largest bag in a 0/1 mask."""
    if len(cv2.findContours(bag, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]) == 1:  # as a rule; counted in no time
        return int(np.count_nonzero(bag))
    _, _, stats, _ = cv2.connectedComponentsWithStats(bag)
    return int(stats[1:, cv2.CC_STAT_AREA].max(initial=0))


def look_alike(scene: Scene, other: Scene) -> bool:
    """Whether two scans show one bag by their looks, perhaps mirrored."""
    mine, theirs = (one.thumbnail - np.float32(one.thumbnail.sum() / one.thumbnail.size) for one in (scene, other))
    flat = mine.ravel()
    size = float(np.sqrt((flat @ flat) * (theirs.ravel() @ theirs.ravel())))
    alike = max(float(flat @ turned.ravel()) for turned in (theirs, theirs[:, ::-1], theirs[::-1]))
    return alike >= ALIKE * max(size, 1.0)
