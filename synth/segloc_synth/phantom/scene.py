"""A packed bag as a pure function of numbers, and its shadow at the two energies."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from segloc_synth.phantom.outlines import Matrix, Points, Rng, apply, chain, pose
from segloc_synth.phantom.physics import Array, Image, Scanner, develop
from segloc_synth.phantom.shapes import Bag, Item, Soft, bounds, confined, draw, moved
from segloc_synth.phantom.things import arms, bags, clothing, clutter, guns, hardware, loads, tools, trolley

CLASSES = (
    ("Baton", arms.baton),
    ("Pliers", tools.pliers),
    ("Hammer", tools.hammer),
    ("Powerbank", arms.powerbank),
    ("Scissors", tools.scissors),
    ("Wrench", tools.wrench),
    ("Gun", guns.gun),
    ("Bullet", guns.bullet),
    ("Sprayer", arms.sprayer),
    ("HandCuffs", arms.handcuffs),
    ("Knife", tools.knife),
    ("Lighter", arms.lighter),
)  # in PIDray's order: the category id is the position, from 1
SPLITS = ("train", "easy", "hard", "hidden")
BENIGN = "benign"
# Instances of each class in PIDray's train split: how often a class comes as a further item of a scan.
FREQUENCY = (1513, 4236, 3546, 5171, 4352, 4350, 2178, 1837, 2970, 2096, 3290, 4169)
OVERSAMPLE = 2  # shadows are drawn this much finer than the detector
SEEN = 20  # an object of fewer pixels is drawn larger


@dataclass(frozen=True)
class Placed:
    """An item in the scan; `depth` makes up along the ray for what foreshortening takes away."""

    item: Item
    matrix: Matrix
    depth: float = 1.0


@dataclass(frozen=True)
class Threat:
    """A prohibited item: category id (1 to 12) and where it lies."""

    category: int
    placed: Placed


@dataclass(frozen=True)
class Scene:
    """Everything in a scan, in cm: the bag with its harmless contents, the prohibited items, the field of view."""

    contents: tuple[Placed, ...]
    threats: tuple[Threat, ...]
    width: float
    height: float


@dataclass(frozen=True)
class Shadow:
    """Attenuations, float32 [2, H, W] at OVERSAMPLE times the detector: the bag, and each prohibited item alone."""

    bag: Array
    threats: tuple[Array, ...]


def scan_rng(seed: int, split: str, index: int, what: int = 0) -> Rng:
    """The stream of random numbers of one scan; `what` separates the scene (0) from the scanner's noise (1)."""
    return np.random.default_rng([seed, (*SPLITS, BENIGN).index(split), index, what])


def plan_categories(seed: int, split: str, index: int, rng: Rng) -> list[int]:
    """Which classes a labelled scan holds: the first goes round all twelve, the others follow FREQUENCY."""
    block, place = divmod(index, len(CLASSES))
    first = int(scan_rng(seed, split, block, 2).permutation(len(CLASSES))[place])
    n = {"train": 1 + int(rng.choice(3, p=[0.72, 0.21, 0.07])), "hard": int(rng.integers(2, 5))}.get(split, 1)
    weight = np.array(FREQUENCY) / sum(FREQUENCY)
    return [first + 1, *(int(c) + 1 for c in rng.choice(len(CLASSES), n - 1, p=weight))]


def _stuff(rng: Rng, inside: Points, mixed: bool) -> Placed:
    """One layer of clothes side by side from wall to wall, with a gap here and there; `mixed`: lined and padded."""
    outline = 1.07 * inside
    low, high = outline.min(0), outline.max(0)
    columns, rows = np.maximum(np.rint((high - low) / rng.uniform(13, 24, 2)), 1).astype(int)
    w, h = (high - low) / (columns, rows)
    layer: Item = []
    for i in range(columns * rows):
        x, y = rng.normal(low + np.array((w * (i % columns + 0.5), h * (i // columns + 0.5))), 1.2)
        if rng.random() < 0.88:
            garment = clothing.filling(rng, mixed, w * rng.uniform(1.05, 1.35), h * rng.uniform(1.05, 1.35))
            layer += moved(garment, pose(float(x), float(y), float(rng.normal(0, 0.12))))
    return Placed(confined(layer, outline), pose(0, 0, 0))


def _place(rng: Rng, item: Item, inside: Points, taken: list[Points], tilt: float) -> Placed:
    """Lay an item down in the bag, turned, mirrored, foreshortened; of a few places the farthest from `taken`."""
    x0, y0, x1, y1 = bounds(item)
    long, wide = (x1 - x0) / 2, (y1 - y0) / 2
    squash = float(1 - tilt * rng.beta(1.2, 3))
    # what is long lies along the bag
    angle = rng.choice([0, np.pi]) + rng.normal(0, 0.3) if long > 11 else rng.uniform(0, 2 * np.pi)
    c, s = abs(np.cos(angle)), abs(np.sin(angle))
    low, high = inside.min(0), inside.max(0)
    margin = 0.85 * np.array([c * squash * long + s * wide, s * squash * long + c * wide])
    edge = inside.astype(np.float32)
    half = np.maximum((high - low) / 2 - margin, 0.4)
    tries = (low + high) / 2 + rng.uniform(-1, 1, (7, 2)) * half
    away = np.linalg.norm(tries[:, None] - np.array(taken)[None], axis=2).min(1) if taken else np.zeros(7)
    # where the outline is round, its corners are not inside
    room = np.array([cv2.pointPolygonTest(edge, (float(x), float(y)), True) for x, y in tries])
    best = tries[int((away + 3 * np.minimum(room - 0.5 * (long + wide), 0)).argmax())]
    taken.append(best)
    turned = pose(float(best[0]), float(best[1]), float(angle), squash, bool(rng.random() < 0.5))
    return Placed(item, chain(turned, pose(-(x0 + x1) / 2, -(y0 + y1) / 2, 0)), 1 / max(squash, 0.6))


def _benign_bag(rng: Rng) -> tuple[Bag, list[Placed]]:
    """A bag packed for a journey, and what is in it."""
    makers = (trolley.suitcase, bags.backpack, bags.bundle, bags.tray, loads.provisions, loads.machine, loads.bale)
    kind = int(rng.choice(len(makers), p=[0.76, 0.07, 0.04, 0.03, 0.04, 0.04, 0.02]))
    bag = makers[kind](rng)
    if kind >= 4:
        return bag, []
    contents = [_stuff(rng, bag.inside, kind == 0 and bool(rng.random() < 0.3)) for _ in range(2 if kind == 0 else 1)]
    taken: list[Points] = []
    goods = clutter.pick(rng, clutter.PACKED, int(rng.integers(12, 22) if kind <= 1 else rng.integers(6, 13)))
    contents += [_place(rng, item, bag.inside, taken, 0.3) for item in goods]
    loose = hardware.fittings(rng, *hardware.anywhere(rng, bag.inside, int(rng.integers(8, 30))), hardware.LOOSE, 0.7)
    loose += hardware.screws(rng, *hardware.anywhere(rng, bag.inside, int(rng.integers(8, 40))), 0.7)
    loose += hardware.rivets(rng, hardware.anywhere(rng, bag.inside, int(rng.integers(2, 11)))[0])
    return bag, [*contents, Placed(loose, pose(0, 0, 0))]


def _covered(rng: Rng, under: Placed) -> Placed:
    """Something dense, about as large as what lies under it, and right over its middle."""
    x0, y0, x1, y1 = bounds(under.item)
    turn = under.matrix.copy()
    x, y = rng.normal(apply(under.matrix, np.array([((x0 + x1) / 2, (y0 + y1) / 2)]))[0], 0.7)
    angle = float(np.arctan2(turn[1, 0], turn[0, 0]) + rng.normal(0, 0.12))
    return Placed(clutter.cover(rng, x1 - x0, y1 - y0), pose(float(x), float(y), angle))


def _labelled_bag(rng: Rng, categories: list[int], hidden: bool) -> tuple[Bag, list[Placed], list[Threat]]:
    """Sparse hand luggage, what is in it, and its prohibited items."""
    items = [CLASSES[category - 1][1](rng) for category in categories]
    longest = max(x1 - x0 for x0, _, x1, _ in map(bounds, items))
    makers = (bags.handbag, bags.soft_bag, bags.backpack, trolley.suitcase)
    maker = makers[rng.choice(4, p=[0.3, 0.34, 0.18, 0.18] if longest < 28 else [0, 0, 0.4, 0.6])]
    bag = maker(rng)
    taken: list[Points] = []
    placed = [_place(rng, item, bag.inside, taken, 0.5) for item in items]
    threats = [Threat(category, where) for category, where in zip(categories, placed, strict=True)]
    goods = clutter.pick(rng, clutter.EVERYDAY, int(rng.integers(2, 7)) + 3 * (maker is trolley.suitcase))
    contents = [_place(rng, item, bag.inside, taken, 0.3) for item in goods]
    loose = hardware.fittings(rng, *hardware.anywhere(rng, bag.inside, int(rng.integers(1, 5))))
    contents.append(Placed(loose, pose(0, 0, 0)))
    contents += [_covered(rng, threat.placed) for threat in (threats if hidden else [])]
    return bag, contents, threats


def plan_scene(seed: int, split: str, index: int) -> Scene:
    """Pack the bag of scan `index` of a split (one of SPLITS or BENIGN); depends on nothing else."""
    rng = scan_rng(seed, split, index)
    threats: list[Threat] = []
    if split == BENIGN:
        bag, contents = _benign_bag(rng)
    else:
        bag, contents, threats = _labelled_bag(rng, plan_categories(seed, split, index, rng), split == "hidden")
    shell = Placed(bag.shell, pose(0, 0, 0))
    return _frame(rng, bag, [shell, *contents], threats, split == BENIGN)


def _reach(turn: Matrix, placed: Placed) -> Points:
    """How far an item reaches from the bag's middle along x and y once the bag is turned: [2], cm."""
    x0, y0, x1, y1 = bounds(placed.item)
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    return np.abs(apply(turn, apply(placed.matrix, corners))).max(0)


def _frame(rng: Rng, bag: Bag, contents: list[Placed], threats: list[Threat], benign: bool) -> Scene:
    """Turn the whole bag on the belt and cut the field of view around it, tight in benign scans, wide in the others."""
    ways = (0, np.pi / 2) if benign else (0, 0, 0, np.pi, np.pi / 2)
    angle = rng.choice(ways) + rng.normal(0, 0.17 if benign else 0.3)
    shear = np.array([[1, rng.normal(0, 0.06), 0], [rng.normal(0, 0.06), 1, 0]])
    turn = chain(pose(0, 0, float(angle), 1.0, bool(rng.random() < 0.5)), shear)
    w, h = bag.size
    corners = apply(turn, np.array([(-w, -h), (w, -h), (w, h), (-w, h)]) / 2)
    box_w, box_h = np.ptp(corners, axis=0) * (0.94 if benign else 0.97)
    if benign:
        width, height = box_w + rng.uniform(0, 2), box_h + rng.uniform(0, 2)
        x, y = width / 2, height / 2
    else:  # the belt's full width, and what the operator's screen cut out of its length; no prohibited item is cut
        reach = 1.0 + 2 * np.max([_reach(turn, threat.placed) for threat in threats], axis=0)
        box_w, box_h = max(box_w, reach[0]), max(box_h, reach[1])
        height = max(box_h * rng.uniform(1.05, 1.3), 44.0)
        width = max(min(box_w * rng.uniform(1.0, 1.25), 1.65 * height), 0.66 * height, reach[0])
        slack = (width - reach[0]) / 2
        x = width / 2 + float(np.clip(rng.normal(0, 0.02) * width, -slack, slack))
        y = height / 2 + rng.uniform(-0.4, 0.4) * max(height - box_h, 0)
    turn[:, 2] = x, y
    put = [Placed(p.item, chain(turn, p.matrix), p.depth) for p in contents]
    lay = [Threat(t.category, Placed(t.placed.item, chain(turn, t.placed.matrix), t.placed.depth)) for t in threats]
    return Scene(tuple(put), tuple(lay), float(width), float(height))


def detector(scene: Scene, size: int) -> tuple[int, int]:
    """Width and height of the scan in pixels, the longer one `size`."""
    longer = max(scene.width, scene.height)
    return max(round(size * scene.width / longer), 8), max(round(size * scene.height / longer), 8)


def _draw(fine: Array, coarse: Array, placed: Placed, to_pixels: Matrix) -> None:
    """Add an item to the shadow: what has no sharp edges at the detector's own resolution, which is much cheaper."""
    matrix = chain(to_pixels, placed.matrix)
    for part in placed.item:
        if isinstance(part, Soft):
            draw(coarse, part, matrix / OVERSAMPLE, placed.depth)
        else:
            draw(fine, part, matrix, placed.depth)


def cast(scene: Scene, size: int) -> Shadow:
    """The shadows of the bag and of each prohibited item; the attenuation of the whole is their sum."""
    width, height = detector(scene, size)
    shape = (2, height * OVERSAMPLE, width * OVERSAMPLE)
    zoom = width * OVERSAMPLE / scene.width
    to_pixels = np.array([[zoom, 0, 0], [0, zoom, 0]])
    bag, coarse = np.zeros(shape, np.float32), np.zeros((2, height, width), np.float32)
    for placed in scene.contents:
        _draw(bag, coarse, placed, to_pixels)
    for energy in range(2):
        bag[energy] += cv2.resize(coarse[energy], shape[:0:-1], interpolation=cv2.INTER_LINEAR)
    alone = []
    for threat in scene.threats:
        for larger in (1.0, 1.4, 2.0, 3.0, 4.5, 7.0):  # a bullet in a scan of 64 px
            own = np.zeros(shape, np.float32)
            matrix = threat.placed.matrix.copy()
            matrix[:, :2] *= larger
            _draw(own, coarse, Placed(threat.placed.item, matrix, threat.placed.depth), to_pixels)
            if int(silhouette(own).sum()) >= SEEN:
                break
        alone.append(own)
    return Shadow(bag, tuple(alone))


def silhouette(own: Array) -> npt.NDArray[np.bool_]:
    """Pixels of the detector at least half covered by a prohibited item, bool [H, W]; `own` as in Shadow."""
    height, width = own.shape[1] // OVERSAMPLE, own.shape[2] // OVERSAMPLE
    covered = (own[0] > 1e-3).astype(np.float32)
    return cv2.resize(covered, (width, height), interpolation=cv2.INTER_AREA) >= 0.5


def expose(shadow: Shadow, scanner: Scanner, rng: Rng) -> Image:
    """The scan that a scanner makes of the bag with its prohibited items, RGB uint8 [H, W, 3].

    A detector element averages what passes over its area, not the attenuation.
    """
    whole = sum(shadow.threats, shadow.bag)
    height, width = whole.shape[1] // OVERSAMPLE, whole.shape[2] // OVERSAMPLE
    through = np.exp(-whole)
    small = [cv2.resize(t, (width, height), interpolation=cv2.INTER_AREA) for t in through]
    return develop(-np.log(np.maximum(np.stack(small), np.float32(1e-9))), scanner, rng)
