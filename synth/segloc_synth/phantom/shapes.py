"""Solids of given material and thickness, in centimetres, and how their shadows fall on the detector.

Every function that draws adds attenuation (mu times the thickness along the ray) to a float32 canvas.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from segloc_synth.phantom.outlines import Matrix, Points, apply, chain, within
from segloc_synth.phantom.physics import Array, Mu
from segloc_synth.phantom.textures import textures

SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
DOME = 1e9  # `edge` of a solid that is rounded all over


class Solid(NamedTuple):
    """Prism over contours (even-odd, so an inner contour is a hole), rounded within `edge` cm of its outline."""

    contours: Sequence[Points]
    mu: Mu
    depth: float  # thickness along the ray, cm
    edge: float = 0.0


class Wire(NamedTuple):
    """Round wires along lines; where one part's own lines cross they count once."""

    lines: Sequence[Points]
    mu: Mu
    width: float  # diameter, cm
    closed: bool = False


class Lathe(NamedTuple):
    """Solid of revolution: radii at distances from `start` along `angle` (radians); hollow if `wall` > 0."""

    profile: Points  # [n, 2]: distance along the axis, radius
    mu: Mu
    start: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0  # radians
    wall: float = 0.0


class Soft(NamedTuple):
    """Folded cloth, powder, fruit: a blurred silhouette whose thickness follows a texture."""

    contour: Points
    mu: Mu
    depth: float
    texture: int  # which of the textures
    contrast: float = 0.6  # 0 even, 1 falls to nothing between folds
    turn: float = 0.0  # radians
    grain: float = 1.0  # size of the folds
    blur: float = 0.4  # cm


Part = Solid | Wire | Lathe | Soft
Item = list[Part]


class Bag(NamedTuple):
    """The shell, the star-shaped outline within which things lie, and the extent in cm."""

    shell: Item
    inside: Points
    size: tuple[float, float]


def moved(item: Item, matrix: Matrix) -> Item:
    """The same item in other coordinates; the map should keep lengths (lathes and wires keep their radii)."""
    out: Item = []
    for part in item:
        match part:
            case Solid():
                out.append(part._replace(contours=[apply(matrix, c) for c in part.contours]))
            case Wire():
                out.append(part._replace(lines=[apply(matrix, c) for c in part.lines]))
            case Lathe():
                ends = np.array([(0.0, 0.0), (np.cos(part.angle), np.sin(part.angle))]) + part.start
                a, b = apply(matrix, ends)
                angle = float(np.arctan2(b[1] - a[1], b[0] - a[0]))
                out.append(part._replace(start=(float(a[0]), float(a[1])), angle=angle))
            case Soft():
                out.append(part._replace(contour=apply(matrix, part.contour)))
    return out


def merged(item: Item) -> Item:
    """Fewer parts, for speed: wires and solids alike in material and thickness become one; they should hardly overlap.

    Where solids do overlap the even-odd rule leaves a hole, where wires do they count once.
    """
    wires: dict[tuple[Mu, float], list[Points]] = {}
    solids: dict[tuple[Mu, float, float], list[Points]] = {}
    out: Item = []
    for part in item:
        match part:
            case Wire():
                lines = [np.concatenate([c, c[:1]]) for c in part.lines] if part.closed else part.lines
                wires.setdefault((part.mu, part.width), []).extend(lines)
            case Solid():
                solids.setdefault((part.mu, part.depth, part.edge), []).extend(part.contours)
            case _:
                out.append(part)
    out += [Wire(lines, mu, width) for (mu, width), lines in wires.items()]
    return out + [Solid(contours, mu, depth, edge) for (mu, depth, edge), contours in solids.items()]


def confined(item: Item, outline: Points) -> Item:
    """The item with its cloth and wires pulled inside an outline."""
    lines = [line for part in item for line in _lines(part)]
    inner = iter(within(lines, outline)) if lines else iter(())
    out: Item = []
    for part in item:
        match part:
            case Soft():
                out.append(part._replace(contour=next(inner)))
            case Wire():
                out.append(part._replace(lines=[next(inner) for _ in part.lines]))
            case _:
                out.append(part)
    return out


def _lines(part: Part) -> Sequence[Points]:
    match part:
        case Soft():
            return [part.contour]
        case Wire():
            return part.lines
        case _:
            return []


def _window(points: Points, pad: int, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """Rows and columns of the canvas that hold the points, or None when they miss it."""
    x0, y0 = np.floor(points.min(0)).astype(int) - pad
    x1, y1 = np.ceil(points.max(0)).astype(int) + pad + 1
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, shape[-1]), min(y1, shape[-2])
    return (slice(y0, y1), slice(x0, x1)) if x1 > x0 and y1 > y0 else None


def _fixed(lines: Sequence[Points], points: Points, rows: slice, cols: slice) -> list[npt.NDArray[np.int32]]:
    """The lines' pixel coordinates `points` (end to end) in a window, as OpenCV's fixed-point numbers, line by line."""
    origin = np.array([cols.start + 0.5, rows.start + 0.5])
    fixed = np.rint((points - origin) * (1 << SHIFT)).astype(np.int32)
    out, first = [], 0
    for line in lines:
        out.append(fixed[first : first + len(line)])
        first += len(line)
    return out


def _dome(mask: npt.NDArray[np.uint8], edge: float) -> Array:
    """Thickness profile 0 to 1 of a rounded solid, circular within `edge` px of the outline."""
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    u = np.minimum(distance * np.float32(1 / max(min(edge, float(distance.max())), 1e-3)), 1)
    return np.sqrt(u * (2 - u))


def bounds(item: Item) -> tuple[float, float, float, float]:
    """Least and greatest x and y of an item: x0, y0, x1, y1."""
    points: list[Points] = []
    for part in item:
        match part:
            case Solid():
                points += part.contours
            case Wire():
                points += part.lines
            case Lathe():
                along = np.array([[np.cos(part.angle), np.sin(part.angle)]]) * part.profile[[0, -1], :1]
                radius = float(part.profile[:, 1].max())
                points += [along + part.start + radius, along + part.start - radius]
            case Soft():
                points.append(part.contour)
    every = np.concatenate(points)
    (x0, y0), (x1, y1) = every.min(0), every.max(0)
    return float(x0), float(y0), float(x1), float(y1)


def draw(canvas: Array, part: Part, to_pixels: Matrix, depth: float = 1.0) -> None:
    """Add one part to the canvas, float32 [2, H, W]; `to_pixels` maps cm, `depth` multiplies thickness."""
    (a, b, _), (c, d, _) = to_pixels.tolist()
    scale = float(np.sqrt(abs(a * d - b * c)))
    match part:
        case Solid():
            shadow = _solid(canvas, part, to_pixels, scale)
        case Wire():
            shadow = _wire(canvas, part, to_pixels, scale)
        case Lathe():
            shadow = _lathe(canvas, part, to_pixels, scale)
        case Soft():
            shadow = _soft(canvas, part, to_pixels, scale)
    if shadow is not None:
        rows, cols, thickness = shadow
        for energy in range(2):
            canvas[energy, rows, cols] += thickness * np.float32(part.mu[energy] * depth)


Shadow = tuple[slice, slice, Array] | None


def _solid(canvas: Array, part: Solid, to_pixels: Matrix, scale: float) -> Shadow:
    points = apply(to_pixels, np.concatenate(part.contours))
    window = _window(points, 1, canvas.shape)
    if window is None:
        return None
    rows, cols = window
    mask = np.zeros((rows.stop - rows.start, cols.stop - cols.start), np.uint8)
    cv2.fillPoly(mask, _fixed(part.contours, points, rows, cols), (1,), cv2.LINE_8, SHIFT)
    if part.edge * scale > 1:
        return rows, cols, _dome(mask, part.edge * scale) * np.float32(part.depth)
    return rows, cols, mask * np.float32(part.depth)


def _wire(canvas: Array, part: Wire, to_pixels: Matrix, scale: float) -> Shadow:
    points = apply(to_pixels, np.concatenate(part.lines))
    width = part.width * scale
    drawn = max(1, round(width))
    window = _window(points, drawn // 2 + 1, canvas.shape)
    if window is None:
        return None
    rows, cols = window
    mask = np.zeros((rows.stop - rows.start, cols.stop - cols.start), np.uint8)
    fixed = _fixed(part.lines, points, rows, cols)
    cv2.polylines(mask, fixed, part.closed, (1,), drawn, cv2.LINE_8, SHIFT)
    if drawn > 4:
        return rows, cols, _dome(mask, DOME) * np.float32(part.width)
    # A line thinner than a pixel keeps its cross-section: pi/4 d^2 spread over the pixels drawn.
    return rows, cols, mask * np.float32(np.pi / 4 * part.width * min(width / drawn, 1.0))


def _lathe(canvas: Array, part: Lathe, to_pixels: Matrix, scale: float) -> Shadow:
    along, radius = part.profile[:, 0], part.profile[:, 1]
    first, length, widest = float(along[0]), float(along[-1] - along[0]), float(radius.max())
    n, half = max(int(np.ceil(length * scale)), 2), max(int(np.ceil(widest * scale)), 1)
    s = (np.arange(n) + 0.5) / scale + first
    y = (np.arange(-half, half) + 0.5) / scale
    square = np.interp(s, along, radius)[None, :] ** 2 - (y * y)[:, None]
    local = 2 * np.sqrt(np.maximum(square, 0))
    if part.wall:
        inner = np.maximum(np.interp(s, along, radius) - part.wall, 0)[None, :] ** 2 - (y * y)[:, None]
        inner[:, : max(int(part.wall * scale), 1)] = 0
        inner[:, n - max(int(part.wall * scale), 1) :] = 0
        local -= 2 * np.sqrt(np.maximum(inner, 0))
    c, sn = np.cos(part.angle), np.sin(part.angle)
    axis = np.array([[c, -sn, part.start[0]], [sn, c, part.start[1]]])
    grid = np.array([[1 / scale, 0, first + 0.5 / scale], [0, 1 / scale, (0.5 - half) / scale]])
    to_canvas = chain(chain(to_pixels, axis), grid)
    corners = np.array([(-1, -1), (n, -1), (n, 2 * half), (-1, 2 * half)], np.float64)
    window = _window(apply(to_canvas, corners), 1, canvas.shape)
    if window is None:
        return None
    rows, cols = window
    shift = to_canvas.copy()
    shift[:, 2] -= (cols.start + 0.5, rows.start + 0.5)
    size = (cols.stop - cols.start, rows.stop - rows.start)
    return rows, cols, cv2.warpAffine(local.astype(np.float32), shift, size, flags=cv2.INTER_LINEAR)


def _soft(canvas: Array, part: Soft, to_pixels: Matrix, scale: float) -> Shadow:
    contour = apply(to_pixels, part.contour)
    blur = part.blur * scale
    window = _window(contour, int(2 * blur) + 1, canvas.shape)
    if window is None:
        return None
    rows, cols = window
    size = (cols.stop - cols.start, rows.stop - rows.start)
    mask = np.zeros(size[::-1], np.float32)
    cv2.fillPoly(mask, _fixed([contour], contour, rows, cols), (1,), cv2.LINE_8, SHIFT)
    kernel = max(int(blur), 1)
    mask = cv2.blur(cv2.blur(mask, (kernel, kernel)), (kernel, kernel))
    zoom = 18 / (scale * part.grain)  # 18 texture pixels a centimetre
    c, s = zoom * np.cos(part.turn), zoom * np.sin(part.turn)
    start = 37.0 * part.texture + 11 * np.abs(part.contour[0])
    look = np.array([[c, -s, start[0]], [s, c, start[1]]])
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP  # finer than the pixels: what aliases is grain
    folds = cv2.warpAffine(textures()[part.texture], look, size, flags=flags, borderMode=cv2.BORDER_WRAP)
    return (
        rows,
        cols,
        mask * (folds * np.float32(2 * part.contrast) + np.float32(1 - part.contrast)) * np.float32(part.depth),
    )
