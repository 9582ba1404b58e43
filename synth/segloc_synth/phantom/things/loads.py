"""Bags and cartons that hold nearly one thing only: bottles, a machine, a stack of cloth or paper. Lengths in cm."""

from itertools import pairwise

import numpy as np

from segloc_synth.phantom.outlines import Rng, blob, curve, ellipse, pose, rect, rounded
from segloc_synth.phantom.physics import ALUMINIUM, BRASS, CLOTH, PAPER, PLASTIC, STEEL, Mu
from segloc_synth.phantom.shapes import Bag, Item, Soft, Solid, Wire, bounds, moved
from segloc_synth.phantom.things import hardware
from segloc_synth.phantom.things.belongings import bottle, can, cosmetics


def _carton(rng: Rng, w: float, h: float, depth: float) -> Item:
    """Box of corrugated paper with its flaps, in perspective."""
    slip = rng.normal(0, 1.6, 2)
    walls = [rect(w, h), rect(w * 0.96, h * 0.96) + slip]
    item: Item = [Solid([walls[0]], PAPER, depth), Solid([walls[1]], PAPER, 0.5 * depth)]
    item.append(Soft(walls[0], PAPER, 2 * depth, 4 + int(rng.integers(2)), 0.4, 0.0, 0.4, 0.1))
    edges = [np.array([walls[0][i], walls[1][i]]) for i in range(4)]
    return [*item, Wire(walls, PAPER, 0.5, True), Wire([*edges, np.array([(-w / 2, 0), (w / 2, 0)])], PAPER, 0.5)]


def rank(rng: Rng, columns: int, rows: int) -> Item:
    """The same thing many times, side by side: bottles, tins or jars, lying or upright."""
    if rng.random() < 0.4:  # upright: rims and contents seen from above
        r, wall = rng.uniform(2.4, 4.2), rng.uniform(0.15, 0.5)
        spots = [(2.15 * r * (i + 0.5 * (j % 2)), 2.05 * r * j) for i in range(columns) for j in range(rows)]
        lean = rng.normal(0, 0.5, 2)
        mu: Mu = (low := rng.uniform(0.16, 0.3), low / rng.uniform(1.22, 1.55))
        inside = [ellipse(r - wall, r - wall, x, y, 18) for x, y in spots]
        rims = [ellipse(r, r, x, y, 18) for x, y in spots] + [c + lean for c in inside]
        return [Solid(inside, mu, rng.uniform(3, 7), 0.8), Wire(rims, ALUMINIUM, 0.35, True)]
    one = (bottle, can, cosmetics)[rng.choice(3, p=[0.5, 0.35, 0.15])](rng)
    x0, y0, x1, y1 = bounds(one)
    one = moved(one, pose(-(x0 + x1) / 2, -(y0 + y1) / 2, 0))
    columns, rows = min(columns, int(34 / (x1 - x0)) + 1), min(rows, int(26 / (y1 - y0)) + 1)
    item: Item = []
    for i in range(columns * rows):
        x, y = (x1 - x0 + 0.6) * (i % columns), (y1 - y0 + 0.3) * (i // columns)
        turned = pose(0, 0, np.pi if rng.random() < 0.3 else 0)
        item += moved(moved(one, turned), pose(x + rng.normal(0, 0.3), y, float(rng.normal(0, 0.03))))
    return item


def provisions(rng: Rng) -> Bag:
    """A carton or a bag full of bottles, tins or jars."""
    goods = rank(rng, int(rng.integers(3, 6)), int(rng.integers(3, 7)))
    x0, y0, x1, y1 = bounds(goods)
    w, h = x1 - x0 + 3, y1 - y0 + 3
    inside = rounded(w, h, 2)
    item = _carton(rng, w, h, 0.8)
    item += moved(goods, pose(-(x0 + x1) / 2, -(y0 + y1) / 2, 0))
    return Bag(item, inside, (w + 4, h + 4))


def machine(rng: Rng) -> Bag:
    """An appliance of sheet steel in its carton: ribs, black cores, a coiled cable, boards, screws."""
    w, h = rng.uniform(30, 50), rng.uniform(24, 36)
    a, b = rng.uniform(0.7, 0.85), rng.uniform(0.65, 0.85)
    case = rounded(w * a, h * b, rng.uniform(0.5, 4), 0.03 * w)
    item = _carton(rng, w, h, 0.7)
    steel = rng.uniform(0.16, 0.3)
    item += [Solid([case], STEEL, steel), Wire([case, 0.93 * case], STEEL, 0.45, True)]
    parts = rng.uniform(-0.5, 0.5, (14, 2)) * (0.62 * w, 0.55 * h)
    sizes = rng.uniform(2, 13, (14, 2))
    plates = [rect(a, b, x, y) for (x, y), (a, b) in zip(parts.tolist(), sizes.tolist(), strict=True)]
    item += [Solid(plates[:7], ALUMINIUM, 0.6), Solid(plates[7:11], STEEL, 0.2)]
    for x, y in parts[11:]:  # motors, transformers, magnets
        item.append(
            Solid([blob(rng, rng.uniform(1.5, 4), rng.uniform(1.5, 4), 0.15) + np.array((x, y))], STEEL, 2.2, 0.5)
        )
        item.append(Wire([ellipse(2.2, 2.2, x, y), ellipse(4.2, 4.2, x, y)], BRASS, 0.3, True))
    grid = rng.uniform(-0.5, 0.5, int(rng.integers(8, 20)))
    item.append(Wire([np.array([(x * w * a, -0.3 * h), (x * w * a, 0.3 * h)]) for x in grid], STEEL, 0.22))
    item.append(Wire([np.array([(-0.3 * w, y * h * b), (0.3 * w, y * h * b)]) for y in grid[::2]], STEEL, 0.22))
    t = np.linspace(0, 2 * np.pi * rng.integers(5, 10), 110)
    coil = np.column_stack([np.cos(t) * (4 + np.sin(0.31 * t)), np.sin(t) * (7 + 2 * np.sin(0.23 * t))])
    item.append(Wire([coil + np.array((-0.3 * w, rng.normal(0, 2)))], BRASS, rng.uniform(0.4, 0.8)))
    item += hardware.screws(rng, *hardware.anywhere(rng, case, 24), 0.8)
    item += hardware.fittings(rng, *hardware.anywhere(rng, case, 10), hardware.LOOSE)
    return Bag(item, case, (w + 3, h + 3))


def bale(rng: Rng) -> Bag:
    """Cloth or paper in stacks, seen from the side: long streaks, hardly any metal."""
    w, h = rng.uniform(36, 56), rng.uniform(24, 38)
    item: Item = [Solid([rect(w, h)], PLASTIC, 0.3)]
    cuts = np.sort(np.concatenate([[-h / 2, h / 2], rng.uniform(-h / 2, h / 2, int(rng.integers(4, 11)))]))
    for y0, y1 in pairwise(cuts):
        length = w * rng.uniform(0.75, 0.98)
        stack = rounded(length, y1 - y0, 0.6, rng.normal(0, 0.02) * w, (y0 + y1) / 2)
        mu, depth = (CLOTH, rng.uniform(7, 16)) if rng.random() < 0.7 else (PAPER, rng.uniform(3, 7))
        item += [Soft(stack, mu, depth, 4 + k, 0.7, 0.0, rng.uniform(0.35, 0.8), 0.2) for k in range(2)]
    folds = [curve(rng.normal(0, 1, (3, 2)) * (w / 3, h / 3), 12) for _ in range(6)]
    item.append(Wire(folds, PLASTIC, 0.4))
    item += hardware.fittings(rng, *hardware.anywhere(rng, rect(w, h), int(rng.integers(0, 5))))
    return Bag(item, rect(0.9 * w, 0.9 * h), (w + 3, h + 3))
