"""Outlines and affine maps. Points are float64 [n, 2], x to the right and y down, in cm; angles are radians."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]  # [n, 2], x to the right and y down, cm


Matrix = npt.NDArray[np.float64]  # [2, 3], maps points to scan coordinates


Rng = np.random.Generator


def pose(x: float, y: float, angle: float, squash: float = 1.0, flip: bool = False) -> Matrix:
    """Place an item: foreshorten along its x axis, mirror, turn by `angle` radians, move to (x, y)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c * squash, -s * (-1 if flip else 1), x], [s * squash, c * (-1 if flip else 1), y]])


def chain(outer: Matrix, inner: Matrix) -> Matrix:
    """The affine map that does `inner` first."""
    linear = outer[:, :2] @ inner[:, :2]
    return np.column_stack([linear, outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def apply(matrix: Matrix, points: Points) -> Points:
    """Map points [n, 2]."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def rect(w: float, h: float, x: float = 0, y: float = 0, angle: float = 0) -> Points:
    """Rectangle about (x, y)."""
    corners = np.array([(-w, -h), (w, -h), (w, h), (-w, h)]) / 2
    return apply(pose(x, y, angle), corners)


def ellipse(rx: float, ry: float, x: float = 0, y: float = 0, n: int = 24) -> Points:
    """Ellipse about (x, y)."""
    a = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.column_stack([x + rx * np.cos(a), y + ry * np.sin(a)])


def rounded(w: float, h: float, r: float, x: float = 0, y: float = 0) -> Points:
    """Rectangle with corners of radius r."""
    r = min(r, w / 2, h / 2)
    a = np.linspace(0, np.pi / 2, 6)
    arc = np.column_stack([np.cos(a), np.sin(a)]) * r
    ends = [(1, 1), (-1, 1), (-1, -1), (1, -1)]
    corners = []
    for i, (sx, sy) in enumerate(ends):
        quarter = arc[::-1] if i % 2 else arc
        corners.append(quarter * (sx, sy) + (sx * (w / 2 - r), sy * (h / 2 - r)))
    return np.concatenate(corners) + np.array((x, y))


def blob(rng: Rng, rx: float, ry: float, rough: float = 0.12, n: int = 36, power: float = 2.6) -> Points:
    """Irregular rounded outline (a superellipse with slow random bulges)."""
    a = np.linspace(0, 2 * np.pi, n, endpoint=False)
    radius = (np.abs(np.cos(a)) ** power + np.abs(np.sin(a)) ** power) ** (-1 / power)
    for k in range(2, 7):
        radius *= 1 + rough / k * rng.normal() * np.cos(k * a + rng.uniform(0, 2 * np.pi))
    return np.column_stack([rx * radius * np.cos(a), ry * radius * np.sin(a)])


def within(lines: Sequence[Points], outline: Points) -> list[Points]:
    """Pull what of the lines lies outside onto the outline, towards its middle; it must be star-shaped from there."""
    share = np.arange(len(outline) * 8) / 8  # more points along its edges: between two of them reach is taken as linear
    closed = np.concatenate([outline, outline[:1]])
    middle = (outline.min(0) + outline.max(0)) / 2
    edge = np.column_stack([np.interp(share, np.arange(len(closed)), closed[:, k]) for k in range(2)]) - middle
    inner = np.concatenate(lines) - middle
    angle = np.arctan2(edge[:, 1], edge[:, 0])
    order = np.argsort(angle)
    reach = np.interp(np.arctan2(inner[:, 1], inner[:, 0]), angle[order], np.hypot(*edge[order].T), period=2 * np.pi)
    inner *= np.minimum(reach / np.maximum(np.hypot(*inner.T), 1e-9), 1)[:, None]
    return np.split(inner + middle, np.cumsum([len(line) for line in lines])[:-1])


def curve(points: Sequence[tuple[float, float]] | Points, n: int = 32, closed: bool = False) -> Points:
    """Smooth line through points (uniform Catmull-Rom)."""
    p = np.asarray(points, np.float64)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    spans = len(p) - 3
    u = np.linspace(0, spans, n, endpoint=not closed)
    i = np.minimum(u.astype(int), spans - 1)
    t = (u - i)[:, None]
    a, b, c, d = p[i], p[i + 1], p[i + 2], p[i + 3]
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)


def ribbon(line: Points, width: Sequence[float] | float) -> Points:
    """Outline of a strip along a line; widths are spread evenly over its points."""
    w = np.atleast_1d(np.asarray(width, np.float64))
    w = (
        np.interp(np.linspace(0, 1, len(line)), np.linspace(0, 1, len(w)), w)
        if len(w) > 1
        else np.full(len(line), w[0])
    )
    tangent = np.gradient(line, axis=0)
    tangent /= np.maximum(np.hypot(tangent[:, 0], tangent[:, 1])[:, None], 1e-9)
    side = np.column_stack([-tangent[:, 1], tangent[:, 0]]) * w[:, None] / 2
    return np.concatenate([line + side, (line - side)[::-1]])


def profile(*pairs: tuple[float, float]) -> Points:
    """Profile of a Lathe: (distance along the axis, radius) pairs."""
    return np.array(pairs, np.float64)
