"""PhantomRay's truth: bags on the benign scanner with a prohibited item really inside."""

from typing import Any

import cv2
import numpy as np

from segloc_synth.backgrounds import bag_mask
from segloc_synth.compose import IN_BAG
from segloc_synth.images import Pixels
from segloc_synth.phantom import SIXRAY
from segloc_synth.phantom.annotate import annotation
from segloc_synth.phantom.outlines import apply, chain, pose
from segloc_synth.phantom.scene import (
    BENIGN,
    Placed,
    Scene,
    Shadow,
    Threat,
    cast,
    detector,
    expose,
    plan_scene,
    scan_rng,
    silhouette,
)
from segloc_synth.phantom.shapes import bounds
from segloc_synth.plan import TRIES


def as_jpeg(pixels: Pixels) -> bytes:
    """A scan as the benign scanner's files are."""
    done, jpeg = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, SIXRAY.jpeg or 95])
    assert done
    return jpeg.tobytes()


def real_scan(seed: int, index: int, size: int) -> tuple[bytes, dict[str, Any], tuple[int, int]]:
    """A benign bag with one prohibited item laid into it: JPEG file, COCO annotation without ids, (width, height).

    As in composites the item lies at any angle, mirrored or not, anywhere in the bag. `seed` must differ from that
    of the composites' sources, or the bags are the same.
    """
    rng = scan_rng(seed, BENIGN, index, 5)
    scene = plan_scene(seed, BENIGN, index)
    threat = plan_scene(seed, "train", index).threats[0]
    shadow = cast(scene, size)
    bag = bag_mask(expose(shadow, SIXRAY, scan_rng(seed, BENIGN, index, 1)))
    spots = np.argwhere(bag) * scene.width / detector(scene, size)[0]
    best = (-1.0, shadow)
    for _ in range(TRIES):
        y, x = spots[rng.integers(len(spots))]
        placed = _lay(threat.placed, x, y, float(rng.uniform(0, 2 * np.pi)), bool(rng.integers(2)), scene)
        alone = cast(Scene((), (Threat(threat.category, placed),), scene.width, scene.height), size)
        mask = silhouette(alone.threats[0])
        share = float(bag[mask].mean()) if mask.any() else 0.0
        best = max(best, (share, Shadow(shadow.bag, alone.threats)), key=lambda entry: entry[0])
        if share >= IN_BAG:
            break
    picture = expose(best[1], SIXRAY, scan_rng(seed, BENIGN, index, 1))
    return as_jpeg(picture), annotation(silhouette(best[1].threats[0]), threat.category, 0.5), picture.shape[1::-1]


def _lay(placed: Placed, x: float, y: float, angle: float, flip: bool, scene: Scene) -> Placed:
    """An item with its middle at (x, y) cm, or as near to it as the field of view allows."""
    x0, y0, x1, y1 = bounds(placed.item)
    corners = apply(placed.matrix, np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]))
    middle = corners.mean(0)
    matrix = chain(pose(0, 0, angle, 1.0, flip), chain(pose(-middle[0], -middle[1], 0), placed.matrix))
    reach = np.abs(apply(pose(0, 0, angle, 1.0, flip), corners - middle)).max(0) + 0.2
    field = np.array([scene.width, scene.height])
    matrix[:, 2] += np.clip([x, y], np.minimum(reach, field / 2), np.maximum(field - reach, field / 2))
    return Placed(placed.item, matrix, placed.depth)
