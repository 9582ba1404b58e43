"""Firearms and ammunition. Lengths in cm."""

import numpy as np

from segloc_synth.phantom.outlines import (
    Rng,
    curve,
    pose,
    profile,
    rect,
    ribbon,
)
from segloc_synth.phantom.physics import (
    BRASS,
    LEAD,
    PLASTIC,
    RUBBER,
    STEEL,
    WOOD,
    Mu,
)
from segloc_synth.phantom.shapes import Item, Lathe, Solid, Wire, moved


def _pistol(rng: Rng) -> Item:
    length, high = rng.uniform(15, 20), rng.uniform(2.3, 2.8)
    grip, lean = rng.uniform(8.5, 10.5), rng.uniform(0.15, 0.35)
    x = length / 2
    slide = [(-x, -high), (x - 0.3, -high), (x, -high + 0.4), (x, 0), (-x + 0.6, 0), (-x, -0.4)]
    item: Item = [Solid([np.array(slide)], STEEL, 0.5, 0.25)]
    item.append(Lathe(profile((0, 0.75), (length - 4, 0.65)), STEEL, (-x + 4, -0.62 * high), wall=0.18))
    item.append(Solid([rect(2.6, 0.9, -x + 6.2, -0.7 * high)], STEEL, 0.5))
    polymer = rng.random() < 0.5
    frame_mu: Mu = PLASTIC if polymer else STEEL
    frame = [(-x - 0.5, 0), (x - 1.5, 0), (x - 1.6, 1.1), (0.1 * x, 1.3), (-0.35 * x, 1.5), (-x + 1, 1.3)]
    item.append(Solid([np.array(frame)], frame_mu, 2.4 if polymer else 0.45, 0.4))
    a, b = -x + 0.2, -x + 5.0
    shift = -lean * grip
    handle = np.array(
        [
            (a, 0.6),
            (b, 0.6),
            (b + shift - 0.3, grip),
            (a + shift + 0.2, grip + 0.3),
            (a + 0.5 * shift - 0.3, 0.5 * grip),
        ]
    )
    item.append(Solid([handle], frame_mu if polymer else STEEL, 2.6 if polymer else 0.45, 0.7))
    if not polymer:
        item.append(Solid([handle], (PLASTIC, WOOD)[rng.integers(2)], 1.4, 0.5))
    magazine = ribbon(np.array([(0.5 * (a + b), 0.2), (0.5 * (a + b) + shift, grip + 0.4)]), 3.1)
    item.append(Solid([magazine], STEEL, 0.22))
    if rng.random() < 0.7:
        for i in range(int(rng.integers(3, 8))):
            f = 0.12 + 0.11 * i
            start = (0.5 * (a + b) + shift * f - 1.2, 0.4 + grip * f)
            item.append(Lathe(profile((0, 0.45), (1.7, 0.45)), BRASS, start, -0.1, wall=0.06))
            item.append(Lathe(profile((1.5, 0.45), (2.3, 0.35), (2.7, 0.05)), LEAD, start, -0.1))
    guard = curve([(b - 0.3, 1.2), (b + 0.2, 3.3), (b + 2.2, 3.6), (b + 3.6, 2.6), (b + 3.8, 1.1)], 20)
    item.append(Wire([guard], STEEL, 0.5))
    item.append(Wire([curve([(b + 1.6, 1.2), (b + 1.9, 2.2), (b + 1.4, 3.0)], 8)], STEEL, 0.45))
    item.append(Solid([rect(0.5, 0.5, x - 0.9, -high - 0.2), rect(0.8, 0.5, -x + 0.8, -high - 0.2)], STEEL, 0.5))
    item.append(Solid([np.array([(-x - 0.9, -0.9), (-x + 0.2, -0.3), (-x + 0.3, 0.9), (-x - 0.4, 0.4)])], STEEL, 0.7))
    return moved(item, pose(0.1 * x, -0.3 * grip, 0))


def _revolver(rng: Rng) -> Item:
    barrel = rng.uniform(6, 15)
    item: Item = [Lathe(profile((0, 0.95), (barrel, 0.85)), STEEL, (2, -1.4), wall=0.4)]
    item.append(Solid([np.array([(2, -2.5), (2 + barrel, -2.35), (2 + barrel, -1.9), (2, -1.9)])], STEEL, 0.7))
    item.append(Solid([rect(0.5, 0.7, 1.6 + barrel, -2.6)], STEEL, 0.4))
    item.append(Lathe(profile((0, 0.35), (0.7 * barrel, 0.35)), STEEL, (2, -0.3)))
    frame = [(-3.2, -2.6), (2.6, -2.6), (2.7, 1.2), (1.5, 1.4), (-1.6, 1.6), (-3.6, 1.8), (-4.4, 0.2)]
    window = rect(4.0, 2.9, 0, -0.6)
    item.append(Solid([np.array(frame), window], STEEL, 1.4, 0.3))
    item.append(Lathe(profile((-1.9, 1.6), (-1.7, 1.75), (1.8, 1.75), (1.9, 1.5)), STEEL, (0, -0.6), wall=0.45))
    flutes = [np.array([(-0.6, y), (1.9, y)]) for y in (-1.9, -1.0, -0.1, 0.7)]
    item.append(Wire(flutes, STEEL, 0.4))
    for y in (-1.6, -0.6, 0.4):
        if rng.random() < 0.6:
            item.append(Lathe(profile((-1.9, 0.4), (0.6, 0.4)), BRASS, (0, y), wall=0.08))
            item.append(Lathe(profile((0.4, 0.4), (1.4, 0.2)), LEAD, (0, y)))
    grip = curve([(-3.0, 0.2), (-4.6, 2.5), (-5.6, 5.2), (-6.2, 8.6)], 18)
    item.append(Solid([ribbon(grip, [2.8, 2.6, 3.2, 4.0])], (WOOD, PLASTIC, RUBBER)[rng.integers(3)], 2.8, 1.0))
    item.append(Solid([ribbon(grip, [2.0, 1.7, 2.2, 2.6]), ribbon(grip[3:-1], [1.1, 0.8, 1.3, 1.6])], STEEL, 1.0))
    item.append(Wire([curve([(-2.2, 1.5), (-1.4, 3.7), (0.4, 3.9), (1.5, 2.8), (1.6, 1.3)], 18)], STEEL, 0.5))
    item.append(Wire([curve([(-0.6, 1.4), (-0.2, 2.3), (-0.7, 3.2)], 8)], STEEL, 0.45))
    item.append(Solid([np.array([(-4.0, -0.6), (-3.2, -2.4), (-4.6, -3.6), (-5.0, -3.2), (-4.3, -2.3)])], STEEL, 0.8))
    return moved(item, pose(-barrel / 4, -1.5, 0))


def gun(rng: Rng) -> Item:
    """Pistol or revolver, some loaded."""
    return _pistol(rng) if rng.random() < 0.6 else _revolver(rng)


def bullet(rng: Rng) -> Item:
    """A cartridge: brass case with powder, jacketed lead bullet; rifle rounds are the most common."""
    rifle = rng.random() < 0.7
    length = rng.uniform(5.6, 7.8) if rifle else rng.uniform(3.0, 4.2)
    r = rng.uniform(0.5, 0.62) if rifle else rng.uniform(0.5, 0.6)
    case = length * (0.66 if rifle else 0.64)
    neck = 0.66 * r if rifle else r
    body = profile(
        (0, r * 1.06),
        (0.15, r * 1.06),
        (0.2, r * 0.85),
        (0.4, r),
        (0.8 * case, r * 0.96),
        (0.9 * case, neck),
        (case, neck),
    )
    tip = profile(
        (0, neck), (0.35 * (length - case), neck), (0.75 * (length - case), neck * 0.6), (length - case, 0.06)
    )
    item: Item = [
        Lathe(body, BRASS, (0, 0), wall=0.09),
        Lathe(profile((0, r), (0.35, r)), BRASS),
        Lathe(profile((0.4, r * 0.85), (0.78 * case, r * 0.85)), (0.3, 0.22)),
        Lathe(tip, BRASS, (case, 0), wall=0.08),
        Lathe(
            profile((-0.8, neck * 0.8), (0.3 * (length - case), neck * 0.8), (0.85 * (length - case), 0.1)),
            LEAD if rng.random() < 0.7 else STEEL,
            (case, 0),
        ),
    ]
    return moved(item, pose(-length / 2, 0, 0))
