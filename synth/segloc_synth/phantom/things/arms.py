"""The other prohibited items: baton, power bank, gun, bullet, sprayer, handcuffs, lighter. Lengths in cm."""

import numpy as np

from segloc_synth.phantom.outlines import Rng, curve, ellipse, pose, profile, rect, ribbon, rounded
from segloc_synth.phantom.physics import (
    ALUMINIUM,
    BATTERY,
    BOARD,
    BRASS,
    PLASTIC,
    RUBBER,
    STEEL,
    WATER,
    WOOD,
    Mu,
)
from segloc_synth.phantom.shapes import Item, Lathe, Solid, Wire, moved


def baton(rng: Rng) -> Item:
    """Telescopic steel baton (drawn out or closed), side-handle baton or truncheon."""
    kind = rng.choice(4, p=[0.5, 0.2, 0.15, 0.15])
    if kind <= 1:
        grip = rng.uniform(16, 22)
        r = rng.uniform(1.2, 1.45)
        out = rng.uniform(11, 16) if kind == 0 else rng.uniform(0.4, 1.2)
        item: Item = [
            Lathe(profile((0, r), (0.4, r), (grip, r)), STEEL, (0, 0), wall=0.13),
            Lathe(profile((0.3, r + 0.22), (0.65 * grip, r + 0.26)), RUBBER, (0, 0), wall=0.3),
            Lathe(profile((0, r * 0.9), (1.2, r * 0.9)), ALUMINIUM, (0, 0)),
        ]
        turns = [np.array([(x, -r - 0.2), (x + 0.3, r + 0.2)]) for x in np.arange(0.8, 0.62 * grip, 0.8)]
        item.append(Wire(turns, RUBBER, 0.22))
        if kind == 1:  # the inner tubes lie within the handle
            item.append(Lathe(profile((0, 0.95), (grip - 3, 0.95)), STEEL, (2.5, 0), wall=0.12))
            item.append(Lathe(profile((0, 0.6), (grip - 4, 0.6)), STEEL, (3, 0), wall=0.12))
        else:
            item.append(Lathe(profile((0, 0.95), (out + 2, 0.95)), STEEL, (grip - 2, 0), wall=0.13))
            item.append(Lathe(profile((0, 0.65), (out + 1, 0.65)), STEEL, (grip + out - 1, 0), wall=0.14))
        end = grip + out * (2 if kind == 0 else 1)
        item.append(Lathe(profile((0, 0.6), (0.4, 0.95), (1.3, 0.95), (1.6, 0.5)), STEEL, (end - 0.6, 0)))
    else:
        end = rng.uniform(36, 50)
        r = rng.uniform(1.4, 1.7)
        mu = (RUBBER, WOOD, PLASTIC)[rng.integers(3)]
        item = [Lathe(profile((0, r * 0.7), (0.5, r), (end - 1, r), (end, r * 0.6)), mu)]
        if mu == RUBBER:
            item.append(Lathe(profile((0, 0.5), (end - 6, 0.5)), STEEL, (3, 0), wall=0.2))
        item += [Lathe(profile((0, r + 0.2), (0.7, r + 0.2)), mu, (0.26 * end + 1.1 * i, 0)) for i in range(2)]
        if kind == 2:
            knob = profile((0, 1.3), (8, 1.1), (11.5, 1.25), (12.3, 1.9), (13, 1.6))
            item.append(Lathe(knob, mu, (0.3 * end, 0), np.pi / 2))
    return moved(item, pose(-end / 2, 0, 0))


def powerbank(rng: Rng) -> Item:
    """Case with round or flat cells, a circuit board and sockets."""
    cells = int(rng.integers(1, 5))
    flat = rng.random() < 0.45
    if flat:
        w, h = rng.uniform(11, 15), rng.uniform(6.2, 7.5)
    else:
        w, h = rng.uniform(9.6, 11), 2.05 * cells + 0.7
    item: Item = [Solid([rounded(w, h, 0.9)], PLASTIC, 0.7, 0.3)]
    if rng.random() < 0.35:
        item.append(Solid([rounded(w, h, 0.9), rounded(w - 0.4, h - 0.4, 0.8)], ALUMINIUM, 1.2))
    x = -w / 2 + 0.7
    if flat:
        n = int(rng.integers(1, 3))
        size = (w - 3.4) if n == 1 else (w - 3.6) / 2
        for i in range(n):
            middle = x + size / 2 + i * (size + 0.25)
            item.append(Solid([rounded(size, h - 1.1, 0.3, middle)], BATTERY, rng.uniform(0.7, 1.0), 0.25))
            item.append(Solid([rounded(size - 0.2, 0.7, 0.1, middle, h / 2 - 1.0)], ALUMINIUM, 0.3))
    else:
        for i in range(cells):
            y = (i - (cells - 1) / 2) * 2.0
            can = profile((0, 0.9), (6.5, 0.9))
            item.append(Lathe(can, STEEL, (x, y), wall=0.035))
            item.append(Lathe(profile((0, 0.84), (6.1, 0.84)), BATTERY, (x + 0.2, y)))
            item.append(Solid([rect(0.3, 1.4, x + 6.35, y)], STEEL, 0.5))
            item.append(Solid([rect(0.15, 0.7, x - 0.05, y)], STEEL, 0.3))
    bx = w / 2 - 1.3
    item.append(Solid([rect(1.9, h - 0.9, bx)], BOARD, 0.16))
    chips = [
        rect(rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.6), bx + rng.uniform(-0.7, 0.5), y)
        for y in np.linspace(-h / 2 + 0.8, h / 2 - 0.8, 6)
    ]
    item.append(Solid(chips, BRASS, 0.1))
    item.append(Solid([rounded(0.9, 0.9, 0.1, bx - 0.3, rng.uniform(-0.3, 0.3) * h)], STEEL, 0.3))
    sockets = np.linspace(-h / 2 + 1.3, h / 2 - 1.3, 2 if h < 5 else 3)
    for y in sockets:
        item.append(Solid([rect(1.4, 1.3, w / 2 - 0.8, y), rect(1.1, 1.0, w / 2 - 0.7, y)], STEEL, 0.5))
        item.append(Solid([rect(1.3, 1.2, w / 2 - 0.8, y)], STEEL, 0.07))
    return item


def sprayer(rng: Rng) -> Item:
    """Pepper-spray can, aerosol or trigger bottle: liquid, valve spring, dip tube, nozzle."""
    kind = rng.choice(3, p=[0.45, 0.3, 0.25])
    r = (rng.uniform(1.6, 2.0), rng.uniform(2.3, 3.1), rng.uniform(2.8, 3.8))[kind]
    high = (rng.uniform(9, 12.5), rng.uniform(12, 17), rng.uniform(11, 16))[kind]
    level = high * rng.uniform(0.45, 0.85)
    if kind == 2:
        body = profile((0, r * 0.9), (0.5, r), (0.6 * high, r), (0.85 * high, r * 0.55), (high, 1.1))
        item: Item = [Lathe(body, PLASTIC, wall=0.15)]
    else:
        body = profile((0, r), (high - 1.6, r), (high - 0.5, r * 0.72), (high, 0.75 * r))
        metal = ALUMINIUM if rng.random() < 0.6 else STEEL
        item = [Lathe(body, metal, wall=0.07 if metal == ALUMINIUM else 0.025)]
        item.append(Wire([np.array([(x, -r), (x, r)]) for x in (0.1, high - 1.6)], metal, 0.2))
        item.append(Solid([ellipse(0.9, 0.85 * r, 0.9, 0)], metal, 0.06))
    inside = np.array([p for p in body if p[0] < level] + [[level, np.interp(level, body[:, 0], body[:, 1])]]) - (
        0,
        0.1,
    )
    item.append(Lathe(inside, WATER))
    tube = curve([(1.0, 0.5 * r), (0.4 * high, 0.3 * r), (high - 0.5, 0)], 14)
    item.append(Wire([tube], PLASTIC, 0.4))
    coil = np.array([(high - 2.0 + 0.16 * i, 0.38 * (-1) ** i) for i in range(12)])
    item.append(Wire([coil], STEEL, 0.13))
    item.append(Lathe(profile((high - 0.4, 0.8), (high + 0.4, 0.75)), STEEL, wall=0.12))
    item.append(Solid([ellipse(0.22, 0.22, high - 2.2, 0, 10)], STEEL, 0.4))
    if kind == 2:
        head = [
            (high, -1.2),
            (high + 1.5, -1.2),
            (high + 2.2, -2.2),
            (high + 3.6, -5.0),
            (high + 4.6, -5.0),
            (high + 4.8, 2.2),
            (high + 2.0, 2.4),
            (high, 1.3),
        ]
        item.append(Solid([np.array(head)], PLASTIC, 1.6, 0.5))
        item.append(
            Solid(
                [ribbon(curve([(high + 3.2, -2.6), (high + 1.4, -3.4), (high - 0.4, -3.0)], 10), 0.7)],
                PLASTIC,
                1.2,
                0.3,
            )
        )
        item.append(
            Wire([np.array([(high + 3.2 + 0.35 * (-1) ** i, -1.8 + 0.18 * i) for i in range(12)])], STEEL, 0.12)
        )
        item.append(Solid([rect(1.1, 0.8, high + 4.0, -5.3)], PLASTIC, 1.2))
    else:
        item.append(Lathe(profile((high, 0.75 * r), (high + 1.6, 0.72 * r), (high + 1.9, 0.4)), PLASTIC, wall=0.2))
        item.append(Solid([rect(1.2, 0.9, high + 1.1, 0)], PLASTIC, 0.9, 0.2))
        item.append(Solid([rect(0.35, 0.35, high + 1.4, 0.4)], BRASS, 0.2))
    return moved(item, pose(-high / 2, 0, 0))


def _cuff(rng: Rng, r: float, thick: float) -> Item:
    """One ring with its lock, which points to -x."""
    ring: Item = [Solid([ellipse(r, r * 0.92, n=32), ellipse(r - 0.95, (r - 0.95) * 0.92, n=32)], STEEL, thick, 0.2)]
    start = rng.uniform(-0.6, 0.2)
    teeth = [(float(np.cos(a)), float(np.sin(a))) for a in start + np.arange(12) * 0.11]
    ring.append(
        Wire(
            [np.array([(x * (r - 1.3), y * (r - 1.3)), (x * (r - 0.9), y * (r - 0.9))]) for x, y in teeth], STEEL, 0.16
        )
    )
    lock = curve(
        [
            (-r - 0.9, -1.1),
            (-r + 0.6, -2.2),
            (-r + 2.0, -2.0),
            (-r + 1.7, 0.0),
            (-r + 2.0, 2.0),
            (-r + 0.6, 2.2),
            (-r - 0.9, 1.1),
        ],
        22,
        True,
    )
    ring.append(Solid([lock, ellipse(0.28, 0.28, -r + 0.4, 0.7, 8)], STEEL, thick * 0.9, 0.3))
    ring.append(Solid([ellipse(0.3, 0.3, -r + 0.9, -1.0, 8)], STEEL, 0.5))
    return ring


def handcuffs(rng: Rng) -> Item:
    """Two ratcheted steel rings with lock boxes, joined by a chain or a hinge."""
    r = rng.uniform(3.6, 4.2)
    thick = rng.uniform(0.5, 0.9)
    gap = rng.uniform(1.6, 2.6)
    bend = rng.uniform(-0.9, 0.9)
    tilt = rng.uniform(0.75, 1.0)
    left = moved(_cuff(rng, r, thick), pose(-gap - r, 0, np.pi, tilt))
    right = moved(_cuff(rng, r, thick), pose(gap + (r + 0.5) * np.cos(bend), (r + 0.5) * np.sin(bend), bend))
    item = left + right
    if rng.random() < 0.7:
        n = 3
        for i in range(n):
            x = -gap + (2 * gap + 0.4) * (i + 0.5) / n - 0.3
            link = ellipse(0.85, 0.6 if i % 2 else 0.28, x, 0, 16)
            item.append(Wire([link], STEEL, 0.38, True))
    else:
        item += [
            Solid([rounded(2 * gap, 1.9, 0.3)], STEEL, 0.5),
            Solid([rect(0.5, 3.0, s * gap * 0.5) for s in (-1, 1)], STEEL, 0.5),
        ]
    return item


def lighter(rng: Rng) -> Item:
    """Gas lighter (liquid, partition, valve, metal top with wheel) or a steel petrol lighter with a lid."""
    if rng.random() < 0.3:
        item: Item = [
            Solid([rounded(5.7, 3.6, 0.5)], STEEL, 0.12),
            Solid([rounded(5.7, 3.6, 0.5), rounded(5.3, 3.2, 0.4)], STEEL, 0.7),
        ]
        item.append(Solid([rounded(3.2, 3.0, 0.3, -1.0)], CLOTH_WET, 1.0))
        item.append(
            Solid(
                [rect(1.7, 2.2, 1.6, -0.2), ellipse(0.16, 0.16, 1.4, -0.6, 8), ellipse(0.16, 0.16, 1.9, -0.6, 8)],
                STEEL,
                0.12,
            )
        )
        item.append(Solid([ellipse(0.5, 0.5, 1.7, 0.7)], STEEL, 0.5))
        item.append(Wire([np.array([(0.85, -1.8), (0.85, 1.8)])], STEEL, 0.12))
        item.append(Wire([np.array([(-2.3 + 0.13 * i, 0.9 + 0.22 * (-1) ** i) for i in range(18)])], STEEL, 0.09))
        return item
    length, wide = rng.uniform(7.2, 8.3), rng.uniform(2.1, 2.6)
    x = length / 2
    body = rounded(length - 1.5, wide, 0.5, -0.75)
    item = [
        Solid([body], PLASTIC, 0.45, 0.2),
        Solid([body, rounded(length - 2.0, wide - 0.5, 0.4, -0.75)], PLASTIC, 0.7),
    ]
    full = rng.uniform(0.35, 0.85) * (length - 2.2)
    item.append(Solid([rounded(full, wide - 0.5, 0.3, -x + 0.3 + full / 2)], WATER, 0.8, 0.3))
    item.append(Solid([rect(length - 2.4, 0.14, -0.7)], PLASTIC, 0.9))
    item.append(Wire([np.array([(-x + 0.6, 0.3), (x - 2.2, 0.3)])], PLASTIC, 0.22))
    item.append(Lathe(profile((0, 0.32), (1.5, 0.3), (1.8, 0.14)), BRASS, (x - 2.4, 0.3)))
    cap = [
        (x - 1.9, -0.5 * wide),
        (x - 0.3, -0.48 * wide),
        (x - 0.1, 0.1 * wide),
        (x - 0.9, 0.5 * wide),
        (x - 1.9, 0.5 * wide),
    ]
    item.append(Solid([np.array(cap), ellipse(0.17, 0.17, x - 0.7, -0.25 * wide, 8)], STEEL, 0.16))
    item.append(Solid([ellipse(0.48, 0.48, x - 0.75, 0.28 * wide)], STEEL, 0.5))
    item.append(Wire([np.array([(x - 1.7 + 0.1 * i, 0.36 * wide + 0.14 * (-1) ** i) for i in range(7)])], STEEL, 0.1))
    item.append(Wire([np.array([(x - 1.9, -0.5 * wide), (x - 1.9, 0.5 * wide)])], STEEL, 0.14))
    return item


CLOTH_WET: Mu = (0.16, 0.13)  # petrol-soaked wadding
