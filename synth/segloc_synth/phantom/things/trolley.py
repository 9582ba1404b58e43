"""Suitcases on wheels, seen in perspective: the back frame and the lid's do not coincide. Lengths in cm."""

import cv2
import numpy as np

from segloc_synth.phantom.outlines import Points, Rng, curve, ellipse, rect, ribbon, rounded
from segloc_synth.phantom.physics import ALUMINIUM, PLASTIC, PVC, RUBBER, STEEL, SYNTHETIC, Mu
from segloc_synth.phantom.shapes import Bag, Item, Soft, Solid, Wire
from segloc_synth.phantom.things import hardware

EDGE: Mu = (0.26, 0.205)  # wall seen edge-on
RIM: Mu = (0.50, 0.335)  # plastic profile around a steel or aluminium core
MARGIN = 5.0  # cm that wheels and handle stand out


def _wheel(rng: Rng, x: float, y: float, out: float, kind: int) -> Item:
    """Castor with two narrow wheels from the side, or one spoked wheel; fork, axle and screws. `out` is +1 or -1."""
    r = rng.uniform(1.7, 2.6)
    mount = np.column_stack([rng.normal(x - out * 3.0, 1.0, 5), rng.normal(y, 1.2, 5)])
    item = hardware.screws(rng, mount, np.full(5, np.pi if out > 0 else 0.0) + rng.normal(0, 0.3, 5))
    item.append(Solid([rounded(4.4, 4.6, 1.2, x - out * 2.6, y)], PLASTIC, 1.4, 0.4))
    if kind == 0:
        wide, gap = rng.uniform(1.1, 1.7), rng.uniform(1.2, 1.7)
        tyres = [rounded(2.2 * r, wide, 0.6, x, y + s * gap) for s in (-1, 1)]
        item += [Solid(tyres, PVC, 1.9), Solid([rounded(1.4 * r, 0.5, 0.2, x, y + s * gap) for s in (-1, 1)], PVC, 1.2)]
        axle = np.array([(x, y - gap - 0.4), (x, y + gap + 0.4)])
        return [*item, Wire([axle, np.array([(x, y), (x - out * 3.4, y)])], STEEL, 0.55)]
    tilt = rng.uniform(0.55, 1.0)
    n = int(rng.integers(6, 10))
    a = np.arange(n) * 2 * np.pi / n
    holes = [ellipse(0.3, 0.3, x + 0.62 * r * np.cos(t), y + 0.62 * r * tilt * np.sin(t), 8) for t in a]
    hub = Solid([ellipse(0.85 * r, 0.85 * r * tilt, x, y), ellipse(0.25, 0.25, x, y, 8), *holes], STEEL, 0.25)
    tyre = [ellipse(1.25 * r, 1.25 * r * tilt, x, y)]
    spokes = [np.array([(x, y), (x + 1.1 * r * np.cos(t), y + 1.1 * r * tilt * np.sin(t))]) for t in a[::2]]
    metal = rng.random() < 0.5
    item += [Solid(tyre, RUBBER, 1.2), Solid([tyre[0], ellipse(r, r * tilt, x, y)], PVC, 1.2)]
    item += [hub] if metal else [Wire(spokes, PVC, 0.5), Solid([ellipse(0.6, 0.6, x, y, 10)], STEEL, 0.5)]
    bolt = np.array([(x + out * 1.0, y - 1.5), (x + out * (2.5 + rng.random()), y + 2.0)])
    return [*item, Wire([bolt], STEEL, 0.55), *hardware.rivets(rng, np.array([[x, y]]))]


def _rods(rng: Rng, w: float, h: float, slip: Points) -> Item:
    """The telescopic handle: two channels with their tubes, inner rods, stops, screws and the bar that joins them."""
    gap, off = rng.uniform(0.13, 0.24) * h, rng.uniform(-0.12, 0.12) * h
    start, length = -w / 2 + rng.uniform(0, 4), w * rng.uniform(0.6, 0.98)
    blue, wide, lean = rng.random() < 0.5, rng.uniform(1.6, 2.8), rng.normal(0, 0.03)
    tube: tuple[Mu, float] = (STEEL, rng.uniform(0.12, 0.24)) if blue else (ALUMINIUM, rng.uniform(0.4, 1.0))
    item: Item = []
    for s in (-1, 1):
        a = np.array((start, off + s * gap))
        b = a + (length, s * lean * length) + 0.3 * slip * rng.uniform(0.4, 1)
        mid = a + (b - a) * rng.uniform(0.35, 0.7)
        outer, inner = ribbon(np.array([a, b]), [wide, 0.85 * wide]), ribbon(np.array([a, mid]), 0.7 * wide)
        item += [
            Solid([outer], *tube),
            Solid([inner], STEEL if rng.random() < 0.2 else ALUMINIUM, 0.09 if blue else 0.25),
        ]
        item.append(Wire([outer], STEEL if blue else ALUMINIUM, 0.12 if blue else 0.3, True))
        core = np.array([a + (b - a) * rng.uniform(0.1, 0.3), a + (b - a) * rng.uniform(0.6, 0.95)])
        side = core + np.array((0, rng.normal(0, 0.4)))
        item.append(Wire([core, *([side] if rng.random() < 0.4 else [])], STEEL, 0.3))
        item.append(Solid([rect(2.0, wide + 1.4, *b), rect(2.4, wide + 0.8, *a)], PVC, 1.2))
        stops = a + (b - a) * rng.uniform(0.2, 1, (4, 1)) + rng.normal(0, 0.5 * wide, (4, 2))
        item += hardware.screws(rng, stops, rng.choice([0, np.pi / 2, np.pi], 4))
        item.append(Solid([rect(0.8, 0.8, *p) for p in stops[:2]], STEEL, 0.3))
    bar = np.array([(start, off - gap - 1.5), (start, off + gap + 1.5)])
    item += [Solid([ribbon(bar, 1.8)], PVC, 1.5), Wire([bar + np.array((0.6, 0))], STEEL, 0.3)]
    return item


def suitcase(rng: Rng) -> Bag:
    """Hard or soft trolley: two frames, walls between them, rods, wheels, zips, screws, fittings on its seams."""
    w, h, r = rng.uniform(44, 64), rng.uniform(31, 42), rng.uniform(2.5, 6)
    hard = rng.random() < 0.55
    skin = PLASTIC if hard else SYNTHETIC
    skew = rng.normal(0, 0.6, 2) * (10, 4.5)
    near = rng.uniform(0.84, 1.0, 2)
    back, lid = rounded(w, h, r) - skew / 2, rounded(w * near[0], h * near[1], r) + skew / 2
    hull = cv2.convexHull(np.concatenate([back, lid]).astype(np.float32))[:, 0].astype(np.float64)
    middle = (hull.min(0) + hull.max(0)) / 2
    back, lid, hull = back - middle, lid - middle, hull - middle
    width, height = np.ptp(hull, axis=0)
    item: Item = [Solid([hull], skin, 0.5 if hard else 0.9), Solid([lid], skin, 0.3)]
    grain = float(rng.choice([0, np.pi / 2]) + rng.normal(0, 0.15))
    item.append(Soft(hull, SYNTHETIC, 2.4, int(rng.integers(4, 6)), 1.0, grain, rng.uniform(0.6, 1.2), 0.2))
    corners = [np.array([back[i], lid[i]]) for i in (2, 3, 8, 9, 14, 15, 20, 21)]
    item.append(Wire([*corners, np.concatenate([hull, hull[:1]])], EDGE, 0.4))
    for frame, share in ((back, rng.uniform(0.93, 0.975)), (lid, rng.uniform(0.93, 0.975))):
        centre = (frame.min(0) + frame.max(0)) / 2
        inner = centre + (frame - centre) * share
        if rng.random() < 0.6:
            metal = rng.random() < 0.1
            item.append(Solid([frame, inner], STEEL if metal else RIM, 0.14 if metal else rng.uniform(0.5, 1.8)))
        item.append(Wire([centre + (frame - centre) * k for k in (1.0, share, share - 0.02)], RIM, 0.35, True))
        if rng.random() < 0.45:
            wire = centre + (frame - centre) * rng.uniform(0.9, 1.02)
            item.append(Wire([wire], STEEL, rng.uniform(0.12, 0.3), True))
    between = (back + lid) / 2
    lining = rng.uniform(1.5, 4.0)
    item.append(Soft(between, SYNTHETIC, lining, int(rng.integers(4)), 1.0, grain + np.pi / 2, rng.uniform(0.5, 1.1)))
    if hard:
        ys = np.linspace(-0.42, 0.42, int(rng.integers(4, 10))) * height
        item.append(Wire([np.array([(-0.45 * width, y), (0.45 * width, y)]) for y in ys], EDGE, 0.5))
    item += hardware.zipper(between) if rng.random() < 0.6 else []
    item += _rods(rng, w, h, skew) if rng.random() < 0.93 else []
    kind = int(rng.random() < 0.45)
    sides = ((1, -1), (1, 1), *(() if rng.random() < 0.6 else ((-1, -1), (-1, 1))))
    for frame in (back, lid) if rng.random() < 0.3 else (back,):
        low, high = frame.min(0), frame.max(0)
        for sx, sy in sides:
            x, y = (high[0] + 1.6, low[1] + 4.0) if sx > 0 else (low[0] - 1.6, low[1] + 4.0)
            item += _wheel(rng, float(x), float(y if sy < 0 else high[1] - 4.0), sx, kind)
    y0 = float(lid[:, 1].min())
    grip = curve([(-6, y0), (-4, y0 - 1.8), (4, y0 - 1.8), (6, y0)], 14)
    item += [Wire([grip], PVC, 0.55), Wire([grip + np.array((0, 0.5))], PLASTIC, 0.55), Wire([grip], STEEL, 0.25)]
    for frame, n in ((back, int(rng.integers(10, 26))), (lid, int(rng.integers(8, 20)))):
        points, along = hardware.seam(rng, 0.98 * frame, n, 0.6)
        item += hardware.screws(rng, points, along + np.pi / 2, 0.8)
    item += hardware.rivets(rng, hardware.seam(rng, 0.93 * back, int(rng.integers(6, 16)), 0.8)[0])
    item += hardware.fittings(rng, *hardware.seam(rng, between, int(rng.integers(5, 12)), 0.7), scale=0.75)
    return Bag(item, 0.95 * between, (float(width) + 2 * MARGIN - 1, float(height) + MARGIN))
