"""Electronics: boards, computers, phones, chargers, cables. Lengths in cm."""

import numpy as np

from segloc_synth.phantom.outlines import (
    Points,
    Rng,
    curve,
    ellipse,
    profile,
    rect,
    rounded,
)
from segloc_synth.phantom.physics import (
    ALUMINIUM,
    BATTERY,
    BOARD,
    BRASS,
    GLASS,
    PLASTIC,
    STEEL,
)
from segloc_synth.phantom.shapes import Item, Lathe, Solid, Wire


def _turn(rng: Rng) -> float:
    return float(rng.uniform(0, np.pi))


def board(rng: Rng, w: float, h: float, x: float = 0, y: float = 0) -> Item:
    """A circuit board with chips, capacitors, connectors and tracks."""
    n = int(np.clip(w * h * 0.55, 6, 60))
    where = rng.uniform(-0.5, 0.5, (n, 2)) * (w * 0.92, h * 0.92) + (x, y)
    sizes = rng.uniform(0.12, 0.9, (n, 2)) ** 1.3
    chips = [rect(float(a), float(b), float(p[0]), float(p[1])) for p, (a, b) in zip(where, sizes, strict=True)]
    tracks = [np.array([p, p + ((0, 1.2) if i % 2 else (1.4, 0))]) for i, p in enumerate(where[::2])]
    half = n // 2
    return [
        Solid([rect(w, h, x, y)], BOARD, 0.16),
        Solid(chips[:half], BRASS, 0.05),
        Solid(chips[half:], STEEL, 0.16),
        Solid([rect(1.4, 1.0, float(p[0]), float(p[1])) for p in where[:3]], STEEL, 0.5),
        Wire(tracks, BRASS, 0.07),
    ]


def laptop(rng: Rng) -> Item:
    """Case, screen, keyboard, battery cells, main board, fan, drive and hinges."""
    w, h = rng.uniform(28, 36), rng.uniform(19.5, 25)
    shell = ALUMINIUM if rng.random() < 0.5 else PLASTIC
    item: Item = [
        Solid([rounded(w, h, 1.0)], shell, 0.22 if shell == ALUMINIUM else 0.6),
        Solid([rounded(w - 0.6, h - 0.6, 0.8)], GLASS, 0.25),
    ]
    item.append(Solid([rounded(w, h, 1.0), rounded(w - 0.7, h - 0.7, 0.7)], shell, 0.8))
    for i in range(int(rng.integers(2, 4))):
        item.append(Solid([rounded(w * 0.27, h * 0.33, 0.3, -w * 0.3 + i * w * 0.295, h * 0.28)], BATTERY, 0.55))
    keys = [
        rect(1.3, 1.3, -w / 2 + 3 + 1.75 * i, -h * 0.1 + 1.6 * j) for i in range(int((w - 5) / 1.75)) for j in range(4)
    ]
    item.append(Solid(keys, PLASTIC, 0.45))
    item += board(rng, w * 0.62, h * 0.36, -w * 0.12, -h * 0.24)
    item += [Solid([ellipse(2.3, 2.3, w * 0.32, -h * 0.25), ellipse(0.9, 0.9, w * 0.32, -h * 0.25)], ALUMINIUM, 0.5)]
    item.append(Wire([curve([(w * 0.32, -h * 0.36), (0, -h * 0.38), (-w * 0.2, -h * 0.25)], 12)], BRASS, 0.7))
    item.append(Solid([rounded(3.6, 0.9, 0.3, s * w * 0.33, -h / 2 + 0.4) for s in (-1, 1)], STEEL, 0.5))
    return item


def phone(rng: Rng) -> Item:
    """Phone or tablet: glass, frame, battery, board, camera."""
    w, h = (
        (rng.uniform(13.5, 16.5), rng.uniform(6.6, 7.8))
        if rng.random() < 0.8
        else (rng.uniform(20, 25), rng.uniform(13, 17))
    )
    item: Item = [
        Solid([rounded(w, h, 0.9)], GLASS, 0.3),
        Solid([rounded(w, h, 0.9), rounded(w - 0.6, h - 0.6, 0.7)], ALUMINIUM, 0.8),
    ]
    item.append(Solid([rounded(w * 0.5, h * 0.62, 0.3, -0.08 * w, 0.08 * h)], BATTERY, 0.5))
    item += board(rng, 0.26 * w, h * 0.8, 0.33 * w)
    item.append(
        Solid([ellipse(0.55, 0.55, w * 0.4, -h * 0.28), ellipse(0.25, 0.25, w * 0.4, -h * 0.28, 10)], STEEL, 0.4)
    )
    return item


def _coil(rng: Rng, size: float) -> list[Points]:
    """A cable thrown together: a few untidy loops."""
    loops = rng.integers(3, 7)
    a = np.linspace(0, 2 * np.pi * loops, int(loops) * 18)
    radius = size * (
        0.65 + 0.25 * np.sin(a * rng.uniform(0.2, 0.5) + rng.uniform(0, 6)) + 0.15 * np.sin(a * rng.uniform(0.7, 1.4))
    )
    squash = rng.uniform(0.4, 1.0)
    drift = np.cumsum(rng.normal(0, 0.03 * size, (len(a), 2)), axis=0)
    drift += 0.3 * size * np.sin(a[:, None] * rng.uniform(0.3, 0.8, 2) + rng.uniform(0, 6, 2))
    line = np.column_stack([radius * np.cos(a), squash * radius * np.sin(a)]) + drift
    cuts = np.array_split(line, int(loops))
    return [np.concatenate([c, cuts[i + 1][:1]]) if i + 1 < len(cuts) else c for i, c in enumerate(cuts)]


def charger(rng: Rng) -> Item:
    """Mains adapter with transformer, capacitors and plug, and its cable."""
    w, h = rng.uniform(5, 11), rng.uniform(3.5, 5)
    width = rng.uniform(0.16, 0.3)
    item: Item = [Wire([loop], BRASS, width * 0.6) for loop in _coil(rng, rng.uniform(4, 8))]
    item += [Solid([rounded(w, h, 0.5)], PLASTIC, 0.9, 0.3), *board(rng, w * 0.85, h * 0.8)]
    item.append(Solid([rect(1.8, 1.8, 0.15 * w)], STEEL, 0.9, 0.2))
    item.append(Lathe(profile((0, 0.6), (1.6, 0.6)), ALUMINIUM, (-0.35 * w, 0.1 * h)))
    item.append(Solid([rect(1.9, 0.45, -w / 2 - 0.9, s) for s in (-0.9, 0.9)], BRASS, 0.3))
    end = rng.normal(0, 6, 2)
    item.append(Solid([rect(1.8, 0.9, float(end[0]), float(end[1]), _turn(rng))], STEEL, 0.35))
    return item


def cable(rng: Rng) -> Item:
    """Earphones, a USB cable or a bare cord."""
    width = rng.uniform(0.07, 0.2)
    item: Item = [Wire([loop], BRASS, width) for loop in _coil(rng, rng.uniform(3, 9))]
    ends = [rng.normal(0, 5, 2) for _ in range(2)]
    item.append(Solid([rect(2.2, 0.9, float(e[0]), float(e[1]), _turn(rng)) for e in ends], STEEL, 0.22))
    return item


def gadget(rng: Rng) -> Item:
    """Camera, radio, hard disk or game console: boards, coils and a lens in a case."""
    w, h = rng.uniform(8, 15), rng.uniform(6, 10)
    item: Item = [
        Solid([rounded(w, h, 0.8)], PLASTIC if rng.random() < 0.5 else ALUMINIUM, 0.5),
        *board(rng, w * 0.85, h * 0.8),
    ]
    item.append(Solid([rounded(w * 0.35, h * 0.6, 0.3, -w * 0.25)], BATTERY, 0.9, 0.3))
    x = w * 0.2
    for r in np.linspace(h * 0.42, h * 0.15, int(rng.integers(1, 4))):
        item.append(Solid([ellipse(r, r, x), ellipse(r - 0.35, r - 0.35, x)], ALUMINIUM, 1.2))
    return item
