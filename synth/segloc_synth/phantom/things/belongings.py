"""What people pack besides clothing and electronics: bottles, books, cosmetics, food, cutlery. Lengths in cm."""

import numpy as np

from segloc_synth.phantom.outlines import Rng, apply, blob, curve, ellipse, pose, profile, rect, ribbon, rounded
from segloc_synth.phantom.physics import (
    ALUMINIUM,
    BRASS,
    FOOD,
    GLASS,
    PAPER,
    PLASTIC,
    STEEL,
    WATER,
    WOOD,
)
from segloc_synth.phantom.shapes import DOME, Item, Lathe, Soft, Solid, Wire


def bottle(rng: Rng) -> Item:
    """Drink or shampoo in plastic, glass or a steel flask; partly full."""
    r, high = rng.uniform(2.5, 4.2), rng.uniform(14, 25)
    kind = rng.choice(4, p=[0.55, 0.2, 0.15, 0.1])
    waist = rng.uniform(0.82, 1.0)
    body = profile(
        (0, 0.85 * r),
        (0.4, r),
        (0.3 * high, r),
        (0.42 * high, r * waist),
        (0.55 * high, r),
        (0.72 * high, r),
        (0.88 * high, 1.4),
        (high, 1.3),
    )
    mu, wall = ((PLASTIC, 0.08), (PLASTIC, 0.25), (GLASS, 0.35), (STEEL, 0.045))[kind]
    item: Item = [Lathe(body, mu, wall=wall)]
    level = high * rng.uniform(0.2, 0.95)
    inside = np.array([p for p in body if p[0] < level] + [[level, np.interp(level, body[:, 0], body[:, 1])]])
    if rng.random() < 0.85:
        item.append(Lathe(inside - (0, wall), WATER))
    item.append(Lathe(profile((0, 1.6), (1.8, 1.55)), PLASTIC, (high - 1.6, 0), wall=0.25))
    if kind == 2:
        item.append(Solid([ellipse(1.0, 0.8 * r, 0.8, 0)], GLASS, 0.6))
    return item


def can(rng: Rng) -> Item:
    """Drink can, food tin or aerosol: thin metal with rims and contents."""
    steel = rng.random() < 0.4
    r, high = rng.uniform(2.6, 4.0), rng.uniform(8, 15)
    mu, wall = (STEEL, 0.02) if steel else (ALUMINIUM, 0.03)
    body = profile((0, 0.85 * r), (0.5, r), (high - 0.8, r), (high, 0.8 * r))
    item: Item = [
        Lathe(body, mu, wall=wall),
        Wire([np.array([(t, -0.9 * r), (t, 0.9 * r)]) for t in (0.15, high - 0.2)], mu, 0.25),
    ]
    item.append(Solid([ellipse(0.9 * rng.random() + 0.2, 0.85 * r, 0.5, 0)], mu, 0.08))
    if rng.random() < 0.8:
        item.append(
            Lathe(
                profile((0.4, 0.95 * r), (high * rng.uniform(0.5, 0.9), 0.95 * r)),
                WATER if rng.random() < 0.6 else FOOD,
            )
        )
    return item


def book(rng: Rng) -> Item:
    """Book, magazines or a stack of papers; a ring binder may hold them."""
    w, h = rng.uniform(14, 30), rng.uniform(10, 21)
    depth = rng.uniform(0.6, 3.2)
    item: Item = [Solid([rect(w, h)], PAPER, depth), Solid([rect(w + 0.5, h + 0.5)], PAPER, 0.3)]
    item.append(Solid([rect(0.8, h, -w / 2 + 0.4)], PAPER, 0.5 * depth))
    item.append(Soft(rect(w, h), PAPER, depth * 0.25, 5, 0.9, float(rng.choice([0, np.pi / 2])), 0.7, 0.1))
    if rng.random() < 0.35:
        rings = [ellipse(0.8, 0.35, -w / 2 + 0.5, float(y), 10) for y in np.arange(-h / 2 + 1, h / 2 - 0.5, 0.75)]
        item.append(Wire(rings, STEEL, 0.14, True))
    return item


def cosmetics(rng: Rng) -> Item:
    """Tube, jar, lipstick or powder compact."""
    kind = rng.integers(4)
    if kind == 0:
        length, w = rng.uniform(9, 16), rng.uniform(3.0, 4.5)
        shape = np.array([(0, -w / 2), (length, -w * 0.36), (length, w * 0.36), (0, w / 2)])
        item: Item = [Solid([shape], FOOD, rng.uniform(1.5, 3), 1.6), Solid([rect(0.5, w, 0.2)], PLASTIC, 0.3)]
        return [*item, Lathe(profile((0, w * 0.36), (2, w * 0.34)), PLASTIC, (length, 0), wall=0.4)]
    if kind == 1:
        r = rng.uniform(2.2, 3.8)
        return [
            Solid([ellipse(r, r), ellipse(r - 0.5, r - 0.5)], GLASS, 3.0, 0.3),
            Solid([ellipse(r - 0.5, r - 0.5)], FOOD, 2.5, 0.3),
            Solid([ellipse(r, r)], PLASTIC, 0.4),
        ]
    if kind == 2:
        return [
            Lathe(profile((0, 0.95), (4, 0.95), (4, 0.85), (7.5, 0.85)), ALUMINIUM, wall=0.08),
            Lathe(profile((2, 0.6), (5, 0.6), (6, 0.3)), FOOD),
        ]
    r = rng.uniform(3, 4.2)
    return [
        Solid([ellipse(r, r)], PLASTIC, 0.6, 0.3),
        Solid([ellipse(r - 0.4, r - 0.4)], GLASS, 0.25),
        Solid([ellipse(r - 0.8, r - 0.8)], (0.55, 0.36), 0.5),
        Solid([rect(1.2, 0.4, r)], STEEL, 0.3),
    ]


def fruit(rng: Rng) -> Item:
    """Fruit, bread or sweets: lumps of food in a bag."""
    item: Item = []
    for _ in range(int(rng.integers(1, 6))):
        r = rng.uniform(2.2, 4.2)
        outline = blob(rng, r, r * rng.uniform(0.6, 1), 0.06, 20, 2.1) + rng.normal(0, 4, 2)
        item.append(Solid([outline], FOOD, r * rng.uniform(1.1, 1.9), DOME))
    return item


def food(rng: Rng) -> Item:
    """A packet of rice, nuts or powder."""
    w, h = rng.uniform(9, 18), rng.uniform(7, 13)
    outline = blob(rng, w / 2, h / 2, 0.06, power=4)
    return [
        Soft(
            outline,
            FOOD,
            rng.uniform(1.5, 4),
            6,
            rng.uniform(0.2, 0.5),
            float(rng.uniform(0, np.pi)),
            rng.uniform(0.6, 1.5),
            0.5,
        )
    ]


def keys(rng: Rng) -> Item:
    """Keys on a ring with a fob."""
    item: Item = [Wire([ellipse(1.3, 1.3)], STEEL, 0.22, True)]
    for _ in range(int(rng.integers(2, 6))):
        a = rng.uniform(0, 2 * np.pi)
        to = pose(1.2 * np.cos(a), 1.2 * np.sin(a), a)
        bow = apply(to, ellipse(1.1, 1.1, 0.9))
        hole = apply(to, ellipse(0.35, 0.35, 0.4, 0, 8))
        blade = np.array(
            [
                (1.8, -0.4),
                (5.4, -0.4),
                (5.6, 0),
                (5.0, 0.35),
                (4.6, 0.1),
                (4.2, 0.4),
                (3.8, 0.1),
                (3.4, 0.4),
                (1.8, 0.4),
            ]
        )
        item.append(Solid([bow, hole], BRASS if rng.random() < 0.5 else STEEL, 0.2))
        item.append(Solid([apply(to, blade)], STEEL, 0.2))
    return item


def coins(rng: Rng) -> Item:
    """Loose change."""
    spots = rng.normal(0, 2.2, (int(rng.integers(2, 7)), 2))
    return [
        Solid([ellipse(float(r), float(r), float(p[0]), float(p[1]), 14)], BRASS, 0.18)
        for p, r in zip(spots, rng.uniform(0.8, 1.3, len(spots)), strict=True)
    ]


def cutlery(rng: Rng) -> Item:
    """Spoons and forks: slender steel, but no knives."""
    item: Item = []
    for i in range(int(rng.integers(1, 4))):
        y = 1.3 * i + rng.normal(0, 0.3)
        length = rng.uniform(15, 20)
        item.append(
            Solid([ribbon(np.array([(0, y), (0.6 * length, y), (0.72 * length, y)]), [1.7, 1.0, 0.6])], STEEL, 0.22)
        )
        if rng.random() < 0.5:
            item.append(Solid([ellipse(0.16 * length, 1.8, 0.85 * length, y)], STEEL, 0.16))
        else:
            item.append(Solid([rounded(0.12 * length, 2.2, 0.6, 0.76 * length, y)], STEEL, 0.2))
            item.append(
                Wire(
                    [np.array([(0.8 * length, y + d), (length, y + d)]) for d in (-0.8, -0.27, 0.27, 0.8)], STEEL, 0.25
                )
            )
    return item


def pens(rng: Rng) -> Item:
    """Pens, brushes and a tooth brush: thin rods that look a little like threats."""
    item: Item = []
    for _ in range(int(rng.integers(1, 4))):
        start, angle = rng.normal(0, 1.5, 2), rng.normal(0, 0.35)
        at = (float(start[0]) - 7, float(start[1]))
        item.append(Lathe(profile((0, 0.3), (12.5, 0.5), (14, 0.1)), PLASTIC, at, angle, 0.18))
        item.append(Lathe(profile((9, 0.2), (14.3, 0.12)), BRASS, at, angle))
        if rng.random() < 0.5:
            item.append(Lathe(profile((3, 0.3), (3.2, 0.32), (5.5, 0.3)), STEEL, at, angle, 0.06))
    return item


def glasses(rng: Rng) -> Item:
    """Spectacles in their case."""
    lens = [ellipse(2.5, 1.9, s * 3.1, 0, 18) for s in (-1, 1)]
    item: Item = [
        Solid(lens, PLASTIC, 0.3),
        Wire(lens, STEEL, 0.2, True),
        Wire([curve([(-0.7, -0.3), (0, -0.7), (0.7, -0.3)], 8)], STEEL, 0.22),
    ]
    item.append(Wire([np.array([(s * 5.6, -0.5), (s * 1.0, 2.6), (s * -5, 3.0)]) for s in (-1, 1)], STEEL, 0.16))
    return [*item, Solid([rounded(16, 6.5, 3)], PLASTIC, 0.4, 0.4)]


def pan(rng: Rng) -> Item:
    """Frying pan or metal bowl."""
    r = rng.uniform(8, 12)
    mu, depth = (STEEL, 0.12) if rng.random() < 0.4 else (ALUMINIUM, 0.45)
    item: Item = [
        Solid([ellipse(r, r, n=40)], mu, depth),
        Wire([ellipse(r, r, n=40), ellipse(r * 0.82, r * 0.82, n=40)], mu, 0.4, True),
    ]
    if rng.random() < 0.7:
        item += [
            Lathe(profile((0, 0.9), (14, 1.3), (17, 0.9)), PLASTIC, (r, 0)),
            Solid([rect(8, 1.2, r + 3)], STEEL, 0.2),
        ]
    return item


def rods(rng: Rng) -> Item:
    """A bundle of metal rods: tripod, tent poles, drumsticks of steel."""
    n, length = int(rng.integers(3, 7)), rng.uniform(16, 30)
    mu = STEEL if rng.random() < 0.6 else ALUMINIUM
    return [
        Lathe(
            profile((0, 0.5), (length * rng.uniform(0.8, 1), 0.42)),
            mu,
            (-length / 2, 1.05 * i - n / 2),
            rng.normal(0, 0.04),
            0.1,
        )
        for i in range(n)
    ]


def box(rng: Rng) -> Item:
    """Carton, tin box or wooden block."""
    w, h = rng.uniform(8, 20), rng.uniform(6, 14)
    mu, depth, wall = ((PAPER, 0.4, 4.0), (ALUMINIUM, 0.08, 1.2), (WOOD, 2.5, 2.0))[rng.integers(3)]
    return [
        Solid([rounded(w, h, 0.4)], mu, depth),
        Solid([rounded(w, h, 0.4), rounded(w - 0.3, h - 0.3, 0.3)], mu, wall),
    ]
