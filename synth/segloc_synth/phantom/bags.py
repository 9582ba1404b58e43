"""Bags without their contents: outline, walls, frame, wheels, rods, zips, handles, hardware. Lengths in cm."""

from typing import NamedTuple

import numpy as np

from segloc_synth.phantom.outlines import Points, Rng, blob, curve, ellipse, pose, profile, rect, rounded, within
from segloc_synth.phantom.physics import (
    ALUMINIUM,
    LEATHER,
    PLASTIC,
    PVC,
    RUBBER,
    STEEL,
    SYNTHETIC,
    Mu,
)
from segloc_synth.phantom.shapes import Item, Lathe, Soft, Solid, Wire, moved

FABRIC_EDGE: Mu = (0.26, 0.185)  # coated fabric seen edge-on


class Bag(NamedTuple):
    """The shell, and the outline within which things lie."""

    shell: Item
    inside: Points
    size: tuple[float, float]


def _zip(line: Points) -> Item:
    """Teeth along a line."""
    steps = np.hypot(*np.diff(line, axis=0).T)
    at = np.concatenate([[0], np.cumsum(steps)])
    t = np.arange(0, at[-1], 0.42)
    p = np.column_stack([np.interp(t, at, line[:, k]) for k in range(2)])
    d = np.gradient(p, axis=0) if len(p) > 1 else np.ones_like(p)
    side = np.column_stack([-d[:, 1], d[:, 0]]) * 0.55
    return [Wire(list(np.stack([p - side, p + side], 1)), ALUMINIUM, 0.2), Wire([line], SYNTHETIC, 1.2)]


def hardware(rng: Rng) -> Item:
    """One zip puller, buckle, ring, rivet, hook or screw, 1 to 3 cm."""
    k, seen_from = rng.uniform(0.55, 1.0), rng.uniform(0.4, 1.0)
    return moved(_hardware(rng), np.array([[k * seen_from, 0, 0], [0, k, 0]]))


def _hardware(rng: Rng) -> Item:
    """One zip puller, buckle, ring, rivet, hook or screw."""
    kind = rng.choice(6, p=[0.34, 0.12, 0.14, 0.16, 0.1, 0.14])
    if kind == 0:
        plate = rounded(2.6, 0.85, 0.3, 1.9)
        hole = rounded(1.1, 0.4, 0.2, 2.4)
        return [
            Solid([rounded(1.3, 0.9, 0.3)], STEEL, 0.35),
            Solid([plate, hole], STEEL, 0.13),
            Wire([ellipse(0.4, 0.25, 0.7, 0, 8)], STEEL, 0.15),
        ]
    if kind == 1:
        w, h = rng.uniform(1.8, 3.2), rng.uniform(1.6, 2.6)
        return [
            Wire([rounded(w, h, 0.5)], STEEL, 0.36, True),
            Wire([np.array([(0.0, -h / 2), (0, h / 2)])], STEEL, 0.25),
        ]
    if kind == 2:
        r = rng.uniform(0.9, 1.6)
        return [Wire([np.concatenate([ellipse(r, r)[:13], [(-r, -0.4 * r), (r, -0.4 * r)]])], STEEL, 0.3, True)]
    if kind == 3:
        r = rng.uniform(0.45, 0.85)
        return [
            Solid(
                [ellipse(r, r, n=14), ellipse(0.3 * r, 0.3 * r, n=8)], STEEL if rng.random() < 0.7 else ALUMINIUM, 0.16
            )
        ]
    if kind == 4:
        hook = curve([(0, 0.5), (1.6, 0.9), (2.8, 0.2), (2.0, -0.6), (0.4, -0.4)], 14)
        return [
            Wire([hook], STEEL, 0.34, True),
            Solid([ellipse(0.7, 0.5, -0.8, 0, 12), ellipse(0.35, 0.25, -0.8, 0, 8)], STEEL, 0.4),
        ]
    return [Lathe(profile((0, 0.55), (0.25, 0.5), (0.26, 0.22), (1.6, 0.2)), STEEL, angle=_any(rng))]


def _any(rng: Rng) -> float:
    return float(rng.uniform(0, 2 * np.pi))


def _scatter(rng: Rng, outline: Points, n: int, spread: float = 0.6) -> Item:
    """Hardware along an outline."""
    item: Item = []
    for i in rng.integers(0, len(outline), n):
        x, y = outline[i] + rng.normal(0, spread, 2)
        item += moved(hardware(rng), pose(float(x), float(y), _any(rng)))
    return item


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


def suitcase(rng: Rng) -> Bag:
    """Hard or soft trolley: walls, double rim, wire frame, telescopic rods, wheels, screws, zip."""
    w, h = rng.uniform(48, 68), rng.uniform(34, 45)
    hard = rng.random() < 0.5
    r = rng.uniform(3, 6)
    outline = rounded(w, h, r)
    skin = PLASTIC if hard else SYNTHETIC
    item: Item = [
        Solid([outline], skin, 0.4 if hard else 0.8),
        Soft(outline, SYNTHETIC, 1.0, int(rng.integers(4, 6)), 0.6, float(rng.choice([0, np.pi / 2])), 1.2, 0.2),
    ]
    slip = rng.uniform(0.5, 3.2, 2) * rng.choice([-1, 1], 2)
    lid = rounded(w - 1.5, h - 1.5, r) + slip
    item.append(Solid([outline, rounded(w - 2.2, h - 2.2, r)], skin, rng.uniform(0.7, 1.8)))
    item += [
        Wire([lid], PVC, rng.uniform(0.5, 1.1), True),
        Wire([rounded(w - 3.4, h - 3.2, r) - 0.5 * slip], PVC, 0.6, True),
    ]
    for k in range(int(rng.integers(0, 4))):
        item.append(Wire([rounded(w - 1.0 - 2.0 * k, h - 1.2 - 1.6 * k, r) - slip * (0.6 - k)], STEEL, 0.2, True))
    if hard:
        ribs = [
            np.array([(-w / 2 + 2, y), (w / 2 - 2, y)])
            for y in np.linspace(-h / 2 + 3, h / 2 - 3, int(rng.integers(5, 10)))
        ]
        item.append(Wire(ribs, PLASTIC, 0.8))
    else:
        item += _wrinkles(rng, outline, 12, 0.7)
    item += _zip(rounded(w - 0.8, h - 0.8, r) + 0.7 * slip) if rng.random() < 0.6 else []
    tube = STEEL if rng.random() < 0.55 else ALUMINIUM
    gap, length = rng.uniform(0.14, 0.24) * h, w * rng.uniform(0.62, 0.9)
    steel = tube == STEEL
    lean = rng.normal(0, 0.01)
    off = rng.uniform(-0.12, 0.12) * h
    for s in (-1, 1):
        at = (-w / 2 + 1.5, off + s * gap)
        for radius, share in ((1.05, 1.0), (0.75, 0.8)):
            item.append(Lathe(profile((0, radius), (length * share, radius)), tube, at, lean, 0.06 if steel else 0.15))
        item.append(Solid([rect(1.6, 3.2, at[0] + length, at[1])], PLASTIC, 2.0, 0.3))
    item.append(Lathe(profile((0, 1.0), (2 * gap, 1.0)), PLASTIC, (-w / 2 - 0.3, off - gap), np.pi / 2, 0.3))
    item.append(Wire([np.array([(-w / 2 + 0.4, off - gap), (-w / 2 + 0.4, off + gap)])], STEEL, 0.3))
    for sx, sy in ((1, -1), (1, 1), *(() if rng.random() < 0.5 else ((-1, -1), (-1, 1)))):
        x, y = sx * (w / 2 + 1.1), sy * (h / 2 - 3.5)
        wheel = rng.uniform(2.0, 2.8)
        edge_on = rng.random() < 0.4
        tyre = rounded(2 * wheel, 2.2, 0.6, x, y) if edge_on else ellipse(wheel, wheel, x, y)
        item += [Solid([tyre], RUBBER, 1.2, 0.6), Solid([rounded(4, 4.5, 1, x - sx * 2.2, y)], PLASTIC, 1.6, 0.4)]
        item += [
            Solid([ellipse(0.8, 0.8, x, y, 12)], STEEL, 0.6),
            Wire([np.array([(x, y - 2.2), (x, y + 2.2)])], STEEL, 0.55),
        ]
        screws = rng.normal((x - sx * 2.5, y), 1.1, (4, 2))
        item.append(
            Solid([rect(0.4, 1.1, float(p[0]), float(p[1]), float(rng.uniform(0, 3))) for p in screws], STEEL, 0.35)
        )
    grip = curve([(-6, -h / 2), (-4, -h / 2 - 1.8), (4, -h / 2 - 1.8), (6, -h / 2)], 16)
    item += [Wire([grip], PLASTIC, 1.5), Wire([grip], STEEL, 0.25)]
    nails = [(s * rng.uniform(0.42, 0.48) * w, y) for s in (-1, 1) for y in np.linspace(-0.4, 0.4, 6) * h]
    nails += [(x, s * 0.45 * h) for s in (-1, 1) for x in np.linspace(-0.4, 0.4, 7) * w]
    item.append(Solid([ellipse(0.35, 0.35, x, y, 8) for x, y in nails if rng.random() < 0.8], STEEL, 0.3))
    item += _scatter(rng, outline * 0.96, int(rng.integers(6, 12)))
    return Bag(item, outline * 0.9, (w + 7, h + 5))


def backpack(rng: Rng) -> Bag:
    """Egg-shaped rucksack with straps, pockets, zips, buckles and foam back."""
    w, h = rng.uniform(38, 50), rng.uniform(27, 35)
    outline = blob(rng, w / 2, h / 2, 0.05, power=rng.uniform(2.6, 3.6))
    item: Item = [Soft(outline, SYNTHETIC, rng.uniform(0.5, 1.6), int(rng.integers(4)), 0.35, _any(rng), 1.6, 0.3)]
    item.append(Soft(outline * (0.9, 0.72), PLASTIC, 0.25, 7, 0.4, 0, 2, 0.6))
    item += _wrinkles(rng, outline, 22, 1.0)
    item += _seams(outline, FABRIC_EDGE, 0.5, ((1, 0, 0), (0.95, 0.8, 0.4), (0.88, -0.9, -0.5)))
    item += _zip(outline[: len(outline) * 2 // 3] * 0.93)
    pocket = rounded(w * 0.5, h * 0.6, 3, 0.18 * w)
    item += [Solid([pocket], SYNTHETIC, 0.8), *_zip(pocket[10:26])]
    for s in (-1, 1):
        strap = curve(
            [(-0.4 * w, s * 0.15 * h), (-0.1 * w, s * 0.42 * h), (0.25 * w, s * 0.5 * h), (0.45 * w, s * 0.3 * h)], 26
        )
        item += [Wire([strap], SYNTHETIC, 1.8), Wire([strap], PVC, 0.5)]
    item += _scatter(rng, outline, int(rng.integers(6, 11)), 1.0)
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
        item += _zip(arc[: int(rng.integers(8, 18))] * 0.92)
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
    item += _scatter(rng, outline, int(rng.integers(5, 12)), 0.9)
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
    item += _zip(np.array([(-0.42 * w, -0.3 * h), (0.42 * w, -0.3 * h)])) if rng.random() < 0.6 else []
    item += _scatter(rng, outline, int(rng.integers(5, 10)), 0.9)
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
        *_scatter(rng, inner, 5),
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
        *_zip(outline[:14] * 0.9),
        *_scatter(rng, outline * 0.8, int(rng.integers(8, 16)), 5),
    ]
    return Bag(item, outline * 0.85, (w + 3, h + 3))
