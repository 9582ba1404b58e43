"""PhantomRay's truth: bags on the benign scanner with a prohibited item really inside."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segloc_synth.bank.scenes import fit_scan
from segloc_synth.files import read_json
from segloc_synth.phantom import SIXRAY
from segloc_synth.phantom.annotate import annotation
from segloc_synth.phantom.outlines import apply, chain, pose
from segloc_synth.phantom.scene import (
    BENIGN,
    OVERSAMPLE,
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
from segloc_synth.realism.crops import IN_BAG, fit_mask
from segloc_synth.shards.format import Sample
from segloc_synth.sources.backgrounds import bag_mask
from segloc_synth.sources.images import Pixels
from segloc_synth.sources.masks import segmentation_to_mask

TRIES = 8  # places for an object
OTHER_NOISE = 6  # names a stream of random numbers that no scan uses


def as_jpeg(pixels: Pixels) -> bytes:
    """A scan as the benign scanner's files are."""
    done, jpeg = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, SIXRAY.jpeg])
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


class Truth:
    """Re-simulation of composites of a PhantomRay data set (as write_phantom makes it), the object really inside."""

    def __init__(self, data: Path) -> None:
        info = read_json(data / "phantom.json")
        self.seed, self.size = int(info["seed"]), int(info["size"])
        self._threats: dict[str, tuple[int, int, Pixels]] = {}
        annotations = read_json(data / "pidray" / "annotations" / "xray_train.json")
        images = {image["id"]: image for image in annotations["images"]}
        seen: dict[int, int] = {}
        for mark in annotations["annotations"]:
            image = images[mark["image_id"]]
            place = seen[mark["image_id"]] = seen.get(mark["image_id"], -1) + 1
            mask = segmentation_to_mask(mark["segmentation"], image["height"], image["width"])
            stem = Path(image["file_name"]).stem
            self._threats[f"train/{stem}#{mark['id']}"] = (int(stem.removeprefix("xray_")), place, mask)

    def object(self, segment: str) -> tuple[int, int, Pixels]:
        """Of a segment by its name: scan of the train split, place among its items, mask (0/1, uint8 [H, W])."""
        return self._threats[segment]

    def view(self, record: dict[str, Any], coefficient: float = 1.0, noise: int = 1) -> Pixels:
        """What the scanner would have made of a view of a sample: RGB uint8 [size, size, 3] before the last JPEG.

        The shadow of the segment's object, alone, is laid over the benign bag's with the composite's own geometry, and
        all of it exposed with the benign scan's noise (another `noise`: another exposure of the same).
        """
        canvas_size, benign = int(record["mask"]["size"][0]), int(record["background"][1:]) - 1
        shadow = self.shadow(record)
        shadow = Shadow(shadow.bag, (np.float32(coefficient) * shadow.threats[0],))
        with TemporaryDirectory() as folder:  # read as the benign scan was
            path = Path(folder) / "scan.jpg"
            path.write_bytes(as_jpeg(expose(shadow, SIXRAY, scan_rng(self.seed, BENIGN, benign, noise))))
            scan, _ = fit_scan(path, canvas_size)
        assert scan is not None
        return scan.picture

    def outline(self, record: dict[str, Any]) -> Pixels:
        """The true mask, 0/1 uint8 [size, size], fitted to the canvas as real ones are."""
        return fit_mask(silhouette(self.shadow(record).threats[0]).astype(np.uint8), int(record["mask"]["size"][0]))

    def shadow(self, record: dict[str, Any]) -> Shadow:
        """The benign bag and, where the composite has it, the object alone."""
        canvas_size = int(record["mask"]["size"][0])
        index, place, mask = self.object(record["segment"])
        benign = int(record["background"][1:]) - 1
        scene, bag = plan_scene(self.seed, "train", index), plan_scene(self.seed, BENIGN, benign)
        width, height = detector(bag, self.size)
        scale = canvas_size / max(width, height)
        left, top = ((canvas_size - round(side * scale)) // 2 for side in (width, height))
        fit = np.array([[scale, 0, left + scale / 2 - 0.5], [0, scale, top + scale / 2 - 0.5], [0, 0, 1]])
        matrix = FINE @ np.linalg.inv(fit) @ scan_to_canvas(record, mask) @ np.linalg.inv(FINE)
        shadow = cast(bag, self.size)
        if np.abs(matrix[2, :2]).max() < 1e-9:  # drawn anew in its new place, as sharp as everything else
            zooms = [OVERSAMPLE * detector(one, self.size)[0] / one.width for one in (bag, scene)]
            in_cm = np.diag([1 / zooms[0], 1 / zooms[0], 1]) @ matrix @ np.diag([zooms[1], zooms[1], 1])
            threat = scene.threats[place]
            placed = Placed(threat.placed.item, chain(in_cm[:2], threat.placed.matrix), threat.placed.depth)
            alone = Scene((), (Threat(threat.category, placed),), bag.width, bag.height)
            laid = cast(alone, self.size).threats[0]
        else:  # perspective is no affine map: the shadow itself is warped, which softens it a little
            own = cast(scene, self.size).threats[place]
            laid = np.stack([cv2.warpPerspective(energy, matrix, shadow.bag.shape[:0:-1]) for energy in own])
        return Shadow(shadow.bag, (laid,))


# From pixels of a scan to those of its shadow, which is drawn finer.
FINE = np.array([[OVERSAMPLE, 0, (OVERSAMPLE - 1) / 2], [0, OVERSAMPLE, (OVERSAMPLE - 1) / 2], [0, 0, 1]])


def scan_to_canvas(record: dict[str, Any], mask: Pixels) -> NDArray[np.float64]:
    """The map from an object's own scan, where `mask` (0/1, [H, W]) marks it, to the canvas, pixel centres, [3, 3].

    Scale, flip, turn and pose are the record's; the place is found by the middles of the masks, to a tenth of a pixel.
    """
    goal = coco_mask.decode(record["mask"])
    canvas_scale = len(goal) / max(mask.shape)
    x, y, width, height = cv2.boundingRect(mask)
    shear, along_x, along_y = record.get("pose", (0.0, 0.0, 0.0))
    c, s = np.cos(np.radians(record["rotation"])), np.sin(np.radians(record["rotation"]))
    flip, longer = -1.0 if record["flip"] else 1.0, max(width, height)
    turn = np.array(
        [[c * flip, c * shear + s, 0], [-s * flip, c - s * shear, 0], [along_x / longer, along_y / longer, 1]]
    )
    to_middle = np.array([[1, 0, -(x + (width - 1) / 2)], [0, 1, -(y + (height - 1) / 2)], [0, 0, 1]])
    zoom = record["scale"] * canvas_scale
    matrix = np.diag([zoom, zoom, 1]) @ turn @ to_middle
    rows, cols = np.nonzero(mask)
    moved = matrix @ np.stack([cols, rows, np.ones(len(rows))])
    goal_rows, goal_cols = np.nonzero(goal)
    # Perspective gives pixels unequal areas; each counts as much as it covers.
    weight = 1 / moved[2] ** 3
    shift = [goal_cols.mean(), goal_rows.mean()] - (moved[:2] / moved[2] * weight).sum(1) / weight.sum()
    return np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]]) @ matrix


def difference(picture: Pixels, truth: Pixels, mask: Pixels) -> tuple[float, float]:
    """Root mean square difference in grey levels, and mean difference in CIE Lab (dE76), within 2 px of a mask."""
    near = cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 1
    grey, lab = (
        [
            cv2.cvtColor(image if code == cv2.COLOR_RGB2GRAY else image.astype(np.float32) / 255, code)[near].astype(
                float
            )
            for image in (picture, truth)
        ]
        for code in (cv2.COLOR_RGB2GRAY, cv2.COLOR_RGB2LAB)
    )
    return float(np.sqrt(((grey[0] - grey[1]) ** 2).mean())), float(np.linalg.norm(lab[0] - lab[1], axis=1).mean())


def recoded(picture: Pixels, quality: int) -> tuple[Pixels, bytes]:
    """A picture as it reads after JPEG, and the file."""
    done, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1], jpeg.tobytes()


def decoded(jpeg: bytes) -> Pixels:
    """RGB of a JPEG file."""
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1], np.uint8)


def true_density(record: dict[str, Any]) -> float:
    """The factor on the object's attenuation that a composite means: mixing colours is none."""
    return 1.0 if record["blend"] in ("hard", "alpha") else float(record["coefficient"])


def distances(truth: Truth, sample: Sample, quality: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """`difference` of a sample's key view from its truth, and of another exposure of the truth from it."""
    record = sample.meta["key"]
    mask, density = coco_mask.decode(record["mask"]), true_density(record)
    true, again = (recoded(truth.view(record, density, noise), quality)[0] for noise in (1, OTHER_NOISE))
    return difference(decoded(sample.key), true, mask), difference(again, true, mask)
