"""Picture sheets of composites beside their truth, PhantomRay only: the best and the worst cases of each blend mode."""

from pathlib import Path

import cv2
import numpy as np
import realism_truth
from pycocotools import mask as coco_mask

from segloc_synth.files import atomic_write
from segloc_synth.images import Pixels
from segloc_synth.shards import ShardReader

LOOKED_AT = 60  # composites
SHOWN = 8
TILE = 150
GAP = 4
INK = (20, 20, 20)


def write(folder: Path, data: Path, builds: dict[str, Path]) -> None:
    """Write `folder`/best-and-worst-BLEND.jpg for each build: truth above composite, best matches left, worst right."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = realism_truth.Truth(data)
    for blend, build in builds.items():
        reader = ShardReader(build)
        quality = reader.manifest["config"]["jpeg_quality"]
        cases = []
        for index in range(min(LOOKED_AT, len(reader))):
            sample = reader[index]
            record = sample.meta["key"]
            picture = realism_truth.decoded(sample.key)
            true, _ = realism_truth.recoded(truth.view(record, realism_truth.true_density(record)), quality)
            mask = coco_mask.decode(record["mask"])
            _, lab = realism_truth.difference(picture, true, mask)
            cases.append((lab, _tile(true, record["box"]), _tile(picture, record["box"])))
        cases.sort(key=lambda case: case[0])
        chosen = [*cases[: SHOWN // 2], *cases[-SHOWN // 2 :]]
        columns = [np.vstack([_titled(f"dE {lab:.1f}"), true, picture]) for lab, true, picture in chosen]
        gap = np.full((len(columns[0]), GAP, 3), 255, np.uint8)
        sheet = np.hstack([part for column in columns for part in (column, gap)])
        done, jpeg = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
        assert done
        with atomic_write(folder / f"best-and-worst-{blend}.jpg") as file:
            file.write(jpeg.tobytes())


def _tile(picture: Pixels, box: list[float]) -> Pixels:
    """The surroundings of a box, TILE x TILE."""
    x, y, width, height = box
    half = max(width, height) / 2 + 16
    scale = TILE / (2 * half)
    matrix = np.array([[scale, 0, TILE / 2 - scale * (x + width / 2)], [0, scale, TILE / 2 - scale * (y + height / 2)]])
    return np.asarray(cv2.warpAffine(picture, matrix, (TILE, TILE), flags=cv2.INTER_LINEAR, borderValue=(255,) * 3))


def _titled(text: str) -> Pixels:
    title = np.full((20, TILE, 3), 255, np.uint8)
    return np.asarray(cv2.putText(title, text, (3, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, INK, 1, cv2.LINE_AA))
