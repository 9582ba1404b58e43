"""What a linear model sees of a crop and its mask: edge, ring, noise and colour."""

import cv2
import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from segloc_synth.realism.crops import Crop

Vector = NDArray[np.float64]
FAMILIES = ("edge", "ring", "noise", "colour")
STEPS = (-3, -2, -1, 1, 2, 3)  # pixels from the outline, negative inside
NEAR, FAR = 8, 14  # outer radii of the surroundings beyond the ring of 3 px
_EPS = 1e-3


def describe(crop: Crop) -> dict[str, Vector]:
    """The features of a crop by family, float64 vectors of fixed lengths; nan where there is no pixel."""
    inside = cv2.distanceTransform(crop.mask, cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(1 - crop.mask, cv2.DIST_L2, 5)
    distance = np.where(crop.mask == 1, 0.5 - inside, outside - 0.5).astype(np.float32)
    pixels = crop.pixels.astype(np.float32)
    grey = cv2.cvtColor(crop.pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return {
        "edge": _edge(pixels, grey, distance),
        "ring": _ring(pixels, grey, distance),
        "noise": _noise(pixels, grey, distance),
        "colour": _colour(crop.pixels, grey, distance),
    }


def _zones(distance: NDArray[np.float32]) -> list[NDArray[np.bool_]]:
    """Deep inside, the six steps across the outline, and two zones beyond."""
    steps = [(distance > step - (step > 0)) & (distance <= step + (step < 0)) for step in STEPS]
    return [distance <= -3, *steps, (distance > 3) & (distance <= NEAR), (distance > NEAR) & (distance <= FAR)]


def _mean(values: NDArray[np.float32], zone: NDArray[np.bool_]) -> Vector:
    found = values[zone]
    return found.mean(0, np.float64) if len(found) else np.full(values.shape[2:], np.nan)


def _std(values: NDArray[np.float32], zone: NDArray[np.bool_]) -> Vector:
    found = values[zone]
    return found.std(0, dtype=np.float64) if len(found) > 3 else np.full(values.shape[2:], np.nan)


def _edge(pixels: NDArray[np.float32], grey: NDArray[np.float32], distance: NDArray[np.float32]) -> Vector:
    """Gradients by distance, steps and sharpness across the outline, and what goes on from one side to the other."""
    zones = _zones(distance)
    gx, gy = (cv2.Sobel(pixels, cv2.CV_32F, dx, 1 - dx, scale=1 / 8) for dx in (1, 0))
    size = np.hypot(gx, gy)
    bend = cv2.Laplacian(grey, cv2.CV_32F)
    strength = [np.log(_mean(size, zone) + 0.5) for zone in zones]
    spread = [np.log(_std(size.mean(2), zone) + 0.5) for zone in zones]
    bends = [part for zone in zones[1:7] for part in (_mean(bend, zone), np.log(_mean(np.abs(bend), zone) + 0.5))]
    means = [_mean(pixels, zone) for zone in zones]
    steps = [means[3 - k] - means[4 + k] for k in range(3)]
    sharp = np.abs(steps[0]) / (np.abs(steps[2]) + 4)
    halo = [means[2] - means[1], means[5] - means[6], means[3] - means[2], means[4] - means[5]]
    return np.hstack([*strength, *spread, *bends, *steps, sharp, *halo, _across(grey, distance)])


def _across(grey: NDArray[np.float32], distance: NDArray[np.float32]) -> Vector:
    """Along normals of the outline: correlation of fine structure at both sides, slopes, and how they vary."""
    smooth = cv2.GaussianBlur(distance, (0, 0), 1.5)
    nx, ny = (cv2.Sobel(smooth, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    length = np.hypot(nx, ny) + 1e-6
    rows, cols = np.nonzero((distance > -1) & (distance < 0))
    if len(rows) < 8:
        return np.full(22, np.nan)
    nx, ny = (nx / length)[rows, cols], (ny / length)[rows, cols]
    offsets = np.arange(-3, 4, dtype=np.float32)[:, None]
    x, y = cols + offsets * nx + nx / 2, rows + offsets * ny + ny / 2
    fine = grey - cv2.GaussianBlur(grey, (0, 0), 4)
    value, detail = (
        cv2.remap(image, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for image in (grey, fine)
    )
    pairs = ((2, 4), (1, 5), (0, 6), (0, 1), (1, 2), (4, 5), (5, 6))
    same = [_correlation(detail[a], detail[b]) for a, b in pairs]
    slopes = np.diff(value, axis=0)
    top = np.abs(slopes).max(0) / (np.abs(value[0] - value[-1]) + 8)
    return np.hstack(
        [
            same,
            np.log(np.abs(slopes).mean(1) + 0.5),
            np.log(slopes.std(1) + 0.5),
            np.quantile(top, [0.25, 0.5, 0.75]),
        ]
    )


def _ring(pixels: NDArray[np.float32], grey: NDArray[np.float32], distance: NDArray[np.float32]) -> Vector:
    """Colour and darkness just outside the outline, against farther out and inside."""
    zones = _zones(distance)
    colour = np.dstack([pixels, pixels.max(2) - pixels.min(2)])
    means = [_mean(colour, zone) for zone in zones]
    beyond = means[8]
    inner = _mean(colour, distance < 0)
    ring = (distance > 0) & (distance <= 3)
    levels = [
        np.quantile(grey[zone], [0.1, 0.5, 0.9]) if zone.any() else np.full(3, np.nan) for zone in (ring, *zones[7:])
    ]
    spread = [np.log(_std(grey, zone) + 1) for zone in zones[4:]]
    outer = [mean - beyond for mean in means[4:8]]
    return np.hstack([*outer, beyond, inner - beyond, *spread, levels[0] - levels[1], levels[0] - levels[2], levels[2]])


def _noise(pixels: NDArray[np.float32], grey: NDArray[np.float32], distance: NDArray[np.float32]) -> Vector:
    """High-pass residuals inside, in the ring and outside: strength, tails, ties between channels and neighbours."""
    middle = distance <= -2
    zones = [middle if middle.sum() >= 20 else distance < 0, (distance > 0) & (distance <= 3)]
    zones.append((distance > 3) & (distance <= FAR))
    residual = pixels - cv2.GaussianBlur(pixels, (0, 0), 1.0)
    rough = pixels - cv2.medianBlur(pixels.astype(np.uint8), 3)
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 4
    checks = cv2.filter2D(grey, cv2.CV_32F, kernel)
    soft = grey - cv2.GaussianBlur(grey, (0, 0), 1.0)
    right, below = np.roll(soft, -1, 1), np.roll(soft, -1, 0)
    out: list[npt.ArrayLike] = []
    for zone in zones:
        if zone.sum() < 8:
            out.append(np.full(19, np.nan))
            continue
        r, g, b = residual[zone].T
        s = soft[zone]
        normed = (s - s.mean()) / (s.std() + _EPS)
        out += [
            np.log(residual[zone].std(0) + 0.1),
            np.log(np.abs(rough[zone]).mean(0) + 0.1),
            np.log([np.abs(checks[zone]).mean() + 0.1, checks[zone].std() + 0.1]),
            np.log(np.quantile(np.abs(s), [0.25, 0.5, 0.9]) + 0.05),
            [np.log((normed**4).mean() + _EPS), (normed**3).mean()],
            [_correlation(r, g), _correlation(g, b), _correlation(r, b)],
            [_correlation(s, right[zone]), _correlation(s, below[zone])],
            [float((checks[zone] == 0).mean())],
        ]
    return np.hstack(out)


def _colour(pixels: NDArray[np.uint8], grey: NDArray[np.float32], distance: NDArray[np.float32]) -> Vector:
    """Colours inside: means, spreads, hues at each darkness; and the same histogram of the surroundings."""
    lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    inside, around = distance < 0, (distance > 3) & (distance <= FAR)
    red, green, blue = (channel.astype(np.float64) for channel in pixels[inside].T)
    dark = grey[inside]
    ties = [_correlation(dark, lab[..., k][inside]) for k in (1, 2)] + [_correlation(red, blue)]
    ties += [_correlation(red, green), _correlation(green, blue)]
    levels = np.quantile(dark, [0.05, 0.25, 0.5, 0.75, 0.95])
    return np.hstack(
        [
            _mean(lab, inside) - _mean(lab, around),
            _mean(lab, inside),
            np.log(_std(lab, inside) + 1),
            levels,
            ties,
            _hues(lab, grey, inside),
            _hues(lab, grey, around),
        ]
    )


def _hues(lab: NDArray[np.float32], grey: NDArray[np.float32], zone: NDArray[np.bool_]) -> Vector:
    """Square roots of the shares of eight hues and grey at each of six darknesses, [54]."""
    if not zone.any():
        return np.full(54, np.nan)
    _, a, b = lab[zone].T
    hue = np.floor((np.arctan2(b, a) / (2 * np.pi) + 0.5) * 8).astype(int) % 8
    hue[np.hypot(a, b) < 6] = 8
    dark = np.minimum(grey[zone] / 256 * 6, 5).astype(int)
    return np.sqrt(np.bincount(dark * 9 + hue, minlength=54) / zone.sum())


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).mean() / (a.std() * b.std() + _EPS))
