"""A scanner's palette, learnt from its own scans: pseudo-colour <-> (attenuation, material), and scanner to scanner.

In a pseudo-colour scan darkness shows how much an object attenuates and hue what it is made of. Attenuation is the
mean optical density of the three channels, -log(channel / 255): of the measures tried (luma, darkest channel, mean
density) the one under which overlapping things add up best. It is coded as an integer of UNIT per e-fold.
Material is where a hue lies between the source's organic and metal ends, coded 0 to MATERIALS - 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segloc_synth.images import Pixels

Array = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint16]

UNIT = 128  # codes per e-fold of attenuation
LEVELS = 720  # attenuation codes, log(256) e-folds and a little
MATERIALS = 64
MIXED = MATERIALS // 2  # of pixels whose hue says nothing
FAINT = 18  # HSV saturation, of 255, below which a hue is noise
DARK = 40  # brightest channel below which it is noise as well; only metal stops so much
GREY = 0.04  # share of a source's bag pixels that have a hue, below which it shows one energy only
BANDS = 5  # of material in which the attenuations of two scanners are matched
QUANTILES = np.array([0.5, 0.75, 0.9, 0.97, 0.995])
ENOUGH = 500  # pixels of a band that tell something
SHARPENINGS = np.linspace(-0.75, 3, 6)
ORGANIC, METAL = (-30, 110), (160, 290)  # degrees of hue among which each end is looked for
BEYOND = 6.0  # degrees; pure materials lie that far beyond the commonest hues, which are mixed already
USUAL = (35.0, 215.0)  # the ends in the colours that most makers use
# Density of a channel value in codes; one is added so that black has an end.
DENSITY = np.rint(-np.log((np.arange(256) + 1) / 256) * UNIT).astype(np.uint16)
MEAN = np.full((1, 3), 1 / 3)
APART = 0.9  # difference of mean signatures from which two groups of scans may be two palettes
CLEAR = 1.3  # they are if a scan drawn with the other is that many times as wrong
FEWEST = 0.05  # share of the scans that makes a palette
KNEE = 0.95
METAL_STRENGTH = 2.0  # how many times as far along as its colour metal is taken to be
METAL_FROM = 40
STRONGEST = METAL_STRENGTH * (MATERIALS - 1)
DEPTH = 0.75  # quantile of the attenuation of metal that is taken for the depth of the display
MOST = 16384  # amounts of matter are cut there, beyond what the blackest pixel of any display stands for
COARSE = (16, 24)  # cells of material and attenuation in which colours are learnt
EMPTY: Pixels = np.full((32, 32, 3), 255, np.uint8)  # a scan of nothing


@dataclass(frozen=True)
class Palette:
    """How a source draws what it measures.

    Attributes:
        grey: whether it shows attenuation only.
        depth: attenuation, in codes, towards which the display of metal saturates, see amounts().
        material: material by OpenCV's hue, uint8 [180].
        colours: RGB by material and attenuation, uint8 [MATERIALS, LEVELS, 3].
        contrasts: attenuation of things over what surrounds them, codes: QUANTILES of it by band of material,
            float32 [BANDS, 5]. What is packed into bags differs less between sources than how full they are.
        acutance: finest detail relative to fine detail in its scans.
        turned: the same of its scans when turned and then sharpened by each of SHARPENINGS, float32 [6].
        noise: standard deviation in codes of the finest detail on even ground, by e-fold of attenuation, float32 [6].
        signature: how saturated it is, see signature(); tells the palettes of one source apart.
    """

    grey: bool
    depth: float
    material: Pixels
    colours: Pixels
    contrasts: Array
    acutance: float
    turned: Array
    noise: Array
    signature: float

    @cached_property
    def by_hsv(self) -> Pixels:
        """Table [256, 1, 3]: material by hue, whether a saturation is too faint to tell, the metal of dark values."""
        values = np.arange(256)
        dark = np.where(values < DARK, MATERIALS - 1, 0)
        return np.dstack([np.resize(self.material, 256), values < FAINT, dark]).astype(np.uint8).reshape(256, 1, 3)


def attenuation(pixels: Pixels) -> Codes:
    """Mean density of the channels in codes, uint16 [h, w], of RGB uint8 [h, w, 3]."""
    return np.asarray(cv2.transform(cv2.LUT(pixels, DENSITY), MEAN), np.uint16)


def amounts(depth: float) -> tuple[npt.NDArray[np.int32], Codes]:
    """Tables from attenuation as displayed (codes) to amounts of matter, which add up, and back.

    A display compresses what is dense: d = depth * (1 - exp(-amount / depth)), up to KNEE of the depth, linear beyond.
    """
    shown = np.arange(LEVELS)
    knee = KNEE * depth
    curve = -depth * np.log1p(-np.minimum(shown, knee) / depth)
    curve += np.maximum(shown - knee, 0) / (1 - KNEE)
    to_amount = np.rint(curve).astype(np.int32)
    back = np.interp(np.arange(MOST), curve, shown)
    return to_amount, np.rint(back).astype(np.uint16)


def read(palette: Palette, pixels: Pixels) -> tuple[Codes, Pixels]:
    """Attenuation, uint16 [h, w] in codes, and material, uint8 [h, w] below MATERIALS, of RGB uint8 [h, w, 3]."""
    coded = cv2.LUT(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), palette.by_hsv)
    material = np.maximum(np.where(coded[..., 1] > 0, np.uint8(MIXED), coded[..., 0]), coded[..., 2])
    return attenuation(pixels), material


def strength(material: Any) -> Any:
    """Material on the scale on which it mixes in proportion: steel lies far beyond where its colour begins."""
    return material + (METAL_STRENGTH - 1) * np.maximum(material - METAL_FROM, 0) * (MATERIALS - 1) / (
        MATERIALS - 1 - METAL_FROM
    )


def weaken(strong: Any) -> Any:
    """The material that strength() came from."""
    slope = 1 + (METAL_STRENGTH - 1) * (MATERIALS - 1) / (MATERIALS - 1 - METAL_FROM)
    return np.minimum(strong, METAL_FROM) + np.maximum(strong - METAL_FROM, 0) / slope


def match(source: Palette, target: Palette) -> Codes:
    """What attenuation the target's scanner would show: uint16 [MATERIALS, LEVELS] by material and source's.

    Quantiles of contrast are mapped onto each other in every band of material, order kept, through the origin.
    """
    levels = np.arange(LEVELS)
    if source is target:
        return np.tile(levels.astype(np.uint16), (MATERIALS, 1))
    ratio = np.log(target.contrasts / source.contrasts)
    padded = np.pad(ratio, ((1, 1), (0, 0)), "edge")
    ratio = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4  # a band of few pixels leans on its neighbours
    bands = []
    for theirs, log_ratio in zip(source.contrasts, ratio, strict=True):
        ours = np.maximum.accumulate(theirs * np.exp(log_ratio))
        # Beyond the last quantile the last ratio goes on, or the trend where that falls.
        slope = np.clip(np.log(ours[-1] / ours[-2]) / np.log(theirs[-1] / theirs[-2]), 0.5, 1.0)
        table = np.interp(levels, [0, *theirs], [0, *ours])
        beyond = levels > theirs[-1]
        table[beyond] = ours[-1] * (levels[beyond] / theirs[-1]) ** slope
        bands.append(table)
    place = np.linspace(0, BANDS - 1, MATERIALS)
    table = np.array([np.interp(place, np.arange(BANDS), column) for column in np.array(bands).T]).T
    return np.clip(np.rint(table), 0, LEVELS - 1).astype(np.uint16)


def sharpening(source: Palette, target: Palette) -> float:
    """Amount of unsharp masking (negative blurs) that gives turned objects of `source` the acutance of `target`."""
    if not source.turned.any():  # nothing is known of it
        return 0.0
    rising = np.maximum.accumulate(source.turned) + np.arange(len(SHARPENINGS)) * 1e-6
    return round(float(np.interp(target.acutance, rising, SHARPENINGS)), 3)


def nearest(palettes: Sequence[Palette], pixels: Pixels, bag: Pixels) -> int:
    """Which of a source's palettes redraws a scan best: RGB uint8 [h, w, 3], `bag` is its 0/1 mask."""
    return int(np.argmin([misfit(palette, pixels, bag) for palette in palettes])) if len(palettes) > 1 else 0


def misfit(palette: Palette, pixels: Pixels, bag: Pixels) -> float:
    """Mean difference in grey levels between a scan's bag and what a palette draws from what it reads there."""
    thin = cv2.GaussianBlur(pixels, (0, 0), 1.0)[::2, ::2][bag[::2, ::2] > 0][None]
    if not thin.size:
        return 0.0
    levels, material = read(palette, thin)
    return float(np.abs(palette.colours[material, levels].astype(np.int16) - thin).mean())


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
    pixels, contrast, share = [], [], []
    for scan, bag in zip(scans, bags, strict=True):
        soft = cv2.GaussianBlur(scan, (0, 0), 0.8)
        inside = bag > 0
        pixels.append(soft[inside])
        contrast.append(_contrast(attenuation(soft).astype(np.float32))[:, inside])
        share.append(signature(scan, bag))
    colours, (over, ground) = np.concatenate(pixels), np.concatenate(contrast, axis=1)
    step = max(1, len(colours) // 400_000)
    colours, over, ground = colours[::step], over[::step], ground[::step]
    hue, saturation, value = cv2.split(cv2.cvtColor(colours[None], cv2.COLOR_RGB2HSV))
    hued = ((saturation >= FAINT) & (value >= DARK))[0]
    grey = bool(hued.mean() < GREY) if len(hued) else True
    material = _materials(hue[0][hued], saturation[0][hued]) if not grey else np.full(180, MIXED, np.uint8)
    kind = np.where(hued, material[hue[0]], MIXED).astype(np.int64)
    levels = attenuation(colours[None])[0]
    kind_of_metal = (kind >= 0.85 * MATERIALS) | grey
    metal = levels[kind_of_metal]
    depth = _depth(metal, np.max(colours[kind_of_metal], axis=1))
    return Palette(
        grey=grey,
        depth=depth,
        material=material,
        colours=_colours(colours, levels, kind, hued),
        contrasts=_contrasts(over - ground, kind, hued | grey),
        acutance=_acutance(scans, bags),
        turned=np.array([_acutance(scans, bags, amount) for amount in SHARPENINGS], np.float32),
        noise=_noise(scans, bags),
        signature=float(np.mean(share)),
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


def _noise(scans: Sequence[Pixels], bags: Sequence[Pixels]) -> Array:
    """Standard deviation of the finest detail on the evenest third of the ground, codes, by e-fold, float32 [6]."""
    details, grounds, levels = [], [], []
    for scan, bag in list(zip(scans, bags, strict=True))[:40]:
        plain = attenuation(scan).astype(np.float32)
        soft = cv2.GaussianBlur(plain, (0, 0), 1.0)
        uneven = np.abs(cv2.GaussianBlur(plain, (0, 0), 2.0) - cv2.GaussianBlur(plain, (0, 0), 5.0))
        inside = bag > 0
        details.append((plain - soft)[inside])
        grounds.append((uneven / (soft + UNIT / 4))[inside])
        levels.append(soft[inside])
    detail, ground, level = (np.concatenate(part) for part in (details, grounds, levels))
    out = np.zeros(6, np.float32)
    for fold in range(6):
        mine = np.abs(level / UNIT - fold) <= 0.5
        if mine.sum() >= ENOUGH:
            even = detail[mine][ground[mine] <= np.quantile(ground[mine], 0.33)]
            out[fold] = 1.4826 * np.median(np.abs(even))
        elif fold:
            out[fold] = out[fold - 1]
    return out


def save(path: Path, palettes: Sequence[Palette]) -> None:
    """Write palettes as an .npz file."""
    arrays = {
        f"{place}.{name}": np.asarray(getattr(one, name))
        for place, one in enumerate(palettes)
        for name in Palette.__dataclass_fields__
    }
    arrays["count"] = np.asarray(len(palettes))
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path) -> list[Palette]:
    """Read what save() wrote."""
    with np.load(path, allow_pickle=False) as stored:
        names = list(Palette.__dataclass_fields__)
        rows = [{name: stored[f"{place}.{name}"] for name in names} for place in range(int(stored["count"]))]
    plain = ("grey", "depth", "acutance", "signature")
    return [Palette(**{name: row[name].item() if name in plain else row[name] for name in names}) for row in rows]
