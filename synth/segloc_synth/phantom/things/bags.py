"""Bags of cloth and leather, and trays, without their contents. Lengths in cm."""

import numpy as np

from segloc_synth.phantom.outlines import Points, Rng, blob, curve, pose, rect, rounded, within
from segloc_synth.phantom.physics import (
    LEATHER,
    PLASTIC,
    PVC,
    STEEL,
    SYNTHETIC,
    Mu,
)
from segloc_synth.phantom.shapes import Bag, Item, Soft, Solid, Wire, moved
from segloc_synth.phantom.things import hardware

FABRIC_EDGE: Mu = (0.26, 0.185)  # coated fabric seen edge-on


def _any(rng: Rng) -> float:
    return float(rng.uniform(0, 2 * np.pi))


def _sewn(rng: Rng, outline: Points, n: int) -> Item:
    """Pullers, rings, hooks and buckles on the seams, with rivets where straps are fixed."""
    points, along = hardware.seam(rng, 0.97 * outline, n, 0.4)
    item = hardware.fittings(rng, points, along, scale=1.25)
    return item + hardware.rivets(rng, hardware.seam(rng, 0.96 * outline, int(rng.integers(1, 8)), 0.3)[0])


def _wrinkles(rng: Rng, outline: Points, n: int, strength: float) -> Item:
    """Thin curved folds of the fabric, near the outline and across."""
    lines = []
    for _ in range(n):
        i = int(rng.integers(len(outline)))
        a, b = outline[i], outline[(i + int(rng.integers(2, len(outline) // 2))) % len(outline)]
        middle = (a + b) / 2 * rng.uniform(0.3, 1.1) + rng.normal(0, 1.0, 2)
        lines.append(curve(np.array([a * rng.uniform(0.8, 1), middle, b * rng.uniform(0.7, 1)]), 14))
    lines = within(lines, outline)
    half = n // 2
    return [Wire(lines[:half], FABRIC_EDGE, 0.3 * strength), Wire(lines[half:], FABRIC_EDGE, 0.5 * strength)]


def _seams(
    outline: Points, mu: tuple[float, float], width: float, shifts: tuple[tuple[float, float, float], ...]
) -> Item:
    """The bag's edges as seen from above: top and bottom rims do not coincide."""
    return [Wire([outline * k + (dx, dy)], mu, width, True) for k, dx, dy in shifts]


def backpack(rng: Rng) -> Bag:
    """Egg-shaped rucksack with straps, pockets, zips, buckles and foam back."""
    w, h = rng.uniform(38, 50), rng.uniform(27, 35)
    outline = blob(rng, w / 2, h / 2, 0.05, power=rng.uniform(2.6, 3.6))
    item: Item = [Soft(outline, SYNTHETIC, rng.uniform(0.5, 1.6), int(rng.integers(4)), 0.35, _any(rng), 1.6, 0.3)]
    item.append(Soft(outline * (0.9, 0.72), PLASTIC, 0.25, 7, 0.4, 0, 2, 0.6))
    item += _wrinkles(rng, outline, 22, 1.0)
    item += _seams(outline, FABRIC_EDGE, 0.5, ((1, 0, 0), (0.95, 0.8, 0.4), (0.88, -0.9, -0.5)))
    item += hardware.zipper(outline[: len(outline) * 2 // 3] * 0.93)
    pocket = rounded(w * 0.5, h * 0.6, 3, 0.18 * w)
    item += [Solid([pocket], SYNTHETIC, 0.8), *hardware.zipper(pocket[10:26])]
    for s in (-1, 1):
        strap = curve(
            [(-0.4 * w, s * 0.15 * h), (-0.1 * w, s * 0.42 * h), (0.25 * w, s * 0.5 * h), (0.45 * w, s * 0.3 * h)], 26
        )
        item += [Wire([strap], SYNTHETIC, 1.8), Wire([strap], PVC, 0.5)]
    item += _sewn(rng, outline, int(rng.integers(6, 11)))
    return Bag(item, outline * 0.84, (w + 4, h + 8))


def soft_bag(rng: Rng) -> Bag:
    """Pouch, shopper or holdall of thin cloth, nearly transparent."""
    w, h = rng.uniform(28, 46), rng.uniform(19, 30)
    outline = blob(rng, w / 2, h / 2, 0.07, power=rng.uniform(2.4, 4.5))
    item: Item = [Soft(outline, SYNTHETIC, rng.uniform(0.15, 0.7), int(rng.integers(4)), 0.6, _any(rng), 1.5, 0.2)]
    item += _seams(outline, FABRIC_EDGE, 0.35, ((1, 0, 0), (0.97, 0.5, 0.3), (0.92, -0.6, 0.2)))
    item += _wrinkles(rng, outline, 24, 1.0)
    start = int(rng.integers(len(outline)))
    arc = np.roll(outline, -start, 0)
    if rng.random() < 0.7:
        item += hardware.zipper(arc[: int(rng.integers(8, 18))] * 0.92)
    a, b = arc[0], arc[8]
    out = (a + b) / 2
    out = out / max(float(np.hypot(*out)), 1e-6) * rng.uniform(6, 14)
    item.append(
        Wire(
            [curve(np.array([a, a * 0.6 + b * 0.4 + out, a * 0.4 + b * 0.6 + out, b]), 20)],
            SYNTHETIC,
            rng.uniform(0.6, 2.2),
        )
    )
    item += _sewn(rng, outline, int(rng.integers(5, 12)))
    return Bag(item, outline * 0.82, (w + 5, h + 9))


def handbag(rng: Rng) -> Bag:
    """Leather or plastic handbag: tapering body, two arched handles, clasps and chain links."""
    w, h = rng.uniform(28, 40), rng.uniform(20, 27)
    taper = rng.uniform(0.78, 1.15)
    corners = [(-w / 2, -h / 2), (w / 2, -h / 2), (w / 2 * taper, h / 2), (-w / 2 * taper, h / 2)]
    outline = curve(
        np.repeat(np.array(corners), 3, 0) * np.tile(((0.9, 1.0), (1.0, 1.0), (1.0, 0.9)), (4, 1)), 48, True
    )
    mu = LEATHER if rng.random() < 0.5 else PVC
    item: Item = [Soft(outline, mu, rng.uniform(0.08, 0.25), 7, 0.3, 0, 2, 0.15)]
    item += _seams(outline, mu, 0.35, ((1, 0, 0), (0.96, 0.6, 0.2), (0.93, -0.4, -0.4)))
    item.append(Solid([rect(w * 0.94, h * rng.uniform(0.12, 0.25), 0, -0.38 * h)], mu, 0.3))
    reach = rng.uniform(9, 15)
    for d in (0, rng.uniform(0.8, 1.8)):
        grip = curve(
            [
                (-0.25 * w + d, -0.45 * h),
                (-0.2 * w + d, -0.5 * h - 0.7 * reach),
                (d, -0.5 * h - reach),
                (0.2 * w + d, -0.5 * h - 0.7 * reach),
                (0.25 * w + d, -0.45 * h),
            ],
            28,
        )
        item += [Wire([grip], mu, 1.0), Wire([grip + np.array((0.4, 0))], PVC, 0.3)]
    for x in (-0.25, 0.25):
        item.append(Solid([rounded(1.0, 3.0, 0.3, x * w, -0.4 * h)], STEEL, 0.25))
    item += _wrinkles(rng, outline, 14, 0.8)
    item += hardware.zipper(np.array([(-0.42 * w, -0.3 * h), (0.42 * w, -0.3 * h)])) if rng.random() < 0.6 else []
    item += _sewn(rng, outline, int(rng.integers(5, 10)))
    return Bag(moved(item, pose(0, reach / 2, 0)), outline * 0.84 + (0, reach / 2), (w + 4, h + reach + 2))


def tray(rng: Rng) -> Bag:
    """The check point's plastic tray, with a jacket or a pouch in it."""
    w, h = rng.uniform(48, 58), rng.uniform(34, 40)
    outline = rounded(w, h, 4)
    item: Item = [
        Solid([outline], PLASTIC, 0.9),
        Solid([outline, rounded(w - 3, h - 3, 3)], PLASTIC, 0.9),
        Wire([rounded(w - 1.5, h - 1.5, 4)], PLASTIC, 0.8, True),
    ]
    ticks = [
        np.array([(x, s * (h / 2 - 1.5)), (x, s * h / 2)])
        for x in np.arange(-w / 2 + 4, w / 2 - 3, 4.2)
        for s in (-1, 1)
    ]
    item += [Wire(ticks, PLASTIC, 0.5), Wire([rounded(w * 0.8, h * 0.75, 3)], PLASTIC, 0.4, True)]
    inner = blob(rng, w * 0.36, h * 0.36, 0.12)
    item += [
        Soft(inner, SYNTHETIC, 4.0, int(rng.integers(4)), 0.4, _any(rng)),
        *_wrinkles(rng, inner, 14, 0.8),
        *_sewn(rng, inner, 5),
    ]
    return Bag(item, inner * 0.9, (w, h))


def bundle(rng: Rng) -> Bag:
    """A sack stuffed with cloth: one big soft mass."""
    w, h = rng.uniform(44, 60), rng.uniform(34, 46)
    outline = blob(rng, w / 2, h / 2, 0.1, power=rng.uniform(2.2, 3.2))
    item: Item = [
        Soft(
            outline * k + rng.normal(0, 1, 2),
            SYNTHETIC,
            d,
            int(rng.integers(6)),
            0.3,
            _any(rng),
            1.3,
            0.5,
        )
        for k, d in ((1, 5.0), (0.93, 7.0), (0.75, 4.0))
    ]
    item += [
        *_wrinkles(rng, outline, 26, 0.9),
        *hardware.zipper(outline[:14] * 0.9),
        *_sewn(rng, outline * 0.97, int(rng.integers(6, 12))),
        *hardware.fittings(rng, *hardware.anywhere(rng, outline, 14), hardware.LOOSE),
    ]
    return Bag(item, outline * 0.85, (w + 3, h + 3))
