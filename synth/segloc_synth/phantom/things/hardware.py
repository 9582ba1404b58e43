"""The small metal of bags: screws, rivets, zips, pullers, rings, hooks, buckles, springs, chains. Lengths in cm."""

import numpy as np
import numpy.typing as npt

from segloc_synth.phantom.outlines import Points, Rng, curve, ellipse, pose, rounded
from segloc_synth.phantom.physics import ALUMINIUM, BRASS, STEEL, SYNTHETIC
from segloc_synth.phantom.shapes import Item, Solid, Wire, merged, moved

Angles = npt.NDArray[np.float64]


def seam(rng: Rng, line: Points, n: int, spread: float) -> tuple[Points, Angles]:
    """Points [n, 2] along a closed line, off it by `spread` cm at the most, and the line's directions (radians)."""
    steps = np.roll(line, -1, 0) - line
    reach = np.cumsum(np.hypot(steps[:, 0], steps[:, 1]))
    at = np.minimum(np.searchsorted(reach, rng.uniform(0, reach[-1], n)), len(line) - 1)
    step = steps[at]
    points = line[at] + step * rng.random((n, 1)) + rng.uniform(-spread, spread, (n, 2))
    return points, np.arctan2(step[:, 1], step[:, 0])


def anywhere(rng: Rng, outline: Points, n: int) -> tuple[Points, Angles]:
    """Points [n, 2] inside a star-shaped outline, half of them in clumps, and any directions (radians)."""
    middle = (outline.min(0) + outline.max(0)) / 2
    edge = outline[rng.integers(0, len(outline), n)]
    points = middle + (edge - middle) * np.sqrt(rng.random((n, 1)))
    clumps = points[rng.integers(0, max(n // 8, 1), n)] * 0.9 + rng.normal(0, 1, (n, 2)) * 0.04 * np.ptp(
        outline, axis=0
    )
    return np.where(rng.random((n, 1)) < 0.5, clumps, points), rng.uniform(0, 2 * np.pi, n)


def screws(rng: Rng, points: Points, angles: Angles, size: float = 1.0) -> Item:
    """Screws and rivets seen from the side (a head and a shaft) or nearly along the shaft."""
    n = len(points)
    along = np.column_stack([np.cos(angles), np.sin(angles)])
    head = np.column_stack([-along[:, 1], along[:, 0]]) * rng.uniform(0.3, 0.65, (n, 1)) * size
    shaft = along * rng.uniform(0.3, 1.8, (n, 1)) * size
    foot = points + shaft
    heads = [*np.stack([points - head, points + head], 1)]
    heads += [*np.stack([foot - 0.7 * head, foot + 0.7 * head], 1)[: n // 3]]  # with a nut
    return [Wire(heads, STEEL, 0.3), Wire([*np.stack([points, foot], 1)], STEEL, 0.24)]


def rivets(rng: Rng, points: Points) -> Item:
    """Round heads, eyelets and press studs."""
    out = []
    for (x, y), r in zip(points.tolist(), rng.uniform(0.25, 0.75, len(points)).tolist(), strict=True):
        out.append(ellipse(r, r, x, y, 10))
        if r > 0.5:
            out.append(ellipse(0.4 * r, 0.4 * r, x, y, 6))
    return [Solid(out, STEEL, 0.22)]


def zipper(line: Points) -> Item:
    """Teeth along a line, on their tape."""
    steps = np.hypot(*np.diff(line, axis=0).T)
    at = np.concatenate([[0], np.cumsum(steps)])
    t = np.arange(0, at[-1], 0.42)
    p = np.column_stack([np.interp(t, at, line[:, k]) for k in range(2)])
    d = np.gradient(p, axis=0) if len(p) > 1 else np.ones_like(p)
    side = np.column_stack([-d[:, 1], d[:, 0]]) * 0.55
    return [Wire([*np.stack([p - side, p + side], 1)], ALUMINIUM, 0.2), Wire([line], SYNTHETIC, 0.55)]


def _puller(rng: Rng) -> Item:
    """Slider, link, and a tag that hangs at an angle: plate, loop or cord end."""
    body = rng.uniform(0.8, 1.5)
    item: Item = [Solid([rounded(body, rng.uniform(0.6, 1.0), 0.25)], STEEL, 0.35)]
    if rng.random() < 0.3:
        item.append(Solid([rounded(0.5, 1.4, 0.2, -0.3 * body)], STEEL, 0.2))
    length, wide = rng.uniform(1.3, 3.4), rng.uniform(0.45, 1.0)
    kind = rng.integers(4)
    if kind == 0:
        tag: Item = [Solid([rounded(length, wide, 0.3, length / 2), rounded(0.5, 0.4, 0.2, 0.5)], STEEL, 0.2)]
    elif kind == 1:
        tag = [Wire([rounded(length, wide, 0.4, length / 2)], STEEL, 0.22, True)]
    elif kind == 2:
        drop = curve([(0, -0.1), (0.6 * length, -wide / 2), (length, 0), (0.6 * length, wide / 2)], 12, True)
        tag = [Solid([drop, ellipse(0.25, 0.2, 0.7 * length, 0, 6)], STEEL if rng.random() < 0.7 else BRASS, 0.2)]
    else:
        tag = [Wire([curve([(0, 0), (length / 2, 0.4), (length, -0.2)], 8)], STEEL, 0.22)]
        tag.append(Solid([rounded(1.0, 0.7, 0.2, length + 0.4)], ALUMINIUM, 0.6))
    item.append(Wire([ellipse(0.4, 0.25, 0.4 * body + 0.3, 0, 8)], STEEL, 0.22, True))
    return item + moved(tag, pose(0.4 * body + 0.5, 0, float(rng.normal(0, 0.6))))


def _buckle(rng: Rng) -> Item:
    """Frame with a bar and a prong, a slide with two slots, or a cord lock."""
    w, h = rng.uniform(1.4, 3.6), rng.uniform(1.3, 3.0)
    kind = rng.integers(3)
    if kind == 0:
        prong = np.array([(0.0, 0.0), (0.6 * w, rng.normal(0, 0.15))])
        bar = np.array([(0.0, -h / 2), (0.0, h / 2)])
        return [Wire([rounded(w, h, rng.uniform(0.2, 1.0))], STEEL, 0.36, True), Wire([bar, prong], STEEL, 0.3)]
    if kind == 1:
        slots = [rounded(0.32 * w, 0.72 * h, 0.1, s * 0.24 * w) for s in (-1, 1)]
        return [Solid([rounded(w, h, 0.3), *slots], STEEL, 0.2)]
    spring = np.array([(-0.5 + 0.14 * i, 0.3 * (-1) ** i) for i in range(8)])
    return [Wire([spring, ellipse(0.8, 0.5, 0, 0, 10)], STEEL, 0.22)]


def _ring(rng: Rng) -> Item:
    """D, round, oval or square ring."""
    r = rng.uniform(0.7, 1.7)
    flat = rng.uniform(0.5, 1.0)
    d = np.concatenate([ellipse(r, r * flat)[:13], [(-r, -0.35 * r), (r, -0.35 * r)]])
    line = (d, ellipse(r, r * flat, n=16), rounded(2 * r, 2 * r * flat, 0.3 * r))[rng.integers(3)]
    return [Wire([line], STEEL, (0.22, 0.3, 0.36)[rng.integers(3)], True)]


def _hook(rng: Rng) -> Item:
    """Snap hook on a swivel: eye, barrel, hook with its gate."""
    r, length = rng.uniform(0.6, 1.1), rng.uniform(2.4, 4.2)
    hook = curve([(0.4, 0.5), (0.4 * length, r), (length, 0.2), (0.7 * length, -r), (0.3 * length, -0.5 * r)], 14)
    gate = np.array([(0.4, 0.4), (0.3 * length, -0.5 * r)])
    return [
        Wire([rounded(1.5 * r, 2.2 * r, 0.4, -0.9 * r)], STEEL, 0.3, True),
        Solid([rounded(0.9, 0.8, 0.2, 0.2)], STEEL, 0.35),
        Wire([hook], STEEL, 0.36),
        Wire([gate], STEEL, 0.22),
    ]


def _spring(rng: Rng) -> Item:
    """Coil spring from the side, straight or bent."""
    n, r = int(rng.integers(8, 22)), rng.uniform(0.25, 0.6)
    t = np.arange(n)
    bend = 0.02 * rng.normal() * t**2
    return [Wire([np.column_stack([0.2 * t, r * (-1.0) ** t + bend])], STEEL, 0.22)]


def _chain(rng: Rng) -> Item:
    """A few links, alternately flat and on edge."""
    line = curve(rng.normal(0, 1, (3, 2)) * 1.2 + np.array([(0, 0), (2.5, 0), (5, 0)]), int(rng.integers(5, 12)))
    return [Wire([ellipse(0.45, 0.32 if i % 2 else 0.12, x, y, 8) for i, (x, y) in enumerate(line)], STEEL, 0.22, True)]


def _bracket(rng: Rng) -> Item:
    """Stamped or cast piece of any outline, with holes: hinge, lock, clip, latch."""
    n = int(rng.integers(5, 9))
    a = np.sort(rng.uniform(0, 2 * np.pi, n))
    r = rng.uniform(0.5, 1.6, n)
    long = rng.uniform(1.0, 2.2)
    outline = np.column_stack([r * np.cos(a) * long, r * np.sin(a)])
    holes = [ellipse(0.22, 0.22, s * 0.4 * long, 0, 6) for s in (-1, 1)]
    pin = np.array([(-long, 0.3), (long * rng.uniform(0.6, 1.6), 0.4)])
    return [Solid([outline, *holes], STEEL, 0.35 if rng.random() < 0.4 else 0.2), Wire([pin], STEEL, 0.3)]


MAKERS = (_puller, _buckle, _ring, _hook, _spring, _chain, _bracket)
SEWN = (0.5, 0.14, 0.14, 0.12, 0.0, 0.04, 0.06)  # what hangs on a bag's seams
LOOSE = (0.24, 0.16, 0.16, 0.06, 0.08, 0.06, 0.24)  # what lies about in one


def fittings(rng: Rng, points: Points, angles: Angles, shares: tuple[float, ...] = SEWN, scale: float = 1.0) -> Item:
    """One fitting at each point, seen from any side, roughly in the directions given; few parts to draw."""
    item: Item = []
    for (x, y), angle, kind in zip(points, angles, rng.choice(len(MAKERS), len(points), p=shares), strict=True):
        size, seen_from = scale * rng.uniform(0.55, 1.05), rng.uniform(0.3, 1.0)
        lie = pose(float(x), float(y), float(angle + rng.normal(0, 0.5)), 1.0, bool(rng.random() < 0.5))
        lie[:, :2] *= (size, size * seen_from)
        item += moved(MAKERS[kind](rng), lie)
    return merged(item)
