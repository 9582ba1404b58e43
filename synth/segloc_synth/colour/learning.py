"""Learning a source's palettes from its own scans."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from segloc_synth.colour.palette import (
    BANDS,
    DARK,
    DENSITY,
    FAINT,
    LEVELS,
    LINEAR,
    MATERIALS,
    MIXED,
    QUANTILES,
    SHARPENINGS,
    UNIT,
    Array,
    Codes,
    Palette,
    attenuation,
    misfit,
)
from segloc_synth.sources.images import Pixels

SCANS = 200  # of a source, spread evenly over it, that its palettes are learnt from
GREY = 0.04  # share of a source's bag pixels that have a hue, below which it shows one energy only
ENOUGH = 500  # pixels of a band that tell something
ORGANIC, METAL = (-30, 110), (160, 290)  # degrees of hue among which each end is looked for
BEYOND = 6.0  # degrees; pure materials lie that far beyond the commonest hues, which are mixed already
USUAL = (35.0, 215.0)  # the ends in the colours that most makers use
APART = 0.9  # difference of mean signatures from which two groups of scans may be two palettes
CLEAR = 1.3  # they are if a scan drawn with the other is that many times as wrong
FEWEST = 0.05  # share of the scans that makes a palette
DEPTH = 0.75  # quantile of the attenuation of metal that is taken for the depth of the display
COARSE = (16, 24)  # cells of material and attenuation in which colours are learnt
EMPTY: Pixels = np.full((32, 32, 3), 255, np.uint8)  # a scan of nothing


def signature(pixels: Pixels, bag: Pixels) -> float:
    """How saturated organic things are, whatever their thickness: 0 to about 6, 1 is a clear difference to the eye."""
    levels = attenuation(pixels)
    hue, saturation, value = cv2.split(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV))
    degrees = (2.0 * hue - ORGANIC[0]) % 360
    warm = (bag > 0) & (saturation >= FAINT) & (value >= DARK) & (degrees < ORGANIC[1] - ORGANIC[0])
    warm &= (levels > UNIT / 6) & (levels < 1.6 * UNIT)
    if warm.sum() < 30:
        return 3.0
    depth = 1 - np.exp(levels[warm] * np.float32(-3 / UNIT))  # thin things are pale on every scanner
    return float(np.median(saturation[warm] / depth)) / 40


def fit(scans: Sequence[Pixels], bags: Sequence[Pixels]) -> list[Palette]:
    """Learn the palettes of a source: one, or several where its scans fall into clearly different colours.

    scans: RGB uint8 [size, size, 3] on the canvas; bags: 0/1 masks of where to learn (a bag without labelled items).
    Where there is nothing to learn from, the palette is that of an empty belt: grey.
    """
    shown = [(scan, bag) for scan, bag in zip(scans, bags, strict=True) if bag.any()]
    scans, bags = [scan for scan, _ in shown] or [EMPTY], [bag for _, bag in shown] or [np.ones_like(EMPTY[..., 0])]
    signatures = np.array([signature(scan, bag) for scan, bag in zip(scans, bags, strict=True)])
    groups = _split(signatures, np.arange(len(scans)))
    palettes = [_fit_one(scans, bags, group) for group in groups]
    while len(palettes) > 1:
        errors = np.array([[misfit(p, scan, bag) for p in palettes] for scan, bag in zip(scans, bags, strict=True)])
        side = errors.argmin(1)
        # A palette that others can stand in for is none.
        needed = []
        for place in range(len(palettes)):
            mine, others = errors[side == place], np.delete(errors[side == place], place, axis=1)
            few = len(mine) < max(2, FEWEST * len(scans))
            needed.append(0.0 if few else float(np.median(others.min(1) / np.maximum(mine[:, place], 0.1))))
        weakest = int(np.argmin(needed))
        if needed[weakest] >= CLEAR:
            return [_fit_one(scans, bags, np.flatnonzero(side == place)) for place in range(len(palettes))]
        kept = np.delete(errors, weakest, axis=1).argmin(1)
        palettes = [_fit_one(scans, bags, np.flatnonzero(kept == place)) for place in range(len(palettes) - 1)]
    return palettes if len(groups) == 1 else [_fit_one(scans, bags, np.arange(len(scans)))]


def _split(signatures: npt.NDArray[np.float64], group: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Divide scans by 2-means, again and again, as long as the halves are clearly apart."""
    mine = signatures[group]
    centres = np.array([mine.min(), mine.max()])
    for _ in range(20):
        side = np.abs(mine[:, None] - centres).argmin(1)
        if len(set(side.tolist())) < 2:
            return [group]
        centres = np.array([mine[side == 0].mean(), mine[side == 1].mean()])
    halves = [group[side == 0], group[side == 1]]
    if centres[1] - centres[0] < APART or min(map(len, halves)) < max(2, FEWEST * len(signatures)):
        return [group]
    halves.sort(key=lambda half: int(half[0]))
    return [part for half in halves for part in _split(signatures, half)]


def _fit_one(scans: Sequence[Pixels], bags: Sequence[Pixels], group: npt.NDArray[np.int64]) -> Palette:
    scans, bags = [scans[place] for place in group], [bags[place] for place in group]
    pixels, contrast = [], []
    for scan, bag in zip(scans, bags, strict=True):
        soft = cv2.GaussianBlur(scan, (0, 0), 0.8)
        inside = bag > 0
        pixels.append(soft[inside])
        contrast.append(_contrast(attenuation(soft).astype(np.float32))[:, inside])
    colours, (over, ground) = np.concatenate(pixels), np.concatenate(contrast, axis=1)
    step = max(1, len(colours) // 400_000)
    colours, over, ground = colours[::step], over[::step], ground[::step]
    hue, saturation, value = cv2.split(cv2.cvtColor(colours[None], cv2.COLOR_RGB2HSV))
    hued = ((saturation >= FAINT) & (value >= DARK))[0]
    grey = bool(hued.mean() < GREY) if len(hued) else True
    material = _materials(hue[0][hued], saturation[0][hued]) if not grey else np.full(180, MIXED, np.uint8)
    kind = np.where(hued, material[hue[0]], MIXED).astype(np.int64)
    levels = attenuation(colours[None])[0]
    metal = kind >= 0.85 * MATERIALS
    depth = LINEAR if grey else _depth(levels[metal], np.max(colours[metal], axis=1))
    return Palette(
        grey=grey,
        depth=depth,
        material=material,
        colours=_colours(colours, levels, kind, hued),
        contrasts=_contrasts(over - ground, kind, hued | grey),
        acutance=_acutance(scans, bags),
        turned=np.array([_acutance(scans, bags, amount) for amount in SHARPENINGS], np.float32),
    )


def _depth(metal: Codes, brightest: Pixels) -> float:
    """Palette.depth, from the attenuation and the brightest channel of pixels of metal.

    A maker who keeps even thick metal bright compresses what is dense; one who lets it go black does not.
    """
    if len(metal) < ENOUGH:
        return float(LEVELS)
    thick = float(np.median(brightest[metal >= np.quantile(metal, 0.75)]))
    compressed = np.interp(thick, (60, 110), (0, 1))
    depth = max(float(np.quantile(metal, DEPTH)), UNIT)
    return round(float(LEVELS * (depth / LEVELS) ** compressed), 1)


def _contrast(levels: Array) -> Array:
    """Each pixel's attenuation and the least nearby (within a thirtieth of the picture), float32 [2, h, w]."""
    reach = max(3, round(max(levels.shape) / 30)) | 1
    ground = cv2.erode(
        cv2.GaussianBlur(levels, (0, 0), 1), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    )
    return np.stack([levels, cv2.GaussianBlur(ground, (0, 0), reach / 6)])


def _materials(hues: Pixels, saturations: Pixels) -> Pixels:
    """Material by OpenCV's hue, uint8 [180]: linear between the commonest warm and the commonest blue hue."""
    weights = np.bincount(hues, saturations.astype(np.float64), minlength=180)
    smooth = sum(np.roll(weights, shift) * np.exp(-(shift**2) / 8) for shift in range(-6, 7))
    ends = []
    for (low, high), usual in zip((ORGANIC, METAL), USUAL, strict=True):
        degrees = np.arange(low, high, 2)
        there = smooth[degrees // 2 % 180]
        ends.append(float(degrees[there.argmax()]) if there.sum() > 0.01 * weights.sum() else usual)
    organic, metal = ends[0] - BEYOND, ends[1] + BEYOND
    along = (2.0 * np.arange(180) - organic + 60) % 360 - 60
    # Hues beyond the metal end (violet) are metal; those below the organic end (red) organic.
    return np.clip(np.rint(along / (metal - organic) * (MATERIALS - 1)), 0, MATERIALS - 1).astype(np.uint8)


def _colours(pixels: Pixels, levels: Codes, kind: npt.NDArray[np.int64], hued: npt.NDArray[np.bool_]) -> Pixels:
    """RGB by material and attenuation, uint8 [MATERIALS, LEVELS, 3].

    What is learnt is how a colour's density is shared out over the channels: smooth, so that cells never seen are
    filled from their neighbours, and the mean over the channels stays exactly the attenuation.
    """
    rows, cols = COARSE
    row = np.minimum(kind * rows // MATERIALS, rows - 1)
    col = np.minimum(levels.astype(np.int64) * cols // LEVELS, cols - 1)
    cell = row * cols + col
    # A hueless pixel's share of colour belongs to every material: it counts for the middle, and the blur spreads it.
    weight = np.where(hued, 1.0, 0.2) * np.minimum(levels, UNIT)
    density = DENSITY[pixels].astype(np.float64)
    share = density / np.maximum(density.mean(1, keepdims=True), 1)
    total = np.bincount(cell, weight, minlength=rows * cols).reshape(COARSE)
    sums = [np.bincount(cell, weight * share[:, c], minlength=rows * cols).reshape(COARSE) for c in range(3)]
    stack = np.dstack([*sums, total])
    filled = np.zeros_like(stack)
    for spread in (0.6, 1.5, 4, 10, 30):  # a cell takes the narrowest surroundings that hold something
        blurred = cv2.GaussianBlur(stack, (0, 0), spread, borderType=cv2.BORDER_CONSTANT)
        trust = np.clip(filled[..., 3:] / 200, 0, 1)
        filled = trust * filled + (1 - trust) * blurred
    shares = filled[..., :3] / np.maximum(filled[..., 3:], 1e-9)
    if not total.any():
        shares[:] = 1
    full = np.clip(cv2.resize(shares, (LEVELS, MATERIALS), interpolation=cv2.INTER_LINEAR), 0, None)
    full *= 3 / np.maximum(full.sum(2, keepdims=True), 1e-9)
    channel = 256 * np.exp(-full * np.arange(LEVELS)[None, :, None] / UNIT) - 1
    return np.clip(np.rint(channel), 0, 255).astype(np.uint8)


def _contrasts(over: Array, kind: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]) -> Array:
    """QUANTILES of contrast by band, float32 [BANDS, 5]; a band of too few pixels has those of all."""
    seen = known & (over > 0)
    everywhere = np.quantile(over[seen], QUANTILES) if seen.any() else QUANTILES * UNIT
    place = kind * (BANDS - 1) / (MATERIALS - 1)
    rows = []
    for band in range(BANDS):
        mine = over[seen & (np.abs(place - band) <= 0.75)]
        rows.append(np.quantile(mine, QUANTILES) if len(mine) >= ENOUGH else everywhere)
    # Never two alike, or nothing could be interpolated between them.
    return np.maximum(np.array(rows), 1).astype(np.float32) + np.arange(len(QUANTILES), dtype=np.float32) / 8


def sharpen(levels: npt.NDArray[np.generic], amount: float) -> Array:
    """Unsharp masking of an attenuation map, float32; a negative amount blurs."""
    plain = levels.astype(np.float32)
    return np.asarray(plain + np.float32(amount) * (plain - cv2.GaussianBlur(plain, (0, 0), 1.0)), np.float32)


def _acutance(scans: Sequence[Pixels], bags: Sequence[Pixels], amount: float | None = None) -> float:
    """Finest detail relative to fine detail, where there is most; with `amount` of turned and sharpened scans."""
    finest, fine = 0.0, 1e-6
    for scan, bag in list(zip(scans, bags, strict=True))[:40]:
        levels, inside = attenuation(scan).astype(np.float32), bag
        if amount is not None:
            middle = (scan.shape[1] / 2, scan.shape[0] / 2)
            turn = cv2.getRotationMatrix2D(middle, 30, 1.0)
            levels = sharpen(cv2.warpAffine(levels, turn, scan.shape[1::-1], flags=cv2.INTER_LINEAR), amount)
            inside = cv2.warpAffine(cv2.erode(bag, np.ones((5, 5))), turn, scan.shape[1::-1], flags=cv2.INTER_NEAREST)
        soft, softer = cv2.GaussianBlur(levels, (0, 0), 0.7), cv2.GaussianBlur(levels, (0, 0), 1.6)
        if not inside.any():
            continue
        band = np.abs(soft - softer)[inside > 0]
        edges = band >= np.quantile(band, 0.9)
        finest += float(np.abs(levels - soft)[inside > 0][edges].sum())
        fine += float(band[edges].sum())
    return round(finest / fine, 4)
