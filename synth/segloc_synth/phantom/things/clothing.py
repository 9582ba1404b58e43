"""Clothes, shoes and what goes with them. Lengths in cm."""

import numpy as np

from segloc_synth.phantom.outlines import (
    Rng,
    blob,
    curve,
    ellipse,
    profile,
    ribbon,
    rounded,
)
from segloc_synth.phantom.physics import (
    BRASS,
    CLOTH,
    LEATHER,
    PLASTIC,
    PVC,
    RUBBER,
    STEEL,
    SYNTHETIC,
)
from segloc_synth.phantom.shapes import DOME, Item, Lathe, Soft, Solid, Wire


def clothes(rng: Rng) -> Item:
    """A folded garment: layers of cloth with creases, a seam, sometimes buttons or a zip."""
    w, h = rng.uniform(18, 34), rng.uniform(14, 26)
    mu = CLOTH if rng.random() < 0.7 else SYNTHETIC
    turn = float(rng.uniform(0, np.pi))
    item: Item = []
    for i in range(int(rng.integers(1, 4))):
        outline = blob(rng, w / 2 * rng.uniform(0.7, 1), h / 2 * rng.uniform(0.7, 1), 0.09, power=4)
        outline = outline + rng.normal(0, 1.5, 2)
        depth = rng.uniform(1.2, 4.0)
        item.append(
            Soft(outline, mu, depth, int(rng.integers(6)), rng.uniform(0.2, 0.5), turn + 0.3 * i, rng.uniform(0.7, 1.6))
        )
    seams = [curve(rng.normal(0, 1, (4, 2)) * (w / 5, h / 5), 14) for _ in range(3)]
    item.append(Wire(seams, mu, 0.9))
    if rng.random() < 0.3:
        item += _buttons(rng, w * 0.7)
    return item


def _buttons(rng: Rng, length: float) -> Item:
    spots = [
        (float(x), float(rng.normal(0, 0.3))) for x in np.linspace(-length / 2, length / 2, int(rng.integers(3, 6)))
    ]
    metal = rng.random() < 0.6
    return [
        Solid(
            [ellipse(0.75, 0.75, *s, n=12) for s in spots] + [ellipse(0.3, 0.3, *s, n=8) for s in spots],
            STEEL if metal else PVC,
            0.09 if metal else 0.4,
        )
    ]


def roll(rng: Rng) -> Item:
    """A rolled towel or jumper."""
    length, r = rng.uniform(18, 32), rng.uniform(3.5, 6.5)
    outline = blob(rng, length / 2, r, 0.05, power=5)
    item: Item = [Soft(outline, CLOTH, r * 1.6, int(rng.integers(4, 6)), 0.3, 0, 0.8)]
    item.append(Solid([outline], CLOTH, r, DOME))
    return item


def shoe(rng: Rng) -> Item:
    """Sole of rubber with a heel, upper of leather, steel shank and eyelets."""
    length = rng.uniform(24, 30)
    w = rng.uniform(8, 10)
    x = length / 2
    line = curve([(-x, 0), (-0.5 * x, 0.2), (0, -0.3), (0.5 * x, -0.4), (x, 0.2)], 30)
    sole = ribbon(line, [0.45 * w, 0.72 * w, 0.62 * w, 0.66 * w, w, 0.95 * w, 0.5 * w])
    item: Item = [Solid([sole], RUBBER, rng.uniform(0.9, 1.8), 0.6)]
    item.append(Solid([ribbon(line[:10], [0.4 * w, 0.7 * w, 0.68 * w])], RUBBER, rng.uniform(0.5, 2.0), 0.5))
    item.append(Soft(sole, LEATHER, rng.uniform(0.5, 1.0), 7, 0.5, 0, 2))
    grooves = [
        np.array([(t, -0.3 * w), (t + 0.3, 0.3 * w)]) for t in np.arange(-0.75 * x, 0.8 * x, rng.uniform(0.9, 1.6))
    ]
    item.append(Wire(grooves, RUBBER, 0.5))
    if rng.random() < 0.5:
        item.append(Solid([rounded(9, 1.2, 0.5, -0.25 * x)], STEEL, 0.1))
    eyelets = [ellipse(0.3, 0.3, 0.1 * x + 1.2 * i, s * 1.6, 8) for i in range(4) for s in (-1, 1)]
    item.append(Solid(eyelets, BRASS, 0.08))
    return item


def umbrella(rng: Rng) -> Item:
    """Folded umbrella: shaft, bundle of ribs, cloth, handle."""
    length = rng.uniform(24, 42)
    item: Item = [Lathe(profile((0, 0.45), (length - 5, 0.45)), STEEL, wall=0.05)]
    ribs = [np.array([(2, y), (0.6 * length, 0.6 * y), (length - 7, 1.3 * y)]) for y in np.linspace(-1.6, 1.6, 7)]
    item.append(Wire(ribs, STEEL, 0.17))
    item.append(
        Soft(
            ribbon(np.array([(1.0, 0), (length / 2, 0), (length - 6.0, 0)]), [2.6, 4.4, 4.8]),
            SYNTHETIC,
            2.5,
            4,
            0.5,
            0,
            0.8,
        )
    )
    item.append(Lathe(profile((0, 1.2), (2, 1.5), (6, 1.2)), PLASTIC, (length - 6, 0)))
    return item


def belt(rng: Rng) -> Item:
    """Coiled leather belt, on edge or flat, with its buckle."""
    a = np.linspace(0, 2 * np.pi * rng.uniform(1.5, 3.2), 60)
    r = 3.2 + 0.42 * a
    line = np.column_stack([r * np.cos(a), r * np.sin(a) * rng.uniform(0.7, 1)])
    item: Item = [Wire([line], LEATHER, 0.5), Wire([line], LEATHER, 0.4)]
    x, y = line[-1]
    item.append(Solid([rounded(4.4, 3.8, 0.5, x, y), rounded(3.3, 2.6, 0.3, x, y)], STEEL, 0.35))
    item.append(Wire([np.array([(x - 1.9, y), (x + 1.9, y)])], STEEL, 0.3))
    return item


def hanger(rng: Rng) -> Item:
    """Clothes hanger with a hook."""
    shape = np.array([(0, -4.0), (19, 4.5), (18, 6), (-18, 6), (-19, 4.5)])
    hook = curve([(0, -4), (0.3, -6.5), (2.6, -8), (1.4, -10.3), (-1.6, -9.4)], 16)
    mu, width = (STEEL, 0.28) if rng.random() < 0.5 else (PLASTIC, 1.2)
    return [Wire([shape], mu, width, True), Wire([hook], STEEL, 0.32)]


def filling(rng: Rng, mixed: bool, w: float, h: float) -> Item:
    """A garment as it fills a suitcase: deeper, tucked in, with sharper folds; `mixed`: padded, lined, printed."""
    low = rng.uniform(0.04, 0.065)  # cloth, with buttons, prints and paddings that shift it towards the mixed materials
    mu = (low, low / (1.2 + 0.4 * (rng.beta(1.2, 1.2) if mixed else rng.beta(0.5, 1.7))))
    turn = float(rng.choice([0, np.pi / 2]) + rng.normal(0, 0.2))
    item: Item = []
    for i in range(int(rng.integers(1, 3))):
        outline = blob(rng, w / 2, h / 2, 0.08, power=rng.uniform(3, 6)) + rng.normal(0, 1.0, 2)
        depth, texture, contrast = rng.uniform(1.5, 4.5), int(rng.integers(7)), rng.uniform(0.5, 1.0)
        item.append(Soft(outline, mu, depth, texture, contrast, turn + 0.2 * i, rng.uniform(0.6, 1.4)))
    folds = curve(rng.normal(0, 1, (3, 2)) * (w / 3, h / 3), 10)  # crumpled: thin creases about side by side
    folds = folds + rng.normal(0, 1, (14, 1, 2)) * (w / 5, h / 5) + np.cumsum(rng.normal(0, 0.35, (14, 10, 2)), 1)
    return [*item, Wire([*folds[:9]], PLASTIC, 0.3), Wire([*folds[9:]], PLASTIC, 0.6)]
