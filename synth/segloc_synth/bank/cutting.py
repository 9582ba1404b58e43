"""Cutting one object out of its scan, with and without the bag that it lies in."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from segloc_synth.colour import palette
from segloc_synth.colour.palette import Palette
from segloc_synth.sources.images import Pixels, resize

DETAIL = 2.0  # segments are kept at this multiple of the canvas scale, so that they may be enlarged
RING = 0.15  # width of the ring that tells the carrier bag's colour, relative to the segment's larger side
MARGIN = 2  # empty pixels around a stored segment, so that it may be resampled


@dataclass(frozen=True)
class Segment:
    """One prepared cut-out.

    Attributes:
        name: scan and annotation, e.g. "train/xray_00012#45".
        class_id: our class id.
        rgba: uint8 [h, w, 4]; alpha 255 inside the mask, colours continued a little beyond it.
        layers: uint16 [h, w, 3], the object without its carrier bag: the share of the rays that it absorbs, of 65535 (a
            pixel half covered shows half of the rays, so these may be resampled, attenuations may not); material * 256;
            alpha * 256.
        carrier: RGB in 0-255 of what surrounds the object in its own scan.
        palette: place of its scan's colours among the source's palettes.
        zoom: stored pixels per canvas pixel at scale 1.
        length: root of the mask's area in canvas pixels at scale 1.
        share: `length` relative to the root of its bag's area; 0 where there is no bag to be seen.
        origin: x, y in its scan, in pixels, of the upper left corner of the stored arrays.
        trust: in the mask, 0 to 1, see boxes.mask_from_box; 1 where the mask is the data set's.
    """

    name: str
    class_id: int
    rgba: Pixels
    layers: npt.NDArray[np.uint16]
    carrier: tuple[int, int, int]
    palette: int
    zoom: float
    length: float
    share: float
    origin: tuple[float, float]
    trust: float = 1.0


def cut_out(
    name: str,
    class_id: int,
    pixels: Pixels,
    mask: Pixels,
    labelled: Pixels,
    colours: Palette,
    place: int,
    canvas_scale: float,
    share: float,
) -> Segment:
    """The segment under a 0/1 mask of a scan, RGB uint8 [H, W, 3].

    labelled: 0/1 mask of everything that is no carrier. colours: the scan's palette, at `place` in its source.
    canvas_scale: canvas pixels per pixel of the scan. share: see Segment.
    """
    detail = min(1.0, DETAIL * canvas_scale)
    rgba, layers, carrier, origin = _cut(_Crop(pixels, mask, labelled), colours, detail)
    length = round(float(mask.sum()) ** 0.5 * canvas_scale, 4)
    zoom = round(detail / canvas_scale, 6)
    return Segment(name, class_id, rgba, layers, carrier, place, zoom, length, round(share, 4), origin)


class _Crop:
    """The surroundings of one mask in its scan."""

    def __init__(self, pixels: Pixels, mask: Pixels, labelled: Pixels) -> None:
        left, top, width, height = cv2.boundingRect(mask)
        self.reach = max(4, round(RING * max(width, height)))
        self.top, self.left = max(0, top - self.reach), max(0, left - self.reach)
        rows, cols = slice(self.top, top + height + self.reach), slice(self.left, left + width + self.reach)
        self.pixels, self.inside = pixels[rows, cols], mask[rows, cols]
        wide = cv2.dilate(self.inside, np.ones((2 * self.reach + 1, 2 * self.reach + 1), np.uint8))
        # Pixels next to the mask mix object and carrier; other objects are no carrier.
        self.near = cv2.dilate(self.inside, np.ones((3, 3), np.uint8))
        self.ring = (wide == 1) & (self.near == 0) & (labelled[rows, cols] == 0)


def _cut(
    crop: _Crop, colours: Palette, detail: float
) -> tuple[Pixels, npt.NDArray[np.uint16], tuple[int, int, int], tuple[float, float]]:
    """(rgba, layers, carrier, origin) as in Segment, at `detail` stored pixels per pixel of the scan."""
    surround = crop.pixels[crop.ring]
    carrier = np.median(surround, axis=0) if len(surround) else np.full(3, 255)
    # Colours of the object are continued over its edge, or a resampled edge would carry the old bag's colour.
    core = cv2.erode(crop.inside, np.ones((3, 3), np.uint8)) if crop.inside.sum() > 200 else crop.inside
    filled = np.where(core[..., None] == 1, crop.pixels, _spread(crop.pixels, core)).astype(np.uint8)
    own, material = _without_carrier(crop, colours)
    absorbed = np.rint(-65535 * np.expm1(-own / palette.UNIT)).astype(np.uint16)
    size = max(1, round(crop.inside.shape[1] * detail)), max(1, round(crop.inside.shape[0] * detail))
    alpha = resize(crop.inside * np.uint8(255), *size)
    rgba = np.dstack([resize(filled, *size), alpha])
    layers = np.dstack([absorbed, material.astype(np.uint16) << 8])
    layers = np.dstack([resize(layers, *size), alpha.astype(np.uint16) << 8])
    left, top, width, height = cv2.boundingRect((alpha > 0).astype(np.uint8))
    margin = ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0))
    tight = (slice(top, top + height), slice(left, left + width))
    scale = (size[0] / crop.inside.shape[1], size[1] / crop.inside.shape[0])
    origin = (crop.left + (left - MARGIN) / scale[0], crop.top + (top - MARGIN) / scale[1])
    rgba, layers = np.pad(rgba[tight], margin, "edge"), np.pad(layers[tight], margin, "edge")
    empty = np.ones(rgba.shape[:2], bool)
    empty[MARGIN:-MARGIN, MARGIN:-MARGIN] = False
    rgba[empty, 3] = 0
    layers[empty, 0] = layers[empty, 2] = 0
    return rgba, layers, (int(carrier[0]), int(carrier[1]), int(carrier[2])), origin


def _without_carrier(crop: _Crop, colours: Palette) -> tuple[npt.NDArray[np.float32], Pixels]:
    """The object's own attenuation (codes) and material: what its pixels show less what the ring around it shows.

    The carrier is the ring's median, and where the ring varies its smooth continuation under the object, within the
    ring's middle half: single dense things beside the object do not lie under it.
    """
    levels = palette.attenuation(crop.pixels).astype(np.float32)
    _, kind = palette.read(colours, np.asarray(cv2.GaussianBlur(crop.pixels, (0, 0), 0.8), np.uint8))
    kinds = kind.astype(np.float32)
    ring = levels[crop.ring]
    if len(ring):
        low, middle, high = np.quantile(ring, (0.25, 0.5, 0.75))
        weight = crop.ring.astype(np.float32)
        spread = (0, 0), max(2.0, 0.7 * crop.reach)
        near = cv2.GaussianBlur(weight, *spread)
        smooth = cv2.GaussianBlur(weight * np.clip(levels, low, high), *spread) + 0.02 * middle
        under = smooth / (near + 0.02)
        under_kind = float(np.average(kinds[crop.ring], weights=ring + 1))
    else:
        under, under_kind = np.zeros_like(levels), float(palette.MIXED)
    under = np.minimum(under, levels)
    levels = _quiet(levels, crop.inside)
    own = np.where(crop.near == 1, levels - under, 0).astype(np.float32)
    charge = np.clip(
        levels * palette.strength(kinds) - under * palette.strength(under_kind), 0, palette.STRONGEST * own
    )
    # Where little is left of the object its material is that of its parts nearby.
    weight = own * crop.inside
    charge, total = (cv2.GaussianBlur(plane, (0, 0), 1.2) for plane in (charge * crop.inside, weight))
    wide_charge, wide_total = (cv2.GaussianBlur(plane, (0, 0), 6) for plane in (charge, total))
    material = (charge + 0.05 * wide_charge) / np.maximum(total + 0.05 * wide_total, 1e-3)
    material[wide_total < 1e-3] = palette.strength(palette.MIXED)
    return own, np.clip(np.rint(palette.weaken(material)), 0, palette.MATERIALS - 1).astype(np.uint8)


def _quiet(levels: npt.NDArray[np.float32], inside: Pixels) -> npt.NDArray[np.float32]:
    """Levels with the noise of the object's dark parts, where few grey levels are left, smoothed within the mask."""
    weight = inside.astype(np.float32)
    soft = cv2.GaussianBlur(levels * weight, (0, 0), 1.2) / np.maximum(cv2.GaussianBlur(weight, (0, 0), 1.2), 1e-3)
    noisy = np.clip((soft - palette.UNIT) / (1.5 * palette.UNIT), 0, 1) * weight
    return np.asarray(levels + noisy * (soft - levels), np.float32)


def _spread(crop: Pixels, weight: Pixels) -> Pixels:
    """Each pixel as the mean of the weighted pixels within two pixels of it (normalised convolution)."""
    total = cv2.boxFilter(weight.astype(np.float32), -1, (5, 5), normalize=False)
    sums = cv2.boxFilter(crop.astype(np.float32) * weight[..., None], -1, (5, 5), normalize=False)
    mean = sums / np.maximum(total, 1)[..., None]
    return np.where(total[..., None] > 0, np.rint(mean), crop).astype(np.uint8)
