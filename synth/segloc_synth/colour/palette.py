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

from segloc_synth.sources.images import Pixels

Array = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.floating[Any]]
Numbers = Floats | npt.NDArray[np.signedinteger[Any]] | float  # no unsigned ones: they are subtracted from

UNIT = 128  # codes per e-fold of attenuation
LEVELS = 720  # attenuation codes, log(256) e-folds and a little
MATERIALS = 64
MIXED = MATERIALS // 2  # of pixels whose hue says nothing
FAINT = 18  # HSV saturation, of 255, below which a hue is noise
DARK = 40  # brightest channel below which it is noise as well; only metal stops so much
BANDS = 5  # of material in which the attenuations of two scanners are matched
QUANTILES = np.array([0.5, 0.75, 0.9, 0.97, 0.995])
SHARPENINGS = np.linspace(-0.75, 3, 6)
# Density of a channel value in codes; one is added so that black has an end.
DENSITY = np.rint(-np.log((np.arange(256) + 1) / 256) * UNIT).astype(np.uint16)
MEAN = np.full((1, 3), 1 / 3)
LINEAR = 1e6  # depth, in codes, of a display that compresses nothing: one energy in grey
KNEE = 0.95  # share of the depth beyond which the display is taken to be linear, see amounts()
METAL_STRENGTH = 2.0  # how many times as far along as its colour metal is taken to be
METAL_FROM = 40  # material beyond which that counts
STRONGEST = METAL_STRENGTH * (MATERIALS - 1)
MOST = 16384  # amounts of matter are cut there, beyond what the blackest pixel of any display stands for


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
    """

    grey: bool
    depth: float
    material: Pixels
    colours: Pixels
    contrasts: Array
    acutance: float
    turned: Array

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


def strength(material: Numbers) -> Floats:
    """Material, 0 to MATERIALS - 1, on the scale on which it mixes in proportion, 0 to STRONGEST; of the same shape.

    Steel lies far beyond where its colour begins.
    """
    return material + (METAL_STRENGTH - 1) * np.maximum(material - METAL_FROM, 0) * (MATERIALS - 1) / (
        MATERIALS - 1 - METAL_FROM
    )


def weaken(strong: Numbers) -> Floats:
    """The material, 0 to MATERIALS - 1 and not rounded, that strength() came from; of the same shape."""
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
    plain = ("grey", "depth", "acutance")
    return [Palette(**{name: row[name].item() if name in plain else row[name] for name in names}) for row in rows]
