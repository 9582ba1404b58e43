"""Prohibited tools: pliers, hammer, scissors, wrench, knife. Lengths in cm, long axis along x."""

import numpy as np

from segloc_synth.phantom.outlines import Points, Rng, apply, curve, ellipse, pose, profile, rect, ribbon, rounded
from segloc_synth.phantom.physics import ALUMINIUM, BRASS, PLASTIC, RUBBER, STEEL, WOOD, Mu
from segloc_synth.phantom.shapes import DOME, Item, Lathe, Solid, Wire, moved

_TURN = pose(0, 0, 0, 1, True)  # mirror image: the other half of scissors and pliers


def pliers(rng: Rng) -> Item:
    """Combination, needle-nose or cutting pliers: two crossing steel halves, most with plastic sleeves."""
    kind = rng.integers(3)  # combination, needle-nose, diagonal cutter
    jaw = (rng.uniform(3.6, 4.6), rng.uniform(5.5, 7.5), rng.uniform(2.2, 2.8))[kind]
    grip = rng.uniform(9.5, 12.5)
    spread = rng.uniform(2.0, 4.2)
    open_by = rng.uniform(0.02, 0.3)
    thick = rng.uniform(0.8, 1.1)
    tip = (0.75, 0.3, 0.5)[kind]
    nose = curve([(-0.9, 0.1), (0.6, 1.25), (jaw * 0.55, 1.0 if kind != 1 else 0.75), (jaw, tip)], 14)
    half = np.concatenate([nose, [(jaw, 0.04), (jaw * 0.5, 0.05), (0.3, -0.3), (-0.9, -0.8)]])
    arm = curve([(-0.2, 0.6), (-1.7, -0.7), (-0.45 * grip, -0.5 * spread - 0.5), (-grip, -0.5 * spread)], 24)
    steel = Solid([half], STEEL, thick * 0.55, 0.4)
    shank = Solid([ribbon(arm, [1.1, 0.85, 0.7, 0.6])], STEEL, thick * 0.45, 0.3)
    side: Item = [steel, shank]
    if kind == 0:
        bite = [np.array([(x, 0.0), (x, 0.28)]) for x in np.arange(jaw * 0.55, jaw - 0.1, 0.22)]
        side.append(Wire(bite, STEEL, 0.09))
    if rng.random() < 0.8:
        sleeve = arm[7:]
        side.append(
            Solid([ribbon(sleeve, [1.25, 1.45, 1.3, 1.15])], RUBBER if rng.random() < 0.5 else PLASTIC, 1.4, 0.5)
        )
    half_open = pose(0, 0, open_by)
    item = moved(side, half_open) + moved(moved(side, half_open), _TURN)
    return [*item, Solid([ellipse(0.75, 0.75)], STEEL, thick * 0.5, 0.3)]


def hammer(rng: Rng) -> Item:
    """Claw, ball-peen or square hammer with a wooden, steel or fibre handle."""
    length = rng.uniform(24, 34)
    head = rng.uniform(9, 12.5)
    grip = rng.integers(3)  # wood, steel tube with rubber, fibre with rubber
    x = length / 2
    face = rng.uniform(1.2, 1.5)
    item: Item = []
    if grip == 0:
        r = rng.uniform(1.2, 1.6)
        shape = profile((0, r * 0.8), (3, r), (0.45 * length, r * 0.75), (0.8 * length, r * 0.6), (length, r * 0.65))
        item.append(Lathe(shape, WOOD, (-x, 0)))
    else:
        core = rng.uniform(0.6, 0.8)
        mu: Mu = STEEL if grip == 1 else (1.0, 0.6)
        wall = 0.16 if grip == 1 else 0.0
        item.append(Lathe(profile((0, core), (length, core)), mu, (-x + 1, 0), wall=wall))
        item.append(Lathe(profile((0, 1.3), (1, 1.5), (6, 1.3), (9, 1.5), (10.5, 1.0)), RUBBER, (-x, 0)))
    kind = rng.integers(3)
    neck = [(x - 1.0, -1.0), (x + 1.1, -1.0), (x + 1.1, 1.0), (x - 1.0, 1.0)]
    item.append(Solid([np.array(neck)], STEEL, 2.4, 0.5))
    poll = [(x - 0.75, 0.9), (x - 0.7, 0.5 * head - 1.6), (x - face, 0.5 * head - 1.5), (x - face, 0.5 * head)]
    poll += [(x + face, 0.5 * head), (x + face, 0.5 * head - 1.5), (x + 0.75, 0.5 * head - 1.6), (x + 0.8, 0.9)]
    item.append(Solid([np.array(poll)], STEEL, 2.5, 0.8))
    if kind == 0:  # claw, curving back towards the grip and thinning out
        line = curve([(x, -0.8), (x - 0.1, -0.3 * head), (x - 1.0, -0.5 * head), (x - 2.9, -0.62 * head)], 18)
        item.append(Solid([ribbon(line, [2.2, 1.8, 1.2, 0.3])], STEEL, 1.5, 0.5))
    elif kind == 1:
        item.append(Solid([rect(1.5, 0.22 * head, x, -0.16 * head)], STEEL, 1.5, 0.5))
        item.append(Solid([ellipse(1.3, 1.3, x, -0.36 * head)], STEEL, 2.5, DOME))
    else:
        wedge = [(x - 0.9, -0.9), (x - 0.9, -0.25 * head), (x - 0.25, -0.52 * head), (x + 0.25, -0.52 * head)]
        item.append(Solid([np.array([*wedge, (x + 0.9, -0.25 * head), (x + 0.9, -0.9)])], STEEL, 2.0, 0.5))
    return item


def scissors(rng: Rng) -> Item:
    """Two crossed blades and two loops, of plastic or of the steel itself."""
    blade, shank = rng.uniform(7, 12), rng.uniform(3.5, 5.5)
    open_by = rng.uniform(0.03, 0.33)
    width = rng.uniform(1.2, 1.7)
    steel_loops = rng.random() < 0.3
    lx, ly = rng.uniform(2.2, 3.2), rng.uniform(1.5, 1.9)
    thick = rng.uniform(0.16, 0.26)
    edge = curve([(-0.6, -0.5 * width), (0.5 * blade, -0.42 * width), (blade, 0.1)], 14)
    cut = np.concatenate([edge, [(blade, 0.22), (0.3, 0.42 * width), (-0.8, 0.4 * width)]])
    arm = curve([(0, 0), (-0.5 * shank, 0.25 + 0.1 * ly), (-shank - 0.4, ly * 0.75)], 12)
    half: Item = [Solid([cut], STEEL, thick), Solid([ribbon(arm, [width * 0.85, 0.75])], STEEL, thick * 1.2)]
    centre = (-shank - 0.75 * lx, ly + 0.1)
    outer = ellipse(lx, ly, *centre)
    inner = ellipse(lx - 0.62, ly - 0.62, *centre)
    if steel_loops:
        half.append(Wire([ellipse(lx - 0.2, ly - 0.2, *centre)], STEEL, 0.42, True))
    else:
        half.append(Solid([outer, inner], PLASTIC, rng.uniform(1.0, 1.6), 0.3))
        half.append(Solid([ribbon(arm[4:], 1.25)], PLASTIC, 0.6, 0.3))
    opened = moved(half, pose(0, 0, -open_by))
    other = moved(opened, _TURN)
    return moved([*opened, *other, Solid([ellipse(0.42, 0.42)], STEEL, 0.3)], pose(-0.1 * blade, 0, 0))


def _jaw(rng: Rng, size: float) -> Points:
    """Open end of a spanner about the origin, mouth towards +x."""
    a = np.linspace(0.5, 2 * np.pi - 0.5, 20)
    slot = 0.46 * size
    outer = np.column_stack([np.cos(a), np.sin(a)]) * size
    inner = [(0.8 * size, -slot), (-0.05 * size, -slot), (-0.3 * size, -0.2 * size), (-0.3 * size, 0.2 * size)]
    mouth = np.array([*inner, (-0.05 * size, slot), (0.8 * size, slot)])
    return apply(pose(0, 0, rng.choice([-0.26, 0.0, 0.26])), np.concatenate([outer, mouth]))


def wrench(rng: Rng) -> Item:
    """Open-ended, combination or adjustable wrench: a flat steel bar with its telling ends."""
    length = rng.uniform(14, 26)
    big = rng.uniform(1.35, 1.75) * length / 18
    thick = rng.uniform(0.45, 0.75)
    kind = rng.integers(3)
    x = length / 2
    if kind == 2:
        bar = ribbon(curve([(-x, 0), (0, 0), (x - 2, 0)], 10), [1.9, 1.5, 1.9])
        item: Item = [Solid([bar, ellipse(0.45, 0.45, -x + 0.8, 0, 12)], STEEL, thick)]
        top = [(x - 2.6, -1.0), (x - 1.2, -2.0), (x + 1.6, -1.9), (x + 2.4, -1.1), (x + 2.4, -0.75), (x, -0.6)]
        head = [*top, (x - 0.1, 0.9), (x - 0.6, 1.7), (x - 2.0, 1.6)]
        slide = rng.uniform(0.6, 1.3)
        jaw = [(x + 0.2, slide - 0.4), (x + 2.3, slide - 0.3), (x + 2.3, slide + 0.3), (x + 0.6, slide + 1.3)]
        item += [
            Solid([np.array(head)], STEEL, 1.1, 0.4),
            Solid([np.array([*jaw, (x - 0.6, slide + 1.0)])], STEEL, 1.0, 0.3),
        ]
        worm = [np.array([(x - 1.1 + 0.28 * i, 0.3), (x - 1.1 + 0.28 * i, 1.5)]) for i in range(5)]
        item.append(Wire(worm, STEEL, 0.14))
        return item
    web = 0.6 * thick
    bar = ribbon(np.array([(-x + 0.7 * big, 0.0), (x - 0.7 * big, 0.0)]), 0.62 * big + 0.35)
    rim = [np.array([(-x + big, s * 0.31 * big), (x - big, s * 0.31 * big)]) for s in (-1, 1)]
    item = [Solid([bar], STEEL, web), Wire(rim, STEEL, 0.2)]
    item.append(Solid([apply(pose(x, 0, 0), _jaw(rng, big))], STEEL, thick, 0.2))
    if kind == 0:
        small = big * rng.uniform(0.75, 0.95)
        item.append(Solid([apply(pose(-x, 0, np.pi), _jaw(rng, small))], STEEL, thick, 0.2))
    else:
        ring = big * 0.92
        hole = ellipse(0.58 * ring, 0.58 * ring, -x, 0, 12)
        item.append(Solid([ellipse(ring, ring, -x, 0), hole], STEEL, thick * 1.3, 0.25))
    return item


def knife(rng: Rng) -> Item:
    """Kitchen knife, dagger, folding knife, cleaver or box cutter."""
    kind = rng.choice(5, p=[0.36, 0.16, 0.26, 0.1, 0.12])
    thick = rng.uniform(0.14, 0.24)
    if kind == 4:
        length = rng.uniform(13, 16)
        out = rng.uniform(3, 6)
        item: Item = [Solid([rounded(length, 2.3, 0.5)], PLASTIC, 1.0, 0.3)]
        item.append(Solid([rect(length - 2, 1.3, 0.5, 0)], STEEL, 0.05))
        x = length / 2
        item.append(Solid([np.array([(-2.0, -0.8), (x + out, -0.8), (x + out - 1.4, 0.8), (-2, 0.8)])], STEEL, 0.1))
        notches = [np.array([(x + i, -0.8), (x + i - 0.7, 0.8)]) for i in np.arange(0.4, out - 1.2, 0.7)]
        return [*item, Wire(notches, STEEL, 0.06), Solid([rounded(1.8, 1.1, 0.3, -1.5)], STEEL, 0.25)]
    blade = (rng.uniform(12, 20), rng.uniform(10, 15), rng.uniform(7.5, 10.5), rng.uniform(15, 18))[kind]
    high = (rng.uniform(2.2, 3.8), rng.uniform(2.0, 2.8), rng.uniform(1.8, 2.6), rng.uniform(6.5, 8.0))[kind]
    grip = (rng.uniform(10, 12.5), rng.uniform(9.5, 11.5), blade + rng.uniform(1.4, 2.4), 11.5)[kind]
    if kind == 1:
        top = curve([(0, -0.5 * high), (0.6 * blade, -0.45 * high), (blade, 0)], 12)
        shape = np.concatenate([top, top[::-1] * (1, -1)])
        inner = np.concatenate([top * (0.85, 0.4), top[::-1] * (0.85, -0.4)])
    elif kind == 3:
        shape = rounded(blade, high, 0.6, blade / 2, 0.25 * high)
        inner = rect(blade - 1, 0.6 * high, blade / 2, 0.05 * high)
    else:
        drop = rng.uniform(-0.5, 0.15)
        belly = curve(
            [(blade, drop * high), (0.75 * blade, 0.36 * high), (0.4 * blade, 0.5 * high), (0, 0.5 * high)], 16
        )
        back = curve([(0, -0.5 * high), (0.6 * blade, -0.5 * high), (blade, drop * high)], 12)
        shape = np.concatenate([back, belly])
        inner = shape * (0.9, 0.6) - (0, 0.2 * high)
    item = [Solid([shape], STEEL, thick * 0.6), Solid([inner], STEEL, thick * 0.5)]
    gh = rng.uniform(2.0, 2.7) if kind != 3 else 2.8
    spine = curve([(0.3, 0), (-0.45 * grip, -0.1), (-0.8 * grip, 0.15), (-grip, rng.uniform(0, 0.8))], 18)
    handle = ribbon(spine, [gh, gh * 0.86, gh, gh * 0.8])
    rivets = [spine[int(f * 17)] for f in (0.2, 0.5, 0.8)]
    if kind == 2:  # steel liners under the scales, the slot of the blade, pivot and screws
        item += [Solid([handle], STEEL, 0.32, 0.0), Solid([handle], RUBBER, 1.1, 0.4)]
        item.append(Solid([ellipse(0.5, 0.5, -0.5, 0)], STEEL, 0.8))
    else:
        mu = (WOOD, PLASTIC, RUBBER, ALUMINIUM)[rng.integers(4)]
        item.append(Solid([handle], mu, 1.9, 0.8))
        tang = ribbon(spine[: 18 if rng.random() < 0.6 else 10], gh * rng.uniform(0.3, 0.75))
        item.append(Solid([tang], STEEL, thick))
        if kind == 1:
            item.append(Solid([rounded(0.8, high + 2.2, 0.3)], BRASS if rng.random() < 0.5 else STEEL, 0.8, 0.3))
    item += [Solid([ellipse(0.24, 0.24, float(p[0]), float(p[1]), 10)], STEEL, 1.2) for p in rivets]
    return moved(item, pose((grip - blade) / 2, 0, 0))
